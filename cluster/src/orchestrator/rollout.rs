//! The update supervisor: which slots may get a new task now, and what state a service's rollout is in. Decides about
//! no task; settle.rs does.
//!
//! ```text
//!   (none) ──slots differ from the spec──▶ updating ──all slots done and watched──▶ completed
//!                                           │    │
//!                   failure_action: pause ◀─┤    └─ failure_action: rollback ─▶ rollback_started ──▶ rollback_completed
//!                                    paused ◀                                    │
//!                                                                rollback_paused ◀  (a rollback is never rolled back)
//! ```
//!
//! Any change of the spec by a user ends a rollout: control sets `Service::rollout` to none (or rollback_started), and
//! what is to be done follows from the slots as they are. So superseding updates, paused ones and those whose leader
//! died are one case: a slot is *due* as long as it has no task of the current spec and this rollout has not tried.
//!
//! The semantics are SwarmKit's (`manager/orchestrator/update/updater.go`), except that
//! - counters, times and failures are in the store, so a change of leaders does not begin them anew;
//! - stop-first stops the old task when the new one is ready to start, so pulling an image is no downtime, and a new
//!   task that cannot even be made ready costs nothing;
//! - a task that completes is no failure unless the restart condition is `any`;
//! - moving a task off a lost node is no failure;
//! - a new task that finds no place for ten minutes is a failure, and until then the rollout says what it waits for;
//! - a rollback goes back to the last spec whose rollout was completed, not to a step in between;
//! - nothing is rolled out while a service this one depends on is being updated itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_api::swarm::UpdateConfig;
use cluster_api::{Rollout, RolloutState, Service, Task, TaskState, Timestamp};

use super::clock::{Clock, Wait, millis};
use super::gate;
use super::slot::{SlotKey, is_live};
use super::stand::Stand;
use super::template::{Template, makes_same_tasks};

/// Watching time where the user sets none.
const MONITOR_MS: u64 = 5_000;
/// A new task without a place for so long is a failure (Kubernetes' progressDeadlineSeconds, Nomad's
/// progress_deadline).
const PLACEMENT_MS: u64 = 600_000;
/// A new task without a place for so long is worth telling.
const PATIENCE_MS: u64 = 3_000;

/// What the rollout allows and what becomes of it.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The service as it is to be, if it is to change.
    pub(super) changed: Option<Service>,
    /// Slots that get a new task now.
    pub(super) begin: BTreeSet<SlotKey>,
    pub(super) phase: Phase,
    /// Of the rollout the new tasks belong to.
    pub(super) id: u64,
    /// They wait for services this one depends on.
    pub(super) is_held: bool,
}

/// What may happen to slots whose old task is not what the spec asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No rollout goes on: what needs a new task gets one of the current spec.
    Idle,
    /// A rollout goes on: they keep what they have until it is their turn.
    Active,
    /// It was stopped: they keep what they have.
    Paused,
    /// The spec goes back; nothing is to be done before that is committed.
    GoingBack,
}

