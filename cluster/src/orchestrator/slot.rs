//! Slots: the places of a service that are each to have one task.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cluster_api::{DesiredState, Node, Task};

use crate::store::Store;
use agent_api::swarm::{NodeAvailability, NodeState};

/// Which slot of its service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SlotKey {
    /// Of a replicated service; from 1.
    Number(u64),
    /// Of a global service: the node's id.
    Node(String),
}

impl SlotKey {
    pub(super) fn of(task: &Task) -> Self {
        if task.slot == 0 {
            Self::Node(task.node_id.clone())
        } else {
            Self::Number(task.slot)
        }
    }
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Node(id) => f.write_str(id),
        }
    }
}

/// The tasks of a slot, oldest first, without those that are to be removed.
#[derive(Debug, Default)]
pub(super) struct Slot<'a> {
    pub(super) tasks: Vec<&'a Arc<Task>>,
    /// The newest generation, tasks that are to be removed included.
    pub(super) generation: u64,
    /// The newest task that is to be removed and has not ended.
    pub(super) leaving: Option<&'a Arc<Task>>,
}

impl<'a> Slot<'a> {
    /// The tasks that are wanted.
    pub(super) fn live(&self) -> impl Iterator<Item = &'a Arc<Task>> + '_ {
        self.tasks.iter().copied().filter(|task| is_live(task))
    }

    pub(super) fn newest(&self) -> Option<&'a Arc<Task>> {
        self.tasks.last().copied()
    }
}

/// The slots of a service that have tasks.
pub(super) fn slots_of<'a>(store: &'a Store, service_id: &str) -> BTreeMap<SlotKey, Slot<'a>> {
    let mut slots: BTreeMap<SlotKey, Slot<'a>> = BTreeMap::new();
    for task in store.tasks_of_service(service_id) {
        let slot = slots.entry(SlotKey::of(task)).or_default();
        slot.generation = slot.generation.max(task.generation);
        if task.desired < DesiredState::Remove {
            slot.tasks.push(task);
        } else if !task.status.state.is_terminal()
            && slot
                .leaving
                .is_none_or(|other| other.generation < task.generation)
        {
            slot.leaving = Some(task);
        }
    }
    for slot in slots.values_mut() {
        slot.tasks.sort_by_key(|task| task.generation);
    }
    slots
}

/// Whether the task is wanted.
pub(super) fn is_live(task: &Task) -> bool {
    task.desired < DesiredState::Shutdown
}

/// Whether no news of the node's tasks is to be expected.
pub(super) fn is_lost(node: Option<&Arc<Node>>) -> bool {
    node.is_none_or(|node| node.status.state == NodeState::Down)
}

/// Whether a node keeps no task (SwarmKit `orchestrator.InvalidNode`).
pub(super) fn is_unusable(node: Option<&Arc<Node>>) -> bool {
    is_lost(node) || node.is_some_and(|node| node.spec.availability == NodeAvailability::Drain)
}
