//! `/configs`.

use agent_api::swarm::ConfigSpec;
use cluster::control::{Request, view};
use http::StatusCode;
use serde_json::json;

use super::router::{Route, delete, get, post};
use super::{Call, Outcome, body};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/configs", |call| Box::pin(list(call))),
    post("/configs/create", |call| Box::pin(create(call))),
    get("/configs/{}", |call| Box::pin(inspect(call))),
    delete("/configs/{}", |call| Box::pin(remove(call))),
    post("/configs/{}/update", |call| Box::pin(update(call))),
];

async fn list(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    let configs = call
        .swarm
        .read(move |store, _| view::configs(store, &filters))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&configs))
}

async fn inspect(call: Call) -> Outcome {
    let name = call.name;
    let config = call
        .swarm
        .read(move |store, _| view::config(store, &name))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&config))
}

async fn create(mut call: Call) -> Outcome {
    let spec: ConfigSpec = call.json().await?;
    let id = call.create(Request::ConfigCreate { spec }).await?;
    Ok(body::json(StatusCode::CREATED, &json!({ "ID": id })))
}

async fn update(mut call: Call) -> Outcome {
    let spec: ConfigSpec = call.json().await?;
    let version = call.object_version("config")?;
    let request = Request::ConfigUpdate {
        config: call.name.clone(),
        version,
        spec,
    };
    call.change(request).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn remove(call: Call) -> Outcome {
    let config = call.name.clone();
    call.change(Request::ConfigRemove { config }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}
