//! One held process: its descriptors, its log, its way from running to forgotten.
//!
//! ```text
//!   Running ──reaped──► Draining ──all output read, or DRAIN_LIMIT──► Ended ──Forget──► (dropped)
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::log_file::{LogFile, LogStream};
use super::protocol::{Exit, HeldProcess, Started, StdinMode};
use crate::cgroup::Cgroup;

/// How long output is read after the process has ended while somebody else still holds its pipes (moby: 2 s).
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Bytes for standard input that are held before a client is no longer read.
const INPUT_HIGH: usize = 64 * 1024;

/// A process from its start until it is forgotten.
#[derive(Debug)]
pub(super) struct Held {
    /// What the daemon calls it.
    pub(super) id: String,
    pub(super) started: Started,
    pub(super) phase: Phase,
    /// `None` after the end.
    pub(super) pidfd: Option<OwnedFd>,
    /// The container's cgroup, removed at its end; `None` for an exec.
    pub(super) cgroup: Option<Cgroup>,
    /// It shares its pid namespace, so that others may outlive it.
    pub(super) shares_pids: bool,
    pub(super) log: Option<LogFile>,
    /// The last write to the log failed.
    pub(super) log_fails: bool,
    /// Read ends of stdout and stderr; with a terminal the first is its master. `None` after the end of file.
    outputs: [Option<OwnedFd>; 2],
    /// Master of the terminal, for its size.
    terminal: Option<OwnedFd>,
    stdin: Stdin,
    /// Keys of the attached clients.
    pub(super) attached: Vec<u32>,
    /// Output is not read at the moment.
    pub(super) throttled: bool,
}

/// Where the process is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Draining { exit: Exit, until: Instant },
    Ended(Exit),
}

#[derive(Debug)]
struct Stdin {
    mode: StdinMode,
    /// Write end, closed at end of input.
    pipe: Option<OwnedFd>,
    queue: Vec<u8>,
    /// Close when the queue is written.
    ending: bool,
}

/// The keeper's ends of a new process's streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

/// What became of an attempt to write to standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputState {
    /// Nothing is waiting.
    Idle,
    /// Wait until the pipe takes more.
    Waiting,
}

impl Held {
    pub(super) fn new(
        id: String,
        started: Started,
        pidfd: OwnedFd,
        streams: Streams,
        mode: StdinMode,
    ) -> Self {
        Self {
            id,
            started,
            phase: Phase::Running,
            pidfd: Some(pidfd),
            cgroup: None,
            shares_pids: false,
            log: None,
            log_fails: false,
            outputs: [streams.stdout, streams.stderr],
            terminal: streams.terminal,
            stdin: Stdin {
                mode,
                pipe: streams.stdin,
                queue: Vec::new(),
                ending: false,
            },
            attached: Vec::new(),
            throttled: false,
        }
    }

    /// What is told about an ended process of an earlier keeper.
    pub(super) fn ended_before(process: HeldProcess, exit: Exit) -> Self {
        Self {
            id: process.id,
            started: process.started,
            phase: Phase::Ended(exit),
            pidfd: None,
            cgroup: None,
            shares_pids: false,
            log: None,
            log_fails: false,
            outputs: [None, None],
            terminal: None,
            stdin: Stdin {
                mode: StdinMode::Null,
                pipe: None,
                queue: Vec::new(),
                ending: false,
            },
            attached: Vec::new(),
            throttled: false,
        }
    }

    /// The row of a list.
    pub(super) fn describe(&self) -> HeldProcess {
        let exit = match self.phase {
            Phase::Ended(exit) => Some(exit),
            Phase::Running | Phase::Draining { .. } => None,
        };
        HeldProcess {
            id: self.id.clone(),
            started: self.started.clone(),
            exit,
        }
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(|fd| fd.as_fd())
    }

    pub(super) fn output(&self, stream: LogStream) -> Option<BorrowedFd<'_>> {
        self.outputs[stream as usize].as_ref().map(|fd| fd.as_fd())
    }

    pub(super) fn close_output(&mut self, epoll: &OwnedFd, stream: LogStream) {
        close(epoll, self.outputs[stream as usize].take());
    }

    /// Whether there is no more output to come.
    pub(super) fn outputs_ended(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.pipe.as_ref().map(|fd| fd.as_fd())
    }

    /// Whether a client may send more.
    pub(super) fn takes_input(&self) -> bool {
        self.stdin.pipe.is_some() && self.stdin.queue.len() < INPUT_HIGH
    }

    /// Adds bytes for standard input and writes what the process takes. Bytes for a closed input are dropped.
    pub(super) fn push_input(&mut self, epoll: &OwnedFd, data: &[u8]) -> InputState {
        if self.stdin.pipe.is_some() && !self.stdin.ending {
            self.stdin.queue.extend_from_slice(data);
        }
        self.flush_input(epoll)
    }

    /// A client with stdin has ended its input.
    pub(super) fn input_ended(&mut self, epoll: &OwnedFd) -> InputState {
        if self.stdin.mode == StdinMode::Once && !self.has_terminal() {
            self.stdin.ending = true;
        }
        self.flush_input(epoll)
    }

    /// Writes waiting input.
    pub(super) fn flush_input(&mut self, epoll: &OwnedFd) -> InputState {
        while let (Some(pipe), false) = (&self.stdin.pipe, self.stdin.queue.is_empty()) {
            match rustix::io::write(pipe, &self.stdin.queue) {
                Ok(written) => {
                    self.stdin.queue.drain(..written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return InputState::Waiting,
                Err(_) => self.close_input(epoll),
            }
        }
        if self.stdin.queue.is_empty() {
            self.stdin.queue = Vec::new();
            if self.stdin.ending {
                self.close_input(epoll);
            }
        }
        InputState::Idle
    }

    /// Nothing can be written any more.
    pub(super) fn close_input(&mut self, epoll: &OwnedFd) {
        close(epoll, self.stdin.pipe.take());
        self.stdin.queue = Vec::new();
    }

    /// The end: all descriptors but the clients' are closed, the log is complete.
    pub(super) fn end(
        &mut self,
        epoll: &OwnedFd,
        exit: Exit,
        now: jiff::Timestamp,
    ) -> std::io::Result<()> {
        self.phase = Phase::Ended(exit);
        self.pidfd = None;
        for output in &mut self.outputs {
            close(epoll, output.take());
        }
        self.close_input(epoll);
        self.terminal = None;
        self.log.take().map_or(Ok(()), |mut log| log.finish(now))
    }
}

/// Closes a watched descriptor. Those of a terminal are duplicates of one another: while one is open, epoll would go on
/// reporting the closed ones.
fn close(epoll: &OwnedFd, fd: Option<OwnedFd>) {
    if let Some(fd) = fd {
        let _ = rustix::event::epoll::delete(epoll, &fd);
    }
}
