//! The task reaper: deletes tasks nobody needs any more (SwarmKit `manager/orchestrator/taskreaper`).
//!
//! - Tasks that are to be removed, when their agent has reported their end, when no agent has had them, or when their
//!   node is gone. Not earlier: until then their addresses and resources are in use.
//! - Ended tasks of a slot beyond the history limit, oldest first. The newest task of a slot is never history, nor is
//!   one a rollout that goes on has made: how far the rollout is follows from it.
//!
//! Also declares tasks orphaned whose node is no longer a member: no agent will ever report on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{DesiredState, Kind, Now, Object, Service, Task, TaskState, TaskStatus, Time};

use super::plan::Plan;
use super::slot::SlotKey;
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreAction, StoreEvent};

/// Tasks of a slot where the cluster does not say how many (Docker's).
const HISTORY_LIMIT: i64 = 5;
/// Deletions wait this long for more, so that they share a transaction.
const BATCH_MS: u64 = 250;
/// Unless there are so many.
const BATCH_SLOTS: usize = 1000;

/// Deletes what is no longer needed.
#[derive(Debug, Default)]
pub struct Reaper {
    /// Slots with tasks that may have become superfluous, by service. A slot leaves when there was nothing to do.
    dirty: BTreeMap<String, BTreeSet<SlotKey>>,
    /// Everything is to be looked at.
    all: bool,
    /// All slots of these services are to be looked at.
    services: BTreeSet<String>,
    /// Nodes that are gone.
    nodes: BTreeSet<String>,
    due: Option<Time>,
}

impl Reaper {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn mark(&mut self, task: &Task) {
        self.dirty
            .entry(task.service_id.clone())
            .or_default()
            .insert(SlotKey::of(task));
    }

    fn has_work(&self) -> bool {
        self.all || !self.nodes.is_empty() || !self.services.is_empty() || !self.dirty.is_empty()
    }

    /// When to begin, if that is not now.
    fn postponed(&mut self, now: Now) -> Option<Time> {
        let slots: usize = self.dirty.values().map(BTreeSet::len).sum();
        if self.all || slots >= BATCH_SLOTS {
            return None;
        }
        let due = *self.due.get_or_insert(now.mono.after(BATCH_MS));
        (now.mono < due).then_some(due)
    }
}

impl ControlLoop for Reaper {
    fn name(&self) -> &'static str {
        "task reaper"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let known = |id: &String| context.store.node(id).is_some();
        let nodes: BTreeSet<String> = context
            .store
            .tasks()
            .map(|task| task.node_id.clone())
            .filter(|id| !id.is_empty())
            .collect();
        *self = Self {
            all: true,
            nodes: nodes.into_iter().filter(|id| !known(id)).collect(),
            ..Self::default()
        };
    }

    fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Created(Object::Task(task)) => self.mark(task),
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => {
                let ended = new.status.state.is_terminal() && !old.status.state.is_terminal();
                if ended || (new.desired != old.desired && new.desired > DesiredState::Running) {
                    self.mark(new);
                }
            }
            StoreEvent::Updated {
                old: Object::Cluster(old),
                new: Object::Cluster(new),
            } => self.all |= old.spec.orchestration != new.spec.orchestration,
            StoreEvent::Updated {
                old: Object::Service(old),
                new: Object::Service(new),
            } => {
                // What the rollout had kept may go now.
                let was_active = old.rollout.as_ref().is_some_and(|r| r.state.is_active());
                let is_active = new.rollout.as_ref().is_some_and(|r| r.state.is_active());
                if was_active && !is_active {
                    self.services.insert(new.id.clone());
                }
            }
            StoreEvent::Removed(Object::Node(node)) => {
                self.nodes.insert(node.id.clone());
            }
            _ => {}
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        if !self.has_work() {
            return Step::default();
        }
        if let Some(due) = self.postponed(context.now) {
            return Step {
                wake_at: Some(due),
                transaction: None,
            };
        }
        let store = context.store;
        if std::mem::take(&mut self.all) {
            for task in store.tasks() {
                self.mark(task);
            }
        }
        for service_id in std::mem::take(&mut self.services) {
            for task in store.tasks_of_service(&service_id) {
                self.mark(task);
            }
        }
        let mut plan = Plan::new(context.now.wall);
        for node_id in std::mem::take(&mut self.nodes) {
            let planned = plan.len();
            orphan(store, &node_id, context.now, &mut plan);
            if plan.len() > planned || plan.is_full() {
                self.nodes.insert(node_id);
            }
        }
        // What is orphaned now changes, so it cannot be deleted in the same transaction.
        let orphans = plan.len() > 0;
        for (service_id, keys) in std::mem::take(&mut self.dirty) {
            if plan.is_full() || orphans {
                self.dirty.insert(service_id, keys);
                continue;
            }
            let left = reap(store, &service_id, keys, &mut plan);
            if !left.is_empty() {
                self.dirty.insert(service_id, left);
            }
        }
        if !plan.is_full() {
            self.due = None;
        }
        Step {
            transaction: plan.into_transaction(),
            wake_at: None,
        }
    }
}

