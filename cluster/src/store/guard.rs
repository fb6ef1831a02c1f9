//! What a transaction counts on besides the objects it changes.
//!
//! Two requests may be decided on the same state though each makes the other one impossible: a service that refers to a
//! secret is created while the secret is removed. Neither changes the other's object, so no version tells. Guards are
//! judged like versions: at the transaction's place in the log, on every manager alike.

use agent_api::swarm::NodeRole;
use cluster_api::{Kind, Service};
use serde::{Deserialize, Serialize};

use super::{Conflict, Store};

/// Something that must hold when the transaction is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A secret, config or network is there, and is not being removed.
    Exists { kind: Kind, id: String },
    /// No service refers to a secret, config or network, but for those that are being removed.
    Unused { kind: Kind, id: String },
    /// There is no ingress network.
    NoIngress,
    /// Another node than this one is to be a manager.
    OtherManager { node_id: String },
}

impl Store {
    pub(super) fn expect(&self, guard: &Guard) -> Result<(), Conflict> {
        let holds = match guard {
            Guard::Exists { kind, id } => match kind {
                Kind::Secret => self.secret(id).is_some(),
                Kind::Config => self.config(id).is_some(),
                Kind::Network => self
                    .network(id)
                    .is_some_and(|network| !network.pending_delete),
                _ => self.object(*kind, id).is_some(),
            },
            Guard::Unused { kind, id } => !self.is_used(*kind, id),
            Guard::NoIngress => !self
                .networks()
                .any(|network| network.spec.ingress && !network.pending_delete),
            Guard::OtherManager { node_id } => self
                .nodes()
                .any(|node| node.id != *node_id && node.spec.role == NodeRole::Manager),
        };
        if holds {
            Ok(())
        } else {
            Err(Conflict::Crossed {
                guard: guard.clone(),
            })
        }
    }

    fn is_used(&self, kind: Kind, id: &str) -> bool {
        let stays = |service: &std::sync::Arc<Service>| !service.pending_delete;
        match kind {
            Kind::Secret => self.services_with_secret(id).any(stays),
            Kind::Config => self.services_with_config(id).any(stays),
            Kind::Network if self.network(id).is_some_and(|n| n.spec.ingress) => self
                .services()
                .any(|service| stays(service) && service.needs_ingress()),
            Kind::Network => self.services_on_network(id).any(stays),
            _ => false,
        }
    }
}
