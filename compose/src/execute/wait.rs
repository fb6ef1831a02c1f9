//! Waiting for containers without polling: the engine's events tell *that* something happened to a container, and one
//! inspect tells *what* is so now. A wait therefore never acts on an event that is out of date.

use std::collections::HashMap;

use agent_api::client::{EventsOptions, JsonStream};
use agent_api::{Client, ContainerInspect, ContainerStatus, EventMessage, Filters, HealthStatus};
use futures_util::StreamExt;
use futures_util::future::{join_all, pending, select_all};
use tokio::sync::{Mutex, watch};

use super::step::{Done, Note, Runner, StepError};
use crate::labels;
use crate::plan::{Condition, ContainerHandle};

/// How often something happened to each container, and whether the engine can still be heard.
#[derive(Debug, Default)]
struct Heard {
    changes: HashMap<String, u64>,
    lost: Option<String>,
}

/// The events of a project's containers from the moment of subscription.
pub(super) struct Events {
    stream: Mutex<Option<JsonStream<EventMessage>>>,
    heard: watch::Sender<Heard>,
}

impl Events {
    /// For plans without waits.
    pub(super) fn none() -> Self {
        Self {
            stream: Mutex::new(None),
            heard: watch::Sender::default(),
        }
    }

    pub(super) async fn subscribe(client: &Client, project: &str) -> Result<Self, StepError> {
        let filters = Filters::new()
            .with("type", "container")
            .with("label", format!("{}={project}", labels::PROJECT));
        let stream = client
            .events(&EventsOptions {
                filters,
                ..EventsOptions::default()
            })
            .await?;
        Ok(Self {
            stream: Mutex::new(Some(stream)),
            heard: watch::Sender::default(),
        })
    }

    /// Takes in events; never ends, also not when the stream does.
    pub(super) async fn pump(&self) {
        let Some(mut stream) = self.stream.lock().await.take() else {
            return pending().await;
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) if is_relevant(&event.action) => {
                    self.heard.send_modify(|heard| {
                        *heard.changes.entry(event.actor.id).or_default() += 1
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    self.lose(error.to_string());
                    return pending().await;
                }
            }
        }
        self.lose("the engine closed it".to_owned());
        pending().await
    }

    fn lose(&self, why: String) {
        self.heard.send_modify(|heard| heard.lost = Some(why));
    }

    /// Number of changes of a container so far; to be taken before looking at it.
    pub(super) fn seen(&self, id: &str) -> u64 {
        self.heard.borrow().changes.get(id).copied().unwrap_or(0)
    }

    /// Returns when there were more changes than `seen`.
    pub(super) async fn changed(&self, id: &str, seen: u64) -> Result<(), StepError> {
        let mut heard = self.heard.subscribe();
        let news = |heard: &Heard| {
            heard.lost.is_some() || heard.changes.get(id).copied().unwrap_or(0) > seen
        };
        let heard = heard
            .wait_for(news)
            .await
            .map_err(|_| StepError::new("the run is over"))?;
        match &heard.lost {
            Some(why) => Err(StepError::new(format!(
                "lost the engine's event stream: {why}"
            ))),
            None => Ok(()),
        }
    }
}

/// Whether an event can change the outcome of a wait.
fn is_relevant(action: &str) -> bool {
    action.starts_with("health_status")
        || matches!(
            action,
            "start"
                | "die"
                | "stop"
                | "kill"
                | "destroy"
                | "oom"
                | "exec_die"
                | "restart"
                | "pause"
                | "unpause"
        )
        || action.starts_with("exec_die")
}

/// What an inspect means for a condition.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    NotYet,
    /// It will not be met: why.
    Never(String),
}

impl Runner<'_> {
    /// Waits until the containers are in the condition; bounded by the run's timeout, ended by cancelling.
    pub(super) async fn wait(
        &self,
        step: usize,
        containers: &[ContainerHandle],
        condition: Condition,
    ) -> Result<Done, StepError> {
        let mut cancel = self.cancel.clone();
        let all = self.wait_all(step, containers, condition);
        tokio::select! {
            result = all => result,
            () = sleep(self.wait_timeout) => {
                let limit = self.wait_timeout.unwrap_or_default().as_secs();
                let reason = format!("it took longer than {limit} s");
                let mut log_tail = Vec::new();
                for container in containers {
                    if let Ok(id) = self.id(container) {
                        log_tail.extend(self.log_tail(&id).await);
                    }
                }
                Err(StepError { reason, log_tail, cancelled: false })
            }
            () = cancelled(&mut cancel) => {
                Err(StepError { reason: "interrupted".to_owned(), log_tail: Vec::new(), cancelled: true })
            }
        }
    }

    async fn wait_all(
        &self,
        step: usize,
        containers: &[ContainerHandle],
        condition: Condition,
    ) -> Result<Done, StepError> {
        let waits: Vec<_> = containers
            .iter()
            .map(|container| Box::pin(self.wait_one(step, container, condition)))
            .collect();
        // A service has completed when the first of its containers has; it is healthy when all are.
        if condition == Condition::Completed {
            if waits.is_empty() {
                return Ok(Done::default());
            }
            return select_all(waits).await.0.map(|()| Done::default());
        }
        for result in join_all(waits).await {
            result?;
        }
        Ok(Done::default())
    }

    async fn wait_one(
        &self,
        step: usize,
        container: &ContainerHandle,
        condition: Condition,
    ) -> Result<(), StepError> {
        let id = self.id(container)?;
        let mut told = None;
        loop {
            let seen = self.events.seen(&id);
            let inspect = self.client.inspect_container(&id).await?;
            match verdict(condition, &inspect) {
                Verdict::Met => return Ok(()),
                Verdict::NotYet => {
                    let probe = failed_probe(&inspect);
                    if let Some(detail) = probe.clone().filter(|_| probe != told) {
                        // Full of other news: this one is not missed.
                        drop(self.notes.try_send(Note {
                            index: step,
                            detail,
                        }));
                        told = probe;
                    }
                    self.events.changed(&id, seen).await?;
                }
                Verdict::Never(why) => {
                    let reason = format!("container {} {why}", container.name);
                    return Err(StepError {
                        reason,
                        log_tail: self.log_tail(&id).await,
                        cancelled: false,
                    });
                }
            }
        }
    }
}

