//! Connections to other nodes, one per node, made when first used, made again when lost, and made anew when this node's
//! certificate was renewed. Who is at the other end is verified each time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use super::tls::{Clock, Expect, NodeTls, stranger};
use super::{Refusal, limits};
use crate::ca::TrustRoot;

/// Only there because HTTP wants one: whom a channel reaches, the connector knows.
const AUTHORITY: &str = "http://node.swarm";
/// Connections kept; of one more, the pool forgets all, and they are made again when used.
const POOL: usize = 4096;

/// The channels of a node.
pub struct Peers {
    tls: Arc<NodeTls>,
    pool: Mutex<BTreeMap<(String, Expect), Pooled>>,
}

struct Pooled {
    generation: u64,
    channel: Channel,
}

impl Peers {
    /// With the identity of this node, whatever it is when a connection is made.
    #[must_use]
    pub fn new(tls: Arc<NodeTls>) -> Arc<Self> {
        Arc::new(Self {
            tls,
            pool: Mutex::default(),
        })
    }

    /// The identity connections are made with.
    #[must_use]
    pub const fn tls(&self) -> &Arc<NodeTls> {
        &self.tls
    }

    /// A channel to `address` (host:port). Connects on first use.
    #[must_use]
    pub fn channel(&self, address: &str, expect: Expect) -> Channel {
        let generation = *self.tls.generation().borrow();
        let mut pool = self.pool.lock();
        if pool.len() >= POOL {
            pool.clear();
        }
        let key = (address.to_owned(), expect);
        match pool.get(&key) {
            Some(pooled) if pooled.generation == generation => pooled.channel.clone(),
            _ => {
                let channel = node_channel(&self.tls, &key.0, &key.1, limits::CONNECT);
                let pooled = Pooled {
                    generation,
                    channel: channel.clone(),
                };
                pool.insert(key, pooled);
                channel
            }
        }
    }

    /// Drops the connections to an address; calls under way keep theirs until they end.
    pub fn forget(&self, address: &str) {
        self.pool.lock().retain(|(known, _), _| known != address);
    }
}

/// A channel of its own, not shared and not pooled. Connecting may take up to `limit`.
pub(super) fn node_channel(
    tls: &Arc<NodeTls>,
    address: &str,
    expect: &Expect,
    limit: Duration,
) -> Channel {
    let (tls, address, expect) = (tls.clone(), address.to_owned(), expect.clone());
    endpoint().connect_with_connector_lazy(tower::service_fn(move |_uri: http::Uri| {
        let (tls, address, expect) = (tls.clone(), address.clone(), expect.clone());
        async move {
            let (config, name) = tls.client(&expect).map_err(io::Error::other)?;
            connect(&address, limit, TlsConnector::from(config), name).await
        }
    }))
}

/// A channel without a certificate, to a manager under `root`, or to anyone.
pub(super) fn stranger_channel(
    address: &str,
    root: Option<&TrustRoot>,
    clock: &Clock,
) -> Result<Channel, super::TlsError> {
    let (config, name) = stranger(root, clock)?;
    let address = address.to_owned();
    Ok(
        endpoint().connect_with_connector_lazy(tower::service_fn(move |_uri: http::Uri| {
            let (config, name, address) = (config.clone(), name.clone(), address.clone());
            async move { connect(&address, limits::CONNECT, TlsConnector::from(config), name).await }
        })),
    )
}

fn endpoint() -> Endpoint {
    Endpoint::from_static(AUTHORITY)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .http2_keep_alive_interval(limits::KEEPALIVE)
        .keep_alive_timeout(limits::KEEPALIVE_ANSWER)
        .keep_alive_while_idle(true)
}

async fn connect(
    address: &str,
    limit: Duration,
    connector: TlsConnector,
    name: rustls_pki_types::ServerName<'static>,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let attempt = async {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        connector.connect(name, socket).await
    };
    let stream = match tokio::time::timeout(limit, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(io::Error::new(
            error.kind(),
            format!("cannot connect to {address}: {error}"),
        )),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("cannot connect to {address} within {limit:?}"),
        )),
    }?;
    Ok(TokioIo::new(stream))
}

/// One question, one answer, in time.
pub(super) async fn ask<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Refusal::TimedOut(format!("no answer within {limit:?}"))),
    }
}

/// A request that tells the server how long its answer is of use.
pub(super) fn request<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}
