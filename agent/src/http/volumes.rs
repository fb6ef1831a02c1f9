//! `/volumes`.

use agent_api::VolumeCreateRequest;
use http::StatusCode;
use serde_json::json;

use super::body;
use super::error::HttpError;
use super::router::{Route, delete, get, post, put};
use super::{Call, Outcome, to_the_end};

pub(super) const ROUTES: &[Route] = &[
    get("/volumes", |call| Box::pin(list(call))),
    post("/volumes/create", |call| Box::pin(create(call))),
    post("/volumes/prune", |call| Box::pin(prune(call))),
    get("/volumes/{}", |call| Box::pin(inspect(call))),
    put("/volumes/{}", |_| Box::pin(update())),
    delete("/volumes/{}", |call| Box::pin(remove(call))),
];

async fn list(call: Call) -> Outcome {
    Ok(body::ok(
        &call.engine.list_volumes(call.query.filters()?).await?,
    ))
}

async fn inspect(call: Call) -> Outcome {
    Ok(body::ok(&call.engine.inspect_volume(&call.name).await?))
}

async fn create(mut call: Call) -> Outcome {
    let request: VolumeCreateRequest = call.json_or_default().await?;
    let engine = call.engine;
    let volume = to_the_end(async move { engine.create_volume(request).await }).await?;
    Ok(body::json(StatusCode::CREATED, &volume))
}

async fn update() -> Outcome {
    Err(HttpError::unavailable(
        "volume update only valid for cluster volumes, but swarm is unavailable",
    ))
}

async fn remove(call: Call) -> Outcome {
    let force = call.query.flag("force");
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.remove_volume(&name, force).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn prune(call: Call) -> Outcome {
    let mut filters = call.query.filters()?;
    // Only anonymous volumes are pruned since API 1.42.
    if call.version.before(42) {
        filters.add("all", "true");
    }
    let engine = call.engine;
    let pruned = to_the_end(async move { engine.prune_volumes(filters).await }).await?;
    // Never null, unlike its siblings.
    let deleted = pruned.volumes_deleted.unwrap_or_default();
    Ok(body::ok(
        &json!({ "VolumesDeleted": deleted, "SpaceReclaimed": pruned.space_reclaimed }),
    ))
}
