//! `/build`: images out of Dockerfiles.
//!
//! Two ways lead to the same builder: Docker's classic one, a tar in and lines of JSON out, and muster's own, which the
//! connection is upgraded to. `/session` and `/grpc` are BuildKit's, which only its own clients speak; what replaces them
//! is muster as `docker-buildx`.
//!
//! Source: moby `daemon/server/router/build/build_routes.go`.

mod classic;
mod framed;

use agent_api::Filters;
use http::header::UPGRADE;
use jiff::Timestamp;
use serde_json::json;

use super::error::HttpError;
use super::router::{Route, post};
use super::{Call, Outcome, body, to_the_end};
use crate::builder::PruneOptions;
use crate::engine::blocking;
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    post("/build", |call| Box::pin(build(call))),
    post("/build/cancel", |call| Box::pin(cancel(call))),
    post("/build/prune", |call| Box::pin(prune(call))),
    post("/session", |_| Box::pin(async { refuse("/session") })),
    post("/grpc", |_| Box::pin(async { refuse("/grpc") })),
];

async fn build(call: Call) -> Outcome {
    let protocol = agent_api::build::BUILD_PROTOCOL;
    let asked = call
        .headers
        .get(UPGRADE)
        .and_then(|value| value.to_str().ok());
    match asked {
        Some(asked) if asked.eq_ignore_ascii_case(protocol) => framed::build(call).await,
        _ => classic::build(call).await,
    }
}

async fn cancel(call: Call) -> Outcome {
    let id = call.query.text("id");
    if id.is_empty() {
        return Err(HttpError::bad_request("build ID not provided"));
    }
    call.builder.cancel(id);
    Ok(body::empty(http::StatusCode::OK))
}

/// The filters of a prune.
const FILTERS: [&str; 9] = [
    "description",
    "id",
    "inuse",
    "parent",
    "private",
    "shared",
    "type",
    "until",
    "unused-for",
];

async fn prune(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    filters.allow(&FILTERS).map_err(Error::from)?;
    let bytes = |name: &str| match call.query.optional(name) {
        None => Ok(0),
        Some(text) => text.parse::<u64>().map_err(|_| {
            HttpError::bad_request(format!(
                "{name} is in bytes and expects an integer, got {text}"
            ))
        }),
    };
    let before = call.version.before(48);
    let options = PruneOptions {
        all: call.query.flag("all"),
        until: until(&filters)?,
        reserved_space: match bytes("reserved-space")? {
            0 => bytes("keep-storage")?,
            _ if before => bytes("keep-storage")?,
            reserved => reserved,
        },
        max_used_space: if before { 0 } else { bytes("max-used-space")? },
        min_free_space: if before { 0 } else { bytes("min-free-space")? },
        filters,
    };
    let builder = call.builder;
    let pruned = to_the_end(async move { blocking(move || builder.prune(&options)).await });
    let (removed, reclaimed) = pruned.await?;
    let removed = Some(removed).filter(|removed| !removed.is_empty());
    Ok(body::ok(
        &json!({ "CachesDeleted": removed, "SpaceReclaimed": reclaimed }),
    ))
}

/// The point in time that `until`, or its old name `unused-for`, means.
fn until(filters: &Filters) -> Result<Option<Timestamp>, HttpError> {
    let given = |name: &str| filters.get(name).map(str::to_owned).collect::<Vec<_>>();
    let (until, unused_for) = (given("until"), given("unused-for"));
    if !until.is_empty() && !unused_for.is_empty() {
        return Err(HttpError::bad_request(
            "conflicting filters: \"until\" and \"unused-for\"",
        ));
    }
    match [until, unused_for].concat().as_slice() {
        [] => Ok(None),
        [one] => Ok(crate::engine::until(&Filters::new().with("until", one))?),
        _ => Err(HttpError::bad_request("filters expect only one value")),
    }
}

fn refuse(what: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is BuildKit's own protocol, which this daemon does not speak: link the muster executable as \
         ~/.docker/cli-plugins/docker-buildx, and docker build and docker compose build work; or set DOCKER_BUILDKIT=0"
    )))
}
