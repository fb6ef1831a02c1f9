//! One look at a service and its tasks. Pure.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::{RestartPolicy, Service, Task, TaskState};

/// So often a task of one slot may fail before it is said that it will not come up.
const FAILURES: usize = 3;

/// What the service is on its way to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// A spec that was just set; going back to the one before is a failure.
    #[default]
    Forward,
    /// The spec before.
    Back,
    /// The one it has had for a while: what runs need not be watched for failure.
    Unchanged,
}

/// How far a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that are as they shall be.
    pub done: u64,
    /// Tasks there shall be; `None` when nothing tells yet (a global service without tasks).
    pub total: Option<u64>,
    /// One row per slot or node, in a stable order.
    pub rows: Vec<Row>,
    /// The managers roll back.
    pub is_rollback: bool,
    /// What the managers say about an update that goes on.
    pub note: String,
    /// Where it leads.
    pub outlook: Outlook,
}

/// One slot or node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `2/3`, or the id of a node.
    pub label: String,
    /// State of the task that counts.
    pub state: TaskState,
    /// What is wrong with it, or why it waits.
    pub error: String,
    /// The service it is held back for, in words.
    pub gate: String,
}

/// Where a service is heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Something is still to happen.
    Moving,
    /// Tasks wait for something that may never come.
    Waiting(Vec<Reason>),
    /// All tasks are as they shall be; some of them could still fail.
    Steady,
    /// All is done for good: every task ran to its end, or the managers have watched the update themselves.
    Settled,
    /// It will not become what its spec says by itself.
    Lost(Vec<Reason>),
}

/// Why, task by task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// `app_web.1`, or the service when it is about all of it.
    pub task: String,
    /// Host it is on; empty when it has none.
    pub node: String,
    /// `failed`, `rejected`, `pending` …
    pub state: &'static str,
    /// In words.
    pub text: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.task)?;
        if !self.state.is_empty() {
            write!(f, " {}", self.state)?;
        }
        if !self.node.is_empty() {
            write!(f, " on {}", self.node)?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Judges a service by its up-to-date tasks. `nodes` are the host names of the nodes that are not down, by id.
#[must_use]
pub fn judge(
    service: &Service,
    tasks: &[Task],
    nodes: &BTreeMap<String, String>,
    expected: Expected,
) -> Progress {
    let judge = Judge {
        service,
        nodes,
        slots: slots(tasks),
    };
    let rows = judge.rows();
    let total = judge.total();
    let done = judge.done();
    let status = service.update_status.as_ref();
    let state = status.map_or("", |status| status.state.as_str());
    let message = status.map_or("", |status| status.message.as_str());
    let outlook = match (state, expected) {
        ("paused", _) => judge.lost(&format!("update paused: {message}")),
        ("rollback_paused", _) => judge.lost(&format!("rollback paused: {message}")),
        ("rollback_completed", Expected::Forward) if total == Some(done) => {
            judge.lost(&format!("rolled back: {message}"))
        }
        ("rollback_started" | "rollback_completed", Expected::Forward) => Outlook::Moving,
        _ => judge.outlook(done, total),
    };
    Progress {
        done,
        total,
        rows,
        is_rollback: state.starts_with("rollback"),
        note: match state {
            "updating" | "rollback_started" => message.to_owned(),
            _ => String::new(),
        },
        outlook,
    }
}

/// Tasks by slot (or node, in a global service), the newest last.
fn slots(tasks: &[Task]) -> BTreeMap<(u64, String), Vec<&Task>> {
    let mut slots: BTreeMap<(u64, String), Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        let node = match task.slot {
            0 => task.node_id.clone(),
            _ => String::new(),
        };
        slots.entry((task.slot, node)).or_default().push(task);
    }
    for tasks in slots.values_mut() {
        tasks.sort_by(|a, b| {
            (&a.created_at, a.version, &a.id).cmp(&(&b.created_at, b.version, &b.id))
        });
    }
    slots
}

struct Judge<'a> {
    service: &'a Service,
    nodes: &'a BTreeMap<String, String>,
    slots: BTreeMap<(u64, String), Vec<&'a Task>>,
}

impl<'a> Judge<'a> {
    /// Number of slots there shall be; of a global service, the nodes that have tasks: the managers know which fit.
    fn total(&self) -> Option<u64> {
        let mode = &self.service.spec.mode;
        if let Some(job) = &mode.replicated_job {
            return Some(job.total_completions.unwrap_or(1));
        }
        match &mode.replicated {
            Some(replicated) => Some(replicated.replicas.unwrap_or(1)),
            None => (!self.slots.is_empty()).then_some(self.live_slots().count() as u64),
        }
    }

    /// Slots whose node, if the slot is one, is not down.
    fn live_slots(&self) -> impl Iterator<Item = (&(u64, String), &Vec<&'a Task>)> {
        self.slots.iter().filter(|((slot, node), _)| {
            *slot > 0 || node.is_empty() || self.nodes.contains_key(node)
        })
    }

    fn done(&self) -> u64 {
        let slots = self.live_slots();
        slots.filter(|(_, tasks)| self.is_done(tasks)).count() as u64
    }

    fn is_done(&self, tasks: &[&Task]) -> bool {
        tasks.iter().any(|task| self.is_up(task)) || self.is_complete(tasks)
    }

    /// Runs, where it can be known, and is to go on.
    fn is_up(&self, task: &Task) -> bool {
        task.status.state == TaskState::Running
            && !task.desired_state.is_terminal()
            && !self.is_job()
            && self.nodes.contains_key(&task.node_id)
    }

