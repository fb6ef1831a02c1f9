//! Which certificates count: what the state says of the nodes that show them.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::NodeRole;
use cluster_api::Object;
use parking_lot::RwLock;

use crate::raft::{Membership, RaftId};
use crate::rpc::{Roster, Standing};
use crate::store::{Store, StoreEvent};

/// Removed nodes remembered. A certificate lives 90 days; who removes more nodes than this in that time is protected
/// by the leader's answers alone, which come from the state itself.
const REMOVED_MAX: usize = 10_000;

/// Which node each member of the Raft group is on, as applied here.
#[derive(Debug, Default)]
pub(super) struct MemberNodes(RwLock<BTreeMap<RaftId, String>>);

impl MemberNodes {
    pub(super) fn reset(&self, group: &Membership) {
        let nodes = group
            .members
            .iter()
            .map(|(id, member)| (*id, member.node_id.clone()));
        *self.0.write() = nodes.collect();
    }

    /// Whether a node may speak for a member. Of a member not heard of yet nothing is known: this manager may be the one
    /// that is behind.
    pub(super) fn speaks_for(&self, node_id: &str, member: RaftId) -> bool {
        self.0
            .read()
            .get(&member)
            .is_none_or(|owner| owner == node_id)
    }
}

/// Nodes by role, as applied here.
#[derive(Debug, Default)]
pub(super) struct NodeRoster(RwLock<Nodes>);

#[derive(Debug, Default)]
struct Nodes {
    present: BTreeMap<String, NodeRole>,
    removed: BTreeSet<String>,
}

impl NodeRoster {
    /// The state was replaced as a whole.
    pub(super) fn reset(&self, store: &Store) {
        let present = store
            .nodes()
            .map(|node| (node.id.clone(), node.role))
            .collect();
        let mut nodes = self.0.write();
        let gone: Vec<String> = nodes
            .present
            .keys()
            .filter(|id| store.node(id).is_none())
            .cloned()
            .collect();
        nodes.removed.extend(gone);
        nodes.present = present;
    }

    pub(super) fn observe(&self, events: &[StoreEvent]) {
        for event in events {
            let Object::Node(node) = event.object() else {
                continue;
            };
            let mut nodes = self.0.write();
            if matches!(event, StoreEvent::Removed(_)) {
                nodes.present.remove(&node.id);
                if nodes.removed.len() < REMOVED_MAX {
                    nodes.removed.insert(node.id.clone());
                }
            } else {
                nodes.removed.remove(&node.id);
                nodes.present.insert(node.id.clone(), node.role);
            }
        }
    }
}

impl Roster for NodeRoster {
    fn standing(&self, node_id: &str) -> Standing {
        let nodes = self.0.read();
        match nodes.present.get(node_id) {
            Some(role) => Standing::Member(*role),
            None if nodes.removed.contains(node_id) => Standing::Removed,
            None => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster_api::Node;

    use super::*;

    fn node(id: &str, role: NodeRole) -> Object {
        Object::Node(Arc::new(Node {
            id: id.into(),
            role,
            ..Node::default()
        }))
    }

    #[test]
    fn what_the_state_says_counts() {
        let roster = NodeRoster::default();
        assert_eq!(roster.standing("a"), Standing::Unknown);
        roster.observe(&[StoreEvent::Created(node("a", NodeRole::Worker))]);
        assert_eq!(roster.standing("a"), Standing::Member(NodeRole::Worker));
        roster.observe(&[StoreEvent::Updated {
            old: node("a", NodeRole::Worker),
            new: node("a", NodeRole::Manager),
        }]);
        assert_eq!(roster.standing("a"), Standing::Member(NodeRole::Manager));
        roster.observe(&[StoreEvent::Removed(node("a", NodeRole::Manager))]);
        assert_eq!(roster.standing("a"), Standing::Removed);
        roster.observe(&[StoreEvent::Created(node("b", NodeRole::Worker))]);
        roster.reset(&Store::default());
        assert_eq!(roster.standing("b"), Standing::Removed);
    }
}
