//! Which certificates count: what the state says of the nodes that show them.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::NodeRole;
use cluster_api::Object;
use parking_lot::RwLock;

use crate::raft::{Membership, RaftId};
use crate::rpc::{Roster, Standing};
use crate::store::{Store, StoreEvent};

/// Which node each member of the Raft group is on, as applied here.
#[derive(Debug, Default)]
pub(super) struct MemberNodes(RwLock<Members>);

#[derive(Debug, Default)]
struct Members {
    nodes: BTreeMap<RaftId, String>,
    /// Numbers that were a member's once and never will be again.
    removed: BTreeSet<RaftId>,
}

impl MemberNodes {
    pub(super) fn reset(&self, group: &Membership) {
        let nodes = group
            .members
            .iter()
            .map(|(id, member)| (*id, member.node_id.clone()));
        *self.0.write() = Members {
            nodes: nodes.collect(),
            removed: group.removed.clone(),
        };
    }

    /// Whether a node may speak for a member. Of a member not heard of yet nothing is known: this manager may be the one
    /// that is behind.
    pub(super) fn speaks_for(&self, node_id: &str, member: RaftId) -> bool {
        let members = self.0.read();
        match members.nodes.get(&member) {
            Some(owner) => owner == node_id,
            None => !members.removed.contains(&member),
        }
    }
}

/// Nodes by role, as applied here.
#[derive(Debug, Default)]
pub(super) struct NodeRoster(RwLock<Nodes>);

#[derive(Debug, Default)]
struct Nodes {
    present: BTreeMap<String, NodeRole>,
    removed: BTreeSet<String>,
    /// This manager leads: every node there is, is known here.
    complete: bool,
}

impl NodeRoster {
    /// The state was replaced as a whole.
    pub(super) fn reset(&self, store: &Store) {
        let present = store.nodes().map(|node| (node.id.clone(), node.role));
        let mut nodes = self.0.write();
        nodes.present = present.collect();
        nodes.removed = store.removed_nodes().map(str::to_owned).collect();
    }

    /// What has changed, up to the state as it is in `store`.
    pub(super) fn observe(&self, events: &[StoreEvent], store: &Store) {
        for event in events {
            let Object::Node(node) = event.object() else {
                continue;
            };
            let mut nodes = self.0.write();
            if matches!(event, StoreEvent::Removed(_)) {
                nodes.present.remove(&node.id);
                nodes.removed.insert(node.id.clone());
            } else {
                nodes.present.insert(node.id.clone(), node.role);
            }
        }
        let forgets = self.0.read().removed.len() > store.removed_nodes().len();
        if forgets {
            let removed = store.removed_nodes().map(str::to_owned).collect();
            self.0.write().removed = removed;
        }
    }

    /// Whether this manager leads and has applied everything.
    pub(super) fn set_complete(&self, complete: bool) {
        if self.0.read().complete != complete {
            self.0.write().complete = complete;
        }
    }
}

impl Roster for NodeRoster {
    fn standing(&self, node_id: &str) -> Standing {
        let nodes = self.0.read();
        match nodes.present.get(node_id) {
            Some(role) => Standing::Member(*role),
            None if nodes.removed.contains(node_id) => Standing::Removed,
            None if nodes.complete => Standing::Stranger,
            None => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster_api::{Kind, Node, Timestamp};

    use super::*;
    use crate::store::{StoreAction, Transaction};

    fn node(id: &str, role: NodeRole) -> Object {
        Object::Node(Arc::new(Node {
            id: id.into(),
            role,
            ..Node::default()
        }))
    }

    fn transaction(action: StoreAction) -> Transaction {
        Transaction {
            actions: vec![action],
            ..Transaction::new(Timestamp(0))
        }
    }

    #[test]
    fn what_the_state_says_counts() {
        let (roster, mut store) = (NodeRoster::default(), Store::default());
        let mut happens = |action| {
            let index = store.index() + 1;
            let events = store.apply(index, &transaction(action)).unwrap();
            roster.observe(&events, &store);
            store.clone()
        };
        assert_eq!(roster.standing("a"), Standing::Unknown);
        happens(StoreAction::Create(node("a", NodeRole::Worker)));
        assert_eq!(roster.standing("a"), Standing::Member(NodeRole::Worker));
        let now = happens(StoreAction::Remove {
            kind: Kind::Node,
            id: "a".into(),
            version: 1,
        });
        assert_eq!(roster.standing("a"), Standing::Removed);
        roster.set_complete(true);
        assert_eq!(roster.standing("b"), Standing::Stranger);
        happens(StoreAction::Create(node("a", NodeRole::Manager)));
        assert_eq!(roster.standing("a"), Standing::Member(NodeRole::Manager));

        // As it is after a restart.
        let restarted = NodeRoster::default();
        restarted.reset(&Store::restore(&now.snapshot()).unwrap());
        assert_eq!(restarted.standing("a"), Standing::Removed);
        assert_eq!(restarted.standing("b"), Standing::Unknown);
    }

    #[test]
    fn a_number_that_was_a_members_is_spoken_for_by_nobody() {
        let members = MemberNodes::default();
        let mut group = Membership::founded_by(1, "a".into(), "10.0.0.1:2377".into());
        group.removed.insert(2);
        members.reset(&group);
        assert!(members.speaks_for("a", 1) && !members.speaks_for("b", 1));
        assert!(!members.speaks_for("b", 2));
        assert!(members.speaks_for("c", 3));
    }
}
