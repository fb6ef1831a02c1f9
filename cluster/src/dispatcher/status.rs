//! What has to be written: statuses of tasks that agents reported, how nodes are, and tasks given up as orphaned.
//!
//! All of it is level-triggered: each step compares what should be with the store and writes the difference. A
//! transaction that conflicted is simply found missing, and what the store has already is not written again, so that
//! agents may report everything on each session and an idle cluster writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::NodeState;
use cluster_api::{Node, Now, Object, Task, TaskState, TaskStatus, Time, Timestamp};

use super::message::Registration;
use super::session::Session;
use crate::batch::Batch;
use crate::store::{Store, StoreEvent, Transaction};

/// A node down for this long has lost its tasks: their addresses are given away.
const ORPHAN_MS: u64 = 24 * 60 * 60 * 1_000;

/// And this leader must have seen it down for this long by its own timer: clocks are set, also by a day at once.
const ORPHAN_SEEN_MS: u64 = 60 * 60 * 1_000;

/// Bytes of a message or an error of a task.
const MAX_TEXT: usize = 4 << 10;

/// Host ports of a task.
const MAX_PORTS: usize = 256;

const MAX_CONTAINER_ID: usize = 128;

/// Bytes of a word of a port.
const MAX_WORD: usize = 64;

const DOWN_MESSAGE: &str = "heartbeat failure";

/// Differences between what is known and what is written.
#[derive(Debug, Default)]
pub(super) struct Writes {
    statuses: BTreeMap<String, TaskStatus>,
    /// Nodes to compare with the store.
    nodes: BTreeSet<String>,
    /// Nodes given up since they were last heard of.
    lost: BTreeSet<String>,
    /// Nodes whose tasks may have to be orphaned, and since when this leader has seen them down.
    deserted: BTreeMap<String, Option<Time>>,
}

impl Writes {
    pub(super) fn start(&mut self, store: &Store) {
        let down = store.nodes().filter(|n| n.status.state == NodeState::Down);
        self.deserted
            .extend(down.map(|node| (node.id.clone(), None)));
    }

