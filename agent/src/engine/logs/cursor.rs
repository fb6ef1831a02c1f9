//! A place in a container's log files, and reading on from there. Blocks; waits for nothing.
//!
//! The keeper rotates by renaming; a cursor knows its file by inode and walks from there to the current one, so that
//! rotation while following loses nothing that is still kept. A file that shrank was emptied by somebody: reading goes on
//! at its beginning. Without following, what was there at the beginning is read and not what is written meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use agent_api::StreamKind;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::{FILES_MAX, Line};
use crate::engine::requests::LogOptions;
use crate::error::{Error, Result};

/// Bytes of records that are read at once: a few milliseconds.
const PIECE: usize = 512 * 1024;
/// Longest record that is read; the keeper writes at most 16 KiB of text, six times that when escaped.
const RECORD_MAX: u64 = 256 * 1024;
/// How often the files are listed until none is renamed meanwhile.
const LISTINGS: usize = 100;
/// Block size of the search for the last lines.
const BLOCK: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: Timestamp,
}

/// What was read at once.
pub(super) struct Piece {
    pub(super) lines: Vec<Line>,
    pub(super) progress: Progress,
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more already.
    More,
    /// Everything written so far is read.
    CaughtUp,
    /// Nothing more is wanted.
    Finished,
}

pub(super) struct Cursor {
    path: PathBuf,
    options: LogOptions,
    follow: bool,
    /// Files that were there at the beginning and are not read yet, oldest first; `None` before the beginning.
    waiting: Option<VecDeque<Current>>,
    current: Option<Current>,
    /// The rotated file being read was looked at once more before going on.
    waits_for_rest: bool,
}

struct Current {
    file: BufReader<File>,
    /// Bytes that are still wanted of it.
    left: u64,
}

/// What is read after the end of a file.
enum Next {
    /// Another file.
    File(Current),
    /// The same again: there is more in it now.
    Same,
    /// Nothing yet.
    Nothing,
}

impl Cursor {
    /// Before the first record that `options` want. Opens nothing yet.
    pub(super) fn new(path: PathBuf, options: LogOptions, follow: bool) -> Self {
        Self {
            path,
            options,
            follow,
            waiting: None,
            current: None,
            waits_for_rest: false,
        }
    }

    /// Reads on: at most [`PIECE`] bytes of records, wanted or not.
    pub(super) fn piece(&mut self) -> Result<Piece> {
        self.read_on()
            .map_err(|error| Error::io("read log", &self.path)(error))
    }

    fn read_on(&mut self) -> io::Result<Piece> {
        if self.waiting.is_none() {
            self.begin()?;
        }
        let mut lines = Vec::new();
        let mut bytes = 0;
        let progress = loop {
            let Some(record) = self.record(&mut bytes)? else {
                match self.next()? {
                    Next::File(file) => self.current = Some(file),
                    Next::Same => {}
                    Next::Nothing if self.follow => break Progress::CaughtUp,
                    Next::Nothing => break Progress::Finished,
                }
                continue;
            };
            if let Some(record) = record {
                if self.options.until.is_some_and(|until| record.time > until) {
                    break Progress::Finished;
                }
                lines.extend(self.render(&record));
            }
            if bytes >= PIECE {
                break Progress::More;
            }
        };
        Ok(Piece { lines, progress })
    }

    /// Opens all files at once: their names mean other files as soon as the keeper rotates.
    fn begin(&mut self) -> io::Result<()> {
        let mut files = open_files(&self.path)?;
        if let Some(lines) = self.options.tail {
            let (index, offset) = start_of_tail(&mut files, lines)?;
            files.drain(..index);
            for (position, file) in files.iter_mut().enumerate() {
                let start = if position == 0 { offset } else { 0 };
                file.seek(SeekFrom::Start(start))?;
            }
        }
        let waiting = files.into_iter().map(|file| self.limited(file));
        self.waiting = Some(waiting.collect::<io::Result<_>>()?);
        Ok(())
    }

    fn limited(&self, mut file: File) -> io::Result<Current> {
        let left = match self.follow {
            true => u64::MAX,
            false => file
                .metadata()?
                .len()
                .saturating_sub(file.stream_position()?),
        };
        let file = BufReader::new(file);
        Ok(Current { file, left })
    }

    /// `None` when there is no such file (any more).
    fn open(&self, path: &Path) -> io::Result<Option<Current>> {
        open(path)?.map(|file| self.limited(file)).transpose()
    }

    /// The next complete record of the present file, `Some(None)` for one that does not parse. Counts its bytes.
    #[expect(clippy::option_option, reason = "no record, and one that says nothing")]
    fn record(&mut self, bytes: &mut usize) -> io::Result<Option<Option<Record>>> {
        let Some(Current { file, left }) = &mut self.current else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let wanted = RECORD_MAX.min(*left);
        file.by_ref().take(wanted).read_until(b'\n', &mut line)?;
        let length = line.len() as u64;
        if line.last() != Some(&b'\n') && length < RECORD_MAX {
            // Half a record: read again when there is more.
            file.seek_relative(-i64::try_from(length).expect("at most RECORD_MAX"))?;
            return Ok(None);
        }
        *bytes += line.len();
        *left -= length;
        // What is longer than a record of ours is passed over piece by piece.
        let record = serde_json::from_slice(&line)
            .inspect_err(|_| {
                tracing::debug!(path = %self.path.display(), "a log record does not parse");
            })
            .ok();
        Ok(Some(record))
    }

