//! The socket of an authentication agent in a sandbox: every connection to it becomes one to the client's agent.
//!
//! Must not: look into what is said. Source: buildkit `session/sshforward/ssh.go`.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use agent_build::plan::Ownership;
use tokio::io::DuplexStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::RunError;
use crate::builder::Sessions;
use crate::error::Error;

/// Connections of one socket at the same time; more wait.
const CONNECTIONS: usize = 64;
const SOCKET: &str = "agent";

/// A socket that is served until it is dropped.
pub(super) struct Agent {
    socket: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl Agent {
    /// Makes the socket in a directory of its own. `first` is a connection to the client's agent.
    pub(super) fn listen(
        sessions: &Sessions,
        id: &str,
        first: DuplexStream,
        directory: &Path,
        ownership: Ownership,
    ) -> Result<Self, RunError> {
        let socket = directory.join(SOCKET);
        let listener = bind(directory, ownership).map_err(Error::io("listen on", &socket))?;
        let task = serve(listener, sessions.clone(), id.to_owned(), first);
        Ok(Self {
            socket,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        })
    }

    /// Path of the socket on the host.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The path through a descriptor is short enough for any directory.
fn bind(directory: &Path, ownership: Ownership) -> io::Result<UnixListener> {
    let opened = std::fs::File::open(directory)?;
    let socket = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(SOCKET);
    let listener = UnixListener::bind(&socket)?;
    std::os::unix::fs::lchown(&socket, Some(ownership.uid), Some(ownership.gid))?;
    let mode = std::fs::Permissions::from_mode(ownership.mode & 0o7777);
    std::fs::set_permissions(&socket, mode)?;
    Ok(listener)
}

async fn serve(listener: UnixListener, sessions: Sessions, id: String, first: DuplexStream) {
    let mut first = Some(first);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(forward(stream, first.take(), sessions.clone(), id.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's socket of a step is given up");
                    return;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn forward(
    mut stream: UnixStream,
    opened: Option<DuplexStream>,
    sessions: Sessions,
    id: String,
) {
    let agent = match opened {
        Some(agent) => Some(agent),
        None => sessions.ssh(&id).await.unwrap_or_default(),
    };
    // A client that has left closes the connection.
    let Some(mut agent) = agent else { return };
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut agent).await {
        tracing::debug!(%error, "a connection to an agent broke");
    }
}
