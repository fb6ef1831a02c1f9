//! Reading what the keeper wrote: Docker's json-file logs, their rotated files, and following them.
//!
//! ```text
//! <id>-json.log.2   <id>-json.log.1   <id>-json.log      oldest … current
//! ```
//!
//! The keeper rotates by renaming; a follower knows its file by inode and walks from there to the current one, so
//! rotation while following loses nothing that is still kept. A file that shrank was emptied by somebody: reading goes
//! on at its beginning. Following waits for inotify and for the container's exit, never for time.
//! Semantics of since, until and tail: moby `daemon/logger/loggerutils`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::{LogConfig, StreamKind};
use bytes::Bytes;
use futures_util::stream::StreamExt as _;
use jiff::Timestamp;
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::container::Container;
use super::requests::{LogOptions, Logs};
use crate::error::{Error, Result};

/// Lines that may wait for the reader.
const QUEUE: usize = 256;
/// Longest record that is read; the keeper writes at most 16 KiB of text, six times that when escaped.
const RECORD_MAX: u64 = 256 * 1024;
/// Block size of the search for the last lines.
const BLOCK: u64 = 64 * 1024;
/// Rotated files that are looked for at most.
const FILES_MAX: u32 = 1000;

/// Size limits of a container's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) max_size: Option<u64>,
    pub(crate) max_file: u32,
}

/// Reads the log options of `json-file` and `local`; others are refused.
pub(crate) fn limits(log: &LogConfig) -> Result<Limits> {
    let driver = log.kind.as_str();
    let mut limits = match driver {
        "local" => Limits {
            max_size: Some(20_000_000),
            max_file: 5,
        },
        _ => Limits {
            max_size: None,
            max_file: 1,
        },
    };
    for (name, value) in &log.config {
        let invalid = || Error::invalid(format!("invalid value for {name}: {value:?}"));
        match name.as_str() {
            "max-size" if value == "-1" => limits.max_size = None,
            "max-size" => limits.max_size = Some(human_size(value).ok_or_else(invalid)?),
            "max-file" => {
                limits.max_file = value
                    .parse()
                    .ok()
                    .filter(|count| (1..=FILES_MAX).contains(count))
                    .ok_or_else(invalid)?;
            }
            "mode" if value == "blocking" => {}
            "compress" if value == "false" => {}
            "mode" | "max-buffer-size" | "compress" | "labels" | "labels-regex" | "env"
            | "env-regex" | "tag" => {
                return Err(Error::unsupported(format!(
                    "log option {name}={value} of driver {driver}"
                )));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "unknown log opt '{name}' for {driver} log driver"
                )));
            }
        }
    }
    Ok(limits)
}

/// `10m`, `1.5GB`, `512`: powers of 1000, as go-units reads sizes of logs.
fn human_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor = match unit.trim() {
        "" | "b" => 1_f64,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        _ => return None,
    };
    let size = number.parse::<f64>().ok()? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    (1.0..1e18).contains(&size).then_some(size as u64)
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: Timestamp,
}

/// Opens a container's log. `container` is watched for the end of its run when following.
pub(crate) fn read(
    path: PathBuf,
    container: watch::Receiver<Arc<Container>>,
    options: LogOptions,
) -> Result<Logs> {
    if !options.stdout && !options.stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let picture = Arc::clone(&container.borrow());
    if picture.definition.host.log_config.kind == "none" {
        return Err(Error::NotImplemented(
            "configured logging driver does not support reading".to_owned(),
        ));
    }
    let tty = picture.definition.config.tty;
    let follow = options.follow && picture.is_alive();
    let exits = picture.state.exits;
    // Watched before anything is read: what is written in between wakes the follower.
    let changes = match follow {
        true => Some(watch_directory(path.parent().unwrap_or(Path::new("/")))?),
        false => None,
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut reader = Reader {
        path,
        current: None,
        options,
        sender,
        waits_for_rest: false,
    };
    tokio::spawn(async move {
        if let Err(error) = reader.run(changes, container, exits).await {
            let _ = reader.sender.send(Err(error)).await;
        }
    });
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|line| (line, receiver))
    });
    Ok(Logs {
        tty,
        lines: lines.boxed(),
    })
}

fn watch_directory(directory: &Path) -> Result<AsyncFd<OwnedFd>> {
    let watch = || -> io::Result<AsyncFd<OwnedFd>> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, directory, events)?;
        #[expect(
            deprecated,
            reason = "an owned descriptor of our own is what the safe constructor is sound for"
        )]
        AsyncFd::new(fd)
    };
    watch().map_err(Error::io("watch", directory))
}

struct Reader {
    path: PathBuf,
    current: Option<BufReader<File>>,
    options: LogOptions,
    sender: mpsc::Sender<Result<(StreamKind, Bytes)>>,
    /// The rotated file being read was looked at once more before going on.
    waits_for_rest: bool,
}

/// What is read after the end of a file.
enum Next {
    /// Another file.
    File(File),
    /// The same again: there is more in it now.
    Same,
    /// Nothing yet.
    Nothing,
}

/// Whether there is more to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Everything written so far is sent.
    CaughtUp,
    /// `until` is passed, or nobody listens.
    Finished,
}

