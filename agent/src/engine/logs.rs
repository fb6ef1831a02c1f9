//! Reading what the keeper wrote: Docker's json-file logs, their rotated files, and following them.
//!
//! ```text
//! <id>-json.log.2   <id>-json.log.1   <id>-json.log      oldest … current
//! ```
//!
//! Files are read piece by piece on threads that may block ([`cursor`]); between two pieces the lines are handed on and
//! it is asked whether anybody listens. Following waits for inotify and for the container's exit, never for time.
//! Semantics of since, until and tail: moby `daemon/logger/loggerutils`.

mod cursor;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_api::{LogConfig, StreamKind};
use bytes::Bytes;
use cursor::{Cursor, Progress};
use futures_util::stream::StreamExt as _;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::container::Container;
use super::requests::{LogOptions, Logs};
use super::shared::blocking;
use crate::error::{Error, Result};

/// Lines that may wait for the reader.
const QUEUE: usize = 256;
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
    let cursor = Cursor::new(path, options, follow);
    tokio::spawn(async move {
        let sent = match changes {
            None => send(cursor, &sender).await.map(drop),
            Some(changes) => follow_changes(cursor, &sender, changes, container, exits).await,
        };
        if let Err(error) = sent {
            let _ = sender.send(Err(error)).await;
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

type Line = (StreamKind, Bytes);

/// Sends what is written from the cursor on. `None` when nothing more is to be read: everything wanted was, or nobody
/// listens.
async fn send(mut cursor: Cursor, sender: &mpsc::Sender<Result<Line>>) -> Result<Option<Cursor>> {
    while !sender.is_closed() {
        let (read, piece) = blocking(move || {
            let piece = cursor.piece()?;
            Ok((cursor, piece))
        })
        .await?;
        for line in piece.lines {
            if sender.send(Ok(line)).await.is_err() {
                return Ok(None);
            }
        }
        match piece.progress {
            Progress::More => cursor = read,
            Progress::CaughtUp => return Ok(Some(read)),
            Progress::Finished => return Ok(None),
        }
    }
    Ok(None)
}

/// The same, and what is written later, until the run that wrote it is over.
async fn follow_changes(
    mut cursor: Cursor,
    sender: &mpsc::Sender<Result<Line>>,
    changes: AsyncFd<OwnedFd>,
    mut container: watch::Receiver<Arc<Container>>,
    exits: u64,
) -> Result<()> {
    let over = |container: &Arc<Container>| !container.is_alive() || container.state.exits != exits;
    loop {
        // Asked before reading: what was written before the end is then read after it.
        let ended = {
            let over = over(&container.borrow_and_update());
            over || container.has_changed().is_err()
        };
        match send(cursor, sender).await {
            Ok(Some(read)) if !ended => cursor = read,
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.context("follow the log")),
        }
        tokio::select! {
            ready = changes.readable() => {
                let mut ready = ready.map_err(|error| {
                    Error::System(format!("cannot wait for changes of the log: {error}"))
                })?;
                let mut events = [0_u8; 4096];
                while rustix::io::read(changes.get_ref(), &mut events).is_ok() {}
                ready.clear_ready();
            }
            // An error means removed; the next turn notices.
            _ = container.changed() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
