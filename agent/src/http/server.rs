//! Accepts connections and answers requests: the part of HTTP that has nothing to do with any resource.
//!
//! One task per connection (`connection`). Stopping means: accept no more, let replies that have begun come to their
//! end, end streams that have none.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::body::{Body, Reply};
use super::error::HttpError;
use super::hijack::Takeover;
use super::query::Query;
use super::router::{self, ApiVersion, VersionError};
use super::{Call, body, connection, routes};
use crate::builder::Builder;
use crate::engine::Engine;
use crate::swarm::Swarm;

/// Pause after `accept` failed for want of descriptors or memory: those come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the API on any number of sockets.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    builder: Builder,
    swarm: Swarm,
    /// `Muster/<version> (linux)`.
    server_header: HeaderValue,
    closing: CancellationToken,
    /// The patience with requests has ended, too.
    cut_off: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// A server in front of an engine, its builder and the swarm its node is in.
    #[must_use]
    pub fn new(engine: Engine, builder: Builder, swarm: Swarm) -> Self {
        let server_header =
            HeaderValue::from_static(concat!("Muster/", env!("CARGO_PKG_VERSION"), " (linux)"));
        let shared = Shared {
            engine,
            builder,
            swarm,
            server_header,
            closing: CancellationToken::new(),
            cut_off: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Accepts connections on one socket until [`Server::stop`].
    pub async fn serve(&self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.closing.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.adopt(stream),
                Err(failure) => {
                    warn!(error = %failure, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection that somebody else has accepted.
    pub(crate) fn adopt(&self, stream: UnixStream) {
        let shared = Arc::clone(&self.shared);
        let answer = move |request, takeover| {
            let shared = Arc::clone(&shared);
            async move { answer(&shared, takeover, request).await }
        };
        let closing = self.shared.closing.clone();
        self.shared
            .connections
            .spawn(connection::serve(stream, answer, closing));
    }

    /// Stops accepting, ends endless streams and waits for replies that have begun, but no longer than `patience`:
    /// then bodies of requests end in an error. Returns how many connections were left.
    pub async fn stop(&self, patience: Duration) -> usize {
        self.shared.closing.cancel();
        self.shared.connections.close();
        let _ = tokio::time::timeout(patience, self.shared.connections.wait()).await;
        self.shared.cut_off.cancel();
        self.shared.connections.len()
    }
}

/// Answers one request.
async fn answer(shared: &Shared, takeover: Takeover, request: Request<Incoming>) -> Response<Body> {
    let (head, request_body) = request.into_parts();
    if head.method == Method::OPTIONS {
        let mut reply = body::empty(StatusCode::OK);
        add_headers(shared, reply.headers_mut());
        return reply;
    }
    let Some(found) = router::find(routes(), &head.method, head.uri.path()) else {
        return HttpError::page_not_found().into_reply();
    };
    let version = match found.version {
        Ok(version) => version,
        Err(refused) => return refuse_version(shared, refused),
    };
    let call = Call {
        engine: shared.engine.clone(),
        builder: shared.builder.clone(),
        swarm: shared.swarm.clone(),
        version,
        name: found.name,
        query: Query::parse(head.uri.query()),
        headers: head.headers,
        body: request_body,
        takeover,
        closing: shared.closing.clone(),
        cut_off: shared.cut_off.clone(),
    };
    let mut reply = (found.handler)(call).await.unwrap_or_else(|failure| {
        if failure.status.is_server_error() && failure.status != StatusCode::NOT_IMPLEMENTED {
            error!(method = %head.method, path = head.uri.path(), error = failure.message, "request failed");
        } else {
            debug!(method = %head.method, path = head.uri.path(), error = failure.message, "request refused");
        }
        failure.into_reply()
    });
    add_headers(shared, reply.headers_mut());
    reply
}

/// What every routed reply carries.
fn add_headers(shared: &Shared, headers: &mut HeaderMap) {
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    add_version_headers(shared, headers);
}

fn add_version_headers(shared: &Shared, headers: &mut HeaderMap) {
    let version = ApiVersion::NEWEST.to_string();
    headers.insert(
        "Api-Version",
        HeaderValue::from_str(&version).expect("digits and a dot"),
    );
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(SERVER, shared.server_header.clone());
}

/// A client that is too old cannot read JSON errors.
fn refuse_version(shared: &Shared, refused: VersionError) -> Reply {
    let mut reply = match refused {
        VersionError::TooNew(message) => HttpError::bad_request(message).into_reply(),
        VersionError::TooOld(message) => {
            let mut reply = Response::new(Body::Full(Some(format!("{message}\n").into())));
            *reply.status_mut() = StatusCode::BAD_REQUEST;
            let headers = reply.headers_mut();
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            headers.insert(
                "X-Content-Type-Options",
                HeaderValue::from_static("nosniff"),
            );
            reply
        }
    };
    add_version_headers(shared, reply.headers_mut());
    reply
}
