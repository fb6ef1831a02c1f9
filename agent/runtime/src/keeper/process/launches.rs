//! Launches in progress: one thread each, up to a limit; the others wait for their turn.
//!
//! Only the launching thread is suspended between clone and exec. The clone itself does not care about other threads: the
//! child shares the memory and runs nothing but raw system calls (`launch::child`).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::cgroup::Cgroup;
use crate::keeper::held::{Held, Streams};
use crate::keeper::log_file::LogFile;
use crate::keeper::protocol::{AttachOptions, LaunchFailure, StdinMode};
use crate::launch::Launched;

/// Launches that run at the same time.
const AT_ONCE: usize = 64;
/// A launch needs a few KiB of paths and tables.
const STACK_BYTES: usize = 512 << 10;

/// The blocking part of a launch.
pub(super) type Work = Box<dyn FnOnce() -> Result<StartedProcess, LaunchFailure> + Send>;

/// What a launch has made.
pub(super) struct StartedProcess {
    pub(super) launched: Launched,
    pub(super) streams: Streams,
    /// Nanoseconds since the epoch.
    pub(super) started_at: i64,
}

/// What is waiting for the outcome of a launch.
pub(super) struct Launching {
    /// The connection it was asked on.
    pub(super) generation: u64,
    /// The call to answer.
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) stdin: StdinMode,
    pub(super) log: Option<LogFile>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) shares_pids: bool,
    pub(super) clients: Vec<(OwnedFd, AttachOptions)>,
}

type Outcome = (u32, Result<StartedProcess, LaunchFailure>);

/// All launches in progress.
pub(super) struct Launches {
    by_key: HashMap<u32, Launching>,
    queue: VecDeque<(u32, Work)>,
    running: usize,
    /// Written when an outcome is there.
    bell: Arc<OwnedFd>,
    sender: Sender<Outcome>,
    outcomes: Receiver<Outcome>,
    /// Children reaped while it was not known yet whose they are.
    early: HashMap<i32, i32>,
    /// Calls for a list that wait for the launches: connection and number.
    pub(super) lists: Vec<(u64, u64)>,
}

impl Launches {
    pub(super) fn new() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sender, outcomes) = std::sync::mpsc::channel();
        Ok(Self {
            by_key: HashMap::new(),
            queue: VecDeque::new(),
            running: 0,
            bell: Arc::new(bell),
            sender,
            outcomes,
            early: HashMap::new(),
            lists: Vec::new(),
        })
    }

    /// Readable when [`Launches::finished`] has something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn contains(&self, key: u32) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.by_key.values().any(|launching| launching.id == id)
    }

    pub(super) fn begin(
        &mut self,
        key: u32,
        launching: Launching,
        work: Work,
    ) -> Result<(), LaunchFailure> {
        if self.running < AT_ONCE {
            self.spawn(key, work)?;
        } else {
            self.queue.push_back((key, work));
        }
        self.by_key.insert(key, launching);
        Ok(())
    }

    fn spawn(&mut self, key: u32, work: Work) -> Result<(), LaunchFailure> {
        let (sender, bell) = (self.sender.clone(), Arc::clone(&self.bell));
        std::thread::Builder::new()
            .name("launch".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // The receiver lives as long as the process.
                let _ = sender.send((key, work()));
                let _ = rustix::io::write(&*bell, &1_u64.to_ne_bytes());
            })
            .map_err(|error| LaunchFailure::engine(format!("start a launching thread: {error}")))?;
        self.running += 1;
        Ok(())
    }

    /// Takes out what has finished.
    pub(super) fn finished(
        &mut self,
    ) -> Vec<(u32, Launching, Result<StartedProcess, LaunchFailure>)> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        let mut finished = Vec::new();
        while let Ok((key, outcome)) = self.outcomes.try_recv() {
            self.running -= 1;
            if let Some((next, work)) = self.queue.pop_front()
                && let Err(failure) = self.spawn(next, work)
            {
                finished.extend(self.by_key.remove(&next).map(|l| (next, l, Err(failure))));
            }
            finished.extend(self.by_key.remove(&key).map(|l| (key, l, outcome)));
        }
        finished
    }

    /// A child has ended that is not held: it may be one that is being launched.
    pub(super) fn ended_early(&mut self, pid: i32, code: i32) {
        if !self.by_key.is_empty() {
            self.early.insert(pid, code);
        }
    }

    /// The code of a process that had ended before it was held.
    pub(super) fn early_end(&mut self, held: &Held) -> Option<i32> {
        let code = self.early.remove(&held.started.pid)?;
        // The number may have been somebody else's before.
        has_ended(held.pidfd.as_ref()?.as_fd()).then_some(code)
    }

    /// With nothing in progress, no child is a stranger for long.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    rustix::event::poll(&mut waiting, Some(&now)) == Ok(1)
}
