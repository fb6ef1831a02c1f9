//! What to do about each slot: the one place where tasks are made, started and stopped.
//!
//! ```text
//!   stop-first   old: Running ─────────────────────▶ Shutdown ···ended
//!                new:    Ready ···pulled, prepared ─┘              └─▶ Running
//!   start-first  old: Running ───────────────────────▶ Shutdown
//!                new:    Running ···running and healthy ┘
//!   restart      old: ended ▶ Shutdown
//!                new:           Ready ···delay over, old one ended ─▶ Running
//! ```
//!
//! Which of the first two applies to a slot is written in the new task: it `replaces` the old one or does not. So a
//! change of the order half-way changes nothing for slots that have begun.

use std::sync::Arc;

use cluster_api::{DesiredState, IdSource, Object, Restarts, Task, TaskState, Timestamp};

use super::clock::{Clock, Wait, millis};
use super::gate;
use super::plan::Plan;
use super::restart::{self, Cause};
use super::rollout::{Phase, Verdict, is_start_first};
use super::slot::{Slot, SlotKey, is_live, is_lost};
use super::stand::Stand;
use super::template::{Making, Template, host_ports};
use crate::constraint;
use crate::store::StoreAction;

/// How long a new task waits at least for the end of the one it replaces (SwarmKit `restart.defaultOldTaskTimeout`).
const OLD_TASK_MS: u64 = 60_000;
/// How much longer than its stop grace period a task may take to stop; it leaves all balancers first.
const GRACE_MARGIN_MS: u64 = 20_000;
/// Docker's stop grace period.
const GRACE_MS: u64 = 10_000;

/// Decides about the slots of one service.
pub(super) struct Settlement<'a, 'b> {
    pub(super) template: &'b Template<'a>,
    pub(super) verdict: &'b Verdict,
    /// Whether what has never run may be started.
    pub(super) is_open: bool,
    pub(super) clock: &'b mut Clock,
    pub(super) ids: &'b mut IdSource,
    pub(super) plan: &'b mut Plan,
}

