//! The Docker Engine API on a unix socket.
//!
//! ```text
//! server  accept, headers every reply has
//!    │      └─ connection: HTTP/1.1, one task each
//!    │            └─ hijack: attach and exec take the connection away from HTTP and copy bytes
//!    ▼
//! router  method + path → handler, API version, name
//!    ▼
//! containers · images · networks · system · services · nodes · …     one file per resource:
//!         query and body → Engine or Swarm → reply; differences between API versions are settled here
//! error   class of an error → status, here and nowhere else
//! ```
//!
//! Decides nothing about containers and keeps no state. The only module that knows API versions.
//!
//! Source: moby `api/server/**` (v28.5), compared reply by reply with the running daemon.

mod archive;
mod body;
mod build;
mod changes;
mod cluster_logs;
mod cluster_networks;
mod compat;
mod configs;
mod connection;
mod containers;
mod error;
mod events;
mod exec;
mod hijack;
mod image_copy;
mod images;
mod logs;
mod networks;
mod nodes;
mod plugins;
mod query;
mod registry;
mod request;
mod router;
mod secrets;
mod server;
mod services;
mod stats;
mod swarm;
mod system;
mod tasks;
mod volumes;

use std::future::Future;

use http::HeaderMap;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::builder::Builder;
use crate::engine::Engine;
use crate::swarm::Swarm;

pub use server::Server;

use body::Reply;
use error::HttpError;
use hijack::Takeover;
use query::Query;
use router::{ApiVersion, Route};

/// What a handler answers.
type Outcome = Result<Reply, HttpError>;

/// One request on its way to its handler.
struct Call {
    engine: Engine,
    builder: Builder,
    swarm: Swarm,
    version: ApiVersion,
    /// What `{}` in the route's pattern stood for.
    name: String,
    query: Query,
    headers: HeaderMap,
    body: Incoming,
    /// Takes the connection away from HTTP.
    takeover: Takeover,
    /// Cancelled when the daemon stops: streams without an end of their own end then.
    closing: CancellationToken,
    /// Requests that are still there are cut off.
    cut_off: CancellationToken,
}

/// All endpoints; fixed paths come before patterns that would match them.
fn routes() -> impl Iterator<Item = &'static Route> {
    [
        archive::ROUTES,
        containers::ROUTES,
        exec::ROUTES,
        logs::ROUTES,
        stats::ROUTES,
        events::ROUTES,
        image_copy::ROUTES,
        images::ROUTES,
        networks::ROUTES,
        volumes::ROUTES,
        system::ROUTES,
        registry::ROUTES,
        build::ROUTES,
        swarm::ROUTES,
        nodes::ROUTES,
        services::ROUTES,
        tasks::ROUTES,
        secrets::ROUTES,
        configs::ROUTES,
        plugins::ROUTES,
    ]
    .into_iter()
    .flatten()
}

/// Does the work to its end even when the client leaves in the middle: dropping a request must not leave half a change.
async fn to_the_end<T, W>(work: W) -> Result<T, HttpError>
where
    T: Send + 'static,
    W: Future<Output = crate::error::Result<T>> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(failure) => Err(HttpError::internal(format!(
            "the request was not finished: {failure}"
        ))),
    }
}
