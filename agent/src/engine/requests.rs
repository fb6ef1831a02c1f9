//! Parameters and outcomes of the engine's operations that are not bodies of the Engine API.

use agent_api::{Filters, StreamKind};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::net::UnixStream;

use crate::error::{Error, Result};

/// What `start` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// The container runs now.
    Started,
    /// It ran before; nothing was done.
    AlreadyRunning,
}

/// What `stop` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopOutcome {
    /// The container ran and has exited.
    Stopped,
    /// It did not run; nothing was done.
    AlreadyStopped,
}

/// How to stop a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Signal by name or number; `None` means the container's stop signal.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative waits for ever; `None` means the container's own.
    pub timeout: Option<i64>,
}

/// How to remove a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// The container does not run (at once if it does not now).
    #[default]
    NotRunning,
    /// It exits the next time.
    NextExit,
    /// It is gone.
    Removed,
}

impl WaitCondition {
    /// Reads the `condition` parameter; empty means `not-running`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

/// Which containers to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Those that do not run too.
    pub all: bool,
    /// The newest so many, whatever their state; 0 means no limit.
    pub limit: usize,
    /// With sizes, which costs a walk over the writable layers.
    pub size: bool,
    /// Docker's filters of `ps`.
    pub filters: Filters,
}

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written from now on, until the container stops.
    pub follow: bool,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// Only what is not newer.
    pub until: Option<Timestamp>,
    /// At most so many lines from the end; `None` means all.
    pub tail: Option<usize>,
    /// Put the time in front of every line.
    pub timestamps: bool,
    /// Put the container's labels and environment chosen by the log options in front of every line.
    pub details: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Lines of a log.
pub struct Logs {
    /// Whether the container has a terminal: then the bytes go out unframed.
    pub tty: bool,
    /// The lines, each with its stream and its newline. Dropping it ends following.
    pub lines: BoxStream<'static, Result<(StreamKind, Bytes)>>,
}

/// What to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// The log so far comes first.
    pub logs: bool,
    /// The live streams.
    pub stream: bool,
    /// Bytes from the client go to standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Docker's detach keys, `ctrl-p,ctrl-q` when empty.
    pub detach_keys: String,
}

/// The other end of a process's standard streams.
#[derive(Debug)]
pub struct Attached {
    /// Whether the bytes are a terminal's; otherwise they are Docker's stream frames already.
    pub tty: bool,
    /// Reading gives output, writing gives input; shutting down the writing side is the end of standard input.
    pub stream: UnixStream,
}

/// How an exec was started.
#[derive(Debug)]
pub enum ExecStarted {
    /// It runs on its own.
    Detached,
    /// Its streams.
    Attached(Attached),
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventOptions {
    /// Past events not older than this come first (as many as are still remembered).
    pub since: Option<Timestamp>,
    /// The stream ends at this time; `None` means never.
    pub until: Option<Timestamp>,
    /// Docker's filters of `events`.
    pub filters: Filters,
}
