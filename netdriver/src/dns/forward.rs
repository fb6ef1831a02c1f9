//! Questions about names that are not ours go to the upstream servers as they are, and their
//! answers come back as they are: EDNS and DNSSEC records pass through.
//!
//! The socket is opened in the sandbox, so that its routes decide (a VPN in the sandbox keeps its
//! queries), except for servers on the host's own loopback. Servers are asked in their order, as every
//! resolver does (libnetwork `resolver.go`): a later one may not know the names of the first, so it
//! is asked when the earlier ones have failed or were silent for a while.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{Transport, answers_query, rcode};
use crate::Error;
use crate::netns::Netns;

/// Clients ask again after 5 s; an answer after that helps nobody.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a server may be silent before the next one is asked as well.
const TURN: Duration = Duration::from_millis(800);
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
    in_turn(servers, |server| {
        let netns = (!server.on_host).then(|| netns.clone());
        let address = SocketAddr::new(server.address, DNS_PORT);
        let query = query.clone();
        async move {
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
        }
    })
    .await
}

/// The first answer that says something about the name. The next server is asked when one has failed, or has been silent
/// for its [`TURN`]; the earlier ones may still answer then. What failing servers said is better than nothing.
async fn in_turn<F>(servers: &[Upstream], ask: impl Fn(Upstream) -> F) -> Option<Vec<u8>>
where
    F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
{
    let deadline = Instant::now() + PATIENCE;
    let mut asked = JoinSet::new();
    let mut waiting = servers.iter().take(SERVERS_MAX).peekable();
    let mut second_best = None;
    loop {
        if let Some(server) = waiting.next() {
            asked.spawn(ask(*server));
        } else if asked.is_empty() {
            return second_best;
        }
        let turn = match waiting.peek() {
            Some(_) => Instant::now() + TURN,
            None => deadline,
        };
        match timeout_at(turn.min(deadline), asked.join_next()).await {
            Ok(Some(Ok(Ok(response)))) => {
                if matches!(rcode(&response), RCODE_NOERROR | RCODE_NXDOMAIN) {
                    return Some(response);
                }
                second_best.get_or_insert(response);
            }
            Ok(_) => {}
            Err(_) if Instant::now() >= deadline => return second_best,
            Err(_) => {}
        }
    }
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
    loop {
        socket.send(query).await?;
        let resend_at = Instant::now() + RESEND;
        // Datagrams that do not answer the query are somebody's guess.
        while let Ok(ready) = timeout_at(resend_at, socket.readable()).await {
            ready?;
            // Only now: hundreds of queries may wait at a time.
            let mut response = Vec::with_capacity(usize::from(u16::MAX));
            match socket.try_recv_buf(&mut response) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if answers_query(query, &response) {
                response.shrink_to_fit();
                return Ok(response);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SERVFAIL: u8 = 2;
    const REFUSED: u8 = 5;
    /// Does not answer.
    const SILENT: Option<u8> = None;

    /// Servers by (milliseconds, response code), and the one whose answer is taken.
    #[tokio::test]
    async fn servers_are_asked_in_their_order() {
        const NAME: Option<u8> = Some(RCODE_NOERROR);
        const NONE: Option<u8> = Some(RCODE_NXDOMAIN);
        type Case<'a> = (&'a [(u64, Option<u8>)], Option<u8>);
        let cases: &[Case<'static>] = &[
            // The second one knows nothing of the first one's names, however fast it is.
            (&[(30, NAME), (0, NONE)], Some(0)),
            (&[(30, NONE), (0, NAME)], Some(0)),
            (&[(400, NAME), (0, NONE)], Some(0)),
            // Failing is no answer.
            (&[(10, Some(SERVFAIL)), (0, NAME)], Some(1)),
            (&[(10, Some(REFUSED)), (0, NONE)], Some(1)),
            (&[(10, Some(SERVFAIL)), (0, SILENT)], Some(0)),
            (&[(10, Some(SERVFAIL)), (0, Some(REFUSED))], Some(0)),
            // A silent one has had its turn; it may still be first.
            (&[(0, SILENT), (0, NAME)], Some(1)),
            (&[(0, SILENT), (0, SILENT), (0, NONE)], Some(2)),
            (&[(0, SILENT), (0, SILENT), (0, SILENT), (0, NAME)], None),
            (&[(1000, NAME), (2000, NONE)], Some(0)),
            (&[(0, SILENT), (0, Some(SERVFAIL)), (0, NAME)], Some(2)),
            (&[], None),
        ];
        let mut all = JoinSet::new();
        for (servers, winner) in cases {
            let servers = servers.to_vec();
            all.spawn(async move { (answer(&servers).await, *winner, servers) });
        }
        while let Some(case) = all.join_next().await {
            let (answer, winner, servers) = case.unwrap();
            assert_eq!(answer, winner, "{servers:?}");
        }
    }

    /// Which server's answer is taken.
    async fn answer(behaviour: &[(u64, Option<u8>)]) -> Option<u8> {
        let servers: Vec<Upstream> = (0..behaviour.len())
            .map(|index| Upstream {
                address: [127, 0, 0, u8::try_from(index).unwrap()].into(),
                on_host: true,
            })
            .collect();
        let ask = |server: Upstream| {
            let IpAddr::V4(address) = server.address else {
                unreachable!()
            };
            let index = address.octets()[3];
            let (delay, rcode) = behaviour[usize::from(index)];
            async move {
                let Some(rcode) = rcode else {
                    return std::future::pending().await;
                };
                tokio::time::sleep(Duration::from_millis(delay)).await;
                let mut response = vec![index; 12];
                response[3] = rcode;
                Ok(response)
            }
        };
        in_turn(&servers, ask).await.map(|response| response[0])
    }
}
