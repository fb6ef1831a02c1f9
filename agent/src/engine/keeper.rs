//! The engine's connection to the keeper process, made anew if the keeper dies.
//!
//! Must not: know what a process is for. Ids of containers and of execs are the same to the keeper.

use std::os::fd::OwnedFd;
use std::time::Duration;

use agent_runtime::keeper::{
    AttachOptions, Client, ClientError, Event, HeldProcess, Launch, Started,
};
use parking_lot::RwLock;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::EngineOptions;
use crate::error::{Error, Result};

/// Pauses between attempts to replace a keeper that died: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(3);

/// Why a process did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaunchError {
    pub(crate) error: Error,
    /// The exit code Docker gives such a container: 127, 126 or 128.
    pub(crate) exit_code: i32,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Keeper {
    client: RwLock<Client>,
}

/// What the keeper reports.
pub(crate) type KeeperEvents = mpsc::UnboundedReceiver<Event>;

impl Keeper {
    /// Connects to the keeper that runs, or starts one.
    pub(crate) async fn connect(options: &EngineOptions) -> Result<(Self, KeeperEvents)> {
        let (client, events) = reach(options).await?;
        Ok((
            Self {
                client: RwLock::new(client),
            },
            events,
        ))
    }

    /// Replaces a connection that is gone.
    pub(crate) async fn reconnect(&self, options: &EngineOptions) -> Result<KeeperEvents> {
        // A keeper that is just dying still accepts connections and resets them.
        let mut pause = FIRST_PAUSE;
        loop {
            match reach(options).await {
                Ok((client, events)) => {
                    *self.client.write() = client;
                    return Ok(events);
                }
                Err(error) if pause > LAST_PAUSE => return Err(error),
                Err(error) => tracing::warn!(%error, "trying again"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    fn client(&self) -> Client {
        self.client.read().clone()
    }

    /// Starts a process.
    pub(crate) async fn launch(
        &self,
        launch: Launch,
        clients: Vec<(OwnedFd, AttachOptions)>,
    ) -> Result<Started, LaunchError> {
        self.client()
            .launch(launch, clients)
            .await
            .map_err(|error| match error {
                ClientError::Refused(failure) => match failure.exit_code {
                    126 | 127 => LaunchError {
                        error: Error::InvalidParameter(failure.message),
                        exit_code: failure.exit_code,
                    },
                    _ => LaunchError {
                        error: Error::System(failure.message),
                        exit_code: 128,
                    },
                },
                gone => LaunchError {
                    error: failed(gone),
                    exit_code: 128,
                },
            })
    }

    /// Attaches to a process.
    pub(crate) async fn attach(&self, id: &str, fd: OwnedFd, options: AttachOptions) -> Result<()> {
        self.client().attach(id, fd, options).await.map_err(failed)
    }

    /// Sets the size of a terminal.
    pub(crate) async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        self.client()
            .resize(id, rows, columns)
            .await
            .map_err(failed)
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        self.client().signal(id, signal).await.map_err(failed)
    }

    /// Everything it holds.
    pub(crate) async fn list(&self) -> Result<Vec<HeldProcess>> {
        self.client().list().await.map_err(failed)
    }

    /// Drops an exit record.
    pub(crate) async fn forget(&self, id: &str) {
        if let Err(error) = self.client().forget(id).await {
            tracing::warn!(process.id = id, %error, "the keeper did not forget an exit; it is asked again at the next start");
        }
    }
}

async fn reach(options: &EngineOptions) -> Result<(Client, KeeperEvents)> {
    Client::connect_or_start(&options.exec_root, &options.executable)
        .await
        .map_err(failed)
}

fn failed(error: ClientError) -> Error {
    match error {
        ClientError::Refused(failure) => Error::System(failure.message),
        ClientError::Gone { what, source } => Error::System(format!("cannot {what}: {source}")),
    }
}

/// A pair of connected sockets: ours for the client's bytes, the keeper's end to be sent to it.
pub(crate) fn stream_pair() -> Result<(UnixStream, OwnedFd)> {
    let pair = || -> std::io::Result<(UnixStream, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs.into()))
    };
    pair()
        .map_err(|error| Error::system(format!("cannot make a socket pair for attaching: {error}")))
}
