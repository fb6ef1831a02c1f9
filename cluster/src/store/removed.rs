//! Nodes that were removed, for as long as one of their certificates may be valid (SwarmKit
//! `Cluster.blacklisted_certificates`).
//!
//! Kept by the store itself: it sees each removal on every manager alike, so nobody who removes a node can forget it, and
//! removals do not conflict with each other.

use std::collections::BTreeMap;

use cluster_api::{Object, Timestamp};

use super::StoreEvent;
use crate::ca::DEFAULT_VALIDITY;

/// A manager whose clock is a little off may have signed a certificate while the node was removed.
const SLACK_NANOS: u64 = 24 * 3_600_000_000_000;

/// Which nodes were removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RemovedNodes {
    /// By node id: when the last certificate of the node ends.
    pub(super) until: BTreeMap<String, Timestamp>,
    /// The longest life certificates of this cluster were ever given.
    pub(super) longest_life_nanos: u64,
}

impl RemovedNodes {
    /// Something was changed for good, at `at`.
    pub(super) fn note(&mut self, at: Timestamp, event: &StoreEvent) {
        match event {
            StoreEvent::Removed(Object::Node(node)) => {
                self.until.retain(|_, until| *until >= at);
                let life = self.longest_life_nanos.saturating_add(SLACK_NANOS);
                let until = at.0.saturating_add_unsigned(life);
                self.until.insert(node.id.clone(), Timestamp(until));
            }
            StoreEvent::Created(object) | StoreEvent::Updated { new: object, .. } => {
                self.note_life(object);
            }
            StoreEvent::Removed(_) => {}
        }
    }

    /// Certificates may live as long as the cluster says, from now on.
    pub(super) fn note_life(&mut self, object: &Object) {
        if let Object::Cluster(cluster) = object {
            let life = match cluster.spec.ca_config.node_cert_expiry {
                0 => u64::try_from(DEFAULT_VALIDITY.as_nanos()).unwrap_or(u64::MAX),
                nanos => nanos,
            };
            self.longest_life_nanos = self.longest_life_nanos.max(life);
        }
    }
}
