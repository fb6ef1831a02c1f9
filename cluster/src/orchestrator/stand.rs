//! What a slot has: its live tasks by what may be done with them.

use std::cmp::Reverse;
use std::sync::Arc;

use cluster_api::{DesiredState, Task, TaskState, Timestamp};

use super::restart::{self, Cause};
use super::slot::{Slot, SlotKey, is_unusable};
use super::template::Template;

/// A slot that is to have a task, and how it stands.
#[derive(Debug)]
pub(super) struct Stand<'a> {
    pub(super) key: SlotKey,
    pub(super) slot: Slot<'a>,
    /// The live task that is what the service asks for and can go on; of several the one that is furthest.
    pub(super) clean: Option<&'a Arc<Task>>,
    /// The live task of an older spec that can go on.
    pub(super) dirty: Option<&'a Arc<Task>>,
    /// More of them, which nobody needs.
    pub(super) spare: Vec<&'a Arc<Task>>,
    /// Live tasks that cannot go on, oldest first.
    pub(super) gone: Vec<(&'a Arc<Task>, Cause)>,
}

impl<'a> Stand<'a> {
    pub(super) fn of(key: SlotKey, slot: Slot<'a>, template: &Template<'a>) -> Self {
        let (mut clean, mut dirty, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for task in slot.live() {
            if task.status.state.is_terminal() {
                gone.push((task, Cause::Ended));
            } else if task.evicted
                || (!task.node_id.is_empty() && is_unusable(template.store.node(&task.node_id)))
            {
                gone.push((task, Cause::Displaced));
            } else if template.is_dirty(task) {
                dirty.push(task);
            } else {
                clean.push(task);
            }
        }
        let (mut spare, clean, dirty) = (Vec::new(), furthest(clean), furthest(dirty));
        spare.extend(clean.1);
        spare.extend(dirty.1);
        Self {
            key,
            slot,
            clean: clean.0,
            dirty: dirty.0,
            spare,
            gone,
        }
    }

    /// Whether the slot has a task that is wanted, or one that ended for good. Otherwise it needs a new one.
    pub(super) fn is_occupied(&self) -> bool {
        self.slot.live().next().is_some() || self.finished().is_some()
    }

    /// The task that ended for good: there is no live one and the restart policy wants none.
    pub(super) fn finished(&self) -> Option<&'a Arc<Task>> {
        if self.slot.live().next().is_some() {
            return None;
        }
        self.slot
            .newest()
            .filter(|task| !restart::is_wanted(task, &self.slot))
    }

    /// The task the rollout made for this slot, or the one that took its place; or one that an earlier rollout to the
    /// same template made and that has not yet run.
    pub(super) fn made_by(&self, rollout: u64) -> Option<&'a Arc<Task>> {
        self.slot
            .tasks
            .iter()
            .rev()
            .copied()
            .find(|task| task.rollout == rollout)
            .or_else(|| self.inherited())
    }

    /// The task of this slot with which an earlier rollout has not come to an end.
    pub(super) fn inherited(&self) -> Option<&'a Arc<Task>> {
        self.clean
            .filter(|task| task.rollout != 0 && task.running_since == Timestamp::default())
    }

    /// Whether a task of the service runs here.
    pub(super) fn is_running(&self) -> bool {
        self.slot
            .live()
            .any(|task| task.status.state == TaskState::Running)
    }
}

fn furthest(mut tasks: Vec<&Arc<Task>>) -> (Option<&Arc<Task>>, Vec<&Arc<Task>>) {
    tasks.sort_by_key(|task| {
        Reverse((
            task.status.state == TaskState::Running,
            task.desired >= DesiredState::Running,
            task.status.state,
            Reverse(task.generation),
        ))
    });
    let mut tasks = tasks.into_iter();
    (tasks.next(), tasks.collect())
}
