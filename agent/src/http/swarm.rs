//! Endpoints of swarm mode. This node is in no swarm, which is what dockerd outside of one answers, too; making or
//! joining one is refused.

use super::Outcome;
use super::error::HttpError;
use super::router::{Route, delete, get, post};

pub(super) const ROUTES: &[Route] = &[
    post("/swarm/init", |_| {
        Box::pin(async { refuse("making a swarm") })
    }),
    post("/swarm/join", |_| {
        Box::pin(async { refuse("joining a swarm") })
    }),
    post("/swarm/leave", |_| {
        Box::pin(async { Err(HttpError::unavailable("This node is not part of a swarm")) })
    }),
    post("/swarm/update", |_| Box::pin(no_manager())),
    post("/swarm/unlock", |_| Box::pin(no_manager())),
    get("/swarm", |_| Box::pin(no_manager())),
    get("/swarm/unlockkey", |_| Box::pin(no_manager())),
    get("/services", |_| Box::pin(no_manager())),
    get("/services/{}", |_| Box::pin(no_manager())),
    post("/services/create", |_| Box::pin(no_manager())),
    post("/services/{}/update", |_| Box::pin(no_manager())),
    delete("/services/{}", |_| Box::pin(no_manager())),
    get("/nodes", |_| Box::pin(no_manager())),
    get("/nodes/{}", |_| Box::pin(no_manager())),
    post("/nodes/{}/update", |_| Box::pin(no_manager())),
    delete("/nodes/{}", |_| Box::pin(no_manager())),
    get("/tasks", |_| Box::pin(no_manager())),
    get("/tasks/{}", |_| Box::pin(no_manager())),
    get("/secrets", |_| Box::pin(no_manager())),
    get("/secrets/{}", |_| Box::pin(no_manager())),
    post("/secrets/create", |_| Box::pin(no_manager())),
    post("/secrets/{}/update", |_| Box::pin(no_manager())),
    delete("/secrets/{}", |_| Box::pin(no_manager())),
    get("/configs", |_| Box::pin(no_manager())),
    get("/configs/{}", |_| Box::pin(no_manager())),
    post("/configs/create", |_| Box::pin(no_manager())),
    post("/configs/{}/update", |_| Box::pin(no_manager())),
    delete("/configs/{}", |_| Box::pin(no_manager())),
];

fn refuse(what: &str) -> Outcome {
    Err(HttpError::not_implemented(format!(
        "{what} is not supported yet: there is no swarm mode"
    )))
}

async fn no_manager() -> Outcome {
    Err(HttpError::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    ))
}
