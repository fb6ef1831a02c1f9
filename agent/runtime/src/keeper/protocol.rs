//! Messages between daemon and keeper, and how they travel.
//!
//! One `SOCK_SEQPACKET` datagram is one message: a byte saying where the JSON is, then the JSON itself (`I`) or nothing
//! when it is too long for a datagram and comes as a memfd, the last of the passed descriptors (`M`). Both sides are
//! the same executable most of the time; after an upgrade they may not be, so fields are only ever added, with a
//! default, and [`PROTOCOL_VERSION`] grows when that is not enough.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::{ExecSpec, LaunchSpec};

/// Version of this protocol; sides with different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 1;
/// Longest JSON that is sent inside the datagram.
const INLINE_MAX: usize = 32 * 1024;
/// Longest JSON at all.
const MESSAGE_MAX: u64 = 64 * 1024 * 1024;
/// Most descriptors in one message (the kernel's limit is 253).
pub(crate) const FDS_MAX: usize = 64;

/// What the daemon asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// First message of a connection.
    Hello {
        /// The daemon's [`PROTOCOL_VERSION`].
        version: u32,
    },
    /// Start a process; one descriptor per element of `attach` comes along.
    Launch(Box<Launch>),
    /// Attach one more client, whose end of a socket pair comes along.
    Attach {
        /// Which process.
        id: String,
        /// What the client wants.
        options: AttachOptions,
    },
    /// Set the size of a terminal.
    Resize {
        /// Which process.
        id: String,
        /// Lines.
        rows: u16,
        /// Characters per line.
        columns: u16,
    },
    /// Send a signal to the process (never to a recycled pid).
    Signal {
        /// Which process.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Everything that is held.
    List,
    /// The exit of this process is recorded elsewhere: drop it.
    Forget {
        /// Which process.
        id: String,
    },
}

/// A request with the number that its reply carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the daemon.
    pub number: u64,
    /// What is asked.
    pub request: Request,
}

/// What the keeper sends.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromKeeper {
    /// Answer to a call.
    Reply {
        /// Of the call.
        number: u64,
        /// Outcome.
        result: Result<Reply, LaunchFailure>,
    },
    /// Something happened.
    Event(Event),
}

/// A successful answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Attach`, `Resize`, `Signal`, `Forget`.
    Done,
    /// To `Hello`.
    Hello {
        /// The keeper's own.
        version: u32,
        /// The keeper's process id.
        pid: i32,
    },
    /// To `Launch`.
    Started(Started),
    /// To `List`.
    Held(Vec<HeldProcess>),
}

/// Something the daemon did not ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A process has ended and all its output is read.
    Exited {
        /// Which process.
        id: String,
        /// How it ended.
        exit: Exit,
    },
}

/// A process to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Container id or exec id.
    pub id: String,
    /// A container's first process or a further one.
    pub kind: LaunchKind,
    /// Whether stdin is open; without, it is `/dev/null`.
    pub stdin: StdinMode,
    /// Where output is logged; `None`: nowhere.
    pub log: Option<LogOptions>,
    /// Clients attached from the first byte on; their descriptors come in the same order.
    pub attach: Vec<AttachOptions>,
}

/// What is started.
#[derive(Debug, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message, made once and consumed"
)]
pub enum LaunchKind {
    /// A container.
    Container(LaunchSpec),
    /// A further process in a container that is held and runs.
    Exec {
        /// Id under which the container was launched.
        container: String,
        /// What to run; `target_pid` is filled in by the keeper.
        spec: ExecSpec,
    },
}

/// What standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinMode {
    /// `/dev/null`.
    Null,
    /// Open until a client with stdin has come and closed its side (Docker's `StdinOnce`).
    Once,
    /// Open as long as the process lives.
    Open,
}

