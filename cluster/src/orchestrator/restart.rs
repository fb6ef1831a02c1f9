//! The restart supervisor: whether a task that is gone gets a successor, and when that may start (SwarmKit
//! `manager/orchestrator/restart`). All it must remember is carried from task to task in [`Restarts`].
//!
//! A task either *ended* by itself, or was *displaced*: its node is down, drained or gone, or may not have it any more.
//! Only ends count as attempts and are delayed; both follow the condition.
//!
//! Where the user sets no delay, Docker waits 5 s for ever, which makes a service that cannot start a loop of pulls and
//! starts. Here the 5 s double with every task in a row that ran for less than a minute, up to 5 minutes. A delay the
//! user set is what it says.

use std::sync::Arc;

use cluster_api::{Restarts, Task, TaskState, Timestamp};

use super::clock::millis;
use super::slot::Slot;

/// Docker's delay.
const DELAY_MS: u64 = 5_000;
/// What it grows to.
const MAX_DELAY_MS: u64 = 300_000;
/// A task that ran for less did not really run.
const QUICK_MS: u64 = 60_000;

/// Why a task needs a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Ended,
    Displaced,
}

/// Whether the restart policy wants a successor of the task, which is in the slot and will not go on.
pub(super) fn is_wanted(task: &Task, slot: &Slot<'_>) -> bool {
    let policy = task.spec.restart_policy.as_ref();
    let condition = policy.map_or("", |policy| policy.condition.as_str());
    match condition {
        "none" => return false,
        "on-failure" if task.status.state == TaskState::Complete => return false,
        _ => {}
    }
    let limit = policy.and_then(|policy| policy.max_attempts).unwrap_or(0);
    let ended_by_itself = matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    );
    if limit == 0 || !ended_by_itself {
        return true;
    }
    let window_ms = millis(policy.and_then(|policy| policy.window).unwrap_or(0));
    let attempts = if window_ms == 0 {
        task.restarts.attempts
    } else {
        attempts_within(window_ms, task, slot)
    };
    attempts < limit
}

/// Restarts of the slot, this spec version's, in the time before the task ended. The reaper keeps as many ended tasks
/// as that needs.
fn attempts_within(window_ms: u64, ended: &Task, slot: &Slot<'_>) -> u64 {
    let attempts = slot.tasks.iter().filter(|task| {
        task.spec_version == ended.spec_version
            && task.generation <= ended.generation
            && task.restarts.attempts > 0
            && ended.ended_at.millis_since(task.meta.created_at) < window_ms
    });
    attempts.count() as u64
}

/// What the successor must know.
pub(super) fn successor_of(
    task: &Arc<Task>,
    cause: Cause,
    spec_version: u64,
    now: Timestamp,
) -> Restarts {
    let same_version = task.spec_version == spec_version;
    match cause {
        Cause::Displaced => Restarts {
            attempts: if same_version {
                task.restarts.attempts
            } else {
                0
            },
            quick_failures: if same_version {
                task.restarts.quick_failures
            } else {
                0
            },
            // One that was still waiting goes on waiting.
            not_before: task.restarts.not_before,
            replaces: None,
        },
        Cause::Ended => {
            let quick_failures = match task.restarts.quick_failures {
                _ if ran_ms(task) >= QUICK_MS => 0,
                so_far if same_version => so_far.saturating_add(1),
                _ => 1,
            };
            Restarts {
                attempts: if same_version {
                    task.restarts.attempts.saturating_add(1)
                } else {
                    0
                },
                quick_failures,
                not_before: later(now, delay_ms(task, quick_failures)),
                replaces: None,
            }
        }
    }
}

fn delay_ms(task: &Task, quick_failures: u32) -> u64 {
    let policy = task.spec.restart_policy.as_ref();
    policy.and_then(|policy| policy.delay).map_or_else(
        || {
            let doublings = quick_failures.saturating_sub(1).min(16);
            (DELAY_MS << doublings).min(MAX_DELAY_MS)
        },
        millis,
    )
}

fn ran_ms(task: &Task) -> u64 {
    if task.running_since == Timestamp::default() {
        0
    } else {
        task.ended_at.millis_since(task.running_since)
    }
}

