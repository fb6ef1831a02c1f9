//! Relays TCP connections that the packet filter cannot translate: those from IPv6 to a container
//! without an IPv6 address, and those to `::1`, whose source address cannot leave the host. A task
//! in this process, never a process per port.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections one published port relays at the same time; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 1024;

/// Pause after `accept` failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening port and its task, which ends with it together with all its connections.
pub(crate) struct Relay {
    target: watch::Sender<SocketAddr>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Starts to accept on a listening, non-blocking socket.
    pub(crate) fn start(
        runtime: &Handle,
        listener: OwnedFd,
        target: SocketAddr,
    ) -> io::Result<Relay> {
        let _context = runtime.enter();
        let listener = TcpListener::from_std(StdListener::from(listener))?;
        let (sender, receiver) = watch::channel(target);
        Ok(Relay {
            target: sender,
            task: runtime.spawn(accept(listener, receiver)),
        })
    }

    /// Sends new connections elsewhere.
    pub(crate) fn set_target(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: watch::Receiver<SocketAddr>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, _)) => {
                    let target = *target.borrow();
                    connections.spawn(relay(client, target));
                }
                Err(error) => {
                    tracing::debug!(%error, "relay of a published port could not accept");
                    // Out of descriptors or memory, which others must free: trying again at once
                    // would only burn time.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr) {
    match TcpStream::connect(target).await {
        Ok(mut server) => {
            // A connection that breaks has been told so by its sockets.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => {
            tracing::debug!(%target, %error, "relay of a published port could not connect")
        }
    }
}