/// Where and how output is logged (Docker's `json-file`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// The current file; older ones get `.1`, `.2` …
    pub path: PathBuf,
    /// Rotate when the file is longer than this many bytes; `None`: never.
    pub max_size: Option<u64>,
    /// Files kept in all, at least 1.
    pub max_file: u32,
}

/// What a client that attaches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOptions {
    /// Bytes it sends go to standard input.
    pub stdin: bool,
    /// It receives standard output (with a terminal: everything).
    pub stdout: bool,
    /// It receives standard error.
    pub stderr: bool,
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// As the keeper's pid namespace numbers it.
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// What could not be applied and was not required to be.
    pub warnings: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The process's own code, or 128 + signal.
    pub exit_code: i32,
    /// Whether the kernel killed something in its cgroup for lack of memory.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
}

/// One row of the answer to `List`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldProcess {
    /// Container id or exec id.
    pub id: String,
    /// What was told when it started.
    pub started: Started,
    /// Set when it has ended.
    pub exit: Option<Exit>,
}

/// Why the keeper could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LaunchFailure {
    /// What failed, for people.
    pub message: String,
    /// The exit code Docker gives such a container: 127 not found, 126 not executable, 125 everything else.
    pub exit_code: i32,
}

impl LaunchFailure {
    pub(crate) fn engine(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 125,
        }
    }
}

/// Sends one message with descriptors. Blocks unless the socket is non-blocking.
///
/// # Errors
/// Those of `sendmsg(2)`; `InvalidInput` for more than 63 descriptors.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let mut all: Vec<BorrowedFd<'_>> = fds.to_vec();
    let memfd;
    let (place, inline): (&[u8], &[u8]) = if json.len() <= INLINE_MAX {
        (b"I", &json)
    } else {
        memfd = memfd_with(&json)?;
        all.push(memfd.as_fd());
        (b"M", b"")
    };
    if all.len() > FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !all.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&all));
    }
    let parts = [IoSlice::new(place), IoSlice::new(inline)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; `None` when the other side has closed.
///
/// # Errors
/// Those of `recvmsg(2)` (`WouldBlock` among them); `InvalidData` for what is no message.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut data = vec![0_u8; INLINE_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut data)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(invalid(
            "descriptors were lost on the way: the limit of open files is reached",
        ));
    }
    let message = match data.get(..received.bytes) {
        None | Some([]) => return Ok(None),
        Some([b'I', json @ ..]) => serde_json::from_slice(json)?,
        Some([b'M']) => {
            let mut file = File::from(
                fds.pop()
                    .ok_or_else(|| invalid("a long message without its memfd"))?,
            );
            if file.metadata()?.len() > MESSAGE_MAX {
                return Err(invalid("a message of more than 64 MiB"));
            }
            file.seek(SeekFrom::Start(0))?;
            let mut json = Vec::new();
            file.read_to_end(&mut json)?;
            serde_json::from_slice(&json)?
        }
        Some(_) => return Err(invalid("a datagram that is no message")),
    };
    Ok(Some((message, fds)))
}

fn memfd_with(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(
        "muster-message",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.write_all(bytes)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn short_and_long_messages_arrive_whole_with_their_descriptors() {
        let (a, b) = pair();
        for length in [0, 10, INLINE_MAX - 2, INLINE_MAX, 3_000_000] {
            let text = "x".repeat(length);
            let pipe = rustix::pipe::pipe().unwrap();
            send(a.as_fd(), &text, &[pipe.0.as_fd()]).unwrap();
            let (back, fds) = receive::<String>(b.as_fd()).unwrap().unwrap();
            assert_eq!(back, text);
            assert_eq!(fds.len(), 1, "the memfd is not handed out");
        }
        drop(a);
        assert!(receive::<String>(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        let (a, b) = pair();
        for garbage in [&b"M"[..], b"I{", b"?", b"I"] {
            rustix::net::send(&a, garbage, SendFlags::empty()).unwrap();
            assert!(receive::<Call>(b.as_fd()).is_err());
        }
    }
}