/// How to roll out.
struct Config {
    parallelism: usize,
    delay_ms: u64,
    monitor_ms: u64,
    action: Action,
    max_failure_ratio: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

/// What the slots say about the rollout.
#[derive(Debug, Default)]
struct Tally {
    /// Slots whose turn has not come. Those that do not run come first.
    due: Vec<SlotKey>,
    /// How many of these do not run.
    due_and_down: usize,
    /// Slots that are being worked on, or in the pause after that.
    busy: usize,
    /// When the last slot was done, and by which task.
    last_done: Option<(Timestamp, String)>,
    /// The first new task that has no place, and why.
    waiting: Option<String>,
}

/// Whether new tasks are started before old ones are stopped.
pub(super) fn is_start_first(service: &Service) -> bool {
    config_of(service).is_some_and(|config| config.order == "start-first")
}

fn config_of(service: &Service) -> Option<&UpdateConfig> {
    let is_rollback = service.rollout.as_ref().is_some_and(|rollout| {
        matches!(
            rollout.state,
            RolloutState::RollbackStarted
                | RolloutState::RollbackPaused
                | RolloutState::RollbackCompleted
        )
    });
    if is_rollback {
        service.spec.rollback_config.as_ref()
    } else {
        service.spec.update_config.as_ref()
    }
}

impl Config {
    fn of(service: &Service) -> Self {
        let Some(config) = config_of(service) else {
            return Self {
                parallelism: 1,
                delay_ms: 0,
                monitor_ms: MONITOR_MS,
                action: Action::Pause,
                max_failure_ratio: 0.0,
            };
        };
        Self {
            parallelism: match usize::try_from(config.parallelism) {
                Ok(0) | Err(_) => usize::MAX,
                Ok(parallelism) => parallelism,
            },
            delay_ms: millis(config.delay),
            monitor_ms: match millis(config.monitor) {
                0 => MONITOR_MS,
                monitor_ms => monitor_ms,
            },
            action: match config.failure_action.as_str() {
                "continue" => Action::Continue,
                "rollback" => Action::Rollback,
                _ => Action::Pause,
            },
            max_failure_ratio: config.max_failure_ratio,
        }
    }
}

/// Looks at the slots that may be changed and decides how the rollout goes on.
pub(super) fn advance(template: &Template<'_>, stands: &[Stand<'_>], clock: &mut Clock) -> Verdict {
    let service = template.service;
    let mut next = service.clone();
    let Some(rollout) = begun(&mut next, template, stands, clock.wall()) else {
        return Verdict::idle();
    };
    let config = Config::of(&next);
    match rollout.state {
        RolloutState::Paused | RolloutState::RollbackPaused => {
            return Verdict {
                phase: Phase::Paused,
                id: rollout.id,
                ..Verdict::idle()
            };
        }
        RolloutState::Completed | RolloutState::RollbackCompleted => {
            // Slots that could not be reached when it was their turn: the node was paused, or down.
            let tally = count(template, stands, &rollout, &config, clock);
            return Verdict {
                begin: turn(&tally, rollout.state, &config),
                id: rollout.id,
                ..Verdict::idle()
            };
        }
        RolloutState::Updating | RolloutState::RollbackStarted => {}
    }
    let mut rollout = rollout;
    if let Some(failed) = newly_failed(stands, &mut rollout, &config, clock)
        && stop(&mut next, &mut rollout, &config, &failed)
    {
        return Verdict {
            phase: if next.spec == service.spec {
                Phase::Paused
            } else {
                Phase::GoingBack
            },
            id: rollout.id,
            begin: BTreeSet::new(),
            is_held: false,
            changed: with(next, rollout, service),
        };
    }
    let tally = count(template, stands, &rollout, &config, clock);
    let held = if rollout.state == RolloutState::Updating && !tally.due.is_empty() {
        gate::update_waits_for(template.store, service)
    } else {
        None
    };
    if is_over(&tally, &rollout, &config, clock) {
        complete(&mut next, &mut rollout, &config, clock.wall());
    } else if rollout.state == RolloutState::Updating {
        rollout.message = match held.as_ref().or(tally.waiting.as_ref()) {
            Some(reason) => format!("update in progress: {reason}"),
            None => "update in progress".to_owned(),
        };
    }
    Verdict {
        begin: if held.is_some() {
            BTreeSet::new()
        } else {
            turn(&tally, rollout.state, &config)
        },
        phase: if rollout.state.is_active() {
            Phase::Active
        } else {
            Phase::Idle
        },
        id: rollout.id,
        is_held: held.is_some(),
        changed: with(next, rollout, service),
    }
}

impl Verdict {
    const fn idle() -> Self {
        Self {
            changed: None,
            begin: BTreeSet::new(),
            phase: Phase::Idle,
            id: 0,
            is_held: false,
        }
    }
}

fn with(mut next: Service, rollout: Rollout, service: &Service) -> Option<Service> {
    next.rollout = Some(rollout);
    (next != *service).then_some(next)
}

