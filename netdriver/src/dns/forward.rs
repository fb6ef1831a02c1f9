//! Questions about names that are not ours go to the upstream servers as they are, and their
//! answers come back as they are: EDNS and DNSSEC records pass through.
//!
//! The socket is opened in the sandbox, so that its routes decide (a VPN in the sandbox keeps its
//! queries), except for servers on the host's own loopback. All servers are asked at once; the
//! first good answer wins.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::message::{Transport, answers_query, rcode};
use crate::Error;
use crate::netns::Netns;

/// Clients ask again after 5 s; an answer after that helps nobody.
const PATIENCE: Duration = Duration::from_secs(4);
/// When a datagram is sent a second time.
const RESEND: Duration = Duration::from_millis(1500);
/// How many servers are asked; resolvers take no more from resolv.conf either.
pub(super) const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

const RCODE_NOERROR: u8 = 0;
const RCODE_NXDOMAIN: u8 = 3;

/// An upstream server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) address: IpAddr,
    /// The address means the host's loopback, not the sandbox's.
    pub(crate) on_host: bool,
}

/// Asks the servers. `None` when none answers in time.
pub(super) async fn forward(
    netns: &Arc<Netns>,
    servers: &[Upstream],
    query: Arc<[u8]>,
    transport: Transport,
) -> Option<Vec<u8>> {
    let mut race = JoinSet::new();
    for server in servers.iter().take(SERVERS_MAX) {
        let netns = (!server.on_host).then(|| netns.clone());
        let address = SocketAddr::new(server.address, DNS_PORT);
        let query = query.clone();
        race.spawn(async move {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(netns, address, &query).await,
                    Transport::Tcp => ask_tcp(netns, address, &query).await,
                }
            };
            let result = timeout(PATIENCE, asked)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            result.inspect_err(
                |error| tracing::debug!(%address, %error, "upstream DNS server did not answer"),
            )
        });
    }
    let mut second_best = None;
    while let Some(finished) = race.join_next().await {
        if let Ok(Ok(response)) = finished {
            if matches!(rcode(&response), RCODE_NOERROR | RCODE_NXDOMAIN) {
                return Some(response);
            }
            second_best = Some(response);
        }
    }
    second_best
}

async fn ask_udp(
    netns: Option<Arc<Netns>>,
    server: SocketAddr,
    query: &[u8],
) -> io::Result<Vec<u8>> {
    let socket = open(netns, move || {
        let any: IpAddr = if server.is_ipv4() {
            [0; 4].into()
        } else {
            [0u16; 8].into()
        };
        let socket = StdUdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
    .await?;
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.send(query).await?;
        let resend_at = tokio::time::Instant::now() + RESEND;
        // Datagrams that do not answer the query are somebody's guess.
        while let Ok(length) = timeout_at(resend_at, socket.recv(&mut buffer)).await {
            let response = &buffer[..length?];
            if answers_query(query, response) {
                return Ok(response.to_vec());
            }
        }
    }
}

async fn ask_tcp(
    netns: Option<Arc<Netns>>,
    server: SocketAddr,
    query: &[u8],
) -> io::Result<Vec<u8>> {
    let socket = open(netns, move || {
        let family = if server.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(std::net::TcpStream::from(socket_with(
            family,
            SocketType::STREAM,
            flags,
            None,
        )?))
    })
    .await?;
    let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream
        .write_all(&[&length.to_be_bytes(), query].concat())
        .await?;
    let mut response = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut response).await?;
    if answers_query(query, &response) {
        Ok(response)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Opens a socket in the namespace, or in this process's own.
async fn open<T: Send + 'static>(
    netns: Option<Arc<Netns>>,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(netns) = netns else { return make() };
    let entered = tokio::task::spawn_blocking(move || {
        netns.enter(|| make().map_err(Error::kernel("open a socket for DNS in a sandbox")))
    });
    entered
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}
