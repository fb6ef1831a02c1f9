//! `/tasks`.

use cluster::control::view;

use super::cluster_logs::{self, Source};
use super::router::{Route, get};
use super::{Call, Outcome, body};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/tasks", |call| Box::pin(list(call))),
    get("/tasks/{}/logs", |call| {
        Box::pin(cluster_logs::logs(call, Source::Task))
    }),
    get("/tasks/{}", |call| Box::pin(inspect(call))),
];

async fn list(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    let tasks = call
        .swarm
        .read(move |store, _| view::tasks(store, &filters))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&tasks))
}

async fn inspect(call: Call) -> Outcome {
    let name = call.name;
    let task = call
        .swarm
        .read(move |store, _| view::task(store, &name))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&task))
}
