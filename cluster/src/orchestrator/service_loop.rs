//! The loop that looks at services: which one, and when.

use std::collections::{BTreeMap, BTreeSet};

use cluster_api::{Node, Object, Task, TaskState, Time};

use super::clock::Waits;
use super::plan::Plan;
use super::service;
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreEvent};

/// The replicated and the global orchestrator with restarts and updates.
#[derive(Debug, Default)]
pub struct Orchestrator {
    /// Services to look at. One leaves the set when there was nothing to do about it, not when something was proposed.
    dirty: BTreeSet<String>,
    /// Nodes that changed: all services with tasks there are dirty, and all global ones.
    nodes: BTreeSet<String>,
    /// Where to go on, so that a large service does not keep others waiting.
    after: String,
    /// What each service waits for.
    waits: BTreeMap<String, Waits>,
    /// When to look at a service though nothing happened.
    wakes: BTreeMap<String, Time>,
    /// By the name of a service: those that wait for it.
    awaited: BTreeMap<String, BTreeSet<String>>,
}

impl Orchestrator {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn mark(&mut self, service_id: &str, name: &str) {
        if !service_id.is_empty() {
            self.dirty.insert(service_id.to_owned());
        }
        if let Some(waiting) = self.awaited.get(name) {
            self.dirty.extend(waiting.iter().cloned());
        }
    }

    fn spread_nodes(&mut self, store: &Store) {
        if self.nodes.is_empty() {
            return;
        }
        for node_id in std::mem::take(&mut self.nodes) {
            for task in store.tasks_of_node(&node_id) {
                self.mark(&task.service_id, &task.service.name);
            }
        }
        for service in store.services() {
            if service.spec.mode.global.is_some() {
                self.dirty.insert(service.id.clone());
            }
        }
    }

    /// The dirty services, beginning after the one that was last.
    fn queue(&self) -> Vec<String> {
        let (before, after): (Vec<_>, Vec<_>) =
            self.dirty.iter().cloned().partition(|id| *id <= self.after);
        after.into_iter().chain(before).collect()
    }

    fn forget(&mut self, service_id: &str) {
        self.wakes.remove(service_id);
        for waiting in self.awaited.values_mut() {
            waiting.remove(service_id);
        }
        self.awaited.retain(|_, waiting| !waiting.is_empty());
    }
}

impl ControlLoop for Orchestrator {
    fn name(&self) -> &'static str {
        "orchestrator"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        *self = Self {
            dirty: service::all(context.store),
            ..Self::default()
        };
    }

    fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => {
                if concerns(old, new) {
                    self.mark(&new.service_id, &new.service.name);
                }
            }
            StoreEvent::Updated {
                old: Object::Node(old),
                new: Object::Node(new),
            } => {
                if is_other_place(old, new) {
                    self.nodes.insert(new.id.clone());
                }
            }
            _ => match event.object() {
                Object::Task(task) => self.mark(&task.service_id, &task.service.name),
                Object::Service(service) => {
                    self.mark(&service.id, &service.spec.annotations.name);
                }
                Object::Node(node) => {
                    self.nodes.insert(node.id.clone());
                }
                _ => {}
            },
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        self.spread_nodes(context.store);
        let now = context.now;
        let due = self.wakes.iter().filter(|(_, at)| **at <= now.mono);
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        self.dirty.extend(due);
        let mut plan = Plan::new(now.wall);
        for id in self.queue() {
            if plan.is_full() {
                break;
            }
            let planned = plan.len();
            let waits = self.waits.remove(&id).unwrap_or_default();
            let outcome = service::decide(context.store, &id, now, waits, context.ids, &mut plan);
            self.forget(&id);
            if let Some(at) = outcome.wake_at {
                self.wakes.insert(id.clone(), at);
            }
            if !outcome.waits.is_empty() {
                self.waits.insert(id.clone(), outcome.waits);
            }
            for name in outcome.awaits {
                self.awaited.entry(name).or_default().insert(id.clone());
            }
            if plan.len() == planned && !plan.is_full() {
                self.dirty.remove(&id);
            }
            self.after = id;
        }
        let transaction = plan.into_transaction();
        Step {
            wake_at: self.wakes.values().min().copied(),
            transaction,
        }
    }
}

/// Whether the change of a task may matter. The way to Ready does not, but for why a task gets no further.
fn concerns(old: &Task, new: &Task) -> bool {
    let stage = |task: &Task| task.status.state.max(TaskState::Preparing);
    old.desired != new.desired
        || stage(old) != stage(new)
        || old.node_id != new.node_id
        || old.evicted != new.evicted
        || (new.status.state < TaskState::Assigned && old.status.error != new.status.error)
        || (old.status.state < TaskState::Assigned && new.status.state >= TaskState::Assigned)
}

/// Whether something changed that decides where tasks may be.
fn is_other_place(old: &Node, new: &Node) -> bool {
    old.status.state != new.status.state
        || old.status.addr != new.status.addr
        || old.role != new.role
        || old.spec != new.spec
        || old.description != new.description
}
