//! The life of one task on its node: from what is wanted and what has happened to the next step. Does nothing itself.
//! States and messages: moby/swarmkit `agent/exec/controller.go` (`Do`).
//!
//! ```text
//! Waiting ─▶ Preparing ─▶ Prepared ─▶ Starting ─▶ Running ─▶ Draining ─▶ Stopping ─▶ Ended ─▶ Removing ─▶ (gone)
//!    │           └──────────────────────┴────────────┴──────────────────────▲   ▲       ▲
//!    └──────────────────────────────────────────────────────────────────────┼───┴───────┘
//!                              ends by itself, or could not be made ready ──┘
//! ```
//!
//! A container is started at most once. `Draining` is the time between the order to stop and the word that no balancer
//! sends anything any more.

use std::sync::Arc;

use cluster_api::{DesiredState, Now, Task, TaskState, TaskStatus, Time};

use super::action::{Action, FoundState, Happened, Intent, Preparation, Record};

/// How long a stop waits for the word that every balancer has dropped the task, in milliseconds. A node that is cut
/// off or hangs must not keep a rollout waiting for longer.
pub const UNBIND_WAIT_MS: u64 = 5_000;

const REMOVE_RETRY_MS: u64 = 5_000;

#[derive(Debug)]
pub(super) struct TaskRun {
    task: Arc<Task>,
    status: TaskStatus,
    intent: Intent,
    assigned: bool,
    phase: Phase,
    /// What the disk has is older than this.
    unsaved: bool,
    /// Its container was found without a record, so no manager may hear of it.
    stray: bool,
    /// Its container ended and still has secrets and addresses.
    release: bool,
    /// Its container was found running and is not watched yet.
    adopt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has been begun.
    Waiting,
    Preparing,
    Prepared,
    Starting,
    Running,
    Draining {
        until: Time,
    },
    Stopping,
    Ended,
    Removing,
    NotRemoved {
        retry_at: Time,
    },
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Ready,
    Running,
    Stopped,
    Gone,
}

/// What a task's next step depends on besides itself.
pub(super) struct Surroundings<'a> {
    pub(super) now: Now,
    /// Tasks no balancer sends anything to any more.
    pub(super) unbound: bool,
    /// What the task needs, when all of it is known.
    pub(super) preparation: &'a dyn Fn(&Arc<Task>) -> Option<Preparation>,
}

impl TaskRun {
    /// A task that was just assigned to this node.
    pub(super) fn assigned(task: Arc<Task>, now: Now) -> Self {
        let mut run = Self {
            status: task.status.clone(),
            task,
            intent: Intent::Accept,
            assigned: true,
            phase: Phase::Waiting,
            unsaved: true,
            stray: false,
            release: false,
            adopt: false,
        };
        if run.status.state.is_terminal() {
            run.phase = Phase::Ended;
        } else if run.status.state >= TaskState::Starting {
            // It was begun here once, and nothing is left of it: it must not run a second time.
            run.end(
                TaskState::Failed,
                "the node has lost the task's container",
                now,
            );
        } else {
            run.reach(TaskState::Accepted, "accepted", now);
        }
        run
    }

    /// A task the agent had before it was restarted, and its container if there is one.
    pub(super) fn restored(record: Record, found: Option<&FoundState>, now: Now) -> Self {
        let mut run = Self {
            task: record.task,
            status: record.status,
            intent: record.intent,
            assigned: record.assigned,
            phase: Phase::Waiting,
            unsaved: false,
            stray: false,
            release: false,
            adopt: false,
        };
        run.resume(found, now);
        run
    }

    /// A container without a record whose task a manager wants here: it goes on.
    pub(super) fn rediscovered(task: Arc<Task>, found: &FoundState, now: Now) -> Self {
        let mut run = Self {
            status: task.status.clone(),
            task,
            intent: Intent::Start,
            assigned: true,
            phase: Phase::Waiting,
            unsaved: true,
            stray: false,
            release: false,
            adopt: false,
        };
        run.resume(Some(found), now);
        run
    }

