//! Exit records on disk, so that they survive the keeper as well: one JSON object per line, appended when a process
//! ends, rewritten without the forgotten ones when that makes it much shorter. The file lives beside the socket in the
//! volatile run directory: after a reboot there is nothing to know about processes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::protocol::HeldProcess;

/// Forgotten lines that may stay in the file.
const SLACK: usize = 256;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl Journal {
    /// Opens the journal and returns what an earlier keeper left in it. A torn last line is dropped.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<HeldProcess>)> {
        let mut left = Vec::new();
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    let Ok(line) = line else { break };
                    left.extend(serde_json::from_str::<HeldProcess>(&line));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut journal = Self {
            path: path.to_owned(),
            file: append_to(path)?,
            lines: 0,
        };
        journal.rewrite(left.iter())?;
        Ok((journal, left))
    }

    /// Adds the exit of one process.
    pub(super) fn append(&mut self, process: &HeldProcess) -> io::Result<()> {
        let mut line = serde_json::to_vec(process)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.lines += 1;
        Ok(())
    }

    /// Some were forgotten; `kept` are all that still matter.
    pub(super) fn forgot<'a>(
        &mut self,
        kept: impl ExactSizeIterator<Item = &'a HeldProcess>,
    ) -> io::Result<()> {
        if self.lines < kept.len() + SLACK {
            Ok(())
        } else {
            self.rewrite(kept)
        }
    }

    fn rewrite<'a>(
        &mut self,
        kept: impl ExactSizeIterator<Item = &'a HeldProcess>,
    ) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let lines = kept.len();
        let mut file = append_to(&fresh)?;
        for process in kept {
            serde_json::to_writer(&mut file, process)?;
            file.write_all(b"\n")?;
        }
        std::fs::rename(&fresh, &self.path)?;
        self.file = file;
        self.lines = lines;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::protocol::{Exit, Started};

    fn ended(id: &str) -> HeldProcess {
        HeldProcess {
            id: id.to_owned(),
            started: Started {
                pid: 7,
                started_at: 1,
                warnings: Vec::new(),
            },
            exit: Some(Exit {
                exit_code: 3,
                oom_killed: false,
                finished_at: 2,
            }),
        }
    }

    #[test]
    fn exits_are_found_again_and_a_torn_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits");
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        journal.append(&ended("a")).unwrap();
        journal.append(&ended("b")).unwrap();
        journal.file.write_all(b"{\"id\":\"c\",").unwrap();
        drop(journal);
        let (_, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [ended("a"), ended("b")]);
        let (_, again) = Journal::open(&path).unwrap();
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn forgotten_records_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits");
        let (mut journal, _) = Journal::open(&path).unwrap();
        for number in 0..1000 {
            journal.append(&ended(&number.to_string())).unwrap();
            journal
                .forgot(
                    std::iter::empty::<&HeldProcess>()
                        .collect::<Vec<_>>()
                        .into_iter(),
                )
                .unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= SLACK);
    }
}
