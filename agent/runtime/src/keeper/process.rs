//! The keeper process: one thread, one epoll loop, no timers but the drain limit of ended processes.
//!
//! Start-up handshake: take the lock in the run directory (waits for a keeper that is quitting), listen on the
//! socket, write `ready` to stdout. Quits when nothing runs and no daemon is connected; exit records that were not
//! fetched stay in the journal for the next keeper.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;

use super::attach::{Attached, Delivery};
use super::held::{DRAIN_LIMIT, Held, InputState, Phase, Streams};
use super::journal::Journal;
use super::log_file::{LogFile, LogStream};
use super::protocol::{
    self, AttachOptions, Call, Event, Exit, FromKeeper, Launch, LaunchFailure, LaunchKind,
    PROTOCOL_VERSION, Reply, Request, Started, StdinMode,
};
use crate::cgroup::{Cgroup, Hierarchy};
use crate::launch::{self, LaunchError, Launched, Stdio};
use crate::spec::{ExecSpec, LaunchSpec, Namespace};

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
            _ => return None,
        })
    }
}

struct Keeper {
    epoll: OwnedFd,
    listener: OwnedFd,
    signals: SignalFd,
    connection: Option<OwnedFd>,
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
    doomed_cgroups: Vec<Cgroup>,
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
        let (journal, left) = Journal::open(journal_path)?;
        let mut keeper = Self {
            epoll,
            listener,
            signals,
            connection: None,
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
                rustix::event::Timespec::try_from(left).expect("the drain limit is a few seconds")
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
            if self.served && self.connection.is_none() && self.idle() {
                return Ok(());
            }
        }
    }

    /// Nothing runs and no client waits for output.
    fn idle(&self) -> bool {
        self.clients.is_empty()
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
        }
    }

    // ---- the daemon's connection -------------------------------------------------------------------------------

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => {
                // A daemon connects once per life; a second connection means the first daemon is gone or stuck.
                self.connection = None;
                self.outgoing.clear();
                if let Err(error) = epoll::add(
                    &self.epoll,
                    &socket,
                    Source::Connection.pack(),
                    EventFlags::IN,
                ) {
                    report(format_args!("watch the daemon's connection: {error}"));
                    return;
                }
                self.connection = Some(socket);
                self.served = true;
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => report(format_args!("accept the daemon's connection: {error}")),
        }
    }

    fn serve_connection(&mut self, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.send_waiting();
        }
        while let Some(connection) = &self.connection {
            match protocol::receive::<Call>(connection.as_fd()) {
                Ok(Some((call, fds))) => {
                    let result = self.answer(call.request, fds);
                    self.send(FromKeeper::Reply {
                        number: call.number,
                        result,
                    });
                }
                Ok(None) => self.connection = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    report(format_args!("read from the daemon: {error}"));
                    self.connection = None;
                }
            }
        }
    }

    fn send(&mut self, message: FromKeeper) {
        if self.connection.is_none() {
            return;
        }
        self.outgoing.push_back(message);
        if self.outgoing.len() > OUTGOING_MAX {
            report(format_args!("the daemon does not read: disconnected"));
            self.connection = None;
            return;
        }
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        while let Some(message) = self.outgoing.front() {
            match protocol::send(connection.as_fd(), message, &[]) {
                Ok(()) => {
                    self.outgoing.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    report(format_args!("write to the daemon: {error}"));
                    self.connection = None;
                    return;
                }
            }
        }
        let interest = if self.outgoing.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        let _ = epoll::modify(&self.epoll, connection, Source::Connection.pack(), interest);
    }

    fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, LaunchFailure> {
        match request {
            Request::Hello { version } if version == PROTOCOL_VERSION => {
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                Ok(Reply::Hello {
                    version: PROTOCOL_VERSION,
                    pid,
                })
            }
            Request::Hello { version } => Err(LaunchFailure::engine(format!(
                "the running keeper speaks protocol {PROTOCOL_VERSION} and the daemon {version}: \
                 stop all containers, then start the daemon again"
            ))),
            Request::Launch(launch) => self.launch(*launch, fds).map(Reply::Started),
            Request::Attach { id, options } => {
                let key = self.key_of(&id)?;
                let [fd] = <[OwnedFd; 1]>::try_from(fds)
                    .map_err(|_| LaunchFailure::engine("attach needs exactly one descriptor"))?;
                self.attach(key, fd, options)
                    .map_err(|error| LaunchFailure::engine(format!("attach to {id}: {error}")))?;
                Ok(Reply::Done)
            }
            Request::Resize { id, rows, columns } => {
                let held = &self.held[&self.key_of(&id)?];
                let Some(terminal) = held.terminal() else {
                    return Err(LaunchFailure::engine(format!("{id} has no terminal")));
                };
                set_size(terminal, rows, columns).map_err(|error| {
                    LaunchFailure::engine(format!("resize the terminal of {id}: {error}"))
                })?;
                Ok(Reply::Done)
            }
            Request::Signal { id, signal } => self.signal(&id, signal).map(|()| Reply::Done),
            Request::List => Ok(Reply::Held(
                self.held.values().map(Held::describe).collect(),
            )),
            Request::Forget { id } => {
                self.forget(&id);
                Ok(Reply::Done)
            }
        }
    }

    fn key_of(&self, id: &str) -> Result<u32, LaunchFailure> {
        self.keys_by_id
            .get(id)
            .copied()
            .ok_or_else(|| LaunchFailure::engine(format!("no such process: {id}")))
    }

    fn fresh_key(&mut self) -> u32 {
        loop {
            self.next_key = self.next_key.wrapping_add(1);
            if !self.held.contains_key(&self.next_key) && !self.clients.contains_key(&self.next_key)
            {
                return self.next_key;
            }
        }
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<(), LaunchFailure> {
        let held = &self.held[&self.key_of(id)?];
        let failure =
            |error: &dyn std::fmt::Display| LaunchFailure::engine(format!("signal {id}: {error}"));
        let number = Signal::try_from(signal).map_err(|error| failure(&error));
        let pidfd = match (&held.pidfd, held.phase) {
            (Some(pidfd), Phase::Running) => pidfd,
            _ => return Err(LaunchFailure::engine(format!("{id} does not run"))),
        };
        let named = match number {
            Ok(number) => rustix::process::Signal::from_named_raw(number as i32),
            Err(_) => None,
        };
        // Real-time signals have no name in the crates; the raw number is valid up to 64.
        match named {
            Some(named) => {
                rustix::process::pidfd_send_signal(pidfd, named).map_err(|error| failure(&error))
            }
            None if (1..=64).contains(&signal) => {
                crate::sys::kernel::pidfd_send_signal(pidfd.as_fd(), signal)
                    .map_err(|error| failure(&error))
            }
            None => Err(LaunchFailure::engine(format!(
                "signal {id}: there is no signal {signal}"
            ))),
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(key) = self.keys_by_id.get(id).copied() else {
            return;
        };
        if !matches!(self.held[&key].phase, Phase::Ended(_)) {
            return;
        }
        self.keys_by_id.remove(id);
        self.held.remove(&key);
        let kept = self
            .held
            .values()
            .filter(|held| matches!(held.phase, Phase::Ended(_)))
            .map(Held::describe);
        if let Err(error) = self.journal.forget(id, kept) {
            report(format_args!("take {id} out of the journal: {error}"));
        }
    }

    // ---- starting ----------------------------------------------------------------------------------------------

    fn launch(&mut self, launch: Launch, fds: Vec<OwnedFd>) -> Result<Started, LaunchFailure> {
        let Launch {
            id,
            kind,
            stdin,
            log,
            attach,
        } = launch;
        // A new run of what has ended: whoever asks for it knows of the end.
        self.forget(&id);
        if self.keys_by_id.contains_key(&id) {
            return Err(LaunchFailure::engine(format!("{id} is held already")));
        }
        if fds.len() != attach.len() {
            return Err(LaunchFailure::engine(
                "one descriptor per attached client is needed",
            ));
        }
        let log = match log {
            Some(options) => {
                let path: PathBuf = options.path.clone();
                Some(LogFile::open(options).map_err(|error| {
                    LaunchFailure::engine(format!("open the log {}: {error}", path.display()))
                })?)
            }
            None => None,
        };
        let (launched, streams, cgroup, shares_pids) = match kind {
            LaunchKind::Container(spec) => self.launch_container(&spec, stdin)?,
            LaunchKind::Exec { container, spec } => self.launch_exec(&container, spec, stdin)?,
        };
        let started = Started {
            pid: launched.pid,
            started_at: nanoseconds(jiff::Timestamp::now()),
            warnings: launched.warnings,
        };
        let key = self.fresh_key();
        let mut held = Held::new(id.clone(), started.clone(), launched.pidfd, streams, stdin);
        held.cgroup = cgroup;
        held.shares_pids = shares_pids;
        held.log = log;
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if let Some(fd) = held.output(stream) {
                self.watch(fd, Source::Output(key, stream), EventFlags::IN);
            }
        }
        if let Some(fd) = held.input() {
            self.watch(fd, Source::Input(key), EventFlags::empty());
        }
        self.held.insert(key, held);
        self.keys_by_id.insert(id, key);
        self.keys_by_pid.insert(started.pid, key);
        for (fd, options) in fds.into_iter().zip(attach) {
            if let Err(error) = self.attach(key, fd, options) {
                report(format_args!("attach a client: {error}"));
            }
        }
        Ok(started)
    }

    fn launch_container(
        &mut self,
        spec: &LaunchSpec,
        stdin: StdinMode,
    ) -> Result<(Launched, Streams, Option<Cgroup>, bool), LaunchFailure> {
        let plan = launch::prepare(spec).map_err(failure)?;
        let cgroup = match &spec.cgroup {
            Some(cgroup) => Some(self.hierarchy()?.open(&cgroup.path)),
            None => None,
        };
        let shares_pids = spec.namespaces.pid != Namespace::New;
        let (launched, streams) = with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
            launch::spawn(&plan, stdio)
        })?;
        Ok((launched, streams, cgroup, shares_pids))
    }

    fn launch_exec(
        &mut self,
        container: &str,
        mut spec: ExecSpec,
        stdin: StdinMode,
    ) -> Result<(Launched, Streams, Option<Cgroup>, bool), LaunchFailure> {
        let held = &self.held[&self.key_of(container)?];
        let Some(target) = &held.pidfd else {
            return Err(LaunchFailure::engine(format!(
                "container {container} is not running"
            )));
        };
        spec.target_pid = held.started.pid;
        let (launched, streams) = with_streams(spec.process.terminal.is_some(), stdin, |stdio| {
            crate::exec::spawn(&spec, target.as_fd(), stdio)
        })?;
        Ok((launched, streams, None, false))
    }

    fn hierarchy(&mut self) -> Result<&Hierarchy, LaunchFailure> {
        if self.hierarchy.is_none() {
            self.hierarchy = Some(
                Hierarchy::detect().map_err(|error| LaunchFailure::engine(error.to_string()))?,
            );
        }
        Ok(self.hierarchy.as_ref().expect("set just above"))
    }

    // ---- streams -----------------------------------------------------------------------------------------------

    fn watch(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) {
        if let Err(error) = epoll::add(&self.epoll, fd, source.pack(), interest) {
            report(format_args!("watch {source:?}: {error}"));
        }
    }

    fn interest(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) {
        if let Err(error) = epoll::modify(&self.epoll, fd, source.pack(), interest) {
            report(format_args!("watch {source:?}: {error}"));
        }
    }

    fn attach(&mut self, process: u32, socket: OwnedFd, options: AttachOptions) -> io::Result<()> {
        let key = self.fresh_key();
        let held = self
            .held
            .get_mut(&process)
            .expect("the caller looked it up");
        let mut client = Attached::new(socket, options, process, held.has_terminal())?;
        if matches!(held.phase, Phase::Ended(_)) {
            client.close();
            return Ok(());
        }
        held.attached.push(key);
        let interest = if options.stdin && held.takes_input() {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        self.watch(client.socket(), Source::Client(key), interest);
        self.clients.insert(key, client);
        Ok(())
    }

    fn read_output(&mut self, key: u32, stream: LogStream) {
        let Some(held) = self.held.get(&key) else {
            return;
        };
        let Some(fd) = held.output(stream) else {
            return;
        };
        let mut chunk = std::mem::take(&mut self.chunk);
        match rustix::io::read(fd, &mut chunk[..]) {
            Ok(count) if count > 0 => self.deliver(key, stream, &chunk[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            // End of file; EIO is how a terminal says it.
            Ok(_) | Err(_) => self.output_ended(key, stream),
        }
        self.chunk = chunk;
    }

    fn deliver(&mut self, key: u32, stream: LogStream, data: &[u8]) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        if let Some(log) = &mut held.log {
            let failed = log.write(stream, data, jiff::Timestamp::now()).err();
            // Told once: a disk that is full fails every write.
            if let (Some(error), false) = (&failed, held.log_fails) {
                report(format_args!("write the log of {}: {error}", held.id));
            }
            held.log_fails = failed.is_some();
        }
        let attached = held.attached.clone();
        for client in attached {
            let delivery = self
                .clients
                .get_mut(&client)
                .map(|attached| attached.output(stream, data));
            self.after_delivery(client, delivery);
        }
        self.update_throttle(key);
    }

    fn after_delivery(&mut self, key: u32, delivery: Option<Delivery>) {
        match delivery {
            Some(Delivery::Finished) => self.drop_client(key),
            Some(Delivery::Queued | Delivery::Flushed) => self.update_client_interest(key),
            None => {}
        }
    }

    fn update_client_interest(&self, key: u32) {
        let Some(client) = self.clients.get(&key) else {
            return;
        };
        let mut interest = EventFlags::empty();
        if client.waits() {
            interest |= EventFlags::OUT;
        }
        let wants = client.options.stdin && !client.input_ended;
        if wants
            && self
                .held
                .get(&client.process)
                .is_some_and(Held::takes_input)
        {
            interest |= EventFlags::IN;
        }
        self.interest(client.socket(), Source::Client(key), interest);
    }

    /// Stops or resumes reading a process's output by what its clients can take.
    fn update_throttle(&mut self, key: u32) {
        let Some(held) = self.held.get(&key) else {
            return;
        };
        let throttled = held
            .attached
            .iter()
            .any(|client| self.clients.get(client).is_some_and(Attached::throttles));
        if throttled == held.throttled {
            return;
        }
        let interest = if throttled {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if let Some(fd) = held.output(stream) {
                self.interest(fd, Source::Output(key, stream), interest);
            }
        }
        self.held.get_mut(&key).expect("looked up above").throttled = throttled;
    }

    fn output_ended(&mut self, key: u32, stream: LogStream) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        held.close_output(&self.epoll, stream);
        if let (true, Phase::Draining { exit, .. }) = (held.outputs_ended(), held.phase) {
            self.end(key, exit);
        }
    }

    /// The process takes input again, or has closed it: the kernel reports that unasked and for ever.
    fn write_input(&mut self, key: u32, flags: EventFlags) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            held.close_input(&self.epoll);
        }
        let state = held.flush_input(&self.epoll);
        self.after_input(key, state);
    }

    fn after_input(&mut self, key: u32, state: InputState) {
        let Some(held) = self.held.get(&key) else {
            return;
        };
        if let Some(fd) = held.input() {
            let interest = match state {
                InputState::Idle => EventFlags::empty(),
                InputState::Waiting => EventFlags::OUT,
            };
            self.interest(fd, Source::Input(key), interest);
        }
        for client in &held.attached {
            self.update_client_interest(*client);
        }
    }

    fn serve_client(&mut self, key: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            let delivery = self.clients.get_mut(&key).map(Attached::flush);
            self.after_delivery(key, delivery);
            if let Some(process) = self.clients.get(&key).map(|client| client.process) {
                self.update_throttle(process);
            }
        }
        if flags.contains(EventFlags::IN) {
            self.read_client(key);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) && !flags.contains(EventFlags::IN) {
            self.drop_client(key);
        }
    }

    fn read_client(&mut self, key: u32) {
        let mut chunk = std::mem::take(&mut self.chunk);
        if let Some(client) = self.clients.get_mut(&key) {
            let process = client.process;
            match client.read(&mut chunk) {
                Ok(count) => {
                    let state = self.held.get_mut(&process).map(|held| match count {
                        0 => held.input_ended(&self.epoll),
                        count => held.push_input(&self.epoll, &chunk[..count]),
                    });
                    self.update_client_interest(key);
                    if let Some(state) = state {
                        self.after_input(process, state);
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => self.drop_client(key),
            }
        }
        self.chunk = chunk;
    }

    fn drop_client(&mut self, key: u32) {
        let Some(client) = self.clients.remove(&key) else {
            return;
        };
        let Some(held) = self.held.get_mut(&client.process) else {
            return;
        };
        held.attached.retain(|attached| *attached != key);
        if client.options.stdin && !client.input_ended {
            let state = held.input_ended(&self.epoll);
            self.after_input(client.process, state);
        }
        self.update_throttle(client.process);
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    fn take_signals(&mut self) {
        let mut children = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => children = true,
                Ok(signal) => report(format_args!("{signal} ignored: containers are held here")),
                Err(_) => {}
            }
        }
        if children {
            self.reap();
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(rustix::io::Errno::CHILD) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    report(format_args!("wait for children: {error}"));
                    break;
                }
            };
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            if let Some(code) = status.exit_status().or(signal)
                && let Some(key) = self.keys_by_pid.remove(&pid.as_raw_nonzero().get())
            {
                self.process_ended(key, code);
            }
        }
        self.doomed_cgroups
            .retain(|cgroup| cgroup.remove().is_err());
    }

    fn process_ended(&mut self, key: u32, exit_code: i32) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        let oom_killed = held
            .cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.oom_kills().unwrap_or(0) > 0);
        if let (true, Some(cgroup)) = (held.shares_pids, &held.cgroup)
            && let Err(error) = cgroup.kill()
        {
            report(format_args!("end what {} left behind: {error}", held.id));
        }
        let exit = Exit {
            exit_code,
            oom_killed,
            finished_at: nanoseconds(jiff::Timestamp::now()),
        };
        held.phase = Phase::Draining {
            exit,
            until: Instant::now() + DRAIN_LIMIT,
        };
        held.close_input(&self.epoll);
        if held.outputs_ended() {
            self.end(key, exit);
        }
    }

    fn end(&mut self, key: u32, exit: Exit) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        if let Err(error) = held.end(&self.epoll, exit, jiff::Timestamp::now()) {
            report(format_args!("finish the log of {}: {error}", held.id));
        }
        if let Some(cgroup) = held.cgroup.take()
            && cgroup.remove().is_err()
        {
            self.doomed_cgroups.push(cgroup);
        }
        let attached = std::mem::take(&mut held.attached);
        let described = held.describe();
        if let Err(error) = self.journal.append(&described) {
            report(format_args!(
                "write the exit of {} to the journal: {error}",
                described.id
            ));
        }
        for client in attached {
            let delivery = self.clients.get_mut(&client).map(Attached::close);
            self.after_delivery(client, delivery);
        }
        self.send(FromKeeper::Event(Event::Exited {
            id: described.id,
            exit,
        }));
    }

    fn next_deadline(&self) -> Option<Duration> {
        let deadline = self.held.values().filter_map(|held| match held.phase {
            Phase::Draining { until, .. } => Some(until),
            Phase::Running | Phase::Ended(_) => None,
        });
        deadline
            .min()
            .map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn end_overdue(&mut self) {
        let now = Instant::now();
        let overdue: Vec<(u32, Exit)> = self
            .held
            .iter()
            .filter_map(|(key, held)| match held.phase {
                Phase::Draining { exit, until } if until <= now => Some((*key, exit)),
                _ => None,
            })
            .collect();
        for (key, exit) in overdue {
            self.end(key, exit);
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

fn failure(error: LaunchError) -> LaunchFailure {
    LaunchFailure {
        exit_code: error.exit_code(),
        message: error.to_string(),
    }
}

fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the streams of a new process, starts it, and keeps our ends, all non-blocking.
fn with_streams(
    has_terminal: bool,
    stdin: StdinMode,
    start: impl FnOnce(Option<Stdio<'_>>) -> Result<Launched, LaunchError>,
) -> Result<(Launched, Streams), LaunchFailure> {
    let broken = |error: rustix::io::Errno| {
        LaunchFailure::engine(format!("make the standard streams: {error}"))
    };
    if has_terminal {
        let mut launched = start(None).map_err(failure)?;
        let master = launched
            .terminal
            .take()
            .ok_or_else(|| LaunchFailure::engine("the runtime gave no terminal"))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(broken)?;
        let duplicate = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(broken);
        let stdin = if stdin == StdinMode::Null {
            None
        } else {
            Some(duplicate(&master)?)
        };
        let streams = Streams {
            stdin,
            stdout: Some(duplicate(&master)?),
            stderr: None,
            terminal: Some(master),
        };
        return Ok((launched, streams));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(broken);
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    let (child_stdin, stdin) = if stdin == StdinMode::Null {
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        (null.map_err(broken)?, None)
    } else {
        let (read, write) = pipe()?;
        (read, Some(write))
    };
    for ours in [Some(&stdout), Some(&stderr), stdin.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(ours, true).map_err(broken)?;
    }
    let stdio = Stdio {
        stdin: child_stdin.as_fd(),
        stdout: child_stdout.as_fd(),
        stderr: child_stderr.as_fd(),
    };
    let launched = start(Some(stdio)).map_err(failure)?;
    Ok((
        launched,
        Streams {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: None,
        },
    ))
}

fn nanoseconds(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
