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

mod progress;
mod step;
mod wait;

use std::time::{Duration, Instant};

use agent_api::Client;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use crate::event::{Event, Phase};
use crate::plan::Plan;
use progress::{Finished, Progress};
use step::{Note, Runner, StepError};

/// News that may be waiting to be shown; more than that is dropped, it is only news.
const NOTES: usize = 64;

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
    /// What failed, as a clause: `cannot start container demo-web-1`.
    pub what: String,
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
        write!(f, "{}: {}", self.what, self.reason)?;
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
    let (notes, mut news) = mpsc::channel(NOTES);
    let runner = Runner::new(client, plan, options.wait_timeout, cancel.clone(), notes).await;
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
                let result = runner.run(index, &plan.steps[index]).await;
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
            Some(Note { index, detail }) = news.recv() => {
                let phase = Phase::Progress { detail };
                on_event(Event { index, step: &plan.steps[index], phase });
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
        what: format!("cannot begin with project {}", plan.project),
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
