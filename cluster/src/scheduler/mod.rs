//! Chooses nodes for tasks (`Pending` → `Assigned`). Never looks back: what is assigned stays where it is until somebody
//! else ends it.
//!
//! Tasks of one service and one version of its spec are alike and are placed together: the filters (`filter`) are asked
//! once per node, the order of the suitable nodes (`spread`) is kept while tasks are given out. What each node has
//! (`usage`) follows the store commit by commit; what a step gives out counts within the step only and is taken back at
//! its end, so that a transaction that failed leaves nothing behind.
//!
//! A task that fits nowhere waits with the reason in `status.error` and is looked at again as soon as a node appears,
//! changes, or gets something back. No timer, no debouncing: a step without news costs nothing.
//!
//! Must not: look at what containers really use, or move a task.
//! Behaviour: moby/swarmkit `manager/scheduler`.

mod filter;
mod spread;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{DesiredState, Node, Now, Object, Task, TaskState, TaskStatus};

use crate::batch::Batch;
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreEvent};
use filter::{Demand, Failures};
use spread::{Purpose, Tree};
use usage::{Group, Load, Usage, is_held};

const ASSIGNED: &str = "scheduler assigned task to node";
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

const GIVEN_UP: &str = "task was given up before it had a node";

/// Slot and id, so that lower slots are placed first.
type Waiting = BTreeSet<(u64, String)>;

/// The loop; see the module.
#[derive(Debug, Default)]
pub struct Scheduler {
    /// In the order of the nodes' ids.
    nodes: Vec<Usage>,
    waiting: BTreeMap<Group, Waiting>,
    /// Tasks of global services, by node: only whether they fit is to be decided.
    bound: BTreeMap<String, BTreeSet<String>>,
    /// Groups to look at.
    dirty: BTreeSet<Group>,
    /// Nodes whose bound tasks are to be looked at.
    dirty_nodes: BTreeSet<String>,
    /// Tasks that were given up before they had a node: nobody else can end them.
    unwanted: BTreeSet<String>,
}

impl Scheduler {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn place_of(&self, node_id: &str) -> Result<usize, usize> {
        self.nodes
            .binary_search_by(|usage| usage.node.id.as_str().cmp(node_id))
    }

    fn usage_mut(&mut self, node_id: &str) -> Option<&mut Usage> {
        let place = self.place_of(node_id).ok()?;
        self.nodes.get_mut(place)
    }

    /// Something was freed on a node, or it changed: all that waits may fit now.
    fn freed(&mut self, node_id: &str) {
        self.dirty.extend(self.waiting.keys().cloned());
        if self.bound.contains_key(node_id) {
            self.dirty_nodes.insert(node_id.to_owned());
        }
    }

    fn node_changed(&mut self, node: &Arc<Node>) {
        let news = match self.place_of(&node.id) {
            Ok(place) => self.nodes[place].update(node.clone()),
            Err(place) => {
                self.nodes.insert(place, Usage::new(node.clone()));
                true
            }
        };
        if news {
            self.freed(&node.id);
        } else {
            // Why something waits may read differently now.
            self.dirty_nodes.insert(node.id.clone());
        }
    }

    fn node_removed(&mut self, node_id: &str) {
        if let Ok(place) = self.place_of(node_id) {
            self.nodes.remove(place);
        }
    }

    fn task_changed(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        let before = old.map(|task| Place::of(task));
        let after = new.map(|task| Place::of(task));
        if before == after {
            return;
        }
        if let (Some(task), Some(place)) = (old, before) {
            self.leave(task, place, new);
        }
        if let (Some(task), Some(place)) = (new, after) {
            self.enter(task, place);
        }
    }

    fn leave(&mut self, task: &Task, place: Place, new: Option<&Arc<Task>>) {
        match place {
            Place::Waiting => {
                let group = Group::of(task);
                if let Some(waiting) = self.waiting.get_mut(&group) {
                    waiting.remove(&(task.slot, task.id.clone()));
                    if waiting.is_empty() {
                        self.waiting.remove(&group);
                    }
                }
            }
            Place::Bound => {
                if let Some(bound) = self.bound.get_mut(&task.node_id) {
                    bound.remove(&task.id);
                    if bound.is_empty() {
                        self.bound.remove(&task.node_id);
                    }
                }
            }
            Place::Held { .. } => {
                let failure = new.and_then(|new| failure_of(new));
                if let Some(usage) = self.usage_mut(&task.node_id) {
                    usage.let_go(&task.id);
                    if let Some(at) = failure {
                        usage.failed(Group::of(task), at);
                    }
                }
                self.freed(&task.node_id);
            }
            Place::Unwanted => {
                self.unwanted.remove(&task.id);
            }
            Place::Nowhere => {}
        }
    }

