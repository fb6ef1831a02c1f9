//! Bytes between a process, its log and its clients.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventFlags};

use super::{Keeper, Source, report};
use crate::keeper::attach::{Attached, Delivery};
use crate::keeper::held::{Held, InputState, Phase};
use crate::keeper::log_file::LogStream;
use crate::keeper::protocol::AttachOptions;

impl Keeper {
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) {
        if let Err(error) = epoll::add(&self.epoll, fd, source.pack(), interest) {
            report(format_args!("watch {source:?}: {error}"));
        }
    }

    pub(super) fn interest(&self, fd: BorrowedFd<'_>, source: Source, interest: EventFlags) {
        if let Err(error) = epoll::modify(&self.epoll, fd, source.pack(), interest) {
            report(format_args!("watch {source:?}: {error}"));
        }
    }

    pub(super) fn attach(
        &mut self,
        process: u32,
        socket: OwnedFd,
        options: AttachOptions,
    ) -> io::Result<()> {
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

    pub(super) fn read_output(&mut self, key: u32, stream: LogStream) {
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

    pub(super) fn deliver(&mut self, key: u32, stream: LogStream, data: &[u8]) {
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

    pub(super) fn after_delivery(&mut self, key: u32, delivery: Option<Delivery>) {
        match delivery {
            Some(Delivery::Finished) => self.drop_client(key),
            Some(Delivery::Queued | Delivery::Flushed) => self.update_client_interest(key),
            None => {}
        }
    }

    pub(super) fn update_client_interest(&self, key: u32) {
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
    pub(super) fn update_throttle(&mut self, key: u32) {
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

    pub(super) fn output_ended(&mut self, key: u32, stream: LogStream) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        held.close_output(&self.epoll, stream);
        if let (true, Phase::Draining { exit, .. }) = (held.outputs_ended(), held.phase) {
            self.end(key, exit);
        }
    }

    /// The process takes input again, or has closed it: the kernel reports that unasked and for ever.
    pub(super) fn write_input(&mut self, key: u32, flags: EventFlags) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            held.close_input(&self.epoll);
        }
        let state = held.flush_input(&self.epoll);
        self.after_input(key, state);
    }

    pub(super) fn after_input(&mut self, key: u32, state: InputState) {
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

    pub(super) fn serve_client(&mut self, key: u32, flags: EventFlags) {
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

    pub(super) fn read_client(&mut self, key: u32) {
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

    pub(super) fn drop_client(&mut self, key: u32) {
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
}