    /// Ran to its end, and is not to run again.
    fn is_complete(&self, tasks: &[&Task]) -> bool {
        tasks
            .last()
            .is_some_and(|task| task.status.state == TaskState::Complete)
            && (self.is_job() || self.condition() != "any")
    }

    fn is_job(&self) -> bool {
        let mode = &self.service.spec.mode;
        mode.replicated_job.is_some() || mode.global_job.is_some()
    }

    fn policy(&self) -> RestartPolicy {
        self.service
            .spec
            .task_template
            .restart_policy
            .clone()
            .unwrap_or_default()
    }

    fn condition(&self) -> String {
        match self.policy().condition {
            condition if condition.is_empty() => "any".to_owned(),
            condition => condition,
        }
    }

    /// The task of a slot that counts: the one that is to live longest, and of those the one that is least far.
    fn shown(tasks: &[&'a Task]) -> Option<&'a Task> {
        tasks
            .iter()
            .min_by_key(|task| (task.desired_state, task.status.state))
            .copied()
    }

    fn rows(&self) -> Vec<Row> {
        let replicas = self.total().unwrap_or(0);
        let mut rows = Vec::new();
        let mut number = 0;
        for ((slot, node), tasks) in self.live_slots() {
            let Some(task) = Self::shown(tasks) else {
                continue;
            };
            let label = if *slot == 0 {
                self.nodes.get(node).unwrap_or(node).clone()
            } else {
                number += 1;
                if number > replicas {
                    continue;
                }
                format!("{number}/{replicas}")
            };
            rows.push(Row {
                label,
                state: task.status.state,
                error: task.status.err.clone(),
                gate: gate(task),
            });
        }
        rows
    }

    fn outlook(&self, done: u64, total: Option<u64>) -> Outlook {
        let broken: Vec<Reason> = self
            .live_slots()
            .filter(|(_, tasks)| !self.is_done(tasks))
            .filter_map(|(_, tasks)| self.broken(tasks))
            .collect();
        if !broken.is_empty() {
            return Outlook::Lost(broken);
        }
        if total == Some(done) && !self.is_updating() {
            let over = self.live_slots().all(|(_, tasks)| self.is_complete(tasks));
            return if over && done > 0 {
                Outlook::Settled
            } else {
                Outlook::Steady
            };
        }
        let waiting: Vec<Reason> = self
            .live_slots()
            .filter_map(|(_, tasks)| Self::shown(tasks))
            .filter(|task| task.status.state <= TaskState::Pending && !task.status.err.is_empty())
            .map(|task| self.reason(task, String::new()))
            .collect();
        if waiting.is_empty() {
            Outlook::Moving
        } else {
            Outlook::Waiting(waiting)
        }
    }

    fn is_updating(&self) -> bool {
        let status = self.service.update_status.as_ref();
        status
            .is_some_and(|status| status.state == "updating" || status.state == "rollback_started")
    }

    /// Why a slot will not come up, if so: its tasks keep ending, or nothing is to follow the last one.
    fn broken(&self, tasks: &[&Task]) -> Option<Reason> {
        let last = tasks.last()?;
        let ended = |task: &&&Task| {
            matches!(
                task.status.state,
                TaskState::Failed | TaskState::Rejected | TaskState::Complete
            )
        };
        let times = tasks.iter().filter(ended).count();
        let is_over = ended(&last) && last.desired_state.is_terminal();
        if is_over && !tasks.iter().any(|task| !task.desired_state.is_terminal()) {
            let text = format!("{}; its restart policy lets nothing follow", why(last));
            return Some(self.reason(last, text));
        }
        if times >= FAILURES {
            let worst = tasks.iter().rev().find(ended)?;
            let text = format!("{} ({times} times so far)", why(worst));
            return Some(self.reason(worst, text));
        }
        None
    }

    fn reason(&self, task: &Task, text: String) -> Reason {
        let name = &self.service.spec.annotations.name;
        let node = self.nodes.get(&task.node_id);
        Reason {
            task: match task.slot {
                0 => name.clone(),
                slot => format!("{name}.{slot}"),
            },
            node: node.unwrap_or(&task.node_id).clone(),
            state: task.status.state.word(),
            text: if text.is_empty() { why(task) } else { text },
        }
    }

    /// The managers gave up: what they say, and what is wrong with the tasks.
    fn lost(&self, message: &str) -> Outlook {
        let mut reasons = vec![Reason {
            task: self.service.spec.annotations.name.clone(),
            node: String::new(),
            state: "",
            text: message.to_owned(),
        }];
        let mut seen = BTreeSet::new();
        for tasks in self.slots.values() {
            let failed = tasks
                .iter()
                .rev()
                .find(|task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected));
            if let Some(task) = failed
                && seen.insert(task.id.clone())
            {
                reasons.push(self.reason(task, String::new()));
            }
        }
        Outlook::Lost(reasons)
    }
}

/// Why a task that could start is held back: the managers say so in these words.
fn gate(task: &Task) -> String {
    let message = &task.status.message;
    let is_held = task.status.state <= TaskState::Ready && message.starts_with("waiting for ");
    if is_held {
        message.clone()
    } else {
        String::new()
    }
}

/// What a task says about itself.
fn why(task: &Task) -> String {
    if !task.status.err.is_empty() {
        return task.status.err.replace('\n', " ");
    }
    let code = task
        .status
        .container_status
        .as_ref()
        .map(|container| container.exit_code);
    match (task.status.state, code) {
        (TaskState::Complete, _) => "ended with exit code 0".to_owned(),
        (TaskState::Failed, Some(code)) => format!("ended with exit code {code}"),
        _ => task.status.message.clone(),
    }
}

#[cfg(test)]
mod tests;
