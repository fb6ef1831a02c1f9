//! `/plugins`: there are none, and none can be added.

use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, body};

pub(super) const ROUTES: &[Route] = &[
    get("/plugins", |_| Box::pin(async { Ok(body::ok(&[(); 0])) })),
    get("/plugins/privileges", |_| Box::pin(async { refuse() })),
    get("/plugins/{}/json", |call| Box::pin(absent(call))),
    post("/plugins/pull", |_| Box::pin(async { refuse() })),
    post("/plugins/create", |_| Box::pin(async { refuse() })),
    post("/plugins/{}/enable", |call| Box::pin(absent(call))),
    post("/plugins/{}/disable", |call| Box::pin(absent(call))),
    post("/plugins/{}/push", |call| Box::pin(absent(call))),
    post("/plugins/{}/upgrade", |call| Box::pin(absent(call))),
    post("/plugins/{}/set", |call| Box::pin(absent(call))),
    delete("/plugins/{}", |call| Box::pin(absent(call))),
];

async fn absent(call: Call) -> Outcome {
    Err(HttpError::not_found(format!(
        "plugin {:?} not found",
        call.name
    )))
}

fn refuse() -> Outcome {
    Err(HttpError::not_implemented("plugins are not supported"))
}
