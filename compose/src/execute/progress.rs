//! Which steps of a plan may run, do run and did run. Pure: it is told what happened and says what may begin.

use std::collections::VecDeque;
use std::time::Duration;

use super::step::{Done, StepError};
use super::{ExecuteError, Failure};
use crate::event::Phase;
use crate::plan::{Condition, Operation, Plan};

/// A step that is over.
pub(super) struct Finished {
    pub(super) index: usize,
    pub(super) result: Result<Done, StepError>,
    pub(super) elapsed: Duration,
}

/// Where a step is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Blocked,
    Ready,
    Running,
    Done,
    Warned,
    Failed,
    Skipped,
}

/// Which steps may run, do run and did run.
pub(super) struct Progress<'p> {
    plan: &'p Plan,
    states: Vec<State>,
    /// Predecessors that are not over, by step.
    pending: Vec<usize>,
    followers: Vec<Vec<usize>>,
    ready: VecDeque<usize>,
    /// Requests (not waits) under way.
    requests: usize,
    skipped: Vec<usize>,
    failures: Vec<Failure>,
}

impl<'p> Progress<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        let count = plan.steps.len();
        let pending: Vec<usize> = plan.steps.iter().map(|step| step.after.len()).collect();
        let mut followers = vec![Vec::new(); count];
        for (index, step) in plan.steps.iter().enumerate() {
            for edge in &step.after {
                followers[edge.step].push(index);
            }
        }
        let ready: VecDeque<usize> = (0..count).filter(|index| pending[*index] == 0).collect();
        let state = |index: usize| {
            if pending[index] == 0 {
                State::Ready
            } else {
                State::Blocked
            }
        };
        let states = (0..count).map(state).collect();
        Self {
            plan,
            states,
            pending,
            followers,
            ready,
            requests: 0,
            skipped: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// The next step to run: waits always, requests while there is a free slot.
    pub(super) fn next(&mut self, parallel: usize, cancelled: bool) -> Option<usize> {
        if cancelled {
            return None;
        }
        let free = self.requests < parallel;
        let at = self
            .ready
            .iter()
            .position(|index| free || self.is_wait(*index))?;
        let index = self.ready.remove(at)?;
        self.states[index] = State::Running;
        if !self.is_wait(index) {
            self.requests += 1;
        }
        Some(index)
    }

    fn is_wait(&self, index: usize) -> bool {
        matches!(self.plan.steps[index].operation, Operation::Wait { .. })
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn take_skipped(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.skipped)
    }

    pub(super) fn finish(&mut self, finished: &Finished) -> Phase {
        let index = finished.index;
        if !self.is_wait(index) {
            self.requests -= 1;
        }
        let step = &self.plan.steps[index];
        let (state, phase) = match &finished.result {
            Ok(done) => (
                State::Done,
                Phase::Done {
                    elapsed: finished.elapsed,
                    detail: done.detail.clone(),
                },
            ),
            Err(error) if error.cancelled => (State::Skipped, Phase::Skipped),
            Err(error)
                if matches!(
                    step.operation,
                    Operation::Wait {
                        required: false,
                        ..
                    }
                ) =>
            {
                (
                    State::Warned,
                    Phase::Warned {
                        message: error.reason.clone(),
                    },
                )
            }
            Err(error) => {
                let failure = Failure {
                    step: index,
                    what: what_failed(&step.operation),
                    place: step.place.clone(),
                    reason: error.reason.clone(),
                    log_tail: error.log_tail.clone(),
                };
                self.failures.push(failure);
                (
                    State::Failed,
                    Phase::Failed {
                        message: error.reason.clone(),
                    },
                )
            }
        };
        self.settle(index, state);
        phase
    }

    /// Records how a step ended and lets those after it begin, or skips them.
    fn settle(&mut self, index: usize, state: State) {
        let mut over = vec![(index, state)];
        while let Some((index, state)) = over.pop() {
            self.states[index] = state;
            for follower in self.followers[index].clone() {
                self.pending[follower] -= 1;
                if self.pending[follower] > 0 {
                    continue;
                }
                let after = &self.plan.steps[follower].after;
                let allowed = after
                    .iter()
                    .all(|edge| !edge.must_succeed || self.states[edge.step] == State::Done);
                if allowed {
                    self.states[follower] = State::Ready;
                    self.ready.push_back(follower);
                } else {
                    self.skipped.push(follower);
                    over.push((follower, State::Skipped));
                }
            }
        }
    }

    /// Steps that were never begun; after cancelling.
    pub(super) fn rest(&mut self) -> Vec<usize> {
        let unfinished = |state: State| matches!(state, State::Blocked | State::Ready);
        let rest: Vec<usize> = (0..self.states.len())
            .filter(|index| unfinished(self.states[*index]))
            .collect();
        for index in &rest {
            self.states[*index] = State::Skipped;
        }
        rest
    }

    pub(super) fn outcome(mut self, cancelled: bool) -> Result<(), ExecuteError> {
        let skipped = self
            .states
            .iter()
            .filter(|state| **state == State::Skipped)
            .count();
        if self.failures.is_empty() && !(cancelled && skipped > 0) {
            return Ok(());
        }
        self.failures.sort_by_key(|failure| failure.step);
        Err(ExecuteError {
            failures: self.failures,
            skipped,
            cancelled,
        })
    }
}

