//! The server of one sandbox: two sockets opened inside it, one task, which ends with its owner.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::forward::{Upstream, forward};
use super::message::{Reply, Transport, answer, refuse};
use super::zone::{Answer, Zone};
use super::{SERVER_ADDRESS, host_upstreams};
use crate::netns::Netns;

/// Queries of one sandbox that wait for upstream servers, and TCP connections, at the same time.
const PENDING_MAX: usize = 256;
/// Queries of all sandboxes that wait for upstream servers at the same time, as in Docker.
static FORWARDS: Semaphore = Semaphore::const_new(1024);
/// A TCP client that is silent for so long is disconnected.
const TCP_PATIENCE: Duration = Duration::from_secs(10);
/// The largest datagram with a query we read; longer ones are cut and then do not parse.
const QUERY_BYTES: usize = 4096;
/// Datagrams answered before other tasks get their turn.
const BURST: usize = 64;
/// Pause after a socket failed for want of resources.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// What the server of a sandbox knows besides the zone.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    /// Networks whose names the sandbox sees, in its order.
    pub(crate) networks: Vec<String>,
    /// Upstream servers of its own; empty: the host's.
    pub(crate) servers: Vec<IpAddr>,
    /// Whether anything may leave: false when all networks are internal.
    pub(crate) may_forward: bool,
}

/// The sockets, opened inside a sandbox by [`open`].
pub(crate) struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

/// Opens the server's sockets in the calling thread's network namespace and redirects port 53 to
/// them.
pub(crate) fn open() -> io::Result<Sockets> {
    let udp = StdUdpSocket::bind((SERVER_ADDRESS, 0))?;
    let tcp = StdTcpListener::bind((SERVER_ADDRESS, 0))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    crate::firewall::redirect_dns(
        SERVER_ADDRESS,
        udp.local_addr()?.port(),
        tcp.local_addr()?.port(),
    )?;
    Ok(Sockets { udp, tcp })
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    view: Arc<RwLock<View>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts to answer.
    pub(crate) fn start(
        runtime: &tokio::runtime::Handle,
        sockets: Sockets,
        netns: Arc<Netns>,
        zone: Arc<RwLock<Zone>>,
        resolv_conf: Arc<std::path::Path>,
        view: View,
    ) -> io::Result<Server> {
        let _context = runtime.enter();
        let view = Arc::new(RwLock::new(view));
        let shared = Arc::new(Shared {
            zone,
            view: view.clone(),
            netns,
            resolv_conf,
            pending: Semaphore::new(PENDING_MAX),
        });
        let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
        let tcp = TcpListener::from_std(sockets.tcp)?;
        Ok(Server {
            view,
            task: runtime.spawn(serve(shared, udp, tcp)),
        })
    }

    /// Replaces what the server knows.
    pub(crate) fn set_view(&self, view: View) {
        *self.view.write() = view;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    zone: Arc<RwLock<Zone>>,
    view: Arc<RwLock<View>>,
    netns: Arc<Netns>,
    resolv_conf: Arc<std::path::Path>,
    pending: Semaphore,
}

async fn serve(shared: Arc<Shared>, udp: Arc<UdpSocket>, tcp: TcpListener) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tasks.join_next() => {}
            ready = udp.readable() => {
                let served = ready.and_then(|()| drain(&shared, &udp, &mut tasks));
                if let Err(error) = served {
                    tracing::debug!(%error, "DNS socket failed");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
                tokio::task::yield_now().await;
            }
            accepted = tcp.accept(), if tasks.len() < PENDING_MAX => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    tasks.spawn(async move {
                        // A client that hangs up or falls silent has ended its connection; there is
                        // nobody to tell.
                        let _ = converse(shared, stream).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "DNS listener failed");
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }
}

/// Answers the datagrams that are there. Synchronous, so that the buffer is on the thread's stack
/// and not in an idle task.
fn drain(shared: &Arc<Shared>, udp: &Arc<UdpSocket>, tasks: &mut JoinSet<()>) -> io::Result<()> {
    let mut buffer = [0; QUERY_BYTES];
    for _ in 0..BURST {
        let (length, client) = match udp.try_recv_from(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What an earlier answer met: the client is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            received => received?,
        };
        let query = &buffer[..length];
        let reply = match answer(query, Transport::Udp, |name, question| {
            shared.lookup(name, question)
        }) {
            Reply::Send(reply) => reply,
            Reply::Ignore => continue,
            Reply::Forward if tasks.len() >= PENDING_MAX => refuse(query, ResponseCode::ServFail),
            Reply::Forward => {
                tasks.spawn(forward_datagram(
                    shared.clone(),
                    udp.clone(),
                    query.into(),
                    client,
                ));
                continue;
            }
        };
        // A full send buffer loses the answer, as a network would; the client asks again.
        let _ = udp.try_send_to(&reply, client);
    }
    Ok(())
}

async fn forward_datagram(
    shared: Arc<Shared>,
    udp: Arc<UdpSocket>,
    query: Arc<[u8]>,
    client: SocketAddr,
) {
    let reply = shared.forward(query, Transport::Udp).await;
    let _ = udp.send_to(&reply, client).await;
}

async fn converse(shared: Arc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(TCP_PATIENCE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        timeout(TCP_PATIENCE, stream.read_exact(&mut query)).await??;
        let reply = match answer(&query, Transport::Tcp, |name, question| {
            shared.lookup(name, question)
        }) {
            Reply::Send(reply) => reply,
            Reply::Ignore => return Ok(()),
            Reply::Forward => shared.forward(query.into(), Transport::Tcp).await,
        };
        let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        timeout(
            TCP_PATIENCE,
            stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat()),
        )
        .await??;
    }
}

impl Shared {
    fn lookup(&self, name: &str, question: super::zone::Question) -> Answer {
        let mut found = self
            .zone
            .read()
            .lookup(&self.view.read().networks, name, question);
        if let Answer::Addresses(addresses) = &mut found
            && addresses.len() > 1
        {
            // Clients take the first: spread them.
            addresses.shuffle(&mut rand::rng());
        }
        found
    }

    async fn forward(&self, query: Arc<[u8]>, transport: Transport) -> Vec<u8> {
        let failed = |query: &[u8]| refuse(query, ResponseCode::ServFail);
        let View {
            servers,
            may_forward,
            ..
        } = self.view.read().clone();
        let (Ok(_mine), Ok(_all)) = (self.pending.try_acquire(), FORWARDS.try_acquire()) else {
            return failed(&query);
        };
        if !may_forward {
            return failed(&query);
        }
        let upstreams = if servers.is_empty() {
            host_upstreams(&self.resolv_conf)
        } else {
            servers
                .into_iter()
                .map(|address| Upstream {
                    address,
                    on_host: false,
                })
                .collect()
        };
        match forward(&self.netns, &upstreams, query.clone(), transport).await {
            Some(response) => response,
            None => failed(&query),
        }
    }
}
