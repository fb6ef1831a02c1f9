//! The agent's side of a swarm: from what managers want of this node and what its containers do to the next steps.
//!
//! Opens no container, file or connection: it says what to do ([`Action`]) and is told what happened ([`Input`]), so a
//! simulation can run thousands of nodes. The promises it keeps, whatever is lost, repeated or late:
//!
//! - A task's container is started at most once, also over restarts of the agent: what is about to be done is on disk
//!   before it is done, and what was running is adopted.
//! - Nothing is stopped or removed on the order of a leader of an older term, or on a state older than one already
//!   followed ([`Fence`]), or because the session is gone. An empty complete set that would stop running containers is
//!   asked for twice.
//! - All statuses are reported on each new session, so a manager may acknowledge a report before it is durable.
//! - A task gets its stop signal only when no balancer sends to it any more, or after [`UNBIND_WAIT_MS`].
//!
//! Behaviour of states: moby/swarmkit `agent/worker.go`, `agent/task.go`, `agent/exec/controller.go`.

mod action;
mod networks;
mod payloads;
mod task_run;
#[cfg(test)]
mod tests;

pub use action::{Action, Fence, Found, FoundState, Happened, Input, Intent, Preparation, Record};
pub use task_run::UNBIND_WAIT_MS;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{Now, Task, TaskStatus, Time};

use crate::dispatcher::{Assignments, AssignmentsKind, Change, ItemKind};
use networks::Networks;
use payloads::Payloads;
use task_run::{Surroundings, TaskRun};

/// Everything an agent knows of its tasks.
#[derive(Debug)]
pub struct Worker {
    node_id: String,
    fence: Fence,
    session: Option<Session>,
    tasks: BTreeMap<String, TaskRun>,
    /// Containers without a record, until a manager says whether they belong here.
    unclaimed: BTreeMap<String, FoundState>,
    unbound: BTreeSet<String>,
    payloads: Payloads,
    networks: Networks,
}

#[derive(Debug)]
struct Session {
    term: u64,
    /// What the last message that was followed resulted in; absent until the first complete set.
    chain: Option<String>,
    /// An empty complete set made from this index was received and is to be confirmed.
    suspected: Option<u64>,
    /// What the managers were told last of each task.
    reported: BTreeMap<String, TaskStatus>,
}

impl Worker {
    /// With what was saved before, and the containers of tasks that are there. Goes on with the first
    /// [`Worker::handle`], for which [`Input::Time`] will do.
    #[must_use]
    pub fn new(
        node_id: &str,
        fence: Fence,
        records: Vec<Record>,
        found: Vec<Found>,
        now: Now,
    ) -> Self {
        let mut unclaimed: BTreeMap<String, FoundState> = found
            .into_iter()
            .map(|found| (found.task_id, found.state))
            .collect();
        let tasks = records
            .into_iter()
            .map(|record| {
                let id = record.task.id.clone();
                let found = unclaimed.remove(&id);
                (id, TaskRun::restored(record, found.as_ref(), now))
            })
            .collect();
        Self {
            node_id: node_id.to_owned(),
            fence,
            session: None,
            tasks,
            unclaimed,
            unbound: BTreeSet::new(),
            payloads: Payloads::default(),
            networks: Networks::default(),
        }
    }

