//! The facade's operations on networks and volumes.

use agent_api::{
    Filters, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, PruneResponse, Volume, VolumeCreateRequest, VolumeListResponse,
};

use super::Engine;
use crate::error::Result;

impl Engine {
    /// Lists networks; their `containers` are empty, as in Docker.
    pub async fn list_networks(&self, filters: Filters) -> Result<Vec<Network>> {
        todo!()
    }

    /// A network by name, id or unique prefix of an id; a non-empty `scope` must be its own.
    pub async fn inspect_network(&self, reference: &str, scope: &str) -> Result<Network> {
        todo!()
    }

    /// Creates a network.
    pub async fn create_network(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        todo!()
    }

    /// Removes a network that no container uses.
    pub async fn remove_network(&self, reference: &str) -> Result<()> {
        todo!()
    }

    /// Removes all networks that no container uses.
    pub async fn prune_networks(&self, filters: Filters) -> Result<PruneResponse> {
        todo!()
    }

    /// Connects a container to a network, at once if it runs, else at its start.
    pub async fn connect_network(&self, network: &str, request: NetworkConnectRequest) -> Result<()> {
        todo!()
    }

    /// Disconnects a container from a network.
    pub async fn disconnect_network(&self, network: &str, request: NetworkDisconnectRequest) -> Result<()> {
        todo!()
    }

    /// Lists volumes.
    pub async fn list_volumes(&self, filters: Filters) -> Result<VolumeListResponse> {
        todo!()
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        todo!()
    }

    /// Creates a volume, or returns the one there is.
    pub async fn create_volume(&self, request: VolumeCreateRequest) -> Result<Volume> {
        todo!()
    }

    /// Removes a volume that no container uses; `force` forgives its absence.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        todo!()
    }

    /// Removes anonymous volumes that no container uses; all of them with the filter `all`.
    pub async fn prune_volumes(&self, filters: Filters) -> Result<PruneResponse> {
        todo!()
    }
}