    /// Where reading goes on after the end of the present file.
    fn next(&mut self) -> io::Result<Next> {
        if let Some(file) = self.waiting.as_mut().and_then(VecDeque::pop_front) {
            return Ok(Next::File(file));
        }
        if !self.follow {
            return Ok(Next::Nothing);
        }
        let next = self.next_by_inode()?;
        if let Next::File(_) = next {
            self.waits_for_rest = false;
        }
        Ok(next)
    }

    fn next_by_inode(&mut self) -> io::Result<Next> {
        let opened = |file: Option<Current>| file.map_or(Next::Nothing, Next::File);
        let Some(Current { file, .. }) = &mut self.current else {
            return self.open(&self.path).map(opened);
        };
        let own = file.get_ref().metadata()?;
        let files = log_files(&self.path);
        let position = files.iter().position(|path| {
            std::fs::metadata(path)
                .is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
        });
        // After the look at the names: a file that is rotated by now does not grow any more.
        let length = file.get_ref().metadata()?.len();
        let read = file.stream_position()?;
        match position {
            // Somebody emptied it.
            Some(_) if length < read => {
                file.rewind()?;
                Ok(Next::Same)
            }
            Some(index) if index + 1 == files.len() => Ok(Next::Nothing),
            // Written between the last read and the rotation; half a record stays half in a rotated file.
            Some(_) if length > read && !self.waits_for_rest => {
                self.waits_for_rest = true;
                Ok(Next::Same)
            }
            Some(index) => self.open(&files[index + 1]).map(opened),
            None => match files.first() {
                Some(oldest) => self.open(oldest).map(opened),
                None => Ok(Next::Nothing),
            },
        }
    }

    fn render(&self, record: &Record) -> Option<Line> {
        let options = &self.options;
        let (kind, wanted) = match record.stream.as_str() {
            "stderr" => (StreamKind::Stderr, options.stderr),
            _ => (StreamKind::Stdout, options.stdout),
        };
        if !wanted || options.since.is_some_and(|since| record.time < since) {
            return None;
        }
        let mut text = String::new();
        if options.timestamps {
            text = format!("{:.9} ", record.time);
        }
        if options.details {
            text.push(' '); // the attributes' place; no log option that adds some is supported
        }
        text.push_str(&record.log);
        Some((kind, Bytes::from(text)))
    }
}

/// The log's files that exist, oldest first.
fn log_files(path: &Path) -> Vec<PathBuf> {
    let mut files: VecDeque<PathBuf> = VecDeque::new();
    if path.exists() {
        files.push_back(path.to_owned());
    }
    let mut missing = 0;
    for number in 1..FILES_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let rotated = PathBuf::from(name);
        if rotated.exists() {
            files.push_front(rotated);
        } else {
            missing += 1;
        }
        // One name has no file for a moment while the keeper rotates.
        if missing == 2 {
            break;
        }
    }
    files.into()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All files of one moment, oldest first: none was renamed between the first and the last that was opened.
fn open_files(path: &Path) -> io::Result<Vec<File>> {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    for _ in 0..LISTINGS {
        let mut files = Vec::new();
        let mut opened = Vec::new();
        for path in log_files(path) {
            if let Some(file) = open(&path)? {
                opened.push(identity(file.metadata()?));
                files.push(file);
            }
        }
        let named = log_files(path);
        let named = named.iter().filter_map(|path| std::fs::metadata(path).ok());
        if named.map(identity).eq(opened) {
            return Ok(files);
        }
    }
    Err(io::Error::other(
        "it is rotated faster than its files can be opened",
    ))
}

/// File and offset at which the last `lines` records begin.
fn start_of_tail(files: &mut [File], lines: usize) -> io::Result<(usize, u64)> {
    let mut missing = lines;
    for (index, file) in files.iter_mut().enumerate().rev() {
        let mut end = file.seek(SeekFrom::End(0))?;
        if lines == 0 {
            return Ok((index, end));
        }
        let mut at_end = true;
        while end > 0 {
            let start = end.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut block)?;
            for (offset, byte) in block.iter().enumerate().rev() {
                if *byte != b'\n' {
                    at_end = false;
                    continue;
                }
                // The newline that ends the file's last record starts none.
                if at_end {
                    at_end = false;
                    continue;
                }
                missing -= 1;
                if missing == 0 {
                    return Ok((index, start + offset as u64 + 1));
                }
            }
            end = start;
        }
        // The beginning of a file is the beginning of a record, unless the file is empty.
        if !at_end {
            missing -= 1;
            if missing == 0 {
                return Ok((index, 0));
            }
        }
    }
    Ok((0, 0))
}