impl Reader {
    async fn run(
        &mut self,
        changes: Option<AsyncFd<OwnedFd>>,
        mut container: watch::Receiver<Arc<Container>>,
        exits: u64,
    ) -> Result<()> {
        let failed = {
            let path = self.path.clone();
            move |error| Error::io("read log", &path)(error)
        };
        let files = log_files(&self.path);
        let start = match self.options.tail {
            Some(lines) => start_of_tail(&files, lines).map_err(&failed)?,
            None => (0, 0),
        };
        for (index, file) in files.iter().enumerate().skip(start.0) {
            let mut file = match File::open(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(&failed)?,
            };
            if index == start.0 {
                file.seek(SeekFrom::Start(start.1)).map_err(&failed)?;
            }
            self.current = Some(BufReader::new(file));
            if self.drain().await? == Progress::Finished {
                return Ok(());
            }
        }
        let Some(changes) = changes else {
            return Ok(());
        };
        let over =
            |container: &Arc<Container>| !container.is_alive() || container.state.exits != exits;
        loop {
            // Asked before reading: what was written before the end is then read after it.
            let ended = {
                let over = over(&container.borrow_and_update());
                over || container.has_changed().is_err()
            };
            if self
                .catch_up()
                .await
                .map_err(|error| error.context("follow the log"))?
                == Progress::Finished
                || ended
            {
                return Ok(());
            }
            tokio::select! {
                ready = changes.readable() => {
                    let mut ready = ready.map_err(&failed)?;
                    let mut events = [0_u8; 4096];
                    while rustix::io::read(changes.get_ref(), &mut events).is_ok() {}
                    ready.clear_ready();
                }
                // An error means removed; the next turn notices.
                _ = container.changed() => {}
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Sends everything written so far, across rotations.
    async fn catch_up(&mut self) -> Result<Progress> {
        loop {
            if self.drain().await? == Progress::Finished {
                return Ok(Progress::Finished);
            }
            match self.next()? {
                Next::File(file) => self.current = Some(BufReader::new(file)),
                Next::Same => {}
                Next::Nothing => return Ok(Progress::CaughtUp),
            }
        }
    }

    /// Where reading goes on after the end of the present file.
    fn next(&mut self) -> Result<Next> {
        let failed = Error::io("read log", &self.path);
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(Next::File(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Next::Nothing),
            Err(error) => Err(error),
        };
        let result = (|| -> io::Result<Next> {
            let Some(current) = &mut self.current else {
                return open(&self.path);
            };
            let own = current.get_ref().metadata()?;
            let files = log_files(&self.path);
            let position = files.iter().position(|path| {
                std::fs::metadata(path)
                    .is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
            });
            // After the look at the names: a file that is rotated by now does not grow any more.
            let length = current.get_ref().metadata()?.len();
            let read = current.stream_position()?;
            match position {
                // Somebody emptied it.
                Some(_) if length < read => {
                    current.rewind()?;
                    Ok(Next::Same)
                }
                Some(index) if index + 1 == files.len() => Ok(Next::Nothing),
                // Written between the last read and the rotation; half a record stays half in a rotated file.
                Some(_) if length > read && !self.waits_for_rest => {
                    self.waits_for_rest = true;
                    Ok(Next::Same)
                }
                Some(index) => open(&files[index + 1]),
                None => files
                    .first()
                    .map_or(Ok(Next::Nothing), |oldest| open(oldest)),
            }
        })();
        let next = result.map_err(failed)?;
        if let Next::File(_) = next {
            self.waits_for_rest = false;
        }
        Ok(next)
    }

    /// Sends the complete records from the present position on.
    async fn drain(&mut self) -> Result<Progress> {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(Progress::CaughtUp);
            };
            let mut line = Vec::new();
            let read = current
                .by_ref()
                .take(RECORD_MAX)
                .read_until(b'\n', &mut line);
            read.map_err(Error::io("read log", &self.path))?;
            if line.last() != Some(&b'\n') {
                if line.len() as u64 == RECORD_MAX {
                    continue; // not a record of ours: skipped piece by piece
                }
                // Half a record: read again when there is more.
                let back = i64::try_from(line.len()).unwrap_or(0);
                current
                    .seek_relative(-back)
                    .map_err(Error::io("read log", &self.path))?;
                return Ok(Progress::CaughtUp);
            }
            let Ok(record) = serde_json::from_slice::<Record>(&line) else {
                tracing::debug!(path = %self.path.display(), "a log record does not parse");
                continue;
            };
            if self.options.until.is_some_and(|until| record.time > until) {
                return Ok(Progress::Finished);
            }
            if let Some(line) = self.render(record)
                && self.sender.send(Ok(line)).await.is_err()
            {
                return Ok(Progress::Finished);
            }
        }
    }

    fn render(&self, record: Record) -> Option<(StreamKind, Bytes)> {
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
    for number in 1..FILES_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let rotated = PathBuf::from(name);
        if !rotated.exists() {
            break;
        }
        files.push_front(rotated);
    }
    files.into()
}

/// File and offset at which the last `lines` records begin.
fn start_of_tail(files: &[PathBuf], lines: usize) -> io::Result<(usize, u64)> {
    let mut missing = lines;
    for (index, path) in files.iter().enumerate().rev() {
        let mut file = File::open(path)?;
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

#[cfg(test)]
mod tests;
