//! Relays TCP connections that the packet filter cannot translate: those from IPv6 to a container
//! without an IPv6 address, and those to `::1`, whose source address cannot leave the host. A task
//! in this process, never a process per port.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections one published port relays at the same time; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 1024;

/// How long a container may take to accept: it is on this host.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A peer that is silent for this long is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long what was sent may go without being acknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

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
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(target))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match connected {
        Ok(mut server) => {
            // Its place is one of few, and a peer may vanish without a word.
            for side in [&client, &server] {
                if let Err(error) = expect_signs_of_life(side) {
                    tracing::debug!(%target, %error, "a relayed connection may outlive its peer");
                }
            }
            // A connection that breaks has been told so by its sockets.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => {
            tracing::debug!(%target, %error, "relay of a published port could not connect")
        }
    }
}

fn expect_signs_of_life(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    let limit = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).expect("a minute");
    sockopt::set_tcp_user_timeout(&socket, limit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn both_sides_of_a_relay_are_asked_whether_they_live() {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(front.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, front.accept());
        let accepted = accepted.unwrap().0;
        let looked_at = rustix::io::dup(accepted.as_fd()).unwrap();
        tokio::spawn(relay(accepted, target.local_addr().unwrap()));
        let (mut container, _) = target.accept().await.unwrap();
        // Keepalive is set before anything is relayed.
        client.unwrap().write_all(b"x").await.unwrap();
        assert_eq!(container.read_u8().await.unwrap(), b'x');
        assert!(sockopt::socket_keepalive(&looked_at).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&looked_at).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_user_timeout(&looked_at).unwrap(), 60_000);
    }
}
