//! Who is a manager: brings the wish (`Node.spec.role`), the group and what the store says of both together.
//!
//! | wish    | in the group | what is done |
//! |---------|--------------|--------------|
//! | manager | no           | `role` becomes manager; the node gets a new certificate and joins |
//! | manager | yes          | `member` is kept true |
//! | worker  | yes          | leaves the group; a leader hands leadership over first, and its successor does it |
//! | worker  | no           | `role` becomes worker; only then does the node get a worker's certificate |
//! | no node | yes          | leaves the group |
//!
//! Must not make the group lose its majority: Raft refuses such a removal, and it is tried again later.
//! Behaviour: moby/swarmkit `manager/role_manager.go`.

use std::collections::BTreeMap;

use agent_api::swarm::{NodeRole, Reachability};
use cluster_api::{Kind, Node, RaftMember, Time};

use crate::batch::Batch;
use crate::raft::{Membership, RaftId, Refused};
use crate::store::StoreEvent;
use crate::{Context, ControlLoop, Step};

/// When a refused change is tried again, in milliseconds.
const RETRY_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct MembershipLoop {
    own_id: RaftId,
    group: Membership,
    reachable: BTreeMap<RaftId, bool>,
    /// Something changed since the last step.
    dirty: bool,
    /// A change that should not be proposed again before then.
    retry_at: Option<Time>,
    wanted: Option<Wanted>,
}

/// What is to be done to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Remove(RaftId),
    /// Another must remove this manager.
    HandOver,
}

impl MembershipLoop {
    /// How the group is. Whether that is news.
    pub(super) fn update(
        &mut self,
        own_id: RaftId,
        group: &Membership,
        reachable: BTreeMap<RaftId, bool>,
    ) -> bool {
        let news = self.own_id != own_id || self.group != *group || self.reachable != reachable;
        if news {
            self.own_id = own_id;
            self.group = group.clone();
            self.reachable = reachable;
            self.dirty = true;
        }
        news
    }

    /// What the last step found to be done to the group, once.
    pub(super) fn take_wanted(&mut self) -> Option<Wanted> {
        self.wanted.take()
    }

    /// The change could not be made now.
    pub(super) fn refused(&mut self, wanted: Wanted, reason: &Refused, now: Time) {
        tracing::warn!(?wanted, %reason, "the group of managers cannot be changed yet");
        self.retry_at = Some(now.after(RETRY_MS));
    }

    /// The change was proposed; looks again when it is made, or after a while.
    pub(super) fn proposed(&mut self, now: Time) {
        self.retry_at = Some(now.after(RETRY_MS));
    }

    fn decide_change(&self, context: &Context<'_>) -> Option<Wanted> {
        let leaves = |node_id: &str| {
            context
                .store
                .node(node_id)
                .is_none_or(|node| node.spec.role == NodeRole::Worker)
        };
        let mut leaving = self
            .group
            .members
            .iter()
            .filter(|(_, member)| leaves(&member.node_id))
            .map(|(id, _)| *id);
        // The others first: as long as this manager leads, it can remove them.
        let first = leaving.clone().find(|id| *id != self.own_id);
        first
            .map(Wanted::Remove)
            .or_else(|| leaving.next().map(|_| Wanted::HandOver))
    }

    /// The node as it should be in the store.
    fn corrected(&self, node: &Node) -> Option<Node> {
        let raft_id = self.group.of_node(&node.id);
        let member = raft_id.and_then(|raft_id| {
            let member = self.group.members.get(&raft_id)?;
            let reachable = self.reachable.get(&raft_id).copied().unwrap_or(true);
            Some(RaftMember {
                raft_id,
                addr: member.address.clone(),
                reachability: if reachable {
                    Reachability::Reachable
                } else {
                    Reachability::Unreachable
                },
            })
        });
        let role = match node.spec.role {
            NodeRole::Manager => NodeRole::Manager,
            NodeRole::Worker if raft_id.is_some() => node.role,
            NodeRole::Worker => NodeRole::Worker,
        };
        (node.member != member || node.role != role).then(|| Node {
            member,
            role,
            ..node.clone()
        })
    }
}

impl ControlLoop for MembershipLoop {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn start(&mut self, _context: &mut Context<'_>) {
        self.dirty = true;
    }

    fn observe(&mut self, event: &StoreEvent) {
        self.dirty |= matches!(event.kind(), Kind::Node | Kind::Cluster);
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        let waits = self.retry_at.is_some_and(|at| context.now.mono < at);
        // A group that was just founded has members and no nodes yet.
        let founded = context.store.cluster().is_some();
        if !founded || !(self.dirty || self.retry_at.is_some() && !waits) {
            return Step {
                transaction: None,
                wake_at: self.retry_at.filter(|_| waits),
            };
        }
        self.dirty = false;
        let mut batch = Batch::new(context.now.wall);
        let mut corrections = context
            .store
            .nodes()
            .filter_map(|node| self.corrected(node));
        while corrections.next().is_some_and(|node| batch.update(node)) {}
        let transaction = batch.finish();
        // What the transaction did not have room for, or lost to another writer.
        self.dirty = transaction.is_some();
        let change = self.decide_change(context);
        if change.is_none() {
            self.retry_at = None;
        }
        let waits = self.retry_at.is_some_and(|at| context.now.mono < at);
        self.wanted = change.filter(|_| !waits);
        Step {
            transaction,
            wake_at: self.retry_at.filter(|_| waits),
        }
    }
}