/// A failed operation as a clause that a reason can follow.
fn what_failed(operation: &Operation) -> String {
    match operation {
        Operation::Wait {
            service,
            condition: Condition::Healthy,
            ..
        } => {
            format!("service {service} did not become healthy")
        }
        Operation::Wait {
            service,
            condition: Condition::Completed,
            ..
        } => {
            format!("service {service} did not complete")
        }
        Operation::Wait {
            service,
            condition: Condition::RunningOrHealthy,
            ..
        } => {
            format!("service {service} does not run")
        }
        other => format!("cannot {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Cause, Edge, Step};

    /// Removals of volumes named by letters; `a: b !c` runs after b, and after c has succeeded. `?` is an optional wait.
    fn plan(lines: &[&str]) -> Plan {
        let names: Vec<&str> = lines
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let steps = lines.iter().map(|line| {
            let (name, after) = line.split_once(':').unwrap();
            let after = after.split_whitespace().map(|word| {
                let must_succeed = word.starts_with('!');
                let step = names
                    .iter()
                    .position(|name| *name == word.trim_start_matches('!'))
                    .unwrap();
                Edge { step, must_succeed }
            });
            let operation = if name.ends_with('?') {
                let condition = Condition::Healthy;
                Operation::Wait {
                    service: name.into(),
                    containers: Vec::new(),
                    condition,
                    required: false,
                }
            } else {
                Operation::RemoveVolume { name: name.into() }
            };
            Step {
                operation,
                cause: Cause::Requested,
                after: after.collect(),
                place: None,
            }
        });
        Plan {
            project: "p".into(),
            steps: steps.collect(),
            warnings: Vec::new(),
        }
    }

    fn over(index: usize, ok: bool) -> Finished {
        let result = if ok {
            Ok(Done::default())
        } else {
            Err(StepError::new("broken"))
        };
        Finished {
            index,
            result,
            elapsed: Duration::ZERO,
        }
    }

    fn begin(progress: &mut Progress<'_>, parallel: usize) -> Vec<usize> {
        std::iter::from_fn(|| progress.next(parallel, false)).collect()
    }

    #[test]
    fn independent_branches_finish_and_dependants_of_a_failure_are_skipped() {
        let plan = plan(&["a:", "b:", "c: !a", "d: !c", "e: !b", "f: !c !b"]);
        let mut progress = Progress::new(&plan);
        assert_eq!(begin(&mut progress, 8), [0, 1]);
        assert!(matches!(
            progress.finish(&over(0, false)),
            Phase::Failed { .. }
        ));
        assert_eq!(progress.take_skipped(), [2, 3]);
        progress.finish(&over(1, true));
        assert_eq!(progress.take_skipped(), [5]);
        assert_eq!(begin(&mut progress, 8), [4]);
        progress.finish(&over(4, true));
        let error = progress.outcome(false).unwrap_err();
        assert_eq!((error.failures.len(), error.skipped), (1, 3));
        assert_eq!(
            error.to_string(),
            "cannot remove volume a and its data: broken"
        );
    }

    #[test]
    fn an_optional_wait_that_fails_or_is_skipped_lets_its_followers_go_on() {
        let plan = plan(&["a:", "w?: !a", "b: w?"]);
        let mut progress = Progress::new(&plan);
        begin(&mut progress, 1);
        progress.finish(&over(0, true));
        assert_eq!(begin(&mut progress, 1), [1]);
        assert!(matches!(
            progress.finish(&over(1, false)),
            Phase::Warned { .. }
        ));
        assert_eq!(begin(&mut progress, 1), [2]);
        progress.finish(&over(2, true));
        assert!(progress.outcome(false).is_ok());

        let mut progress = Progress::new(&plan);
        begin(&mut progress, 1);
        progress.finish(&over(0, false));
        assert_eq!(progress.take_skipped(), [1]);
        assert_eq!(begin(&mut progress, 1), [2]);
    }

    #[test]
    fn requests_are_bounded_and_waits_are_not() {
        let plan = plan(&["a:", "b:", "w?:", "x?:"]);
        let mut progress = Progress::new(&plan);
        assert_eq!(begin(&mut progress, 1), [0, 2, 3]);
        progress.finish(&over(2, true));
        assert_eq!(begin(&mut progress, 1), [] as [usize; 0]);
        progress.finish(&over(0, true));
        assert_eq!(begin(&mut progress, 1), [1]);
    }

    #[test]
    fn cancelling_begins_nothing_more_and_says_so() {
        let plan = plan(&["a:", "b: !a", "c: !b"]);
        let mut progress = Progress::new(&plan);
        begin(&mut progress, 1);
        progress.finish(&over(0, true));
        assert_eq!(progress.next(1, true), None);
        assert_eq!(progress.rest(), [1, 2]);
        let error = progress.outcome(true).unwrap_err();
        assert_eq!(error.to_string(), "interrupted: 2 steps were not run");
    }
}
