//! Endpoints of the image builder. Nothing can be built yet; the build cache is truly empty.

use serde_json::json;

use super::error::HttpError;
use super::router::{Route, post};
use super::{Outcome, body};

pub(super) const ROUTES: &[Route] = &[
    post("/build", |_| Box::pin(async { refuse("building images") })),
    post("/build/cancel", |_| {
        Box::pin(async { refuse("building images") })
    }),
    post("/build/prune", |_| {
        Box::pin(async {
            Ok(body::ok(
                &json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }),
            ))
        })
    }),
    post("/session", |_| {
        Box::pin(async { refuse("building images with BuildKit") })
    }),
    post("/grpc", |_| {
        Box::pin(async { refuse("building images with BuildKit") })
    }),
];

fn refuse(what: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is not supported yet: build elsewhere and bring the image here with docker load or docker import"
    )))
}