impl<'a> Settlement<'a, '_> {
    /// A slot that is to have a task.
    pub(super) fn settle(&mut self, stand: &Stand<'a>) {
        let mut actions: Vec<StoreAction> = Vec::new();
        for task in &stand.spare {
            actions.push(shut_down(task));
        }
        let begins = self.verdict.begin.contains(&stand.key);
        let is_early = stand.clean.is_none() && !begins && self.failed_early(stand);
        let gone = stand.gone.len() - usize::from(is_early);
        for (task, _) in &stand.gone[..gone] {
            actions.push(shut_down(task));
        }
        if is_early {
            return self.plan.add(actions);
        }
        match (stand.clean, stand.dirty) {
            (Some(clean), old) => self.go_on(clean, old, &mut actions),
            (None, Some(old)) => self.keep_or_update(stand, old, begins, &mut actions),
            (None, None) => self.fill(stand, begins, &mut actions),
        }
        self.plan.add(actions);
    }

    /// A slot that goes on with what it has and gets nothing.
    pub(super) fn go_on_as_is(&mut self, stand: &Stand<'a>) {
        let gone = stand.gone.iter().map(|(task, _)| *task);
        let surplus = stand.spare.iter().copied().chain(gone);
        let mut actions: Vec<StoreAction> = surplus.map(|task| shut_down(task)).collect();
        match (stand.clean, stand.dirty) {
            (Some(clean), old) => self.go_on(clean, old, &mut actions),
            (None, Some(old)) => self.start_when_due(old, &mut actions),
            (None, None) => {}
        }
        self.plan.add(actions);
    }

    /// Whether the slot's newest task failed while its restart delay had not passed: it could not be made ready. It
    /// keeps its place until then, lest an image that does not exist be asked for without a pause.
    fn failed_early(&mut self, stand: &Stand<'a>) -> bool {
        stand
            .gone
            .last()
            .is_some_and(|(task, cause)| *cause == Cause::Ended && !self.is_delay_over(task))
    }

    /// A slot that has no task yet, or only ended ones.
    pub(super) fn create(&mut self, key: &SlotKey, slot: &Slot<'a>) {
        let task = self.fresh(key, slot);
        self.plan.add(vec![create(task)]);
    }

    /// The slot has what the service asks for: start it when it may start, stop what it replaces.
    fn go_on(
        &mut self,
        clean: &Arc<Task>,
        old: Option<&Arc<Task>>,
        actions: &mut Vec<StoreAction>,
    ) {
        let runs =
            clean.desired >= DesiredState::Running && clean.status.state == TaskState::Running;
        if let Some(old) = old
            && (runs || self.gives_way(old, clean))
        {
            actions.push(shut_down(old));
        }
        self.start_when_due(clean, actions);
    }

    fn start_when_due(&mut self, task: &Task, actions: &mut Vec<StoreAction>) {
        if gate::is_released(task, self.is_open) && self.may_start(task) {
            actions.push(StoreAction::TaskDesired {
                id: task.id.clone(),
                desired: DesiredState::Running,
            });
        }
    }

    /// The slot has a task of an older spec that can go on.
    fn keep_or_update(
        &mut self,
        stand: &Stand<'a>,
        old: &Arc<Task>,
        begins: bool,
        actions: &mut Vec<StoreAction>,
    ) {
        let failed =
            stand.gone.iter().rev().find(|(task, _)| {
                task.generation > old.generation && !self.template.is_dirty(task)
            });
        if begins {
            let start_first = is_start_first(self.template.service);
            let replaces = (!start_first).then(|| old.id.clone());
            let task = self.update(stand, replaces);
            actions.push(create(task));
        } else if let Some((failed, cause)) = failed {
            if self.verdict.phase == Phase::Paused {
                return;
            }
            if restart::is_wanted(failed, &stand.slot) {
                let replaces = failed.restarts.replaces.clone();
                let task = self.restart(stand, failed, *cause, replaces);
                actions.push(create(task));
            } else if failed.status.state == TaskState::Complete {
                actions.push(shut_down(old));
            }
        } else {
            self.start_when_due(old, actions);
        }
    }

    /// The slot has nothing that can go on.
    fn fill(&mut self, stand: &Stand<'a>, begins: bool, actions: &mut Vec<StoreAction>) {
        if let Some(&(gone, cause)) = stand.gone.last() {
            let replaces = self.awaited(gone);
            if begins {
                let task = self.update(stand, replaces);
                actions.push(create(task));
            } else if restart::is_wanted(gone, &stand.slot) {
                let task = self.restart(stand, gone, cause, replaces);
                actions.push(create(task));
            }
        } else if let Some(finished) = stand.finished()
            && begins
        {
            let replaces = self.awaited(finished);
            let task = self.update(stand, replaces);
            actions.push(create(task));
        }
    }

    /// What must have stopped before a successor of `task` starts: itself, or what it was still waiting for.
    fn awaited(&self, task: &Arc<Task>) -> Option<String> {
        let store = self.template.store;
        let waited_for = task
            .restarts
            .replaces
            .as_ref()
            .filter(|_| task.desired == DesiredState::Ready)
            .and_then(|id| store.task(id));
        [waited_for, Some(task)]
            .into_iter()
            .flatten()
            .find(|task| !task.status.state.is_terminal() && !is_lost(store.node(&task.node_id)))
            .map(|task| task.id.clone())
    }

    /// A slot's first task, or the first one after it had been empty.
    fn fresh(&mut self, key: &SlotKey, slot: &Slot<'a>) -> Task {
        let replaces = [slot.leaving, slot.newest()]
            .into_iter()
            .flatten()
            .find_map(|task| self.awaited(task));
        let making = Making {
            generation: slot.generation + 1,
            gated: !self.is_open,
            restarts: Restarts {
                replaces,
                ..Restarts::default()
            },
            ..Making::default()
        };
        self.make(key, making)
    }

    /// The rollout's new task.
    fn update(&mut self, stand: &Stand<'a>, replaces: Option<String>) -> Task {
        let making = Making {
            generation: stand.slot.generation + 1,
            rollout: self.verdict.id,
            gated: !self.is_open,
            restarts: Restarts {
                replaces,
                ..Restarts::default()
            },
            ..Making::default()
        };
        self.make(&stand.key, making)
    }

    /// The successor of a task that cannot go on. While an update goes on or is paused, a slot whose turn has not come
    /// keeps its spec.
    fn restart(
        &mut self,
        stand: &Stand<'a>,
        task: &Arc<Task>,
        cause: Cause,
        replaces: Option<String>,
    ) -> Task {
        let keeps_spec = matches!(self.verdict.phase, Phase::Active | Phase::Paused)
            && self.template.is_dirty(task);
        let version = if keeps_spec {
            task.spec_version
        } else {
            self.template.service.spec_version
        };
        let now = self.clock.wall();
        let mut restarts = restart::successor_of(task, cause, version, now);
        restarts.replaces = replaces;
        if restarts.not_before <= now {
            restarts.not_before = Timestamp::default();
        }
        let never_ran = task.running_since == Timestamp::default();
        let making = Making {
            generation: stand.slot.generation + 1,
            like: keeps_spec.then(|| Arc::clone(task)),
            rollout: if cause == Cause::Displaced && never_ran {
                task.rollout
            } else {
                0
            },
            gated: task.gated && !self.is_open,
            restarts,
            ..Making::default()
        };
        self.make(&stand.key, making)
    }

    /// Makes a task that starts at once if nothing holds it.
    fn make(&mut self, key: &SlotKey, mut making: Making) -> Task {
        let waits = making.gated
            || making.restarts.replaces.is_some()
            || making.restarts.not_before != Timestamp::default();
        making.desired = if waits {
            DesiredState::Ready
        } else {
            DesiredState::Running
        };
        self.template.make(key, making, self.clock.wall(), self.ids)
    }

    /// Whether the delay is over and what the task replaces has stopped, or had its time.
    fn may_start(&mut self, task: &Task) -> bool {
        if !self.is_delay_over(task) {
            return false;
        }
        let store = self.template.store;
        let Some(old) = task
            .restarts
            .replaces
            .as_ref()
            .and_then(|id| store.task(id))
        else {
            return true;
        };
        if old.status.state.is_terminal() || is_lost_with_its_node(store, old) {
            return true;
        }
        if is_live(old) {
            return false;
        }
        let grace_ms = old
            .spec
            .container_spec
            .as_ref()
            .and_then(|container| container.stop_grace_period)
            .map_or(GRACE_MS, millis);
        let patience_ms = OLD_TASK_MS.max(grace_ms.saturating_add(GRACE_MARGIN_MS));
        self.clock
            .has_passed(Wait::OldTaskStops, &old.id, old.desired_since, patience_ms)
    }

    fn is_delay_over(&mut self, task: &Task) -> bool {
        let made = task.meta.created_at;
        let delay_ms = task.restarts.not_before.millis_since(made);
        self.clock
            .has_passed(Wait::RestartDelay, &task.id, made, delay_ms)
    }

    /// Stop-first: whether the old task is to stop now, because the new one is ready, or finds no place while the old
    /// one may be what is in its way.
    fn gives_way(&self, old: &Task, new: &Task) -> bool {
        if new.restarts.replaces.is_none() {
            return false;
        }
        match new.status.state {
            TaskState::Ready | TaskState::Starting | TaskState::Running => true,
            TaskState::Pending => !new.status.error.is_empty() && self.is_in_the_way(old, new),
            _ => false,
        }
    }

    fn is_in_the_way(&self, old: &Task, new: &Task) -> bool {
        let placement = new.spec.placement.as_ref();
        let constraints = placement.map_or(&[][..], |placement| &placement.constraints);
        let could_be_there = self
            .template
            .store
            .node(&old.node_id)
            .is_some_and(|node| constraint::all_met(constraints, node));
        let resources = new.spec.resources.as_ref();
        could_be_there
            && (!host_ports(Some(&new.endpoint.spec)).is_empty()
                || resources.is_some_and(|resources| resources.reservations.is_some())
                || placement.is_some_and(|placement| placement.max_replicas > 0))
    }
}

fn is_lost_with_its_node(store: &crate::store::Store, task: &Task) -> bool {
    task.node_id.is_empty() || is_lost(store.node(&task.node_id))
}

/// Wants the task stopped and kept.
pub(super) fn shut_down(task: &Task) -> StoreAction {
    StoreAction::TaskDesired {
        id: task.id.clone(),
        desired: DesiredState::Shutdown,
    }
}

/// Wants the task stopped and deleted.
pub(super) fn remove(task: &Task) -> StoreAction {
    StoreAction::TaskDesired {
        id: task.id.clone(),
        desired: DesiredState::Remove,
    }
}

fn create(task: Task) -> StoreAction {
    StoreAction::Create(Object::from(task))
}