    /// When [`Input::Time`] is due though nothing else happens.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        self.tasks.values().filter_map(TaskRun::wake_at).min()
    }

    /// The young end of what was followed.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// The tasks managers want here, with what was observed of each.
    pub fn assigned(&self) -> impl Iterator<Item = (&Arc<Task>, Option<&TaskStatus>)> {
        self.tasks
            .values()
            .filter(|run| run.is_assigned())
            .map(|run| (run.task(), run.report()))
    }

    /// Takes note of what happened; the result is to be begun in its order.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::SessionUp { term } => self.session_up(term, &mut actions),
            Input::SessionDown => self.session = None,
            Input::Assignments(assignments) => self.assignments(assignments, now, &mut actions),
            Input::Time => {}
            Input::Task { id, happened } => {
                if let Some(run) = self.tasks.get_mut(&id) {
                    run.happened(happened, now);
                } else if happened == Happened::Removed {
                    self.unclaimed.remove(&id);
                }
            }
            Input::Programmed {
                network_id,
                version,
            } => self.networks.programmed(&network_id, version),
        }
        self.settle(now, &mut actions);
        actions
    }

    fn session_up(&mut self, term: u64, actions: &mut Vec<Action>) {
        if term < self.fence.term {
            self.session = None;
            actions.push(Action::Leave {
                reason: format!(
                    "the leader's term is {term}, this node has followed one of term {}",
                    self.fence.term
                ),
            });
            return;
        }
        self.raise_fence(
            Fence {
                term,
                index: self.fence.index,
            },
            actions,
        );
        self.session = Some(Session {
            term,
            chain: None,
            suspected: None,
            reported: BTreeMap::new(),
        });
    }

    fn raise_fence(&mut self, fence: Fence, actions: &mut Vec<Action>) {
        if fence != self.fence {
            self.fence = fence;
            actions.push(Action::SaveFence(fence));
        }
    }

    fn assignments(&mut self, message: Assignments, now: Now, actions: &mut Vec<Action>) {
        match self.judge(&message) {
            Verdict::Follow => {}
            Verdict::Ignore => return,
            Verdict::Resync(reason) => {
                if let Some(session) = &mut self.session {
                    session.chain = None;
                }
                actions.push(Action::Resync { reason });
                return;
            }
            Verdict::Leave(reason) => {
                self.session = None;
                actions.push(Action::Leave { reason });
                return;
            }
        }
        self.raise_fence(
            Fence {
                term: message.term,
                index: message.index,
            },
            actions,
        );
        if message.kind == AssignmentsKind::Complete {
            self.drop_unlisted(&message.changes);
        }
        for change in message.changes {
            self.change(change, now);
        }
        if message.kind == AssignmentsKind::Complete {
            self.discard_unclaimed();
        }
        if let Some(session) = &mut self.session {
            session.chain = Some(message.results_in.clone());
            session.suspected = None;
        }
        self.networks
            .owe_acknowledgement(message.term, message.results_in);
    }

    /// Whether a message may be followed.
    fn judge(&mut self, message: &Assignments) -> Verdict {
        if message.term < self.fence.term {
            return Verdict::Leave(format!(
                "assignments of term {} after those of term {}",
                message.term, self.fence.term
            ));
        }
        let would_stop = self.tasks.values().any(TaskRun::may_run)
            || self
                .unclaimed
                .values()
                .any(|state| *state == FoundState::Running);
        // Left over from a session that has ended.
        let Some(session) = &mut self.session else {
            return Verdict::Ignore;
        };
        if message.term != session.term {
            return Verdict::Leave(format!(
                "assignments of term {} in a session of term {}",
                message.term, session.term
            ));
        }
        if message.index < self.fence.index {
            return Verdict::Leave(format!(
                "assignments made from index {} after those from index {}",
                message.index, self.fence.index
            ));
        }
        let foreign = message.changes.iter().find_map(|change| match change {
            Change::Task(task) if task.node_id != self.node_id => Some(&task.id),
            _ => None,
        });
        if let Some(task_id) = foreign {
            return Verdict::Leave(format!("task {task_id} belongs to another node"));
        }
        match message.kind {
            AssignmentsKind::Incremental => match &session.chain {
                Some(chain) if *chain == message.applies_to => Verdict::Follow,
                // The complete set that was asked for is on its way.
                None => Verdict::Ignore,
                Some(chain) => Verdict::Resync(format!(
                    "the assignments follow {:?}, the last ones here are {chain:?}",
                    message.applies_to
                )),
            },
            AssignmentsKind::Complete => {
                let empty = !message
                    .changes
                    .iter()
                    .any(|change| matches!(change, Change::Task(_)));
                if empty && would_stop && session.suspected.is_none() {
                    session.suspected = Some(message.index);
                    return Verdict::Resync(
                        "the complete set of assignments is empty and containers run".to_owned(),
                    );
                }
                Verdict::Follow
            }
        }
    }

    /// What a complete set does not name does not belong here.
    fn drop_unlisted(&mut self, changes: &[Change]) {
        let listed: BTreeSet<&str> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Task(task) => Some(task.id.as_str()),
                _ => None,
            })
            .collect();
        for (id, run) in &mut self.tasks {
            if !listed.contains(id.as_str()) {
                run.unassign();
            }
        }
        self.unbound.clear();
        self.payloads.clear();
        self.networks.clear();
    }

    /// Containers that neither a record nor a manager knows are left-overs.
    fn discard_unclaimed(&mut self) {
        for (id, found) in std::mem::take(&mut self.unclaimed) {
            self.tasks.insert(id.clone(), TaskRun::stray(&id, &found));
        }
    }

    fn change(&mut self, change: Change, now: Now) {
        match change {
            Change::Task(task) => match self.tasks.get_mut(&task.id) {
                Some(run) => run.update(task),
                None => {
                    let id = task.id.clone();
                    let run = match self.unclaimed.remove(&id) {
                        Some(found) => TaskRun::rediscovered(task, &found, now),
                        None => TaskRun::assigned(task, now),
                    };
                    self.tasks.insert(id, run);
                }
            },
            Change::Unbound { task_id } => {
                self.unbound.insert(task_id);
            }
            Change::Secret(secret) => self.payloads.put_secret(secret),
            Change::Config(config) => self.payloads.put_config(config),
            Change::Network(network) => self.networks.put(network),
            Change::Endpoints(endpoints) => self.networks.put_endpoints(endpoints),
            Change::Remove { kind, id } => match kind {
                ItemKind::Task => {
                    if let Some(run) = self.tasks.get_mut(&id) {
                        run.unassign();
                    }
                }
                ItemKind::Unbound => {
                    self.unbound.remove(&id);
                }
                ItemKind::Secret => self.payloads.remove_secret(&id),
                ItemKind::Config => self.payloads.remove_config(&id),
                ItemKind::Network => self.networks.remove(&id),
                ItemKind::Endpoints => self.networks.remove_endpoints(&id),
            },
        }
    }

    /// Lets everything take the steps it can take, then tells the managers what is new.
    fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        // A task finds the networks it is about to join.
        self.networks.program(actions);
        let (payloads, networks) = (&self.payloads, &self.networks);
        let preparation = |task: &Arc<Task>| payloads.for_task(task, networks.of_task(task)?);
        for (id, run) in &mut self.tasks {
            let around = Surroundings {
                now,
                unbound: self.unbound.contains(id),
                preparation: &preparation,
            };
            run.advance(&around, actions);
        }
        self.tasks.retain(|_, run| !run.is_gone());
        self.unbound.retain(|id| self.tasks.contains_key(id));
        let used = self
            .tasks
            .values()
            .filter(|run| run.uses_networks())
            .flat_map(|run| &run.task().networks)
            .map(|attachment| attachment.network_id.as_str())
            .collect();
        self.networks.let_go(&used, actions);
        self.report(actions);
    }

    fn report(&mut self, actions: &mut Vec<Action>) {
        let Some(session) = &mut self.session else {
            return;
        };
        let mut news = Vec::new();
        for (id, run) in &self.tasks {
            let Some(status) = run.report() else { continue };
            if session.reported.get(id) != Some(status) {
                session.reported.insert(id.clone(), status.clone());
                news.push((id.clone(), status.clone()));
            }
        }
        session.reported.retain(|id, _| self.tasks.contains_key(id));
        if !news.is_empty() {
            actions.push(Action::Report(news));
        }
        if let Some((term, results_in)) = self.networks.acknowledgement()
            && term == session.term
        {
            actions.push(Action::Acknowledge { results_in });
        }
    }
}

enum Verdict {
    Follow,
    Ignore,
    Resync(String),
    Leave(String),
}