    /// A container without a record that no manager wants here.
    pub(super) fn stray(task_id: &str, found: &FoundState) -> Self {
        Self {
            task: Arc::new(Task {
                id: task_id.to_owned(),
                ..Task::default()
            }),
            status: TaskStatus::default(),
            intent: Intent::Start,
            assigned: false,
            phase: match found {
                FoundState::Created => Phase::Prepared,
                FoundState::Running => Phase::Starting,
                FoundState::Exited { .. } => Phase::Ended,
            },
            unsaved: true,
            stray: true,
            release: false,
            adopt: matches!(found, FoundState::Running),
        }
    }

    pub(super) const fn task(&self) -> &Arc<Task> {
        &self.task
    }

    pub(super) const fn is_assigned(&self) -> bool {
        self.assigned
    }

    /// What a manager should know of it, if anything.
    pub(super) fn report(&self) -> Option<&TaskStatus> {
        // That a task is given up is the managers' word alone.
        let known =
            self.status.state > TaskState::Assigned && self.status.state != TaskState::Orphaned;
        (known && !self.stray).then_some(&self.status)
    }

    /// Whether its container runs or may run.
    pub(super) const fn may_run(&self) -> bool {
        matches!(
            self.phase,
            Phase::Starting | Phase::Running | Phase::Draining { .. } | Phase::Stopping
        )
    }

