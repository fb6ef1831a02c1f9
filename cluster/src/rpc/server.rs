//! The one listener of a node in a cluster.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_api::swarm::NodeRole;
use futures_util::future::{Either, Ready, ready};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::connection::{self, Peer};
use super::{NodeTls, PeerIdentity, Refusal, SharedBackends, Standing, access, limits, service};

/// How long calls under way may take to end when the server stops.
const GRACE: Duration = Duration::from_millis(300);
/// Handshakes that are done and wait to be served.
const READY: usize = 32;

/// A running listener. Dropping it closes everything at once.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    kill: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    /// Serves on a bound socket until [`Self::stop`]. Must be called within a Tokio runtime.
    pub fn start(
        listener: TcpListener,
        tls: Arc<NodeTls>,
        backends: Arc<SharedBackends>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (sender, receiver) = mpsc::channel(READY);
        let accepting = tokio::spawn(connection::accept(
            listener,
            tls,
            sender,
            stop.clone(),
            kill.clone(),
        ));
        let incoming = futures_util::stream::unfold(receiver, async |mut receiver| {
            let connection = receiver.recv().await?;
            Some((connection, receiver))
        });
        let router = tonic::transport::Server::builder()
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(limits::SERVER_KEEPALIVE))
            .http2_keepalive_timeout(Some(limits::SERVER_KEEPALIVE_ANSWER))
            .max_concurrent_streams(limits::CALLS_PER_CONNECTION)
            .layer(Guard(backends.clone()))
            .add_routes(service::routes(&backends));
        let stopping = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            if let Err(error) = router
                .serve_with_incoming_shutdown(incoming, stopping)
                .await
            {
                tracing::error!(%error, "the listener of the cluster ended");
            }
            accepting.abort();
        });
        Ok(Self {
            address,
            stop,
            kill,
            serving,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, gives calls under way a moment, then closes every connection.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(GRACE, &mut self.serving)
            .await
            .is_err()
        {
            self.kill.cancel();
            // Connections see it at once; what is left to wait for is their tasks' end.
            let _ = tokio::time::timeout(GRACE, &mut self.serving).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

/// Lets through what [`access`] allows, and tells the service who asks.
#[derive(Clone)]
struct Guard(Arc<SharedBackends>);

impl<S> tower::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            backends: self.0.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
struct Guarded<S> {
    backends: Arc<SharedBackends>,
    inner: S,
}

type Answer = http::Response<Body>;

impl<S> tower::Service<http::Request<Body>> for Guarded<S>
where
    S: tower::Service<http::Request<Body>, Response = Answer, Error = Infallible>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Answer, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        match admit(peer, request.uri().path(), &self.backends) {
            Ok(Some(identity)) => {
                request.extensions_mut().insert(identity);
                Either::Left(self.inner.call(request))
            }
            Ok(None) => Either::Left(self.inner.call(request)),
            Err(refusal) => {
                let status = tonic::Status::from(refusal);
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

/// Who may call `path`, with the role that counts: the lower of the certificate's and the cluster's state.
fn admit(
    peer: Option<&Peer>,
    path: &str,
    backends: &SharedBackends,
) -> Result<Option<PeerIdentity>, Refusal> {
    let address = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
    let mut identity = peer.and_then(|peer| peer.identity.as_deref()).cloned();
    if let (Some(identity), Some(roster)) = (&mut identity, &backends.get().roster) {
        match roster.standing(&identity.node_id) {
            Standing::Unknown => {}
            Standing::Member(role) => identity.role = identity.role.min(role),
            standing @ (Standing::Removed | Standing::Stranger) => {
                tracing::info!(
                    node.id = identity.node_id,
                    peer.address = address,
                    ?standing,
                    "node refused"
                );
                let is_out = if standing == Standing::Removed {
                    "was removed from the swarm"
                } else {
                    "is not in the swarm (any more)"
                };
                return Err(Refusal::Forbidden(format!(
                    "node {} {is_out}: leave it with `swarm leave --force`",
                    identity.node_id
                )));
            }
        }
    }
    if access::allows(path, identity.as_ref().map(|identity| identity.role)) {
        return Ok(identity);
    }
    tracing::info!(
        node.id = identity.as_ref().map(|identity| identity.node_id.as_str()),
        peer.address = address,
        path,
        "call refused"
    );
    Err(match identity {
        None => Refusal::Unauthenticated(format!("{path} needs a certificate of this swarm")),
        Some(PeerIdentity { node_id, role, .. }) => {
            let role = match role {
                NodeRole::Manager => "manager",
                NodeRole::Worker => "worker",
            };
            Refusal::Forbidden(format!("{role} {node_id} may not call {path}"))
        }
    })
}