/// The rollout that goes on, begun if it must be; `None` if there never was a reason for one.
fn begun(
    next: &mut Service,
    template: &Template<'_>,
    stands: &[Stand<'_>],
    now: Timestamp,
) -> Option<Rollout> {
    let mut rollout = next.rollout.clone().unwrap_or_default();
    if rollout.id != 0 {
        return Some(rollout);
    }
    let total = stands
        .iter()
        .filter(|stand| is_stale(stand, template))
        .count() as u64;
    if next.rollout.is_none() {
        if total == 0 {
            return None;
        }
        rollout.message = "update in progress".to_owned();
        note_good_spec(next);
    }
    rollout.id = next.meta.version;
    rollout.spec_version = next.spec_version;
    rollout.total = total;
    rollout.failed.clear();
    if rollout.started_at == Timestamp::default() {
        rollout.started_at = now;
    }
    Some(rollout)
}

/// What ran before the first update is taken to have worked, and so is what makes the same tasks as a spec that did.
fn note_good_spec(next: &mut Service) {
    let Some(previous) = &next.previous_spec else {
        return;
    };
    if next
        .good_spec
        .as_ref()
        .is_none_or(|good| makes_same_tasks(good, previous))
    {
        next.good_spec = Some(Arc::clone(previous));
    }
}

/// Whether the slot has something else than the spec asks for.
fn is_stale(stand: &Stand<'_>, template: &Template<'_>) -> bool {
    if stand.dirty.is_some() || stand.inherited().is_some() {
        return true;
    }
    stand.clean.is_none()
        && stand
            .gone
            .last()
            .map(|(task, _)| *task)
            .or_else(|| stand.finished())
            .is_some_and(|task| template.is_dirty(task))
}

fn failed_slots(rollout: &Rollout) -> BTreeSet<String> {
    rollout.failed.iter().cloned().collect()
}

/// Adds the slots whose new task failed since the last look. Gives the first of these tasks, if any.
fn newly_failed(
    stands: &[Stand<'_>],
    rollout: &mut Rollout,
    config: &Config,
    clock: &mut Clock,
) -> Option<String> {
    let mut first = None;
    let failed = failed_slots(rollout);
    for stand in stands {
        let Some(task) = stand.made_by(rollout.id) else {
            continue;
        };
        if !is_live(task) || failed.contains(&stand.key.to_string()) {
            continue;
        }
        let reason = if is_failure(task, config.monitor_ms) {
            format!("failure or early termination of task {}", task.id)
        } else if is_without_place(task)
            && clock.has_passed(
                Wait::Placement,
                &task.id,
                task.meta.created_at,
                PLACEMENT_MS,
            )
        {
            format!(
                "task {} having found no place in {} s: {}",
                task.id,
                PLACEMENT_MS / 1000,
                task.status.error
            )
        } else {
            continue;
        };
        rollout.failed.push(stand.key.to_string());
        first.get_or_insert(reason);
    }
    first
}

/// Whether the task's end is the rollout's fault.
fn is_failure(task: &Task, monitor_ms: u64) -> bool {
    let policy = task.spec.restart_policy.as_ref();
    let may_complete =
        policy.is_some_and(|policy| matches!(policy.condition.as_str(), "none" | "on-failure"));
    match task.status.state {
        TaskState::Failed | TaskState::Rejected | TaskState::Shutdown => {}
        TaskState::Complete if !may_complete => {}
        _ => return false,
    }
    task.running_since == Timestamp::default()
        || task.ended_at.millis_since(task.running_since) <= monitor_ms
}

fn is_without_place(task: &Task) -> bool {
    task.status.state < TaskState::Assigned
}

/// Pauses or rolls back if too many slots have failed. Whether it did.
fn stop(next: &mut Service, rollout: &mut Rollout, config: &Config, reason: &str) -> bool {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio; both are far below 2^24"
    )]
    let ratio = rollout.failed.len() as f32 / rollout.total.max(1) as f32;
    if ratio <= config.max_failure_ratio || config.action == Action::Continue {
        return false;
    }
    if rollout.state == RolloutState::RollbackStarted {
        rollout.state = RolloutState::RollbackPaused;
        rollout.message = format!("rollback paused due to {reason}");
        return true;
    }
    let earlier = next
        .good_spec
        .clone()
        .or_else(|| next.previous_spec.clone());
    match (config.action, earlier) {
        (Action::Rollback, Some(earlier)) => {
            rollout.state = RolloutState::RollbackStarted;
            rollout.id = 0;
            rollout.message = format!("update rolled back due to {reason}");
            next.spec = earlier;
            next.spec_version = next.meta.version;
            next.previous_spec = None;
            next.previous_spec_version = None;
        }
        (Action::Rollback, None) => {
            rollout.state = RolloutState::Paused;
            rollout.message =
                format!("update paused, there is nothing to roll back to, due to {reason}");
        }
        _ => {
            rollout.state = RolloutState::Paused;
            rollout.message = format!("update paused due to {reason}");
        }
    }
    true
}