    /// Whether its container is (or will be) on its networks.
    pub(super) const fn uses_networks(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Ended | Phase::Removing | Phase::NotRemoved { .. } | Phase::Gone
        )
    }

    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    pub(super) const fn wake_at(&self) -> Option<Time> {
        match self.phase {
            Phase::Draining { until: at } | Phase::NotRemoved { retry_at: at } => Some(at),
            _ => None,
        }
    }

    /// The managers' newest word on it.
    pub(super) fn update(&mut self, task: Arc<Task>) {
        self.unsaved |= !self.assigned || *self.task != *task;
        self.assigned = true;
        self.task = task;
    }

    /// The managers no longer want it here.
    pub(super) fn unassign(&mut self) {
        self.unsaved |= self.assigned;
        self.assigned = false;
    }

    pub(super) fn happened(&mut self, happened: Happened, now: Now) {
        use Phase::{
            Draining, Ended, NotRemoved, Prepared, Preparing, Removing, Running, Starting, Stopping,
        };
        match (self.phase, happened) {
            (Preparing, Happened::Prepared) => {
                self.phase = Prepared;
                self.reach(TaskState::Ready, "prepared", now);
            }
            (Preparing, Happened::NotPrepared { error }) => {
                self.end(TaskState::Rejected, &error, now);
            }
            (Starting, Happened::Started { container }) => self.status.container = Some(container),
            (Starting, Happened::Healthy) => {
                self.phase = Running;
                self.reach(TaskState::Running, "started", now);
                self.unsaved = true;
            }
            (Starting | Running, Happened::Unhealthy { error }) => {
                self.status.error = error;
                self.unsaved = true;
            }
            (
                Preparing | Starting | Running | Draining { .. } | Stopping,
                Happened::Ended { exit_code, error },
            ) => self.ended(exit_code, &error, now),
            (Stopping, Happened::NotPrepared { .. }) => self.ended(0, "", now),
            (Starting | Running | Draining { .. } | Stopping, Happened::Removed) => self.end(
                TaskState::Failed,
                "the container was removed behind the task's back",
                now,
            ),
            (Removing | NotRemoved { .. }, Happened::Removed) => self.phase = Phase::Gone,
            (Removing, Happened::NotRemoved { .. }) => {
                self.phase = NotRemoved {
                    retry_at: now.mono.after(REMOVE_RETRY_MS),
                };
            }
            (Ended, Happened::Removed) => self.intent = Intent::Accept,
            // Late or repeated: what it says is already known.
            _ => {}
        }
    }

    /// Takes every step that can be taken now.
    pub(super) fn advance(&mut self, around: &Surroundings<'_>, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.adopt) {
            actions.push(Action::Adopt { task_id: self.id() });
        }
        while self.step(around, actions) {}
        if self.is_gone() {
            actions.push(Action::Forget { task_id: self.id() });
            return;
        }
        self.save_and_release(actions);
    }

    fn save_and_release(&mut self, actions: &mut Vec<Action>) {
        self.save_if_changed(actions);
        if std::mem::take(&mut self.release) {
            actions.push(Action::Release { task_id: self.id() });
        }
    }

    /// One step; whether there may be another at once.
    fn step(&mut self, around: &Surroundings<'_>, actions: &mut Vec<Action>) -> bool {
        let now = around.now;
        let wanted = self.wanted();
        let ends = matches!(wanted, Wanted::Stopped | Wanted::Gone);
        match self.phase {
            Phase::Waiting if ends => {
                self.end(TaskState::Shutdown, "", now);
                true
            }
            Phase::Waiting => {
                if let Some(preparation) = (around.preparation)(&self.task) {
                    self.phase = Phase::Preparing;
                    self.reach(TaskState::Preparing, "preparing", now);
                    self.begin(Intent::Prepare, actions);
                    actions.push(Action::Prepare(Box::new(preparation)));
                }
                false
            }
            Phase::Prepared if ends => {
                self.end(TaskState::Shutdown, "", now);
                true
            }
            Phase::Prepared if wanted == Wanted::Running => {
                self.phase = Phase::Starting;
                self.reach(TaskState::Starting, "starting", now);
                self.begin(Intent::Start, actions);
                actions.push(Action::Start { task_id: self.id() });
                false
            }
            Phase::Running if ends && self.is_bound() && self.status.error.is_empty() => {
                self.phase = Phase::Draining {
                    until: now.mono.after(UNBIND_WAIT_MS),
                };
                true
            }
            Phase::Draining { until } if !around.unbound && now.mono < until => false,
            Phase::Draining { .. } => self.stop(actions),
            Phase::Preparing if ends => self.stop(actions),
            Phase::Starting | Phase::Running if ends || !self.status.error.is_empty() => {
                self.stop(actions)
            }
            Phase::Ended if wanted == Wanted::Gone => {
                if self.intent == Intent::Accept {
                    self.phase = Phase::Gone;
                } else {
                    if self.release {
                        self.save_and_release(actions);
                    }
                    self.phase = Phase::Removing;
                    self.begin(Intent::Remove, actions);
                    actions.push(Action::Remove { task_id: self.id() });
                }
                false
            }
            Phase::NotRemoved { retry_at } if now.mono >= retry_at => {
                self.phase = Phase::Removing;
                actions.push(Action::Remove { task_id: self.id() });
                false
            }
            Phase::Preparing
            | Phase::Prepared
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping
            | Phase::Ended
            | Phase::Removing
            | Phase::NotRemoved { .. }
            | Phase::Gone => false,
        }
    }

    fn stop(&mut self, actions: &mut Vec<Action>) -> bool {
        self.phase = Phase::Stopping;
        self.begin(Intent::Stop, actions);
        actions.push(Action::Stop { task_id: self.id() });
        false
    }

    fn wanted(&self) -> Wanted {
        if !self.assigned {
            Wanted::Gone
        } else if self.task.desired >= DesiredState::Shutdown
            || self.task.status.state.is_terminal()
        {
            // An ended state the managers wrote themselves (rejected by a constraint, orphaned) is an order to stop.
            Wanted::Stopped
        } else if self.task.desired == DesiredState::Ready {
            Wanted::Ready
        } else {
            Wanted::Running
        }
    }

    /// Whether some balancer may send it connections.
    fn is_bound(&self) -> bool {
        !self.task.networks.is_empty() || !self.task.endpoint.ports.is_empty()
    }

    /// Goes on after a restart of the agent, from what was begun and what is there.
    fn resume(&mut self, found: Option<&FoundState>, now: Now) {
        self.release = self.status.state.is_terminal() && found.is_some();
        if self.intent == Intent::Remove || self.status.state.is_terminal() {
            self.phase = Phase::Ended;
            return;
        }
        match (self.intent, found) {
            (Intent::Accept, None) => self.phase = Phase::Waiting,
            // Preparing what is half prepared gives the same as doing it once.
            (Intent::Accept | Intent::Prepare, None | Some(FoundState::Created)) => {
                self.phase = Phase::Waiting;
            }
            (Intent::Stop, Some(FoundState::Created)) => {
                self.phase = Phase::Stopping;
                self.ended(0, "", now);
            }
            (_, Some(FoundState::Created)) => self.phase = Phase::Prepared,
            (_, Some(FoundState::Running)) => {
                self.phase = if self.status.state >= TaskState::Running {
                    Phase::Running
                } else {
                    Phase::Starting
                };
                self.adopt = true;
            }
            (intent, Some(FoundState::Exited { exit_code, error })) => {
                self.phase = if intent == Intent::Stop {
                    Phase::Stopping
                } else {
                    Phase::Running
                };
                self.ended(*exit_code, error, now);
            }
            (Intent::Stop, None) => {
                self.phase = Phase::Stopping;
                self.ended(0, "", now);
            }
            (Intent::Start | Intent::Remove, None) => self.end(
                TaskState::Failed,
                "the container was gone when the agent started",
                now,
            ),
        }
    }

    /// The container runs no more.
    fn ended(&mut self, exit_code: i64, error: &str, now: Now) {
        if let Some(container) = &mut self.status.container {
            container.exit_code = exit_code;
        }
        let told_to = matches!(
            self.phase,
            Phase::Preparing | Phase::Draining { .. } | Phase::Stopping
        );
        if !self.status.error.is_empty() {
            let unhealthy = std::mem::take(&mut self.status.error);
            self.end(TaskState::Failed, &unhealthy, now);
        } else if told_to {
            self.end(TaskState::Shutdown, "", now);
        } else if exit_code == 0 && error.is_empty() {
            self.end(TaskState::Complete, "", now);
        } else if error.is_empty() {
            let error = format!("task: non-zero exit ({exit_code})");
            self.end(TaskState::Failed, &error, now);
        } else {
            self.end(TaskState::Failed, error, now);
        }
    }

    fn end(&mut self, state: TaskState, error: &str, now: Now) {
        self.phase = Phase::Ended;
        let message = match state {
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            _ => {
                // What was being done when it failed says more than "failed".
                error.clone_into(&mut self.status.error);
                &self.status.message.clone()
            }
        };
        self.reach(state, message, now);
        self.release = self.intent > Intent::Accept;
        self.unsaved = true;
    }

    /// Raises the state; one that is already past `state` stays.
    fn reach(&mut self, state: TaskState, message: &str, now: Now) {
        if self.status.state.may_become(state) {
            self.status.state = state;
            self.status.since = now.wall;
            message.clone_into(&mut self.status.message);
        }
    }

    fn begin(&mut self, intent: Intent, actions: &mut Vec<Action>) {
        self.intent = intent;
        self.unsaved = true;
        self.save_if_changed(actions);
    }

    fn save_if_changed(&mut self, actions: &mut Vec<Action>) {
        if std::mem::take(&mut self.unsaved) && !self.stray {
            actions.push(Action::Save(Arc::new(Record {
                task: self.task.clone(),
                status: self.status.clone(),
                intent: self.intent,
                assigned: self.assigned,
            })));
        }
    }

    fn id(&self) -> String {
        self.task.id.clone()
    }
}
