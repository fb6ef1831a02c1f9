//! Nodes (SwarmKit `controlapi/node.go`): availability, labels and the wish for another role; removal. Roles are only
//! wished for here; who is a member of Raft follows from the wish later.

use agent_api::swarm::{NodeRole, NodeSpec, NodeState, Reachability};
use cluster_api::{Node, Object};

use super::{Refusal, lookup, size};
use crate::Context;
use crate::store::{Guard, Store, Transaction};

pub(super) fn update(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    version: u64,
    spec: &NodeSpec,
) -> Result<(), Refusal> {
    let node = lookup::node(context.store, input)?;
    if node.spec.role == NodeRole::Manager && spec.role == NodeRole::Worker {
        check_demotion(context.store, node)?;
        change.expect(Guard::OtherManager {
            node_id: node.id.clone(),
        });
    }
    if node.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    size::check(format_args!("node {}", node.id), spec)?;
    let mut node = Node::clone(node);
    node.spec = spec.clone();
    change.update(node);
    Ok(())
}

/// Somebody must be left to decide, and be able to.
fn check_demotion(store: &Store, node: &Node) -> Result<(), Refusal> {
    let managers = store
        .nodes()
        .filter(|node| node.spec.role == NodeRole::Manager)
        .count();
    if managers == 1 {
        return Err(Refusal::invalid(
            "attempting to demote the last manager of the swarm",
        ));
    }
    if node.member.is_some() && !keeps_quorum_without(store, &node.id) {
        return Err(Refusal::invalid(
            "can't remove member from the raft: this would result in a loss of quorum",
        ));
    }
    Ok(())
}

/// Whether the members that answer are still a majority when this one is gone (SwarmKit `raft.CanRemoveMember`).
/// Members that are on their way out already are counted as gone.
fn keeps_quorum_without(store: &Store, node_id: &str) -> bool {
    let (mut members, mut reachable) = (0, 0);
    for member in store
        .nodes()
        .filter(|node| node.id != node_id && node.spec.role == NodeRole::Manager)
        .filter_map(|node| node.member.as_ref())
    {
        members += 1;
        reachable += usize::from(member.reachability == Reachability::Reachable);
    }
    reachable > members / 2
}

pub(super) fn remove(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    force: bool,
) -> Result<(), Refusal> {
    let node = lookup::node(context.store, input)?;
    let id = &node.id;
    if node.spec.role == NodeRole::Manager || node.member.is_some() {
        return Err(Refusal::invalid(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )));
    }
    if !force && node.status.state == NodeState::Ready {
        return Err(Refusal::invalid(format!(
            "node {id} is not down and can't be removed"
        )));
    }
    // Nobody will ever report its tasks again: the task reaper gives them up, as many at a time as a proposal holds.
    change.remove(&Object::Node(node.clone()));
    Ok(())
}
