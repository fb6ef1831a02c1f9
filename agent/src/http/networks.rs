//! `/networks`.

use agent_api::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use http::StatusCode;
use serde_json::json;

use super::body;
use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, to_the_end};

pub(super) const ROUTES: &[Route] = &[
    get("/networks", |call| Box::pin(list(call))),
    get("/networks/", |call| Box::pin(list(call))),
    post("/networks/create", |call| Box::pin(create(call))),
    post("/networks/prune", |call| Box::pin(prune(call))),
    post("/networks/{}/connect", |call| Box::pin(connect(call))),
    post("/networks/{}/disconnect", |call| Box::pin(disconnect(call))),
    get("/networks/{}", |call| Box::pin(inspect(call))),
    delete("/networks/{}", |call| Box::pin(remove(call))),
];

async fn list(call: Call) -> Outcome {
    let mut networks = call.engine.list_networks(call.query.filters()?).await?;
    // The list told who is connected before API 1.28.
    if call.version.before(28) {
        for network in &mut networks {
            *network = call.engine.inspect_network(&network.id, "").await?;
        }
    }
    Ok(body::ok(&networks))
}

async fn inspect(call: Call) -> Outcome {
    let verbose = call.query.text("verbose");
    if ![
        "", "1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False",
    ]
    .contains(&verbose)
    {
        return Err(HttpError::bad_request(format!(
            "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
        )));
    }
    Ok(body::ok(
        &call
            .engine
            .inspect_network(&call.name, call.query.text("scope"))
            .await?,
    ))
}

async fn create(mut call: Call) -> Outcome {
    let mut request: NetworkCreateRequest = call.json_or_default().await?;
    if call.version.before(48) {
        request.enable_ipv4 = None;
    }
    let engine = call.engine;
    let created = to_the_end(async move { engine.create_network(request).await }).await?;
    Ok(body::json(StatusCode::CREATED, &created))
}

async fn connect(mut call: Call) -> Outcome {
    let request: NetworkConnectRequest = call.json_or_default().await?;
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.connect_network(&name, request).await }).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn disconnect(mut call: Call) -> Outcome {
    let request: NetworkDisconnectRequest = call.json_or_default().await?;
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.disconnect_network(&name, request).await }).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn remove(call: Call) -> Outcome {
    let (engine, name) = (call.engine, call.name);
    to_the_end(async move { engine.remove_network(&name).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn prune(call: Call) -> Outcome {
    let (engine, filters) = (call.engine, call.query.filters()?);
    let pruned = to_the_end(async move { engine.prune_networks(filters).await }).await?;
    let deleted = pruned
        .networks_deleted
        .filter(|deleted| !deleted.is_empty());
    Ok(body::ok(&json!({ "NetworksDeleted": deleted })))
}
