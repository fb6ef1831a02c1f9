//! A client of the Engine API over a unix socket.
//!
//! [`Client`] is cheap to clone; clones share the connections that are idle. The API version is agreed on by `_ping`
//! before the first request. Nothing here retries a request that may have reached the daemon, and nothing here decides:
//! each method is one request. Streams end when they are dropped, which closes their connection.
//!
//! ```text
//! mod.rs      Client, version negotiation        request.rs  paths and queries
//! transport   connections, pool, upgrade         stream.rs   JSON streams, output frames
//! hijack.rs   attach, exec and other upgrades        containers, exec, images, networks, volumes, system,
//!                                                swarm, services, payloads: one per resource
//! ```
//! Source: the Engine API reference v1.51 and moby `client/`.

mod archive;
pub mod build;
mod containers;
pub mod credentials;
mod dial;
mod error;
mod exec;
mod hijack;
mod host;
mod image_copy;
mod images;
mod networks;
mod payloads;
mod registry;
mod request;
mod services;
mod stream;
mod swarm;
mod system;
mod transport;
mod volumes;
mod whole_file;

pub use archive::{CommitOptions, UploadOptions};
pub use containers::{
    AttachOptions, Follow, ListContainersOptions, LogsOptions, Outcome, RemoveContainerOptions,
    StopOptions, Wait, WaitCondition,
};
pub use dial::{RawConnection, Stream};
pub use error::{ClientError, Result};
pub use hijack::{Hijacked, HijackedInput};
pub use host::{DEFAULT_HOST, Host};
pub use image_copy::{BlobSize, COPY_PROTOCOL, CopyEvent, CopyMessage, ImageOffer};
pub use images::{ImportOptions, ListImagesOptions, RemoveImageOptions};
pub use registry::LoginReply;
pub use services::{LogsOf, RegistryAuth, UpdateKind};
pub use stream::{ByteStream, JsonStream, OutputChunk, OutputStream};
pub use swarm::Rotate;
pub use system::{EventsOptions, ObjectKind, Ping};
pub use whole_file::WholeFile;

use crate::{API_VERSION, ErrorResponse};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use request::Query;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::OnceCell;
use transport::{Body, Transport};

/// The oldest API this client speaks: 1.44 takes every network of a container in its create request.
pub const CLIENT_MIN_API_VERSION: (u16, u16) = (1, 44);
/// Largest reply that is read into memory, bytes.
const MAX_REPLY: usize = 256 << 20;

/// One daemon, by its address.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Transport,
    /// Filled by the first `_ping`.
    version: OnceCell<(u16, u16)>,
}

impl Client {
    /// A client of the daemon at `host` (`unix:///path`). No connection is made yet.
    ///
    /// # Errors
    /// [`ClientError::Host`] when the address is malformed or of a kind that is not supported.
    pub fn new(host: &str) -> Result<Self> {
        Ok(Self::at(Host::parse(host)?))
    }

    /// A client of the daemon at a parsed address.
    #[must_use]
    pub fn at(host: Host) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport: Transport::new(host),
                version: OnceCell::new(),
            }),
        }
    }

    /// The daemon's address.
    #[must_use]
    pub fn host(&self) -> &Host {
        self.inner.transport.host()
    }

    /// The API version both sides speak; asks the daemon the first time.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] without a daemon, [`ClientError::TooOld`] below [`CLIENT_MIN_API_VERSION`].
    pub async fn api_version(&self) -> Result<(u16, u16)> {
        self.inner
            .version
            .get_or_try_init(|| async {
                let ping = self.ping().await?;
                let version = ping.api_version.min(API_VERSION);
                if version < CLIENT_MIN_API_VERSION {
                    return Err(ClientError::TooOld {
                        host: self.host().to_string(),
                        version,
                    });
                }
                Ok(version)
            })
            .await
            .copied()
    }

    /// Builds a request below the negotiated version.
    async fn request(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body,
    ) -> Result<Request<Body>> {
        let (major, minor) = self.api_version().await?;
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("/v{major}.{minor}{path}{query}"))
            .header(http::header::HOST, "localhost")
            .header(
                http::header::USER_AGENT,
                concat!("muster/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(length) = hyper::body::Body::size_hint(&body).exact() {
            builder = builder.header(http::header::CONTENT_LENGTH, length);
        }
        builder.body(body).map_err(|source| ClientError::Request {
            path: path.to_owned(),
            source,
        })
    }

    /// Sends a request and turns every error status into an error.
    async fn send(&self, request: Request<Body>) -> Result<transport::Exchange> {
        let exchange = self.inner.transport.send(request).await?;
        let status = exchange.response.status();
        if status.is_client_error() || status.is_server_error() {
            let message = self.inner.transport.collect(exchange, MAX_REPLY).await?;
            return Err(api_error(status, &message));
        }
        Ok(exchange)
    }

    /// Sends, reads the whole reply, and gives the connection back.
    async fn fetch(&self, request: Request<Body>) -> Result<(StatusCode, Bytes)> {
        let exchange = self.send(request).await?;
        let status = exchange.response.status();
        Ok((
            status,
            self.inner.transport.collect(exchange, MAX_REPLY).await?,
        ))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &Query) -> Result<T> {
        let (_, reply) = self
            .fetch(self.request(Method::GET, path, query, empty()).await?)
            .await?;
        decode(path, &reply)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Query,
        body: &impl Serialize,
    ) -> Result<T> {
        let (_, reply) = self
            .fetch(self.json_request(Method::POST, path, query, body).await?)
            .await?;
        decode(path, &reply)
    }

    /// A request with a JSON body whose reply has no content.
    async fn post_unit(&self, path: &str, query: &Query, body: &impl Serialize) -> Result<()> {
        self.fetch(self.json_request(Method::POST, path, query, body).await?)
            .await
            .map(drop)
    }

    /// A request without a body whose reply has no content; tells whether it changed anything (304 is "no").
    async fn act(&self, method: Method, path: &str, query: &Query) -> Result<Outcome> {
        let (status, _) = self
            .fetch(self.request(method, path, query, empty()).await?)
            .await?;
        Ok(if status == StatusCode::NOT_MODIFIED {
            Outcome::AlreadyThere
        } else {
            Outcome::Done
        })
    }

    async fn json_request(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: &impl Serialize,
    ) -> Result<Request<Body>> {
        let bytes = serde_json::to_vec(body).expect("API types serialise");
        let mut request = self.request(method, path, query, full(bytes)).await?;
        request.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        Ok(request)
    }

    /// Starts a request whose reply is a stream.
    async fn stream(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        Ok(self.send(request).await?.response)
    }
}

/// The daemon's `{"message": …}`, or the text as it came.
fn api_error(status: StatusCode, body: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<ErrorResponse>(body) {
        Ok(reply) => reply.message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let message = if message.is_empty() {
        format!("the daemon answered {status} without a reason")
    } else {
        message
    };
    ClientError::Api {
        status: status.as_u16(),
        message,
    }
}

fn decode<T: DeserializeOwned>(path: &str, reply: &[u8]) -> Result<T> {
    serde_json::from_slice(reply).map_err(|source| ClientError::Decode {
        path: path.to_owned(),
        source,
    })
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[cfg(test)]
mod tests;