    pub(super) fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Updated {
                new: Object::Node(node),
                ..
            } if node.status.state == NodeState::Down => {
                self.deserted.entry(node.id.clone()).or_default();
            }
            StoreEvent::Updated {
                new: Object::Node(node),
                ..
            } => {
                self.nodes.insert(node.id.clone());
            }
            StoreEvent::Removed(Object::Node(node)) => {
                self.lost.remove(&node.id);
            }
            _ => {}
        }
    }

    pub(super) fn report(&mut self, task_id: String, status: TaskStatus) {
        match self.statuses.get(&task_id) {
            Some(pending) if pending.state > status.state => {}
            _ => {
                self.statuses.insert(task_id, status);
            }
        }
    }

    pub(super) fn node_registered(&mut self, node_id: &str) {
        self.lost.remove(node_id);
        self.nodes.insert(node_id.to_owned());
    }

    pub(super) fn node_lost(&mut self, node_id: String) {
        self.nodes.insert(node_id.clone());
        self.lost.insert(node_id);
    }

    /// As much as fits into one transaction, and when a node will have been down for too long.
    pub(super) fn step(
        &mut self,
        store: &Store,
        sessions: &BTreeMap<String, Session>,
        now: Now,
    ) -> (Option<Transaction>, Option<Time>) {
        let mut batch = Batch::new(now.wall);
        self.write_nodes(store, sessions, now.wall, &mut batch);
        self.write_statuses(store, &mut batch);
        let wake_at = self.orphan(store, now, &mut batch);
        (batch.finish(), wake_at)
    }

    fn write_nodes(
        &mut self,
        store: &Store,
        sessions: &BTreeMap<String, Session>,
        at: Timestamp,
        batch: &mut Batch,
    ) {
        let lost = &self.lost;
        self.nodes.retain(|id| {
            let Some(node) = store.node(id) else {
                return false;
            };
            let wanted = match sessions.get(id) {
                Some(session) => registered(node, &session.registration, at),
                None if lost.contains(id) => given_up(node, at),
                None => return false,
            };
            if wanted == **node {
                return false;
            }
            // What has no room waits for the next step.
            let _ = batch.update(wanted);
            true
        });
        self.lost.retain(|id| {
            store
                .node(id)
                .is_some_and(|node| node.status.state != NodeState::Down)
        });
    }

    fn write_statuses(&mut self, store: &Store, batch: &mut Batch) {
        self.statuses.retain(|id, status| {
            let Some(task) = store.task(id) else {
                return false;
            };
            if !is_news(&task.status, status) {
                return false;
            }
            let _ = batch.task_status(id, status.clone());
            true
        });
    }

    fn orphan(&mut self, store: &Store, now: Now, batch: &mut Batch) -> Option<Time> {
        let mut wake_at: Option<Time> = None;
        self.deserted.retain(|node_id, seen_at| {
            let Some(node) = store
                .node(node_id)
                .filter(|node| node.status.state == NodeState::Down)
            else {
                return false;
            };
            let seen_ms = now.mono.since(*seen_at.get_or_insert(now.mono));
            let down_ms = now.wall.millis_since(node.status_since);
            let left_ms = ORPHAN_MS
                .saturating_sub(down_ms)
                .max(ORPHAN_SEEN_MS.saturating_sub(seen_ms));
            if left_ms > 0 {
                let due = now.mono.after(left_ms);
                wake_at = Some(wake_at.map_or(due, |at| at.min(due)));
                return true;
            }
            let mut left = false;
            for task in store.tasks_of_node(node_id).filter(|t| may_be_orphaned(t)) {
                left = true;
                if !batch.task_status(&task.id, orphaned(task, now.wall)) {
                    break;
                }
            }
            left
        });
        wake_at
    }
}

/// The status with no more in it than people read: what agents say is kept on every manager. JSON writes a control
/// character in six bytes, and programs colour what they print.
pub(super) fn bounded(mut status: TaskStatus) -> TaskStatus {
    for text in [&mut status.message, &mut status.error] {
        text.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
    }
    status.ports.retain(|port| {
        let words = [&port.name, &port.protocol, &port.publish_mode];
        words.into_iter().all(|word| word.len() <= MAX_WORD)
    });
    status.ports.truncate(MAX_PORTS);
    status.container = status.container.filter(|c| c.id.len() <= MAX_CONTAINER_ID);
    status
}

/// Whether the store would take the status.
fn is_news(current: &TaskStatus, reported: &TaskStatus) -> bool {
    current.state.may_become(reported.state)
        || (current.state == reported.state && current != reported)
}

/// Could have made progress since its node was last heard of.
fn may_be_orphaned(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

fn orphaned(task: &Task, at: Timestamp) -> TaskStatus {
    TaskStatus {
        state: TaskState::Orphaned,
        since: at,
        message: "the node of the task is gone".to_owned(),
        ..task.status.clone()
    }
}

fn registered(node: &Node, registration: &Registration, at: Timestamp) -> Node {
    let mut node = node.clone();
    set_state(&mut node, NodeState::Ready, String::new(), at);
    node.status.addr.clone_from(&registration.seen_at);
    if node.description.as_ref() != Some(&registration.description) {
        node.description = Some(registration.description.clone());
    }
    if registration.data_path_addr.is_some() {
        node.data_path_addr = registration.data_path_addr;
    }
    node
}

fn given_up(node: &Node, at: Timestamp) -> Node {
    let mut node = node.clone();
    set_state(&mut node, NodeState::Down, DOWN_MESSAGE.to_owned(), at);
    node
}

fn set_state(node: &mut Node, state: NodeState, message: String, at: Timestamp) {
    if node.status.state != state {
        node.status.state = state;
        node.status_since = at;
        node.status.message = message;
    }
}
