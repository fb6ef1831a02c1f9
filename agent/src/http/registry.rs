//! Endpoints that need a registry: pull, push, search, login, distribution. There is no registry client yet, and each
//! says so together with what works instead.

use super::error::HttpError;
use super::router::{Route, get, post};
use super::{Call, Outcome};

pub(super) const ROUTES: &[Route] = &[
    get("/images/search", |_| {
        Box::pin(async { refuse("searching a registry") })
    }),
    get("/distribution/{}/json", |call| {
        Box::pin(async move { refuse(&format!("asking a registry about {}", call.name)) })
    }),
    post("/images/{}/push", |call| {
        Box::pin(async move { refuse(&format!("pushing {}", call.name)) })
    }),
    post("/auth", |_| {
        Box::pin(async { refuse("logging in to a registry") })
    }),
];

fn refuse(what: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is not supported yet: there is no registry client"
    )))
}

/// Answers `POST /images/create?fromImage=…`.
pub(super) fn pull(call: &Call) -> Outcome {
    let (image, tag) = (call.query.text("fromImage"), call.query.text("tag"));
    let reference = match tag {
        "" => image.to_owned(),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    Err(HttpError::not_implemented(format!(
        "cannot pull {reference}: there is no registry client yet; bring the image here with docker load or docker import"
    )))
}
