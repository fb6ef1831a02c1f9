//! `/networks`: the node's own, and those of the cluster (`cluster_networks`).

use agent_api::{
    Filters, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest,
};
use cluster::control::Request;
use http::StatusCode;
use serde_json::json;

use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, to_the_end};
use super::{body, cluster_networks};
use crate::error::Error;

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
    let filters = call.query.filters()?;
    // The engine checks the filters, too.
    let own = call.engine.list_networks(filters.clone()).await?;
    let (mut networks, own) = cluster_networks::all(&call, own).await;
    networks.retain(|network| cluster_networks::is_wanted(network, &filters));
    for mut network in own {
        if networks.iter().any(|other| other.id == network.id) {
            continue;
        }
        // The list told who is connected before API 1.28.
        if call.version.before(28) {
            network = call.engine.inspect_network(&network.id, "").await?;
        }
        networks.push(network);
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
    let found = find(&call, call.query.text("scope")).await?;
    // With who is connected, if it is here.
    let shown = call.engine.inspect_network(&found.id, "").await;
    Ok(body::ok(&shown.unwrap_or(found)))
}

/// The one network the path names, among the node's own and those of the cluster.
async fn find(call: &Call, scope: &str) -> Result<Network, HttpError> {
    let own = call.engine.list_networks(Filters::new()).await?;
    let (of_cluster, own) = cluster_networks::all(call, own).await;
    let is_own = own.iter().any(|network| network.name == call.name);
    let found = cluster_networks::pick(&call.name, scope, own, of_cluster);
    found.map_err(|mut refused| {
        // A service is to be attached to it.
        if scope == "swarm" && is_own {
            refused.message += ": only this node has it; services need a network of the swarm, such as one created with the overlay driver";
        }
        refused
    })
}

async fn create(mut call: Call) -> Outcome {
    let mut request: NetworkCreateRequest = call.json_or_default().await?;
    if call.version.before(48) {
        request.enable_ipv4 = None;
    }
    let own = call.engine.list_networks(Filters::new()).await?;
    let (of_cluster, own) = cluster_networks::all(&call, own).await;
    let taken = |networks: &[Network]| networks.iter().any(|other| other.name == request.name);
    // Among its own the engine looks itself.
    let for_cluster = cluster_networks::is_of_cluster(&request);
    if taken(&of_cluster) || for_cluster && taken(&own) {
        let name = &request.name;
        return Err(Error::conflict(format!("network with name {name} already exists")).into());
    }
    if for_cluster {
        let id = cluster_networks::create(&call, request).await?;
        let created = NetworkCreateResponse {
            id,
            warning: String::new(),
        };
        return Ok(body::json(StatusCode::CREATED, &created));
    }
    let engine = call.engine;
    let created = to_the_end(async move { engine.create_network(request).await }).await?;
    Ok(body::json(StatusCode::CREATED, &created))
}

async fn connect(mut call: Call) -> Outcome {
    let request: NetworkConnectRequest = call.json_or_default().await?;
    cluster_networks::refuse_for_containers(&call, [call.name.as_str()]).await?;
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
    let found = find(&call, "").await?;
    if found.scope == "swarm" {
        let network = found.id;
        call.change(Request::NetworkRemove { network }).await?;
        return Ok(body::empty(StatusCode::NO_CONTENT));
    }
    let engine = call.engine;
    to_the_end(async move { engine.remove_network(&found.id).await }).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

async fn prune(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    let of_cluster = cluster_networks::prune(&call, &filters).await?;
    let engine = call.engine;
    let pruned = to_the_end(async move { engine.prune_networks(filters).await }).await?;
    let deleted = [of_cluster, pruned.networks_deleted.unwrap_or_default()].concat();
    let deleted = Some(deleted).filter(|deleted| !deleted.is_empty());
    Ok(body::ok(&json!({ "NetworksDeleted": deleted })))
}
