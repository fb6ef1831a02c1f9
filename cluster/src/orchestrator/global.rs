//! Which slots a global service has: one on each node that is active, not known to be down and satisfies the
//! constraints (SwarmKit `manager/orchestrator/global`).
//!
//! A node that is paused keeps what it has and gets nothing: what fails there is replaced when it is active again. One
//! that is down is left alone: there is no other place for its tasks, and when it comes back after a short absence they
//! have gone on running. SwarmKit shuts them down, so that a blip restarts them. Rollouts pass over both.

use std::collections::BTreeMap;

use agent_api::swarm::{NodeAvailability, NodeState};
use cluster_api::Service;

use super::slot::{Slot, SlotKey};
use crate::constraint;
use crate::store::Store;

/// What becomes of a global service's slots.
#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// Each is to have a task; those that have none are empty.
    pub(super) kept: Vec<(SlotKey, Slot<'a>)>,
    /// They go on with the tasks they have.
    pub(super) paused: Vec<(SlotKey, Slot<'a>)>,
    /// Their tasks stop, their history stays.
    pub(super) emptied: Vec<(SlotKey, Slot<'a>)>,
    /// Their nodes are gone.
    pub(super) dropped: Vec<(SlotKey, Slot<'a>)>,
}

pub(super) fn choose<'a>(
    store: &'a Store,
    service: &Service,
    mut slots: BTreeMap<SlotKey, Slot<'a>>,
) -> Choice<'a> {
    let mut choice = Choice::default();
    let placement = service.spec.task_template.placement.as_ref();
    let constraints = placement.map_or(&[][..], |placement| &placement.constraints);
    for node in store.nodes() {
        let key = SlotKey::Node(node.id.clone());
        let slot = slots.remove(&key).unwrap_or_default();
        if node.spec.availability == NodeAvailability::Drain
            || !constraint::all_met(constraints, node)
        {
            choice.emptied.push((key, slot));
        } else if node.status.state != NodeState::Down {
            match node.spec.availability {
                NodeAvailability::Active => choice.kept.push((key, slot)),
                _ => choice.paused.push((key, slot)),
            }
        }
    }
    choice.dropped = slots.into_iter().collect();
    choice
}
