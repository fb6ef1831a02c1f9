//! The daemon's connection: calls in, replies and events out.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::event::epoll::{self, EventFlags};
use rustix::net::SocketFlags;

use super::{Keeper, OUTGOING_MAX, Source, report};
use crate::keeper::held::{Held, Phase};
use crate::keeper::protocol::{
    self, Call, FromKeeper, LaunchFailure, PROTOCOL_VERSION, Reply, Request,
};

impl Keeper {
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => {
                // A daemon connects once per life; a second connection means the first daemon is gone or stuck.
                self.connection = None;
                self.outgoing.clear();
                self.generation += 1;
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

    pub(super) fn serve_connection(&mut self, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.send_waiting();
        }
        while let Some(connection) = &self.connection {
            match protocol::receive::<Call>(connection.as_fd()) {
                Ok(Some((call, fds))) => {
                    if let Some(result) = self.answer(call.number, call.request, fds) {
                        self.reply(call.number, result);
                    }
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

    pub(super) fn send(&mut self, message: FromKeeper) {
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

    pub(super) fn send_waiting(&mut self) {
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

    pub(super) fn reply(&mut self, number: u64, result: Result<Reply, LaunchFailure>) {
        self.send(FromKeeper::Reply { number, result });
    }

    /// `None` when the answer comes later.
    fn answer(
        &mut self,
        number: u64,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Option<Result<Reply, LaunchFailure>> {
        match request {
            Request::Launch(launch) => self.begin_launch(number, *launch, fds).err().map(Err),
            // What is being launched belongs in the list: a new daemon hears of it in no other way.
            Request::List if !self.launches.is_empty() => {
                self.launches.lists.push((self.generation, number));
                None
            }
            request => Some(self.answer_now(request, fds)),
        }
    }

    pub(super) fn list(&self) -> Reply {
        Reply::Held(self.held.values().map(Held::describe).collect())
    }

    fn answer_now(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, LaunchFailure> {
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
            Request::List => Ok(self.list()),
            Request::Launch(_) => Err(LaunchFailure::engine("a launch is answered later")),
            Request::Forget { id } => {
                self.forget(&id);
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn key_of(&self, id: &str) -> Result<u32, LaunchFailure> {
        self.keys_by_id
            .get(id)
            .copied()
            .ok_or_else(|| LaunchFailure::engine(format!("no such process: {id}")))
    }

    pub(super) fn fresh_key(&mut self) -> u32 {
        loop {
            self.next_key = self.next_key.wrapping_add(1);
            if !self.held.contains_key(&self.next_key)
                && !self.clients.contains_key(&self.next_key)
                && !self.launches.contains(self.next_key)
            {
                return self.next_key;
            }
        }
    }

    pub(super) fn signal(&mut self, id: &str, signal: i32) -> Result<(), LaunchFailure> {
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

    pub(super) fn forget(&mut self, id: &str) {
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
