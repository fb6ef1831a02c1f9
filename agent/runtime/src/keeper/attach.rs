//! One attached client: output framed and queued for it, its bytes on their way to standard input.
//!
//! The keeper's end of the socket pair never blocks. What the client does not take yet is queued; past
//! [`QUEUE_HIGH`] bytes the keeper stops reading the process's output until the queue is below [`QUEUE_LOW`], so a slow
//! client slows the process down instead of growing the keeper (moby's `bytespipe` does the same at 1 MB).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{SendFlags, Shutdown};

use super::log_file::LogStream;
use super::protocol::AttachOptions;

/// Queue length at which the process's output is no longer read.
const QUEUE_HIGH: usize = 1 << 20;
/// Queue length at which it is read again.
const QUEUE_LOW: usize = 1 << 19;

/// An attached client.
#[derive(Debug)]
pub(super) struct Attached {
    socket: OwnedFd,
    /// What it asked for.
    pub(super) options: AttachOptions,
    /// The process it is attached to, by the keeper's key.
    pub(super) process: u32,
    /// The process has a terminal: no frames.
    raw: bool,
    queue: VecDeque<u8>,
    /// It has shut down its sending side.
    pub(super) input_ended: bool,
    /// The process has ended: close when the queue is empty.
    closing: bool,
    throttling: bool,
}

/// What to do with a client after something was written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Everything so far was taken.
    Flushed,
    /// Something is queued: wait until it can be written to.
    Queued,
    /// It is gone, or served completely.
    Finished,
}

impl Attached {
    pub(super) fn new(
        socket: OwnedFd,
        options: AttachOptions,
        process: u32,
        raw: bool,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            options,
            process,
            raw,
            queue: VecDeque::new(),
            input_ended: false,
            closing: false,
            throttling: false,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the process's output must wait for this client.
    pub(super) fn throttles(&self) -> bool {
        self.throttling
    }

    /// Whether something is queued for it.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues output of the process and writes what the client takes.
    pub(super) fn output(&mut self, stream: LogStream, data: &[u8]) -> Delivery {
        let (wanted, number) = match stream {
            LogStream::Stdout => (self.options.stdout, 1),
            LogStream::Stderr => (self.options.stderr, 2),
        };
        if !wanted {
            return Delivery::Flushed;
        }
        if !self.raw {
            let length = u32::try_from(data.len()).expect("one read is far below 4 GiB");
            self.queue.extend([number, 0, 0, 0]);
            self.queue.extend(length.to_be_bytes());
        }
        self.queue.extend(data);
        self.flush()
    }

    /// Writes what the client takes.
    pub(super) fn flush(&mut self) -> Delivery {
        while !self.queue.is_empty() {
            let (front, _) = self.queue.as_slices();
            match rustix::net::send(
                &self.socket,
                front,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(written) => {
                    self.queue.drain(..written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.throttling = self.queue.len()
                        > if self.throttling {
                            QUEUE_LOW
                        } else {
                            QUEUE_HIGH
                        };
                    return Delivery::Queued;
                }
                Err(_) => return Delivery::Finished,
            }
        }
        self.throttling = false;
        self.queue = VecDeque::new();
        if self.closing {
            Delivery::Finished
        } else {
            Delivery::Flushed
        }
    }

    /// The process has ended and all its output is queued.
    pub(super) fn close(&mut self) -> Delivery {
        self.closing = true;
        let delivery = self.flush();
        if delivery == Delivery::Finished {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
        delivery
    }

    /// Reads what the client sends; `Ok(0)` once it has shut down its side.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        let count = rustix::io::read(&self.socket, buffer)?;
        self.input_ended = count == 0;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn client(raw: bool, stderr: bool) -> (Attached, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let options = AttachOptions {
            stdin: true,
            stdout: true,
            stderr,
        };
        (Attached::new(ours, options, 1, raw).unwrap(), theirs)
    }

    fn drain(fd: &OwnedFd, want: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while all.len() < want {
            let count = rustix::io::read(fd, &mut buffer[..]).unwrap();
            assert!(count > 0);
            all.extend(&buffer[..count]);
        }
        all
    }

    #[test]
    fn output_is_framed_unless_there_is_a_terminal() {
        let (mut framed, theirs) = client(false, true);
        assert_eq!(framed.output(LogStream::Stdout, b"hi"), Delivery::Flushed);
        assert_eq!(framed.output(LogStream::Stderr, b"no"), Delivery::Flushed);
        assert_eq!(
            drain(&theirs, 20),
            b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x02no"
        );
        let (mut raw, theirs) = client(true, true);
        raw.output(LogStream::Stdout, b"hi");
        assert_eq!(drain(&theirs, 2), b"hi");
    }

    #[test]
    fn unwanted_streams_are_not_sent() {
        let (mut client, theirs) = client(false, false);
        client.output(LogStream::Stderr, b"secret");
        client.output(LogStream::Stdout, b"x");
        assert_eq!(drain(&theirs, 9), b"\x01\0\0\0\0\0\0\x01x");
    }

    #[test]
    fn a_slow_client_throttles_and_then_gets_every_byte() {
        let (mut client, theirs) = client(true, true);
        let chunk = vec![7_u8; 1 << 16];
        let mut sent = 0;
        while !client.throttles() {
            client.output(LogStream::Stdout, &chunk);
            sent += chunk.len();
            assert!(sent < 8 << 20, "the queue has a bound");
        }
        assert_eq!(client.close(), Delivery::Queued);
        let mut received = 0;
        while received < sent {
            received += drain(&theirs, 1).len();
            client.flush();
        }
        assert_eq!(client.flush(), Delivery::Finished);
    }

    #[test]
    fn a_client_that_is_gone_is_noticed() {
        let (mut client, theirs) = client(true, true);
        drop(theirs);
        assert_eq!(client.output(LogStream::Stdout, b"x"), Delivery::Finished);
    }
}
