//! `/build`: images out of Dockerfiles.
//!
//! Two ways lead to the same builder: Docker's classic one, a tar in and lines of JSON out, and muster's own, which the
//! connection is upgraded to. `/session` and `/grpc` are BuildKit's, which only its own clients speak; what replaces them
//! is muster as `docker-buildx`.
//!
//! Source: moby `daemon/server/router/build/build_routes.go`.

mod classic;
mod framed;

use http::header::UPGRADE;

use super::error::HttpError;
use super::router::{Route, post};
use super::{Call, Outcome, body};

pub(super) const ROUTES: &[Route] = &[
    post("/build", |call| Box::pin(build(call))),
    post("/build/cancel", |call| Box::pin(cancel(call))),
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

fn refuse(what: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is BuildKit's own protocol, which this daemon does not speak: link the muster executable as \
         ~/.docker/cli-plugins/docker-buildx, and docker build and docker compose build work; or set DOCKER_BUILDKIT=0"
    )))
}
