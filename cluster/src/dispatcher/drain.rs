//! Tasks on their way out: from "no longer wanted" to "nothing is sent to it any more".

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::NodeState;
use cluster_api::{DesiredState, Object, Task, TaskState, Time};

use super::endpoints::EndpointTable;
use super::session::{Held, Session};
use crate::store::{Store, StoreEvent};

/// Longest wait for acknowledgements: a node that is cut off or hangs must not hold up a rollout for longer.
const LIMIT_MS: u64 = 10_000;

/// Newer than any version: of a network that is no more, or of which a node has nothing.
const GONE: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Drains {
    /// By task.
    draining: BTreeMap<String, Drain>,
    /// Given up on or acknowledged by all, and not ended yet.
    unbound: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Drain {
    /// Set when it is looked at first.
    deadline: Option<Time>,
    /// The first version of each network's endpoint state in which it is draining, or no backend at all: its service's
    /// port or address may have gone before. [`GONE`] without a state.
    since: BTreeMap<String, u64>,
}

impl Drains {
    pub(super) fn start(&mut self, store: &Store) {
        for task in store.tasks() {
            self.task_changed(task);
        }
    }

    pub(super) fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Created(Object::Task(task))
            | StoreEvent::Updated {
                new: Object::Task(task),
                ..
            } => self.task_changed(task),
            StoreEvent::Removed(Object::Task(task)) => self.forget(&task.id),
            _ => {}
        }
    }

    /// Whether the stop signal may be sent.
    pub(super) fn is_unbound(&self, task_id: &str) -> bool {
        self.unbound.contains(task_id)
    }

    /// Looks at every draining task. The nodes whose tasks may be stopped now, and when to come back.
    pub(super) fn advance(
        &mut self,
        store: &Store,
        endpoints: &EndpointTable,
        sessions: &BTreeMap<String, Session>,
        now: Time,
    ) -> (BTreeSet<String>, Option<Time>) {
        let mut floors = Floors {
            store,
            sessions,
            known: BTreeMap::new(),
        };
        let mut concerned = BTreeSet::new();
        let mut wake_at: Option<Time> = None;
        let unbound = &mut self.unbound;
        self.draining.retain(|task_id, drain| {
            let Some(task) = store.task(task_id) else {
                return false;
            };
            let deadline = *drain.deadline.get_or_insert(now.after(LIMIT_MS));
            if deadline <= now || drain.is_acknowledged(task, endpoints, &mut floors) {
                unbound.insert(task_id.clone());
                concerned.insert(task.node_id.clone());
                return false;
            }
            wake_at = Some(wake_at.map_or(deadline, |at| at.min(deadline)));
            true
        });
        (concerned, wake_at)
    }

    fn task_changed(&mut self, task: &Task) {
        let state = task.status.state;
        if state.is_terminal() {
            self.forget(&task.id);
        } else if state >= TaskState::Assigned
            && task.desired >= DesiredState::Shutdown
            && !self.unbound.contains(&task.id)
        {
            self.draining.entry(task.id.clone()).or_default();
        }
    }

    fn forget(&mut self, task_id: &str) {
        self.draining.remove(task_id);
        self.unbound.remove(task_id);
    }
}

impl Drain {
    /// A task that never ran is no backend, and has nothing to wait for.
    fn is_acknowledged(
        &mut self,
        task: &Task,
        endpoints: &EndpointTable,
        floors: &mut Floors<'_>,
    ) -> bool {
        if task.status.state != TaskState::Running {
            return true;
        }
        let mut all = true;
        for attachment in &task.networks {
            let id = &attachment.network_id;
            if !self.since.contains_key(id) && endpoints.is_current(id) {
                let version = endpoints.get(id).map_or(GONE, |built| built.version);
                self.since.insert(id.clone(), version);
            }
            all &= self
                .since
                .get(id)
                .is_some_and(|since| floors.of(id) >= *since);
        }
        all
    }
}

/// The oldest version of each network's endpoint state that a live node may still have.
///
/// Nodes that no longer need the state count until they have acknowledged that it was taken away: one that hears nobody
/// goes on balancing by what it has.
struct Floors<'a> {
    store: &'a Store,
    sessions: &'a BTreeMap<String, Session>,
    known: BTreeMap<String, u64>,
}

impl Floors<'_> {
    fn of(&mut self, network_id: &str) -> u64 {
        if let Some(floor) = self.known.get(network_id) {
            return *floor;
        }
        let live = self
            .store
            .nodes()
            .filter(|node| node.status.state != NodeState::Down);
        let floor = live.map(|node| self.of_node(&node.id, network_id)).min();
        let floor = floor.unwrap_or(GONE);
        self.known.insert(network_id.to_owned(), floor);
        floor
    }

    fn of_node(&self, node_id: &str, network_id: &str) -> u64 {
        let session = self.sessions.get(node_id);
        match session.map_or(Held::Unknown, |session| session.held(network_id)) {
            Held::Since(version) => version,
            Held::Nothing => GONE,
            Held::Unknown if self.may_have_needed(node_id, network_id) => 0,
            Held::Unknown => GONE,
        }
    }

    /// Whether an older leader may have sent the node a state of the network: on the ingress network all have a place as
    /// long as anything is published, on others those with a task, which is still there after it ended.
    fn may_have_needed(&self, node_id: &str, network_id: &str) -> bool {
        let is_ingress = self
            .store
            .network(network_id)
            .is_none_or(|network| network.spec.ingress);
        is_ingress
            || self.store.tasks_of_node(node_id).any(|task| {
                task.networks
                    .iter()
                    .any(|attachment| attachment.network_id == network_id)
            })
    }
}