    fn enter(&mut self, task: &Arc<Task>, place: Place) {
        match place {
            Place::Waiting => {
                let group = Group::of(task);
                self.dirty.insert(group.clone());
                let waiting = self.waiting.entry(group).or_default();
                waiting.insert((task.slot, task.id.clone()));
            }
            Place::Bound => {
                self.dirty_nodes.insert(task.node_id.clone());
                let bound = self.bound.entry(task.node_id.clone()).or_default();
                bound.insert(task.id.clone());
            }
            Place::Held { .. } => {
                if let Some(usage) = self.usage_mut(&task.node_id) {
                    usage.hold(&task.id, Load::of(task));
                }
            }
            Place::Unwanted => {
                self.unwanted.insert(task.id.clone());
            }
            Place::Nowhere => {}
        }
    }

    /// Places waiting tasks of a group. Whether all was said that can be said now.
    fn place(&mut self, group: &Group, trial: &mut Trial<'_>) -> bool {
        let Some(waiting) = self.waiting.get(group) else {
            return true;
        };
        let tasks: Vec<&Arc<Task>> = waiting
            .iter()
            .filter_map(|(_, id)| trial.store.task(id))
            .collect();
        let Some(first) = tasks.first() else {
            return true;
        };
        let demand = Demand::of(first, trial.store);
        let placement = first.spec.placement.clone().unwrap_or_default();
        let purpose = Purpose::new(group, &placement.preferences, trial.now.wall);
        let mut tree = Tree::new();
        let mut failures = Failures::default();
        for (place, usage) in self.nodes.iter().enumerate() {
            let failure = demand.first_failure(usage);
            if let Some(filter) = failure {
                failures.count(filter);
            }
            tree.add(usage, place, failure.is_none(), &purpose);
        }
        let mut news = false;
        let mut rest = tasks.into_iter();
        let mut unplaced = None;
        for task in rest.by_ref() {
            let mut assign = |usage: &mut Usage| {
                let fits = demand.still_fits(usage);
                if fits {
                    usage.hold(&task.id, Load::of(task));
                }
                fits
            };
            let Some(place) = tree.choose(&mut self.nodes, &purpose, &mut assign) else {
                unplaced = Some(task);
                break;
            };
            trial.held.push((place, task.id.clone()));
            let node_id = self.nodes[place].node.id.clone();
            if !trial.assign(task, node_id, ASSIGNED) {
                return false;
            }
            news = true;
        }
        if unplaced.is_some() && news {
            failures = Failures::default();
            for usage in &self.nodes {
                if let Some(filter) = demand.first_failure(usage) {
                    failures.count(filter);
                }
            }
        }
        let error = match failures.explain() {
            reasons if reasons.is_empty() => "no suitable node".to_owned(),
            reasons => format!("no suitable node ({reasons})"),
        };
        for task in unplaced.into_iter().chain(rest) {
            match trial.explain(task, &error) {
                Said::Full => return false,
                Said::Now => news = true,
                Said::Before => {}
            }
        }
        !news
    }

    /// Confirms the tasks that are bound to a node, or says why they cannot run there. Whether all was said.
    fn confirm(&mut self, node_id: &str, trial: &mut Trial<'_>) -> bool {
        let Some(bound) = self.bound.get(node_id) else {
            return true;
        };
        let Ok(place) = self.place_of(node_id) else {
            return true;
        };
        let mut news = false;
        for task in bound.iter().filter_map(|id| trial.store.task(id)) {
            let usage = &mut self.nodes[place];
            let demand = Demand::of(task, trial.store);
            let said = if let Some(filter) = demand.first_failure(usage) {
                let mut failures = Failures::default();
                failures.count(filter);
                trial.explain(task, &failures.explain())
            } else {
                usage.hold(&task.id, Load::of(task));
                trial.held.push((place, task.id.clone()));
                if trial.assign(task, node_id.to_owned(), CONFIRMED) {
                    Said::Now
                } else {
                    Said::Full
                }
            };
            match said {
                Said::Full => return false,
                Said::Now => news = true,
                Said::Before => {}
            }
        }
        !news
    }
}

