//! Accepting: TCP, then the TLS handshake, then a connection that knows who is on the other end. All of it bounded: an
//! open port is an invitation.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{NodeTls, PeerIdentity, limits};
use crate::ca::NodeCertificate;

/// How long to wait when the kernel cannot give another socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is on the other end of a connection, before anything is asked.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// None without a certificate.
    pub(super) identity: Option<Arc<PeerIdentity>>,
}

/// A connection whose handshake is done.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Ready when the connection must end.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// Accepts until told to stop, and sends what is ready to `ready`.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<NodeTls>,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
    kill: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let strangers = Arc::new(Semaphore::new(limits::ANONYMOUS_CONNECTIONS));
    let mut handshakes = JoinSet::new();
    let callers = Callers::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = handshakes.join_next(), if !handshakes.is_empty() => continue,
            accepted = listener.accept(), if handshakes.len() < limits::HANDSHAKES => accepted,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the cluster");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(caller) = callers.admit(address.ip()) else {
            tracing::debug!(peer.address = %address, "too many handshakes with this host: refused");
            continue;
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!(peer.address = %address, "too many connections of the cluster: refused");
            continue;
        };
        let (tls, strangers) = (tls.clone(), strangers.clone());
        let (ready, kill) = (ready.clone(), kill.clone());
        handshakes.spawn(async move {
            let _caller = caller;
            let handshake = handshake(socket, address, &tls, permit, &strangers, kill);
            match tokio::time::timeout(limits::HANDSHAKE, handshake).await {
                // Nobody listens any more when this fails.
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    tracing::debug!(peer.address = %address, %error, "handshake failed");
                }
                Err(_) => tracing::debug!(peer.address = %address, "handshake took too long"),
            }
        });
    }
}

/// Handshakes under way by remote host.
#[derive(Clone, Default)]
struct Callers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct Caller {
    callers: Callers,
    host: IpAddr,
}

impl Callers {
    /// `None` when this host has as many as it may have.
    fn admit(&self, address: IpAddr) -> Option<Caller> {
        let host = host(address);
        let mut counts = self.0.lock();
        let count = counts.entry(host).or_default();
        if *count >= limits::HANDSHAKES_PER_HOST {
            return None;
        }
        *count += 1;
        Some(Caller {
            callers: self.clone(),
            host,
        })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut counts = self.callers.0.lock();
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

/// What stands for a remote host: of IPv6 the network, since it may take any address there.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

async fn handshake(
    socket: TcpStream,
    address: SocketAddr,
    tls: &NodeTls,
    permit: OwnedSemaphorePermit,
    strangers: &Arc<Semaphore>,
    kill: CancellationToken,
) -> io::Result<Connection> {
    socket.set_nodelay(true)?;
    let stream = TlsAcceptor::from(tls.server()).accept(socket).await?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::other("the client does not speak HTTP/2"));
    }
    let identity = match session.peer_certificates() {
        Some([certificate, ..]) => {
            let certificate = NodeCertificate::from_der(certificate).map_err(io::Error::other)?;
            Some(Arc::new(PeerIdentity::new(&certificate, address)))
        }
        _ => None,
    };
    let stranger = match identity {
        Some(_) => None,
        None => Some(
            strangers
                .clone()
                .try_acquire_owned()
                .map_err(|_| io::Error::other("too many clients without a certificate"))?,
        ),
    };
    let life = stranger.is_some().then_some(limits::ANONYMOUS_LIFE);
    Ok(Connection {
        stream,
        peer: Peer { address, identity },
        end: Box::pin(end(kill, life)),
        _permits: (permit, stranger),
    })
}

async fn end(kill: CancellationToken, life: Option<Duration>) {
    match life {
        Some(life) => {
            // Either way it is over.
            let _ = tokio::time::timeout(life, kill.cancelled()).await;
        }
        None => kill.cancelled().await,
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            // A completed future must not be polled again.
            self.end = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_says_nothing_keeps_no_other_out() {
        let callers = Callers::default();
        let rude: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let mut under_way: Vec<_> = (0..limits::HANDSHAKES_PER_HOST)
            .map(|_| callers.admit(rude).unwrap())
            .collect();
        assert!(callers.admit("192.0.2.1".parse().unwrap()).is_none());
        let other = callers.admit("192.0.2.2".parse().unwrap());
        assert!(other.is_some());
        under_way.pop();
        assert!(callers.admit(rude).is_some());

        for number in 0..limits::HANDSHAKES_PER_HOST {
            let address = format!("2001:db8::{number:x}").parse().unwrap();
            under_way.push(callers.admit(address).unwrap());
        }
        assert!(callers.admit("2001:db8::1:1".parse().unwrap()).is_none());
        assert!(callers.admit("2001:db8:1::1".parse().unwrap()).is_some());
        drop((under_way, other));
        assert!(callers.0.lock().is_empty(), "nobody is forgotten");
    }
}
