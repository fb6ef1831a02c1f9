//! The daemon's side: connects to the keeper, or starts it, and turns its messages into calls and events.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::process::SOCKET;
use super::protocol::{
    self, AttachOptions, Call, Event, FromKeeper, HeldProcess, Launch, LaunchFailure,
    PROTOCOL_VERSION, Reply, Request, Started,
};

/// Why a call to the keeper failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The keeper refused or failed.
    #[error(transparent)]
    Refused(#[from] LaunchFailure),
    /// The keeper could not be reached or has gone.
    #[error("{what}")]
    Gone {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A connection to the keeper. Cheap to clone; calls may run at the same time and be dropped at any point (the keeper
/// carries out what it has received).
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// A `SOCK_SEQPACKET` socket; the type only lends its readiness, bytes go through `protocol`.
    socket: UnixStream,
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    /// The keeper's process id.
    pid: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<Result<Reply, LaunchFailure>>>,
    closed: bool,
}

impl Client {
    /// Connects to the keeper of `run_dir`; when none runs, starts `executable keeper --run-dir …` and waits for its
    /// readiness. The receiver gets the events from now on; what happened before is in [`Client::list`]. The receiver
    /// ends when the keeper is gone. It is unbounded because a held process sends one event in its life.
    ///
    /// # Errors
    /// [`ClientError::Gone`] with what was attempted; [`ClientError::Refused`] for a keeper of another version.
    pub async fn connect_or_start(
        run_dir: &Path,
        executable: &Path,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ClientError> {
        let path = run_dir.join(SOCKET);
        // One that is just quitting still accepts connections and resets them.
        if let Ok(socket) = connect(&path) {
            match Self::greet(socket).await {
                Err(ClientError::Gone { .. }) => {}
                other => return other,
            }
        }
        start(run_dir, executable).await?;
        let socket = connect(&path).map_err(|source| {
            gone(
                format!("connect to the keeper at {}", path.display()),
                source,
            )
        })?;
        Self::greet(socket).await
    }

    /// Makes a client of a connection whose other side speaks the same protocol.
    async fn greet(socket: OwnedFd) -> Result<(Self, mpsc::UnboundedReceiver<Event>), ClientError> {
        let (client, events) = Self::over(socket)
            .map_err(|source| gone("use the keeper's socket".to_owned(), source))?;
        let version = PROTOCOL_VERSION;
        match client.call(Request::Hello { version }, &[]).await? {
            Reply::Hello { pid, .. } => client
                .shared
                .pid
                .store(pid.unsigned_abs().into(), Ordering::Relaxed),
            other => return Err(unexpected(&other)),
        }
        Ok((client, events))
    }

    fn over(socket: OwnedFd) -> io::Result<(Self, mpsc::UnboundedReceiver<Event>)> {
        let shared = Arc::new(Shared {
            socket: UnixStream::from_std(socket.into())?,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            pid: AtomicU64::new(0),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(read_messages(Arc::clone(&shared), sender));
        Ok((Self { shared }, receiver))
    }

    /// The keeper's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.shared.pid.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Starts a process. `clients` are the keeper's ends of the socket pairs of clients attached from the first byte on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] carries Docker's exit code (127, 126, 125) and the message for the user.
    pub async fn launch(
        &self,
        mut launch: Launch,
        clients: Vec<(OwnedFd, AttachOptions)>,
    ) -> Result<Started, ClientError> {
        launch.attach = clients.iter().map(|(_, options)| *options).collect();
        let fds: Vec<OwnedFd> = clients.into_iter().map(|(fd, _)| fd).collect();
        match self.call(Request::Launch(Box::new(launch)), &fds).await? {
            Reply::Started(started) => Ok(started),
            other => Err(unexpected(&other)),
        }
    }

    /// Attaches a client; `fd` is the keeper's end of its socket pair.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such process.
    pub async fn attach(
        &self,
        id: &str,
        fd: OwnedFd,
        options: AttachOptions,
    ) -> Result<(), ClientError> {
        self.call(
            Request::Attach {
                id: id.to_owned(),
                options,
            },
            &[fd],
        )
        .await
        .map(drop)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when there is no such process or it has no terminal.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), ClientError> {
        self.call(
            Request::Resize {
                id: id.to_owned(),
                rows,
                columns,
            },
            &[],
        )
        .await
        .map(drop)
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it does not run.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), ClientError> {
        self.call(
            Request::Signal {
                id: id.to_owned(),
                signal,
            },
            &[],
        )
        .await
        .map(drop)
    }

    /// Everything that runs, and every exit that was not forgotten.
    ///
    /// # Errors
    /// [`ClientError::Gone`].
    pub async fn list(&self) -> Result<Vec<HeldProcess>, ClientError> {
        match self.call(Request::List, &[]).await? {
            Reply::Held(held) => Ok(held),
            other => Err(unexpected(&other)),
        }
    }

    /// Drops the record of a process that has ended. No effect on one that runs or is not known.
    ///
    /// # Errors
    /// [`ClientError::Gone`].
    pub async fn forget(&self, id: &str) -> Result<(), ClientError> {
        self.call(Request::Forget { id: id.to_owned() }, &[])
            .await
            .map(drop)
    }

    async fn call(&self, request: Request, fds: &[OwnedFd]) -> Result<Reply, ClientError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self
                .shared
                .waiting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if waiting.closed {
                return Err(gone(
                    "ask the keeper".to_owned(),
                    io::ErrorKind::NotConnected.into(),
                ));
            }
            waiting.replies.insert(number, sender);
        }
        let call = Call { number, request };
        let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let sent = self
            .shared
            .socket
            .async_io(Interest::WRITABLE, || {
                protocol::send(self.shared.socket.as_fd(), &call, &borrowed)
            })
            .await;
        if let Err(source) = sent {
            self.shared
                .waiting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .replies
                .remove(&number);
            return Err(gone("ask the keeper".to_owned(), source));
        }
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(gone(
                "wait for the keeper's answer".to_owned(),
                io::ErrorKind::ConnectionReset.into(),
            )),
        }
    }
}

async fn read_messages(shared: Arc<Shared>, events: mpsc::UnboundedSender<Event>) {
    loop {
        let received = shared
            .socket
            .async_io(Interest::READABLE, || {
                protocol::receive::<FromKeeper>(shared.socket.as_fd())
            })
            .await;
        match received {
            Ok(Some((FromKeeper::Event(event), _))) => {
                if events.send(event).is_err() {
                    break;
                }
            }
            Ok(Some((FromKeeper::Reply { number, result }, _))) => {
                let mut waiting = shared
                    .waiting
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(sender) = waiting.replies.remove(&number) {
                    let _ = sender.send(result);
                }
            }
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "the connection to the keeper broke");
                break;
            }
        }
    }
    let mut waiting = shared
        .waiting
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    waiting.closed = true;
    waiting.replies.clear();
}

fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&socket, &address(path)?)?;
    Ok(socket)
}

/// The address of a socket whose path may be longer than the 108 bytes of `sun_path`.
pub(super) fn address(path: &Path) -> io::Result<SocketAddrUnix> {
    if path.as_os_str().as_bytes().len() > 107 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} is longer than the 107 bytes a socket's path may have: choose a shorter --exec-root",
                path.display()
            ),
        ));
    }
    Ok(SocketAddrUnix::new(path)?)
}

async fn start(run_dir: &Path, executable: &Path) -> Result<(), ClientError> {
    let log: PathBuf = run_dir.join("keeper.log");
    let attempt = |source| gone(format!("start the keeper {}", executable.display()), source);
    let stderr = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(attempt)?;
    // Containers begin as its clones: what they find behind /proc/self/exe must not be a way to our file (CVE-2019-5736).
    let protected = crate::init::protected_executable(executable).map_err(attempt)?;
    let mut child =
        tokio::process::Command::new(format!("/proc/self/fd/{}", protected.as_raw_fd()))
            .arg0("muster")
            .arg("keeper")
            .arg("--run-dir")
            .arg(run_dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(attempt)?;
    let stdout = child.stdout.take().expect("stdout was piped");
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .await
        .map_err(attempt)?;
    if line == "ready\n" {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().last().unwrap_or("it said nothing").to_owned();
    Err(attempt(io::Error::other(format!(
        "{last} (see {})",
        log.display()
    ))))
}

fn gone(what: String, source: io::Error) -> ClientError {
    ClientError::Gone { what, source }
}

fn unexpected(reply: &Reply) -> ClientError {
    gone(
        "understand the keeper".to_owned(),
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unexpected reply {reply:?}"),
        ),
    )
}