impl ControlLoop for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        *self = Self::new();
        let nodes = context.store.nodes();
        self.nodes = nodes.map(|node| Usage::new(node.clone())).collect();
        for task in context.store.tasks() {
            self.task_changed(None, Some(task));
            if let Some(at) = failure_of(task)
                && let Some(usage) = self.usage_mut(&task.node_id)
            {
                usage.failed(Group::of(task), at);
            }
        }
        for usage in &mut self.nodes {
            usage.tidy(context.now.wall);
        }
    }

    fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Created(Object::Task(task)) => self.task_changed(None, Some(task)),
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => self.task_changed(Some(old), Some(new)),
            StoreEvent::Removed(Object::Task(task)) => self.task_changed(Some(task), None),
            StoreEvent::Created(Object::Node(node))
            | StoreEvent::Updated {
                new: Object::Node(node),
                ..
            } => self.node_changed(node),
            StoreEvent::Removed(Object::Node(node)) => self.node_removed(&node.id),
            _ => {}
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        let mut trial = Trial {
            store: context.store,
            now: context.now,
            batch: Batch::new(context.now.wall),
            held: Vec::new(),
        };
        for task in self.unwanted.iter().filter_map(|id| context.store.task(id)) {
            let status = TaskStatus {
                state: TaskState::Shutdown,
                since: trial.now.wall,
                message: GIVEN_UP.to_owned(),
                ..TaskStatus::default()
            };
            if !trial.batch.task_status(&task.id, status) {
                break;
            }
        }
        // Bound tasks first: they have no choice.
        for node_id in std::mem::take(&mut self.dirty_nodes) {
            if trial.batch.is_full() || !self.confirm(&node_id, &mut trial) {
                self.dirty_nodes.insert(node_id);
            }
        }
        for group in std::mem::take(&mut self.dirty) {
            if trial.batch.is_full() || !self.place(&group, &mut trial) {
                self.dirty.insert(group);
            }
        }
        for (place, task_id) in trial.held {
            self.nodes[place].let_go(&task_id);
        }
        Step {
            transaction: trial.batch.finish(),
            wake_at: None,
        }
    }
}

/// Where a task is for the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Needs a node.
    Waiting,
    /// Needs the confirmation of its node.
    Bound,
    /// Takes something from its node, as a wanted task or not.
    Held { active: bool },
    /// Has no node and is not to get one.
    Unwanted,
    /// None of the scheduler's business.
    Nowhere,
}

impl Place {
    fn of(task: &Task) -> Self {
        if is_held(task) {
            let active = task.desired < DesiredState::Shutdown;
            Self::Held { active }
        } else if task.status.state < TaskState::Assigned && task.desired >= DesiredState::Shutdown
        {
            Self::Unwanted
        } else if task.status.state != TaskState::Pending {
            Self::Nowhere
        } else if task.node_id.is_empty() {
            Self::Waiting
        } else {
            Self::Bound
        }
    }
}

/// When the task failed, if it did on a node that was chosen for it.
fn failure_of(task: &Task) -> Option<cluster_api::Timestamp> {
    let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    (failed && task.slot != 0).then_some(task.ended_at)
}

enum Said {
    Now,
    Before,
    Full,
}

/// One step: what it decides and what it has given out meanwhile.
struct Trial<'a> {
    store: &'a Store,
    now: Now,
    batch: Batch,
    /// Place of the node, task.
    held: Vec<(usize, String)>,
}

impl Trial<'_> {
    /// Whether there was room for it.
    fn assign(&mut self, task: &Task, node_id: String, message: &str) -> bool {
        let mut assigned = task.clone();
        assigned.node_id = node_id;
        assigned.status = TaskStatus {
            state: TaskState::Assigned,
            since: self.now.wall,
            message: message.to_owned(),
            ..TaskStatus::default()
        };
        self.batch.update(assigned)
    }

    fn explain(&mut self, task: &Task, error: &str) -> Said {
        if task.status.error == error {
            return Said::Before;
        }
        let status = TaskStatus {
            since: self.now.wall,
            error: error.to_owned(),
            ..task.status.clone()
        };
        if self.batch.task_status(&task.id, status) {
            Said::Now
        } else {
            Said::Full
        }
    }
}
