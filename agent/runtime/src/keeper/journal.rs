//! Exit records on disk, so that they survive the keeper as well: one JSON object per line, appended when a process ends
//! and when its record is forgotten, rewritten without the forgotten ones when that makes the file much shorter. The file lives beside the socket in the
//! volatile run directory: after a reboot there is nothing to know about processes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protocol::HeldProcess;

/// Forgotten lines that may stay in the file.
const SLACK: usize = 256;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line<P> {
    Ended(P),
    Forgotten { forgotten: String },
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Number of lines at which it is rewritten.
    slack_until: usize,
}

impl Journal {
    /// Opens the journal and returns what an earlier keeper left in it. A torn last line is dropped.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<HeldProcess>)> {
        let mut left: Vec<HeldProcess> = Vec::new();
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    let Ok(line) = line else { break };
                    match serde_json::from_str(&line) {
                        Ok(Line::Ended(process)) => left.push(process),
                        Ok(Line::Forgotten { forgotten }) => {
                            left.retain(|process| process.id != forgotten);
                        }
                        Err(_) => {}
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut journal = Self {
            path: path.to_owned(),
            file: append_to(path)?,
            lines: 0,
            slack_until: 0,
        };
        journal.rewrite(left.iter())?;
        Ok((journal, left))
    }

    /// Adds the exit of one process.
    pub(super) fn append(&mut self, process: &HeldProcess) -> io::Result<()> {
        self.write(&Line::Ended(process))
    }

    /// The exit of this process need not be known any longer; `kept` are all that still matter.
    pub(super) fn forget(
        &mut self,
        id: &str,
        kept: impl Iterator<Item = HeldProcess>,
    ) -> io::Result<()> {
        self.write(&Line::<&HeldProcess>::Forgotten {
            forgotten: id.to_owned(),
        })?;
        if self.lines < self.slack_until {
            return Ok(());
        }
        let kept: Vec<HeldProcess> = kept.collect();
        self.rewrite(kept.iter())
    }

    fn write(&mut self, line: &Line<&HeldProcess>) -> io::Result<()> {
        // Begins a new line even if the one before was cut short by a full disk.
        let mut bytes = vec![b'\n'];
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.lines += 1;
        Ok(())
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
            let mut line = serde_json::to_vec(process)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        std::fs::rename(&fresh, &self.path)?;
        self.file = file;
        self.lines = lines;
        self.slack_until = 2 * lines + SLACK;
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
    fn a_cut_line_does_not_take_the_next_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&ended("a")).unwrap();
        journal.file.write_all(b"\n{\"id\":\"c\",").unwrap();
        journal.append(&ended("b")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [ended("a"), ended("b")]);
    }

    #[test]
    fn what_was_forgotten_stays_forgotten_and_does_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exits");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&ended("kept")).unwrap();
        for number in 0..1000 {
            let id = number.to_string();
            journal.append(&ended(&id)).unwrap();
            journal.forget(&id, [ended("kept")].into_iter()).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= 2 * SLACK + 8);
        assert_eq!(Journal::open(&path).unwrap().1, [ended("kept")]);
        // The same container again: the earlier run does not come back with the later one.
        journal.append(&ended("kept")).unwrap();
        journal.forget("kept", std::iter::empty()).unwrap();
        journal.append(&ended("kept")).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [ended("kept")]);
    }
}
