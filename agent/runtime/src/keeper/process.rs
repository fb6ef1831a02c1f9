//! The keeper process: one epoll loop, no timers but those of ended processes. A launch has a thread of its own,
//! because the cloned process runs in its container's cgroup before it executes: throttled or frozen, it would hold up
//! everybody else.
//!
//! Start-up handshake: take the lock in the run directory (waits for a keeper that is quitting), listen on the
//! socket, write `ready` to stdout. Quits when nothing runs and no daemon is connected; exit records that were not
//! fetched stay in the journal for the next keeper.

mod connection;
mod ending;
mod launches;
mod starting;
mod streams;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use self::ending::Doomed;
use self::launches::Launches;
use super::attach::Attached;
use super::held::{Held, Phase};
use super::journal::Journal;
use super::log_file::LogStream;
use super::protocol::FromKeeper;
use crate::cgroup::Hierarchy;

/// Name of the socket in the run directory.
pub(super) const SOCKET: &str = "keeper.sock";
/// One read of output or input.
const CHUNK: usize = 64 * 1024;
/// Messages waiting for a daemon that does not read; one that lets more pile up is disconnected.
const OUTGOING_MAX: usize = 4096;

/// Entry of `muster keeper --run-dir DIR`, called before the process has any other thread.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let [flag, run_dir] = arguments.as_slice() else {
        return usage();
    };
    if flag != "--run-dir" {
        return usage();
    }
    match serve(Path::new(run_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format_args!("keeper in {}: {error}", run_dir.display()));
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    report(format_args!(
        "usage: muster keeper --run-dir DIR (started by the daemon, not by people)"
    ));
    ExitCode::from(2)
}

/// The keeper's own messages go to its stderr, a file beside the socket.
fn report(message: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{} {message}", jiff::Timestamp::now());
}

fn serve(run_dir: &Path) -> io::Result<()> {
    let _ = rustix::process::setsid();
    // Nobody in a container that shares our pid namespace may look into this process.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    std::env::set_current_dir("/")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(run_dir.join("keeper.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let socket_path = run_dir.join(SOCKET);
    let mut keeper = Keeper::open(&socket_path, &run_dir.join("keeper.exits"))?;
    {
        let mut stdout = io::stdout();
        stdout.write_all(b"ready\n")?;
        stdout.flush()?;
    }
    // The daemon's pipe is not to be held open by containers or by us.
    rustix::stdio::dup2_stdout(rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    )?)?;
    keeper.run()?;
    let _ = std::fs::remove_file(&socket_path);
    drop(lock);
    Ok(())
}

/// What an epoll event is about. Packed into the event's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener,
    Connection,
    Signals,
    Output(u32, LogStream),
    Input(u32),
    Client(u32),
    Launches,
}

impl Source {
    fn pack(self) -> EventData {
        let (kind, key) = match self {
            Source::Listener => (0, 0),
            Source::Connection => (1, 0),
            Source::Signals => (2, 0),
            Source::Output(key, LogStream::Stdout) => (3, key),
            Source::Output(key, LogStream::Stderr) => (4, key),
            Source::Input(key) => (5, key),
            Source::Client(key) => (6, key),
            Source::Launches => (7, 0),
        };
        EventData::new_u64(kind << 32 | u64::from(key))
    }

    fn unpack(data: EventData) -> Option<Self> {
        let (kind, key) = (data.u64() >> 32, (data.u64() & 0xFFFF_FFFF) as u32);
        Some(match kind {
            0 => Source::Listener,
            1 => Source::Connection,
            2 => Source::Signals,
            3 => Source::Output(key, LogStream::Stdout),
            4 => Source::Output(key, LogStream::Stderr),
            5 => Source::Input(key),
            6 => Source::Client(key),
            7 => Source::Launches,
            _ => return None,
        })
    }
}

struct Keeper {
    epoll: OwnedFd,
    listener: OwnedFd,
    signals: SignalFd,
    connection: Option<OwnedFd>,
    /// Grows with every connection: replies for an earlier daemon are not for this one.
    generation: u64,
    /// Somebody was connected at least once: from then on quitting is possible.
    served: bool,
    outgoing: VecDeque<FromKeeper>,
    held: HashMap<u32, Held>,
    keys_by_id: HashMap<String, u32>,
    keys_by_pid: HashMap<i32, u32>,
    clients: HashMap<u32, Attached>,
    next_key: u32,
    journal: Journal,
    hierarchy: Option<Hierarchy>,
    /// Cgroups that still had dying processes in them when their container ended.
    doomed_cgroups: Vec<Doomed>,
    launches: Launches,
    chunk: Box<[u8]>,
}

impl Keeper {
    fn open(socket_path: &Path, journal_path: &Path) -> io::Result<Self> {
        let mut watched = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ] {
            watched.add(signal);
        }
        watched.thread_block()?;
        let signals =
            SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let listener = listen(socket_path)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, Source::Listener.pack(), EventFlags::IN)?;
        epoll::add(&epoll, &signals, Source::Signals.pack(), EventFlags::IN)?;
        let launches = Launches::new()?;
        epoll::add(
            &epoll,
            launches.bell(),
            Source::Launches.pack(),
            EventFlags::IN,
        )?;
        let (journal, left) = Journal::open(journal_path)?;
        let mut keeper = Self {
            epoll,
            listener,
            signals,
            connection: None,
            generation: 0,
            served: false,
            outgoing: VecDeque::new(),
            held: HashMap::new(),
            keys_by_id: HashMap::new(),
            keys_by_pid: HashMap::new(),
            clients: HashMap::new(),
            next_key: 0,
            journal,
            hierarchy: None,
            doomed_cgroups: Vec::new(),
            launches,
            chunk: vec![0; CHUNK].into_boxed_slice(),
        };
        for process in left {
            if let Some(exit) = process.exit {
                let key = keeper.fresh_key();
                keeper.keys_by_id.insert(process.id.clone(), key);
                keeper.held.insert(key, Held::ended_before(process, exit));
            }
        }
        Ok(keeper)
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            let timeout = self.next_deadline().map(|left| {
                rustix::event::Timespec::try_from(left).expect("the pauses are a few seconds")
            });
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                if let Some(source) = Source::unpack(event.data) {
                    self.dispatch(source, event.flags);
                }
            }
            self.end_overdue();
            self.remove_doomed();
            if self.served && self.connection.is_none() && self.idle() {
                return Ok(());
            }
        }
    }

    /// Nothing runs and no client waits for output.
    fn idle(&self) -> bool {
        self.clients.is_empty()
            && self.launches.is_empty()
            && self.doomed_cgroups.is_empty()
            && self
                .held
                .values()
                .all(|held| matches!(held.phase, Phase::Ended(_)))
    }

    fn dispatch(&mut self, source: Source, flags: EventFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Connection => self.serve_connection(flags),
            Source::Signals => self.take_signals(),
            Source::Output(key, stream) => self.read_output(key, stream),
            Source::Input(key) => self.write_input(key, flags),
            Source::Client(key) => self.serve_client(key, flags),
            Source::Launches => self.finish_launches(),
        }
    }
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The directory is private to root; the mask keeps the socket so wherever it is.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = crate::keeper::client::address(path).and_then(|address: SocketAddrUnix| {
        rustix::net::bind(&socket, &address)?;
        Ok(())
    });
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket)
}

fn nanoseconds(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
