//! Networks.

use super::Client;
use super::error::Result;
use super::request::{Query, segment};
use crate::types::{
    Filters, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, PruneResponse,
};
use http::Method;

fn of(name: &str, verb: &str) -> String {
    format!("/networks/{}{verb}", segment(name))
}

impl Client {
    /// Lists networks.
    ///
    /// # Errors
    /// 400 for a filter that does not exist.
    pub async fn list_networks(&self, filters: &Filters) -> Result<Vec<Network>> {
        self.get("/networks", &Query::new().filters(filters)).await
    }

    /// Everything about one network, with its endpoints.
    ///
    /// # Errors
    /// 404 when there is none of this name or id.
    pub async fn inspect_network(&self, name: &str) -> Result<Network> {
        self.get(&of(name, ""), &Query::new()).await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// 409 when the name is taken, 400 or 403 for what the engine does not support.
    pub async fn create_network(
        &self,
        request: &NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse> {
        self.post("/networks/create", &Query::new(), request).await
    }

    /// Removes a network.
    ///
    /// # Errors
    /// 403 or 409 while containers are connected to it.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        self.act(Method::DELETE, &of(name, ""), &Query::new())
            .await
            .map(drop)
    }

    /// Connects a container to a network.
    ///
    /// # Errors
    /// 404 without either, 403 or 409 when it is connected already.
    pub async fn connect_network(&self, name: &str, request: &NetworkConnectRequest) -> Result<()> {
        self.post_unit(&of(name, "/connect"), &Query::new(), request)
            .await
    }

    /// Disconnects a container from a network.
    ///
    /// # Errors
    /// 404 without either, 403 or 409 when it is not connected.
    pub async fn disconnect_network(
        &self,
        name: &str,
        request: &NetworkDisconnectRequest,
    ) -> Result<()> {
        self.post_unit(&of(name, "/disconnect"), &Query::new(), request)
            .await
    }

    /// Removes networks that no container uses.
    ///
    /// # Errors
    /// 409 while another prune is at work.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<PruneResponse> {
        self.post("/networks/prune", &Query::new().filters(filters), &())
            .await
    }
}
