//! The leader's side of the agents' sessions: who is there, what each is to do, what each reports.
//!
//! A [`Dispatcher`] lives as long as one term of leadership and is made only after the term's first entry was applied:
//! a complete set of assignments is an order to delete everything else, so it must never come from a store that lacks
//! something. What a predecessor knew and the store does not hold (sessions, acknowledgements) is told again by the
//! agents.
//!
//! Must not: decide what runs where (it only passes on), or keep anything that a change of leader may not lose.
//! Behaviour: moby/swarmkit `manager/dispatcher`; what differs is said where it differs.

mod assignments;
mod drain;
mod endpoints;
mod liveness;
mod message;
mod session;
mod status;
mod wire;

pub use liveness::{DEFAULT_PERIOD_MS, Grace};
pub use message::{
    Assignments, AssignmentsKind, Backend, BackendState, Balanced, Change, Contact, Endpoints,
    ItemKind, NodeAddress, Peer, PublishedPort, Registration, SessionState,
};
pub use wire::WireError;

use cluster_api::{Now, TaskStatus, Time};

use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::StoreEvent;

/// Why a call of an agent was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Removed from the cluster, or never in it.
    #[error("node {0} is not in the cluster")]
    UnknownNode(String),
    /// Over, or of another leader: the agent registers again.
    #[error("session {0:?} is not valid")]
    UnknownSession(String),
    /// The task is on another node.
    #[error("task {task_id} is not on node {node_id}")]
    NotYours { task_id: String, node_id: String },
    /// Only managers set it.
    #[error("task {task_id}: state {state} is not an agent's to report")]
    NotReportable {
        task_id: String,
        state: cluster_api::TaskState,
    },
}

/// Something to send to one session.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    pub node_id: String,
    pub session_id: String,
    pub message: Message,
}

/// What is sent to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    State(SessionState),
    Assignments(Assignments),
    /// The session is over; its streams end.
    Over,
}

/// What one leader knows of its agents.
#[derive(Debug)]
pub struct Dispatcher {
    term: u64,
}

impl Dispatcher {
    /// For the leader of `term`, whose first entry must have been applied. Then [`ControlLoop::start`].
    #[must_use]
    pub fn new(term: u64) -> Self {
        Self { term }
    }

    /// Opens a session. The node's older one is over.
    ///
    /// # Errors
    ///
    /// The node is not in the cluster.
    pub fn register(
        &mut self,
        node_id: &str,
        registration: Registration,
        context: &mut Context<'_>,
    ) -> Result<String, Refused> {
        todo!()
    }

    /// The node is alive. Milliseconds until it must say so again.
    ///
    /// # Errors
    ///
    /// The session is not the node's.
    pub fn heartbeat(
        &mut self,
        node_id: &str,
        session_id: &str,
        now: Now,
    ) -> Result<u64, Refused> {
        todo!()
    }

    /// The other end of the session's connection closed or reset it: its process has ended, or has left the leader.
    /// Must not be called for a connection that this side gave up on, since silence alone says less.
    pub fn disconnected(&mut self, node_id: &str, session_id: &str, now: Now) {
        todo!()
    }

    /// The node wants its assignments, complete: it has none yet, or missed one.
    ///
    /// # Errors
    ///
    /// The session is not the node's.
    pub fn open_assignments(
        &mut self,
        node_id: &str,
        session_id: &str,
        now: Now,
    ) -> Result<(), Refused> {
        todo!()
    }

    /// What became of tasks; to be written by the next step. Statuses of tasks that are no more are ignored.
    ///
    /// # Errors
    ///
    /// The session is not the node's, a task is on another node, or a state is not the agent's to report. Nothing of
    /// the report counts then.
    pub fn update_status(
        &mut self,
        node_id: &str,
        session_id: &str,
        updates: Vec<(String, TaskStatus)>,
        context: &Context<'_>,
    ) -> Result<(), Refused> {
        todo!()
    }

    /// The node has programmed all endpoint states up to `results_in`.
    ///
    /// # Errors
    ///
    /// The session is not the node's.
    pub fn acknowledge(
        &mut self,
        node_id: &str,
        session_id: &str,
        results_in: &str,
        now: Now,
    ) -> Result<(), Refused> {
        todo!()
    }

    /// What to send now, in order, and when to ask again though nothing happens. To be called after inputs, events and
    /// steps, also while a transaction of the dispatcher is under way.
    pub fn dispatch(&mut self, context: &Context<'_>) -> (Vec<Outgoing>, Option<Time>) {
        todo!()
    }
}

impl ControlLoop for Dispatcher {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        todo!()
    }

    fn observe(&mut self, event: &StoreEvent) {
        todo!()
    }

    /// Writes: which nodes are up or down, what they are, and what became of tasks.
    fn step(&mut self, context: &mut Context<'_>) -> Step {
        todo!()
    }
}