/// Declares the node's tasks orphaned.
fn orphan(store: &Store, node_id: &str, now: Now, plan: &mut Plan) {
    if store.node(node_id).is_some() {
        return;
    }
    for task in store.tasks_of_node(node_id) {
        if !task.status.state.is_terminal() {
            plan.add(vec![StoreAction::TaskStatus {
                id: task.id.clone(),
                status: TaskStatus {
                    state: TaskState::Orphaned,
                    since: now.wall,
                    message: "Task belonged to a node that has been deleted".to_owned(),
                    ..task.status.clone()
                },
            }]);
        }
    }
}

/// Deletes what is superfluous in these slots. Gives those where something was or remains to be done.
fn reap(
    store: &Store,
    service_id: &str,
    keys: BTreeSet<SlotKey>,
    plan: &mut Plan,
) -> BTreeSet<SlotKey> {
    let service = store.service(service_id);
    let limit = history_limit(store, service);
    let mut slots: BTreeMap<SlotKey, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in store.tasks_of_service(service_id) {
        let key = SlotKey::of(task);
        if keys.contains(&key) {
            slots.entry(key).or_default().push(task);
        }
    }
    let mut left = BTreeSet::new();
    for (key, mut tasks) in slots {
        tasks.sort_by_key(|task| task.generation);
        let superfluous = superfluous(store, service, &tasks, limit);
        if !superfluous.is_empty() {
            left.insert(key);
        }
        for task in superfluous {
            plan.add(vec![StoreAction::Remove {
                kind: Kind::Task,
                id: task.id.clone(),
                version: task.meta.version,
            }]);
        }
    }
    left
}

fn superfluous<'a>(
    store: &Store,
    service: Option<&Arc<Service>>,
    tasks: &[&'a Arc<Task>],
    limit: Option<usize>,
) -> Vec<&'a Arc<Task>> {
    let (removed, kept): (Vec<_>, Vec<_>) = tasks
        .iter()
        .copied()
        .partition(|task| task.desired == DesiredState::Remove);
    let mut superfluous: Vec<_> = removed
        .into_iter()
        .filter(|task| {
            is_over(task) || (!task.node_id.is_empty() && store.node(&task.node_id).is_none())
        })
        .collect();
    let rollout = service
        .and_then(|service| service.rollout.as_ref())
        .filter(|rollout| rollout.state.is_active())
        .map_or(0, |rollout| rollout.id);
    let excess = limit.map_or(0, |limit| kept.len().saturating_sub(limit.max(1)));
    let history = kept
        .iter()
        .take(kept.len().saturating_sub(1))
        .filter(|task| task.desired > DesiredState::Running && is_over(task))
        .filter(|task| rollout == 0 || task.rollout != rollout)
        .take(excess);
    superfluous.extend(history);
    superfluous
}

/// Whether no agent has the task, or will ever have it.
fn is_over(task: &Task) -> bool {
    task.status.state.is_terminal() || task.status.state < TaskState::Assigned
}

/// How many tasks a slot keeps; `None`: all. Enough to count a restart policy's attempts by.
fn history_limit(store: &Store, service: Option<&Arc<Service>>) -> Option<usize> {
    let limit = store
        .cluster()
        .and_then(|cluster| cluster.spec.orchestration.task_history_retention_limit)
        .unwrap_or(HISTORY_LIMIT);
    let limit = usize::try_from(limit).ok()?;
    let attempts = service
        .and_then(|service| service.spec.task_template.restart_policy.as_ref())
        .and_then(|policy| policy.max_attempts)
        .filter(|attempts| *attempts > 0)
        .map_or(0, |attempts| {
            usize::try_from(attempts)
                .unwrap_or(usize::MAX)
                .saturating_add(1)
        });
    Some(limit.max(attempts))
}
