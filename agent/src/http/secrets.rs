//! `/secrets`.

use agent_api::swarm::SecretSpec;
use cluster::control::{Request, view};
use http::StatusCode;
use serde_json::json;

use super::router::{Route, delete, get, post};
use super::{Call, Outcome, body};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/secrets", |call| Box::pin(list(call))),
    post("/secrets/create", |call| Box::pin(create(call))),
    get("/secrets/{}", |call| Box::pin(inspect(call))),
    delete("/secrets/{}", |call| Box::pin(remove(call))),
    post("/secrets/{}/update", |call| Box::pin(update(call))),
];

async fn list(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    let secrets = call
        .swarm
        .read(move |store, _| view::secrets(store, &filters))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&secrets))
}

async fn inspect(call: Call) -> Outcome {
    let name = call.name;
    let secret = call
        .swarm
        .read(move |store, _| view::secret(store, &name))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&secret))
}

async fn create(mut call: Call) -> Outcome {
    let spec: SecretSpec = call.json().await?;
    let id = call.create(Request::SecretCreate { spec }).await?;
    Ok(body::json(StatusCode::CREATED, &json!({ "ID": id })))
}

async fn update(mut call: Call) -> Outcome {
    let spec: SecretSpec = call.json().await?;
    let version = call.object_version("secret")?;
    let request = Request::SecretUpdate {
        secret: call.name.clone(),
        version,
        spec,
    };
    call.change(request).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn remove(call: Call) -> Outcome {
    let secret = call.name.clone();
    call.change(Request::SecretRemove { secret }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}
