//! `/nodes`.

use agent_api::swarm::{Annotations, NodeAvailability, NodeRole, NodeSpec};
use cluster::control::{Request, view};
use http::StatusCode;
use serde::Deserialize;

use super::error::HttpError;
use super::router::{Route, delete, get, post};
use super::{Call, Outcome, body};
use crate::error::Error;

pub(super) const ROUTES: &[Route] = &[
    get("/nodes", |call| Box::pin(list(call))),
    get("/nodes/{}", |call| Box::pin(inspect(call))),
    delete("/nodes/{}", |call| Box::pin(remove(call))),
    post("/nodes/{}/update", |call| Box::pin(update(call))),
];

async fn list(call: Call) -> Outcome {
    let filters = call.query.filters()?;
    let nodes = call
        .swarm
        .read(move |store, leader| view::nodes(store, leader, &filters))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&nodes))
}

async fn inspect(call: Call) -> Outcome {
    let name = call.name;
    let node = call
        .swarm
        .read(move |store, leader| view::node(store, leader, &name))
        .await?
        .map_err(Error::from)?;
    Ok(body::ok(&node))
}

/// The body of an update. Role and availability must be said: nobody is demoted by leaving a word out.
#[derive(Deserialize)]
struct NodeUpdate {
    #[serde(flatten)]
    annotations: Annotations,
    #[serde(rename = "Role", default)]
    role: String,
    #[serde(rename = "Availability", default)]
    availability: String,
}

impl NodeUpdate {
    fn spec(self) -> Result<NodeSpec, HttpError> {
        let role = match self.role.to_ascii_lowercase().as_str() {
            "worker" => NodeRole::Worker,
            "manager" => NodeRole::Manager,
            _ => {
                return Err(HttpError::bad_request(format!(
                    "invalid Role: {:?}",
                    self.role
                )));
            }
        };
        let availability = match self.availability.to_ascii_lowercase().as_str() {
            "active" => NodeAvailability::Active,
            "pause" => NodeAvailability::Pause,
            "drain" => NodeAvailability::Drain,
            _ => {
                return Err(HttpError::bad_request(format!(
                    "invalid Availability: {:?}",
                    self.availability
                )));
            }
        };
        Ok(NodeSpec {
            annotations: self.annotations,
            role,
            availability,
        })
    }
}

async fn update(mut call: Call) -> Outcome {
    let given: NodeUpdate = call.json().await?;
    let version = call.object_version("node")?;
    let request = Request::NodeUpdate {
        node: call.name.clone(),
        version,
        spec: given.spec()?,
    };
    call.change(request).await?;
    Ok(body::empty(StatusCode::OK))
}

async fn remove(call: Call) -> Outcome {
    let request = Request::NodeRemove {
        node: call.name.clone(),
        force: call.query.flag("force"),
    };
    call.change(request).await?;
    Ok(body::empty(StatusCode::OK))
}
