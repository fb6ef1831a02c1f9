//! The facade's operations on networks of a cluster. What they are made of is decided elsewhere; here they only leave
//! the async world.

use netdriver::{Balanced, Ingress, Overlay, OverlayStatus, Peer, PeersSet, Repaired};

use super::Engine;
use super::shared::blocking;
use crate::error::Result;

impl Engine {
    /// Makes a network of the cluster on this node, or brings the one that is there up to date.
    pub async fn ensure_overlay(&self, overlay: Overlay) -> Result<()> {
        let networks = self.shared.networks.clone();
        blocking(move || Ok(networks.ensure_overlay(overlay).map(drop)?)).await
    }

    /// Takes a network of the cluster away from this node. No container may be on it.
    pub async fn remove_overlay(&self, id: &str) -> Result<()> {
        let (networks, id) = (self.shared.networks.clone(), id.to_owned());
        blocking(move || Ok(networks.remove_overlay(&id)?)).await
    }

    /// All endpoints of the network on all nodes. An older version than the last is ignored.
    pub async fn set_overlay_peers(
        &self,
        id: &str,
        version: u64,
        peers: Vec<Peer>,
    ) -> Result<PeersSet> {
        let (networks, id) = (self.shared.networks.clone(), id.to_owned());
        blocking(move || Ok(networks.set_peers(&id, version, peers)?)).await
    }

    /// All names, virtual addresses and backends of the network. When this returns, nothing on this node sends new
    /// connections to a backend that is draining or gone.
    pub async fn set_overlay_balanced(&self, id: &str, balanced: Vec<Balanced>) -> Result<()> {
        let (networks, id) = (self.shared.networks.clone(), id.to_owned());
        blocking(move || Ok(networks.set_balanced(&id, balanced)?)).await
    }

    /// All ports published on every node. Gives back what could not be published, for example because another program
    /// on this host holds a port; the others are.
    pub async fn set_ingress(&self, ingress: Option<Ingress>) -> Result<Vec<netdriver::Error>> {
        let networks = self.shared.networks.clone();
        blocking(move || Ok(networks.set_ingress(ingress)?)).await
    }

    /// Compares the kernel's state with what it should be and repairs it.
    pub async fn repair_networks(&self) -> Result<Repaired> {
        let networks = self.shared.networks.clone();
        blocking(move || Ok(networks.repair())).await
    }

    /// Ids of the networks of the cluster that are on this node.
    pub fn overlay_ids(&self) -> Vec<String> {
        let all = self.shared.networks.list();
        let overlays = all
            .into_iter()
            .filter(|info| info.driver.name() == "overlay");
        overlays.map(|info| info.id).collect()
    }

    /// How a network of the cluster is on this node.
    pub fn overlay_status(&self, id: &str) -> Result<OverlayStatus> {
        Ok(self.shared.networks.overlay(id)?)
    }
}
