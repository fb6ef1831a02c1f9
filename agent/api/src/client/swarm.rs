//! The cluster as a whole, and its nodes.

use super::error::Result;
use super::request::{Query, segment};
use super::{Client, Outcome};
use crate::swarm::{
    Node, NodeSpec, ObjectVersion, Swarm, SwarmInitRequest, SwarmJoinRequest, SwarmSpec, UnlockKey,
};
use crate::types::Filters;
use http::Method;

/// Which secrets of the cluster an update replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The token of workers.
    pub worker_token: bool,
    /// The token of managers.
    pub manager_token: bool,
    /// The key that unlocks managers.
    pub unlock_key: bool,
}

impl Client {
    /// Makes the daemon the first manager of a new cluster; gives its node id.
    ///
    /// # Errors
    /// 503 when the daemon is in a cluster already, 400 for addresses and settings that cannot be used.
    pub async fn init_swarm(&self, request: &SwarmInitRequest) -> Result<String> {
        self.post("/swarm/init", &Query::new(), request).await
    }

    /// Makes the daemon a node of the cluster that the token belongs to.
    ///
    /// # Errors
    /// 503 when the daemon is in a cluster already, 400 for a token or an address that cannot be used.
    pub async fn join_swarm(&self, request: &SwarmJoinRequest) -> Result<()> {
        self.post_unit("/swarm/join", &Query::new(), request).await
    }

    /// Takes the daemon out of its cluster.
    ///
    /// # Errors
    /// 503 when it is in none, or when it is a manager and `force` is not set.
    pub async fn leave_swarm(&self, force: bool) -> Result<Outcome> {
        let query = Query::new().flag("force", force);
        self.act(Method::POST, "/swarm/leave", &query).await
    }

    /// The cluster, with its join tokens.
    ///
    /// # Errors
    /// 503 when the daemon is no manager.
    pub async fn inspect_swarm(&self) -> Result<Swarm> {
        self.get("/swarm", &Query::new()).await
    }

    /// Changes the settings of the cluster, and replaces tokens.
    ///
    /// # Errors
    /// 400 for settings that cannot be used, 409 or 500 when `version` is not the newest.
    pub async fn update_swarm(
        &self,
        version: ObjectVersion,
        spec: &SwarmSpec,
        rotate: Rotate,
    ) -> Result<()> {
        let query = Query::new()
            .with("version", version.index)
            .with("rotateWorkerToken", rotate.worker_token)
            .with("rotateManagerToken", rotate.manager_token)
            .with("rotateManagerUnlockKey", rotate.unlock_key);
        self.post_unit("/swarm/update", &query, spec).await
    }

    /// The key that unlocks managers.
    ///
    /// # Errors
    /// 503 when the daemon is no manager.
    pub async fn unlock_key(&self) -> Result<UnlockKey> {
        self.get("/swarm/unlockkey", &Query::new()).await
    }

    /// The nodes.
    ///
    /// # Errors
    /// 503 when the daemon is no manager, 400 for a filter that does not exist.
    pub async fn list_nodes(&self, filters: &Filters) -> Result<Vec<Node>> {
        self.get("/nodes", &Query::new().filters(filters)).await
    }

    /// One node, by id or host name.
    ///
    /// # Errors
    /// 404 when there is none, 503 when the daemon is no manager.
    pub async fn inspect_node(&self, name: &str) -> Result<Node> {
        self.get(&of_node(name, ""), &Query::new()).await
    }

    /// Changes what is asked of a node.
    ///
    /// # Errors
    /// 404 when there is none, 400 for a change that is not possible.
    pub async fn update_node(
        &self,
        id: &str,
        version: ObjectVersion,
        spec: &NodeSpec,
    ) -> Result<()> {
        let query = Query::new().with("version", version.index);
        self.post_unit(&of_node(id, "/update"), &query, spec).await
    }

    /// Takes a node out of the list.
    ///
    /// # Errors
    /// 404 when there is none, 400 when it is a manager or not down and `force` is not set.
    pub async fn remove_node(&self, name: &str, force: bool) -> Result<Outcome> {
        let query = Query::new().flag("force", force);
        self.act(Method::DELETE, &of_node(name, ""), &query).await
    }
}

fn of_node(name: &str, verb: &str) -> String {
    format!("/nodes/{}{verb}", segment(name))
}