fn count(
    template: &Template<'_>,
    stands: &[Stand<'_>],
    rollout: &Rollout,
    config: &Config,
    clock: &mut Clock,
) -> Tally {
    let mut tally = Tally::default();
    let mut due_but_running = Vec::new();
    let failed = failed_slots(rollout);
    for stand in stands {
        let tried = stand
            .made_by(rollout.id)
            .filter(|task| is_live(task) || done_at(task).is_some());
        let failed = failed.contains(&stand.key.to_string());
        if let Some(task) = tried {
            match done_at(task) {
                Some(at) => {
                    let paused =
                        !clock.has_passed(Wait::UpdateDelay, &task.id, at, config.delay_ms);
                    tally.busy += usize::from(paused);
                    let done = Some((at, task.id.clone()));
                    tally.last_done = tally.last_done.max(done);
                }
                None if failed => {}
                None => {
                    tally.busy += 1;
                    if is_without_place(task)
                        && !task.status.error.is_empty()
                        && tally.waiting.is_none()
                        && clock.has_passed(
                            Wait::Patience,
                            &task.id,
                            task.meta.created_at,
                            PATIENCE_MS,
                        )
                    {
                        let name = gate::name_of(template.service, &stand.key);
                        tally.waiting = Some(format!("{name} waits: {}", task.status.error));
                    }
                }
            }
        } else if stand.clean.is_some() && stand.dirty.is_some() {
            tally.busy += 1;
        } else if stand.clean.is_none() && !failed && is_stale(stand, template) {
            if stand.is_running() {
                due_but_running.push(stand.key.clone());
            } else {
                tally.due.push(stand.key.clone());
            }
        }
    }
    tally.due_and_down = tally.due.len();
    tally.due.append(&mut due_but_running);
    tally
}

/// When the task was up, or had failed before that; what the pause and the watching count from.
fn done_at(task: &Task) -> Option<Timestamp> {
    if task.running_since != Timestamp::default() {
        Some(task.running_since)
    } else if task.status.state.is_terminal() {
        Some(task.ended_at)
    } else {
        None
    }
}

/// Whose turn it is. On the way back, slots that are down need not wait for others.
fn turn(tally: &Tally, state: RolloutState, config: &Config) -> BTreeSet<SlotKey> {
    let free = config.parallelism.saturating_sub(tally.busy);
    let at_once = match state {
        RolloutState::RollbackStarted => tally.due_and_down,
        _ => 0,
    };
    tally.due.iter().take(free.max(at_once)).cloned().collect()
}

/// Whether all slots are done and the last one has been watched. A pause that is longer than the watching makes the
/// watching longer (SwarmKit's rule).
fn is_over(tally: &Tally, rollout: &Rollout, config: &Config, clock: &mut Clock) -> bool {
    if !tally.due.is_empty() || tally.busy > 0 {
        return false;
    }
    let monitor_ms = if config.delay_ms >= config.monitor_ms {
        config.delay_ms + 1000
    } else {
        config.monitor_ms
    };
    match &tally.last_done {
        Some((at, task_id)) => {
            let since = (*at).max(rollout.started_at);
            clock.has_passed(Wait::Monitor, task_id, since, monitor_ms)
        }
        None => true,
    }
}

fn complete(next: &mut Service, rollout: &mut Rollout, config: &Config, now: Timestamp) {
    rollout.completed_at = now;
    if rollout.state == RolloutState::RollbackStarted {
        rollout.state = RolloutState::RollbackCompleted;
        rollout.message = "rollback completed".to_owned();
    } else {
        rollout.state = RolloutState::Completed;
        rollout.message = "update completed".to_owned();
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio; both are far below 2^24"
    )]
    let ratio = rollout.failed.len() as f32 / rollout.total.max(1) as f32;
    if ratio <= config.max_failure_ratio {
        next.good_spec = Some(Arc::clone(&next.spec));
    }
}
