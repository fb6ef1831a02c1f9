//! Watches services until each has become what its spec says, or will not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_api::client::{ClientError, Result};
use agent_api::swarm::{NodeState, Service, Task, gate};
use agent_api::{Client, Filters};
use tokio::time::Instant;

use super::changes::Changes;
use super::judge::{Expected, Outlook, Progress, Reason, judge};

/// How long tasks that run are watched for failure unless the service says it.
const MONITOR: Duration = Duration::from_secs(5);
/// How long tasks may wait for what they need while nothing else happens to their service.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service, as it is now.
#[derive(Debug)]
pub struct Watched<'a> {
    /// Name.
    pub name: &'a str,
    /// How far it is.
    pub progress: &'a Progress,
    /// Its tasks run, and have to go on for so long.
    pub verifying: Option<Duration>,
    /// What was decided, when it was.
    pub ended: Option<&'a Ended>,
}

/// What became of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What its spec says.
    Converged,
    /// Something else: why, per task.
    Failed(Vec<Reason>),
}

/// Told of every look; the list is in the order the services were given.
pub trait Watcher {
    /// One look at all services.
    fn look(&mut self, services: &[Watched<'_>]);
}

/// Watches services, by their ids, to the end; gives what became of each, by name, in the same order.
///
/// # Errors
/// Those of the daemon, but for a manager that is away for a moment.
pub async fn watch(
    client: &Client,
    services: &[(String, Expected)],
    watcher: &mut dyn Watcher,
) -> Result<Vec<(String, Ended)>> {
    let mut changes = Changes::follow(client).await?;
    let ids: Vec<String> = services.iter().map(|(id, _)| id.clone()).collect();
    let mut states: Vec<State> = services
        .iter()
        .map(|(id, expected)| State::new(id, *expected))
        .collect();
    loop {
        let cluster = match look(client, &ids).await {
            Ok(cluster) => cluster,
            // While the managers choose a leader they refuse: what was known still holds.
            Err(error) if is_passing(&error) => {
                let retry = Instant::now() + Duration::from_secs(1);
                changes.next(Some(retry)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let awaited = awaited(&cluster);
        for state in &mut states {
            state.look(&cluster, &awaited, now);
        }
        fail_dependants(&mut states);
        let shown: Vec<_> = states.iter().map(|state| state.shown(now)).collect();
        watcher.look(&shown);
        if states.iter().all(|state| state.ended.is_some()) {
            let ended = states.into_iter();
            return Ok(ended
                .map(|state| (state.name, state.ended.expect("all have ended")))
                .collect());
        }
        let deadline = states.iter().filter_map(|state| state.wakes(now)).min();
        changes.next(deadline).await;
    }
}

/// A service that waits for one that has failed will not come about either.
fn fail_dependants(states: &mut [State]) {
    loop {
        let failed: BTreeSet<String> = states
            .iter()
            .filter(|state| matches!(state.ended, Some(Ended::Failed(_))))
            .map(|state| state.name.clone())
            .collect();
        let held = states.iter_mut().find_map(|state| {
            let unsettled = state.ended.is_none() && state.steady_since.is_none();
            let gate = state
                .gates
                .iter()
                .find(|gate| failed.contains(*gate))?
                .clone();
            unsettled.then_some((state, gate))
        });
        let Some((state, gate)) = held else {
            return;
        };
        state.ended = Some(Ended::Failed(vec![Reason {
            task: state.name.clone(),
            node: String::new(),
            state: "",
            text: format!("waits for {gate}, which has failed"),
        }]));
    }
}

fn is_passing(error: &ClientError) -> bool {
    matches!(error.status(), Some(500 | 503))
        && (error.to_string().contains("leader") || error.to_string().contains("deadline"))
}

struct Cluster {
    services: BTreeMap<String, Service>,
    tasks: Vec<Task>,
    nodes: BTreeMap<String, String>,
}

async fn look(client: &Client, ids: &[String]) -> Result<Cluster> {
    let wanted = ids.iter();
    let by_id = wanted
        .clone()
        .fold(Filters::new(), |filters, id| filters.with("id", id));
    let current = wanted
        .fold(Filters::new(), |filters, id| filters.with("service", id))
        .with("_up-to-date", "true");
    let all = Filters::new();
    let (services, nodes) =
        tokio::try_join!(client.list_services(&by_id, false), client.list_nodes(&all))?;
    // Asked for a service that is gone, the daemon would refuse.
    let tasks = if services.len() == ids.len() {
        client.list_tasks(&current).await?
    } else {
        Vec::new()
    };
    Ok(Cluster {
        services: services
            .into_iter()
            .map(|service| (service.id.clone(), service))
            .collect(),
        tasks,
        nodes: nodes
            .into_iter()
            .filter(|node| node.status.state != NodeState::Down)
            .map(|node| (node.id, node.description.hostname))
            .collect(),
    })
}

struct State {
    id: String,
    name: String,
    expected: Expected,
    progress: Progress,
    monitor: Duration,
    /// Names of the services it needs.
    gates: Vec<String>,
    /// Since when all tasks are as they shall be.
    steady_since: Option<Instant>,
    /// Since when nothing has changed.
    same_since: Option<Instant>,
    ended: Option<Ended>,
}

impl State {
    fn new(id: &str, expected: Expected) -> Self {
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            expected,
            progress: Progress {
                done: 0,
                total: None,
                rows: Vec::new(),
                is_rollback: false,
                note: String::new(),
                outlook: Outlook::Moving,
            },
            monitor: MONITOR,
            gates: Vec::new(),
            steady_since: None,
            same_since: None,
            ended: None,
        }
    }

    fn look(&mut self, cluster: &Cluster, awaited: &BTreeSet<String>, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        let Some(service) = cluster.services.get(&self.id) else {
            self.ended = Some(Ended::Failed(vec![Reason {
                task: self.name.clone(),
                node: String::new(),
                state: "",
                text: "the service was removed".to_owned(),
            }]));
            return;
        };
        self.name.clone_from(&service.spec.annotations.name);
        self.monitor = match self.expected {
            Expected::Unchanged => Duration::ZERO,
            _ => monitor(service),
        };
        self.gates = gates(service)
            .into_iter()
            .filter(|gate| gate.required)
            .map(|gate| gate.service)
            .collect();
        let tasks: Vec<Task> = cluster
            .tasks
            .iter()
            .filter(|task| task.service_id == self.id)
            .cloned()
            .collect();
        let progress = judge(service, &tasks, &cluster.nodes, self.expected);
        if self.same_since.is_none() || progress != self.progress {
            self.same_since = Some(now);
        }
        self.progress = progress;
        // While others wait for its end, running is not where it is to be.
        if awaited.contains(&self.name) && self.progress.outlook == Outlook::Steady {
            self.progress.outlook = Outlook::Moving;
        }
        self.decide(now);
    }

    fn decide(&mut self, now: Instant) {
        let steady = self.progress.outlook == Outlook::Steady;
        self.steady_since = match (steady, self.steady_since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| now - at);
        self.ended = match &self.progress.outlook {
            Outlook::Settled => Some(Ended::Converged),
            Outlook::Steady if since(self.steady_since) >= self.monitor => Some(Ended::Converged),
            Outlook::Lost(reasons) => Some(Ended::Failed(reasons.clone())),
            Outlook::Waiting(reasons) if since(self.same_since) >= PATIENCE => {
                Some(Ended::Failed(reasons.clone()))
            }
            _ => None,
        };
    }

    /// When to look again though nothing changed.
    fn wakes(&self, now: Instant) -> Option<Instant> {
        if self.ended.is_some() {
            return None;
        }
        match &self.progress.outlook {
            // Once a second the remaining time is shown.
            Outlook::Steady => {
                let end = self.steady_since? + self.monitor;
                Some(end.min(now + Duration::from_secs(1)))
            }
            Outlook::Waiting(_) => Some(self.same_since? + PATIENCE),
            _ => None,
        }
    }

    fn shown(&self, now: Instant) -> Watched<'_> {
        let verifying = self
            .steady_since
            .filter(|_| self.ended.is_none())
            .map(|since| self.monitor.saturating_sub(now - since));
        Watched {
            name: &self.name,
            progress: &self.progress,
            verifying,
            ended: self.ended.as_ref(),
        }
    }
}

/// Names of the services that others wait for to complete.
fn awaited(cluster: &Cluster) -> BTreeSet<String> {
    let all = cluster.services.values().flat_map(gates);
    all.filter(|gate| gate.condition == gate::Condition::Completed)
        .map(|gate| gate.service)
        .collect()
}

fn gates(service: &Service) -> Vec<gate::Gate> {
    let label = service.spec.annotations.labels.get(gate::LABEL);
    // What the managers cannot read they have refused.
    gate::parse(label.map_or("", String::as_str)).unwrap_or_default()
}

fn monitor(service: &Service) -> Duration {
    let config = service.spec.update_config.as_ref();
    let monitor = config.map_or(0, |config| config.monitor);
    match u64::try_from(monitor) {
        Ok(nanoseconds) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
        _ => MONITOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, gates: &[&str], ended: Option<Ended>) -> State {
        State {
            name: name.to_owned(),
            gates: gates.iter().map(|&gate| gate.to_owned()).collect(),
            ended,
            ..State::new(name, Expected::Forward)
        }
    }

    #[test]
    fn what_waits_for_a_failed_service_has_failed_too() {
        let mut states = [
            state("web", &["migrate"], None),
            state("migrate", &["db"], None),
            state("db", &[], Some(Ended::Failed(Vec::new()))),
            state("other", &["cache"], None),
            state("cache", &[], Some(Ended::Converged)),
        ];
        fail_dependants(&mut states);
        let failed = |index: usize| match &states[index].ended {
            Some(Ended::Failed(reasons)) => reasons.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        assert_eq!(failed(0), ["web: waits for migrate, which has failed"]);
        assert_eq!(failed(1), ["migrate: waits for db, which has failed"]);
        assert_eq!(states[3].ended, None);
    }

    #[test]
    fn what_runs_is_watched_for_its_time_and_not_when_nothing_changed() {
        let now = Instant::now();
        for (expected, seconds, ended) in [
            (Expected::Forward, 0, false),
            (Expected::Forward, 5, true),
            (Expected::Unchanged, 0, true),
        ] {
            let mut state = State::new("web", expected);
            state.progress.outlook = Outlook::Steady;
            state.monitor = if expected == Expected::Unchanged {
                Duration::ZERO
            } else {
                MONITOR
            };
            state.decide(now);
            state.decide(now + Duration::from_secs(seconds));
            assert_eq!(
                state.ended == Some(Ended::Converged),
                ended,
                "{expected:?} {seconds}"
            );
        }
    }

    #[test]
    fn what_others_wait_for_to_end_is_not_done_while_it_runs() {
        let service = |name: &str, label: serde_json::Value| -> Service {
            serde_json::from_value(serde_json::json!({
                "ID": name,
                "Spec": {"Name": name, "Labels": label, "Mode": {"Replicated": {"Replicas": 1}},
                    "TaskTemplate": {"RestartPolicy": {"Condition": "on-failure"}}},
            }))
            .unwrap()
        };
        let gate =
            serde_json::json!({ gate::LABEL: "migrate:service_completed_successfully:true" });
        let task = |state: &str| -> Vec<Task> {
            let task = serde_json::json!({"ID": "t", "ServiceID": "migrate", "Slot": 1, "NodeID": "n",
                "Status": {"State": state}, "DesiredState": "running"});
            vec![serde_json::from_value(task).unwrap()]
        };
        let services = [
            service("migrate", serde_json::json!({})),
            service("web", gate),
        ];
        let mut cluster = Cluster {
            services: services.map(|service| (service.id.clone(), service)).into(),
            tasks: task("running"),
            nodes: BTreeMap::from([("n".to_owned(), "host".to_owned())]),
        };
        let mut state = State::new("migrate", Expected::Unchanged);
        let awaited = awaited(&cluster);
        state.look(&cluster, &awaited, Instant::now());
        assert_eq!((state.ended.clone(), state.steady_since), (None, None));
        cluster.tasks = task("complete");
        state.look(&cluster, &awaited, Instant::now());
        assert_eq!(state.ended, Some(Ended::Converged));
    }

    #[test]
    fn waiting_is_borne_for_a_while() {
        let now = Instant::now();
        let mut state = State::new("web", Expected::Forward);
        state.same_since = Some(now);
        state.progress.outlook = Outlook::Waiting(Vec::new());
        state.decide(now + PATIENCE / 2);
        assert_eq!(state.ended, None);
        assert_eq!(state.wakes(now), Some(now + PATIENCE));
        state.decide(now + PATIENCE);
        assert_eq!(state.ended, Some(Ended::Failed(Vec::new())));
    }
}