/// `Timestamp::default()` for no delay.
fn later(now: Timestamp, milliseconds: u64) -> Timestamp {
    if milliseconds == 0 {
        return Timestamp::default();
    }
    let nanos = i64::try_from(milliseconds)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000);
    Timestamp(now.0.saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent_api::swarm::{RestartPolicy, TaskSpec};
    use cluster_api::{Task, TaskState, Timestamp};

    use super::{Cause, Slot, is_wanted, successor_of};

    const SECOND: i64 = 1_000_000_000;

    fn ended(state: TaskState, policy: Option<RestartPolicy>) -> Task {
        let mut task = Task {
            spec: Arc::new(TaskSpec {
                restart_policy: policy,
                ..TaskSpec::default()
            }),
            ..Task::default()
        };
        task.status.state = state;
        task
    }

    fn policy(condition: &str) -> RestartPolicy {
        RestartPolicy {
            condition: condition.to_owned(),
            ..RestartPolicy::default()
        }
    }

    #[test]
    fn conditions_are_followed() {
        for (condition, state, wanted) in [
            ("", TaskState::Complete, true),
            ("any", TaskState::Complete, true),
            ("any", TaskState::Failed, true),
            ("on-failure", TaskState::Complete, false),
            ("on-failure", TaskState::Failed, true),
            ("on-failure", TaskState::Running, true),
            ("none", TaskState::Failed, false),
            ("none", TaskState::Running, false),
        ] {
            let task = ended(state, Some(policy(condition)));
            assert_eq!(
                is_wanted(&task, &Slot::default()),
                wanted,
                "{condition} {state}"
            );
        }
        assert!(is_wanted(
            &ended(TaskState::Complete, None),
            &Slot::default()
        ));
    }

    #[test]
    fn attempts_are_counted_up_to_the_limit_for_tasks_that_ended_only() {
        let limited = RestartPolicy {
            max_attempts: Some(2),
            ..policy("any")
        };
        for (attempts, state, wanted) in [
            (1, TaskState::Failed, true),
            (2, TaskState::Failed, false),
            (2, TaskState::Running, true),
            (2, TaskState::Shutdown, true),
        ] {
            let mut task = ended(state, Some(limited.clone()));
            task.restarts.attempts = attempts;
            assert_eq!(
                is_wanted(&task, &Slot::default()),
                wanted,
                "{attempts} {state}"
            );
        }
    }

    #[test]
    fn a_window_forgets_older_attempts() {
        let windowed = RestartPolicy {
            max_attempts: Some(2),
            window: Some(10 * SECOND),
            ..policy("any")
        };
        let task = |generation: u64, created: i64| {
            let mut task = ended(TaskState::Failed, Some(windowed.clone()));
            task.generation = generation;
            task.restarts.attempts = generation;
            task.meta.created_at = Timestamp(created * SECOND);
            task.ended_at = Timestamp((created + 1) * SECOND);
            Arc::new(task)
        };
        let close = [task(0, 100), task(1, 102), task(2, 104)];
        let slot = Slot {
            tasks: close.iter().collect(),
            ..Slot::default()
        };
        assert!(is_wanted(&close[1], &slot));
        assert!(!is_wanted(&close[2], &slot));
        let far = [task(0, 100), task(1, 102), task(2, 120)];
        let slot = Slot {
            tasks: far.iter().collect(),
            ..Slot::default()
        };
        assert!(is_wanted(&far[2], &slot));
    }

    #[test]
    fn the_default_delay_doubles_while_tasks_fail_quickly() {
        let mut task = ended(TaskState::Failed, None);
        let mut delays = Vec::new();
        for _ in 0..9 {
            let next = successor_of(&Arc::new(task.clone()), Cause::Ended, 0, Timestamp(0));
            delays.push(next.not_before.0 / SECOND);
            task.restarts = next;
        }
        assert_eq!(delays, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        task.running_since = Timestamp(SECOND);
        task.ended_at = Timestamp(62 * SECOND);
        let next = successor_of(&Arc::new(task), Cause::Ended, 0, Timestamp(0));
        assert_eq!((next.not_before.0, next.quick_failures), (5 * SECOND, 0));
    }

    #[test]
    fn a_delay_the_user_set_is_kept_and_a_new_spec_starts_counting_anew() {
        let mut task = ended(
            TaskState::Failed,
            Some(RestartPolicy {
                delay: Some(2 * SECOND),
                ..policy("any")
            }),
        );
        task.restarts.attempts = 3;
        task.restarts.quick_failures = 9;
        let task = Arc::new(task);
        let next = successor_of(&task, Cause::Ended, 0, Timestamp(0));
        assert_eq!((next.not_before.0, next.attempts), (2 * SECOND, 4));
        assert_eq!(
            successor_of(&task, Cause::Ended, 1, Timestamp(0)).attempts,
            0
        );
        let moved = successor_of(&task, Cause::Displaced, 0, Timestamp(0));
        assert_eq!((moved.not_before.0, moved.attempts), (0, 3));
    }
}
