//! The constraint enforcer: when a node changes, its tasks may no longer be allowed there, or no longer fit (SwarmKit
//! `manager/orchestrator/constraintenforcer`). Such tasks are marked as evicted; what follows from that, a successor
//! somewhere else, is the orchestrator's. Nodes that are drained or paused are not looked at: the former lose their
//! tasks anyway, the latter keep them.
//!
//! SwarmKit sets the observed state to Rejected. That is a terminal state, so the task's addresses, ports and resources
//! would be given to others while it still runs, and its real end could never be reported.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_api::swarm::{NodeAvailability, Placement, Resources};
use cluster_api::{Node, Object, Task, TaskState};

use super::plan::Plan;
use super::slot::is_live;
use crate::constraint;
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreAction, StoreEvent};

/// Evicts tasks whose node has changed under them.
#[derive(Debug, Default)]
pub struct ConstraintEnforcer {
    dirty: BTreeSet<String>,
}

impl ConstraintEnforcer {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl ControlLoop for ConstraintEnforcer {
    fn name(&self) -> &'static str {
        "constraint enforcer"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.dirty = context.store.nodes().map(|node| node.id.clone()).collect();
    }

    fn observe(&mut self, event: &StoreEvent) {
        if let StoreEvent::Updated {
            old: Object::Node(old),
            new: Object::Node(new),
        } = event
            && (old.spec != new.spec
                || old.description != new.description
                || old.role != new.role
                || old.status.addr != new.status.addr)
        {
            self.dirty.insert(new.id.clone());
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        let mut plan = Plan::new(context.now.wall);
        for node_id in std::mem::take(&mut self.dirty) {
            let planned = plan.len();
            if let Some(node) = context.store.node(&node_id) {
                for (task, error) in not_allowed(context.store, node) {
                    let mut task = Task::clone(task);
                    task.evicted = true;
                    task.status.message = "evicted by the constraint enforcer".to_owned();
                    task.status.error = error;
                    plan.add(vec![StoreAction::Update(Object::from(task))]);
                }
            }
            // Looked at again when this is committed, or turns out to be in conflict.
            if plan.len() > planned || plan.is_full() {
                self.dirty.insert(node_id);
            }
        }
        Step {
            transaction: plan.into_transaction(),
            wake_at: None,
        }
    }
}

/// The tasks that may not stay, and why. Where reservations no longer fit, those that came last go.
fn not_allowed<'a>(store: &'a Store, node: &Node) -> Vec<(&'a Arc<Task>, String)> {
    if node.spec.availability != NodeAvailability::Active {
        return Vec::new();
    }
    let mut tasks: Vec<_> = store
        .tasks_of_node(&node.id)
        .filter(|task| is_live(task) && !task.evicted)
        .filter(|task| task.status.state >= TaskState::Assigned && !task.status.state.is_terminal())
        .collect();
    tasks.sort_by_key(|task| (task.meta.created_at, task.slot, &task.id));
    let mut free = node
        .description
        .as_ref()
        .map(|description| description.resources.clone());
    let mut evicted = Vec::new();
    for task in tasks {
        if let Some(constraint) = unmet(placement(store, task), node) {
            evicted.push((
                task,
                format!("assigned node no longer meets constraint {constraint:?}"),
            ));
        } else if !claim(task, free.as_mut()) {
            let error = "assigned node no longer has the resources that are reserved";
            evicted.push((task, error.to_owned()));
        }
    }
    evicted
}

/// The service's placement rather than the task's: a change of constraints that the node satisfied has left the task as
/// it was.
fn placement<'a>(store: &'a Store, task: &'a Task) -> Option<&'a Placement> {
    match store.service(&task.service_id) {
        Some(service) => service.spec.task_template.placement.as_ref(),
        None => task.spec.placement.as_ref(),
    }
}

fn unmet<'a>(placement: Option<&'a Placement>, node: &Node) -> Option<&'a String> {
    placement?
        .constraints
        .iter()
        .find(|constraint| !constraint::all_met(std::slice::from_ref(*constraint), node))
}

/// Takes what the task reserves; whether it was there. A node that has not said what it has is not judged.
fn claim(task: &Task, free: Option<&mut Resources>) -> bool {
    let reserved = task
        .spec
        .resources
        .as_ref()
        .and_then(|resources| resources.reservations.as_ref());
    let (Some(free), Some(reserved)) = (free, reserved) else {
        return true;
    };
    let fits = reserved.nano_cpus <= free.nano_cpus && reserved.memory_bytes <= free.memory_bytes;
    if fits {
        free.nano_cpus -= reserved.nano_cpus;
        free.memory_bytes -= reserved.memory_bytes;
    }
    fits
}
