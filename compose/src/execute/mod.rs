//! Runs a plan: every step as soon as the steps it comes after are over, so many at once. It makes no decisions.
//!
//! ```text
//!   Blocked ─(all predecessors over)─▶ Ready ─(a slot is free)─▶ Running ─▶ Done | Warned | Failed
//!      └──────(one that had to succeed did not, or cancelled)──▶ Skipped
//! ```
//!
//! One task drives everything: requests are futures of that task, and events of the engine arrive on one stream, which
//! is subscribed to before the first write. Nothing polls: a wait looks at a container once, and again whenever the
//! engine reports something about it.

mod step;
mod wait;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agent_api::Client;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use crate::event::{Event, Phase};
use crate::plan::{Operation, Plan};
use step::{Done, Runner, StepError};

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct ExecuteOptions {
    /// Requests under way at once (waits do not count); at least 1.
    pub parallel: usize,
    /// Longest time any one wait may take; `None` = as long as it takes.
    pub wait_timeout: Option<Duration>,
}

impl Default for ExecuteOptions {
    fn default() -> Self {
        Self {
            parallel: 16,
            wait_timeout: None,
        }
    }
}

/// A plan was not carried out completely.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", describe(self))]
pub struct ExecuteError {
    /// Every step that failed by itself, in order of the plan; empty if it was only cancelled.
    pub failures: Vec<Failure>,
    /// Steps that were not run because of that.
    pub skipped: usize,
    /// Whether the run was cancelled from outside.
    pub cancelled: bool,
}

/// One failed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the step in the plan.
    pub step: usize,
    /// What was attempted, `start container demo-web-1`.
    pub attempted: String,
    /// `file:line:column` of the service or resource.
    pub place: Option<String>,
    /// Why it failed.
    pub reason: String,
    /// Last lines of output of a container that ended while it was waited for.
    pub log_tail: Vec<String>,
}

fn describe(error: &ExecuteError) -> String {
    let mut lines: Vec<String> = error.failures.iter().map(ToString::to_string).collect();
    if error.cancelled {
        lines.push(format!("interrupted: {} steps were not run", error.skipped));
    }
    lines.join("\n")
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "cannot {}: {}", self.attempted, self.reason)?;
        for line in &self.log_tail {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// Runs a plan.
///
/// `on_event` is called from this task, in order; it must not block. When `cancel` becomes `true` no further step is
/// begun and waits end; requests under way are finished, so that nothing is left half-recorded. Dropping the future
/// instead abandons requests in flight: the next plan picks up whatever they did.
///
/// # Errors
/// Steps that failed, all of them: those that did not depend on a failed one were still run.
pub async fn execute(
    client: &Client,
    plan: &Plan,
    options: &ExecuteOptions,
    mut cancel: watch::Receiver<bool>,
    on_event: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), ExecuteError> {
    let runner = Runner::new(client, plan, options.wait_timeout, cancel.clone()).await;
    let runner = match runner {
        Ok(runner) => runner,
        Err(error) => return Err(not_begun(plan, error)),
    };
    let mut progress = Progress::new(plan);
    let mut running: FuturesUnordered<BoxFuture<'_, Finished>> = FuturesUnordered::new();
    let pump = runner.pump();
    tokio::pin!(pump);
    loop {
        let cancelled = *cancel.borrow();
        while let Some(index) = progress.next(options.parallel.max(1), cancelled) {
            on_event(Event {
                index,
                step: &plan.steps[index],
                phase: Phase::Started,
            });
            let runner = &runner;
            running.push(Box::pin(async move {
                let started = Instant::now();
                let result = runner.run(&plan.steps[index]).await;
                Finished {
                    index,
                    result,
                    elapsed: started.elapsed(),
                }
            }));
        }
        for index in progress.take_skipped() {
            on_event(Event {
                index,
                step: &plan.steps[index],
                phase: Phase::Skipped,
            });
        }
        if running.is_empty() && (cancelled || !progress.has_ready()) {
            break;
        }
        tokio::select! {
            Some(finished) = running.next() => {
                let phase = progress.finish(&finished);
                on_event(Event { index: finished.index, step: &plan.steps[finished.index], phase });
            }
            () = &mut pump => unreachable!("the pump of events never ends"),
            Ok(()) = cancel.changed(), if !cancelled => {}
        }
    }
    for index in progress.rest() {
        on_event(Event {
            index,
            step: &plan.steps[index],
            phase: Phase::Skipped,
        });
    }
    progress.outcome(*cancel.borrow())
}

/// The engine could not even be listened to: nothing was written.
fn not_begun(plan: &Plan, error: StepError) -> ExecuteError {
    let failure = Failure {
        step: 0,
        attempted: format!("begin with project {}", plan.project),
        place: None,
        reason: error.reason,
        log_tail: error.log_tail,
    };
    ExecuteError {
        failures: vec![failure],
        skipped: plan.steps.len(),
        cancelled: false,
    }
}

/// A step that is over.
struct Finished {
    index: usize,
    result: Result<Done, StepError>,
    elapsed: Duration,
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
struct Progress<'p> {
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
    fn new(plan: &'p Plan) -> Self {
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
    fn next(&mut self, parallel: usize, cancelled: bool) -> Option<usize> {
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

    fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn take_skipped(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.skipped)
    }

    fn finish(&mut self, finished: &Finished) -> Phase {
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
                    attempted: step.operation.to_string(),
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
    fn rest(&mut self) -> Vec<usize> {
        let unfinished = |state: State| matches!(state, State::Blocked | State::Ready);
        let rest: Vec<usize> = (0..self.states.len())
            .filter(|index| unfinished(self.states[*index]))
            .collect();
        for index in &rest {
            self.states[*index] = State::Skipped;
        }
        rest
    }

    fn outcome(mut self, cancelled: bool) -> Result<(), ExecuteError> {
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