/// Returns when the run is cancelled; never if nobody is left who could.
async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    let heard = cancel.wait_for(|cancelled| *cancelled).await.is_ok();
    if !heard {
        pending().await
    }
}

async fn sleep(limit: Option<std::time::Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => pending().await,
    }
}

fn verdict(condition: Condition, inspect: &ContainerInspect) -> Verdict {
    let state = &inspect.state;
    let health = state
        .health
        .as_ref()
        .map_or(HealthStatus::None, |health| health.status);
    let ended = matches!(
        state.status,
        ContainerStatus::Exited | ContainerStatus::Dead
    );
    let why = |why: String| {
        let oom = if state.oom_killed {
            ", killed for using too much memory"
        } else {
            ""
        };
        Verdict::Never(format!("{why}{oom}"))
    };
    if condition == Condition::Completed {
        return match (ended, state.exit_code) {
            (false, _) if state.status == ContainerStatus::Created => {
                why("was never started".to_owned())
            }
            (false, _) => Verdict::NotYet,
            (true, 0) => Verdict::Met,
            (true, code) => why(format!("ended with exit code {code}")),
        };
    }
    match state.status {
        ContainerStatus::Exited | ContainerStatus::Dead => {
            why(format!("ended with exit code {}", state.exit_code))
        }
        ContainerStatus::Created => why("was never started".to_owned()),
        ContainerStatus::Removing => why("is being removed".to_owned()),
        ContainerStatus::Restarting => Verdict::NotYet,
        ContainerStatus::Running | ContainerStatus::Paused => match (condition, health) {
            (_, HealthStatus::Healthy) | (Condition::RunningOrHealthy, HealthStatus::None) => {
                Verdict::Met
            }
            (_, HealthStatus::Unhealthy) => why(unhealthy(inspect)),
            (_, HealthStatus::None) => why(
                "has no health check: give the service one, or wait for service_started".to_owned(),
            ),
            (_, HealthStatus::Starting) => Verdict::NotYet,
        },
    }
}

/// `is unhealthy`, with what its last probe said.
fn unhealthy(inspect: &ContainerInspect) -> String {
    match failed_probe(inspect) {
        Some(said) => format!("is unhealthy: {said}"),
        None => "is unhealthy".to_owned(),
    }
}

/// Last line of what the last probe said, if it failed and said anything.
fn failed_probe(inspect: &ContainerInspect) -> Option<String> {
    let probe = inspect.state.health.as_ref()?.log.last()?;
    let line = probe
        .output
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())?;
    (probe.exit_code != 0).then(|| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::{ContainerState, Health};

    fn inspect(
        status: ContainerStatus,
        exit_code: i64,
        health: Option<HealthStatus>,
    ) -> ContainerInspect {
        let health = health.map(|status| Health {
            status,
            ..Health::default()
        });
        let state = ContainerState {
            status,
            exit_code,
            health,
            ..ContainerState::default()
        };
        ContainerInspect {
            state,
            ..ContainerInspect::default()
        }
    }

    #[test]
    fn conditions_end_as_early_as_the_state_allows() {
        use Condition::{Completed, Healthy, RunningOrHealthy};
        use ContainerStatus::{Created, Exited, Restarting, Running};
        let met =
            |condition, status, code, health| verdict(condition, &inspect(status, code, health));
        assert_eq!(
            met(Healthy, Running, 0, Some(HealthStatus::Healthy)),
            Verdict::Met
        );
        assert_eq!(
            met(Healthy, Running, 0, Some(HealthStatus::Starting)),
            Verdict::NotYet
        );
        assert_eq!(
            met(Healthy, Restarting, 1, Some(HealthStatus::Starting)),
            Verdict::NotYet
        );
        assert!(
            matches!(met(Healthy, Running, 0, None), Verdict::Never(why) if why.contains("no health check"))
        );
        assert!(
            matches!(met(Healthy, Exited, 3, None), Verdict::Never(why) if why.contains("exit code 3"))
        );
        assert!(matches!(
            met(Healthy, Running, 0, Some(HealthStatus::Unhealthy)),
            Verdict::Never(_)
        ));
        assert_eq!(met(RunningOrHealthy, Running, 0, None), Verdict::Met);
        assert!(matches!(
            met(RunningOrHealthy, Exited, 0, None),
            Verdict::Never(_)
        ));
        assert_eq!(met(Completed, Running, 0, None), Verdict::NotYet);
        assert_eq!(met(Completed, Exited, 0, None), Verdict::Met);
        assert!(matches!(met(Completed, Exited, 1, None), Verdict::Never(_)));
        assert!(matches!(
            met(Completed, Created, 0, None),
            Verdict::Never(_)
        ));
    }
}
