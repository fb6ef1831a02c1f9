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
#[cfg(test)]
mod tests;
mod wire;

pub use liveness::{DEFAULT_PERIOD_MS, Grace};
pub use message::{
    Assignments, AssignmentsKind, Backend, BackendState, Balanced, Change, Contact, Endpoints,
    ItemKind, NodeAddress, Peer, PublishedPort, Registration, SessionState,
};
pub use wire::{WireError, statuses_from_wire, statuses_to_wire};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use cluster_api::{Cluster, Now, Object, TaskState, TaskStatus, Time};

use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreEvent};
use agent_api::swarm::NodeState;
use drain::Drains;
use endpoints::EndpointTable;
use liveness::Liveness;
use session::Session;
use status::Writes;

/// Nodes one node is told to ask for images; with more than these in session each gets the next ones after itself.
const MAX_PEERS: usize = 64;

/// Changes of what all sessions are told are sent this often at most; what concerns one node alone goes at once.
const STATE_INTERVAL_MS: u64 = 1_000;

/// Heartbeats more often than this would be load and no information.
const MIN_PERIOD_MS: u64 = 100;

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
    NotReportable { task_id: String, state: TaskState },
    /// No honest node has so much to say of itself.
    #[error("the description of node {node_id} has {bytes} bytes, more than {MAX_DESCRIPTION}")]
    TooLarge { node_id: String, bytes: usize },
}

/// What a node says of itself, as JSON. It is kept on every manager.
const MAX_DESCRIPTION: usize = 64 << 10;

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
    /// By node.
    sessions: BTreeMap<String, Session>,
    liveness: Liveness,
    endpoints: EndpointTable,
    drains: Drains,
    writes: Writes,
    /// Nodes whose assignments may have changed.
    reassign: BTreeSet<String>,
    /// Nodes whose session state may have changed.
    restate: BTreeSet<String>,
    /// What all sessions are told may have changed.
    restate_all: bool,
    /// When all sessions were told last.
    states_sent_at: Option<Time>,
    managers: Vec<Contact>,
    /// Nodes that appeared and are not watched yet.
    appeared: BTreeSet<String>,
    /// The period of heartbeats may have changed.
    cluster_changed: bool,
    outbox: Vec<Outgoing>,
}

impl Dispatcher {
    /// For the leader of `term`, whose first entry must have been applied. Then [`ControlLoop::start`].
    #[must_use]
    pub fn new(term: u64) -> Self {
        Self {
            term,
            sessions: BTreeMap::new(),
            liveness: Liveness::new(DEFAULT_PERIOD_MS),
            endpoints: EndpointTable::new(term),
            drains: Drains::default(),
            writes: Writes::default(),
            reassign: BTreeSet::new(),
            restate: BTreeSet::new(),
            restate_all: false,
            states_sent_at: None,
            managers: Vec::new(),
            appeared: BTreeSet::new(),
            cluster_changed: false,
            outbox: Vec::new(),
        }
    }

    /// Opens a session. The node's older one is over.
    ///
    /// # Errors
    ///
    /// The node is not in the cluster, or says too much of itself.
    pub fn register(
        &mut self,
        node_id: &str,
        registration: Registration,
        context: &mut Context<'_>,
    ) -> Result<String, Refused> {
        self.liveness.wake(context.now.mono);
        if context.store.node(node_id).is_none() {
            return Err(Refused::UnknownNode(node_id.to_owned()));
        }
        let bytes = wire::size_of(&registration.description);
        if bytes > MAX_DESCRIPTION {
            return Err(Refused::TooLarge {
                node_id: node_id.to_owned(),
                bytes,
            });
        }
        self.end_session(node_id);
        let id = context.ids.id();
        let session = Session::new(id.clone(), node_id, registration);
        self.sessions.insert(node_id.to_owned(), session);
        self.liveness.heard(node_id, context.now.mono);
        self.writes.node_registered(node_id);
        self.restate.insert(node_id.to_owned());
        self.restate_all = true;
        Ok(id)
    }

    /// The node is alive. Milliseconds until it must say so again.
    ///
    /// # Errors
    ///
    /// The session is not the node's.
    pub fn heartbeat(&mut self, node_id: &str, session_id: &str, now: Now) -> Result<u64, Refused> {
        self.session_of(node_id, session_id, now)?;
        Ok(self.liveness.period_ms())
    }

    /// The other end of the session's connection closed or reset it: its process has ended, or has left the leader.
    /// Must not be called for a connection that this side gave up on, since silence alone says less.
    pub fn disconnected(&mut self, node_id: &str, session_id: &str, now: Now) {
        self.liveness.wake(now.mono);
        if let Some(session) = self.sessions.get_mut(node_id)
            && session.id == session_id
        {
            session.close();
            self.liveness.closed(node_id, now.mono);
            self.restate_all = true;
        }
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
        self.session_of(node_id, session_id, now)?
            .open_assignments();
        self.reassign.insert(node_id.to_owned());
        Ok(())
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
        self.session_of(node_id, session_id, context.now)?;
        let known = |(id, _): &(String, TaskStatus)| context.store.task(id).is_some();
        let updates: Vec<_> = updates.into_iter().filter(known).collect();
        for (task_id, status) in &updates {
            let elsewhere = |task: &Arc<cluster_api::Task>| task.node_id != node_id;
            if context.store.task(task_id).is_some_and(elsewhere) {
                return Err(Refused::NotYours {
                    task_id: task_id.clone(),
                    node_id: node_id.to_owned(),
                });
            }
            if !is_reportable(status.state) {
                return Err(Refused::NotReportable {
                    task_id: task_id.clone(),
                    state: status.state,
                });
            }
        }
        for (task_id, status) in updates {
            self.writes.report(task_id, status::bounded(status));
        }
        Ok(())
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
        self.session_of(node_id, session_id, now)?
            .acknowledge(results_in);
        Ok(())
    }

    /// What to send now, in order, and when to ask again though nothing happens. To be called after inputs, events and
    /// steps, also while a transaction of the dispatcher is under way.
    pub fn dispatch(&mut self, context: &Context<'_>) -> (Vec<Outgoing>, Option<Time>) {
        let now = context.now.mono;
        self.look(context);
        let suspicions = self.liveness.take_changed();
        let (concerned, later) =
            self.endpoints
                .refresh(context.store, &self.liveness, suspicions, now);
        self.reassign.extend(concerned);
        let mut wake_at = earlier(self.liveness.wake_at(now), later);
        let (unbound, later) =
            self.drains
                .advance(context.store, &self.endpoints, &self.sessions, now);
        self.reassign.extend(unbound);
        wake_at = earlier(wake_at, later);
        let mut outgoing = std::mem::take(&mut self.outbox);
        wake_at = earlier(wake_at, self.send_states(context, &mut outgoing));
        self.send_assignments(context.store, &mut outgoing);
        (outgoing, wake_at)
    }

    /// Notices what only time tells, and what `observe` had no clock for.
    fn look(&mut self, context: &Context<'_>) {
        let now = context.now.mono;
        self.liveness.wake(now);
        if std::mem::take(&mut self.cluster_changed) {
            self.liveness
                .set_period(period_ms(context.store.cluster()), now);
        }
        for node_id in std::mem::take(&mut self.appeared) {
            self.liveness.await_node(&node_id, now);
        }
        for node_id in self.liveness.expire(now) {
            self.end_session(&node_id);
            self.restate_all = true;
            self.writes.node_lost(node_id);
        }
    }

    fn session_of(
        &mut self,
        node_id: &str,
        session_id: &str,
        now: Now,
    ) -> Result<&mut Session, Refused> {
        self.liveness.wake(now.mono);
        match self.sessions.get_mut(node_id) {
            Some(session) if session.id == session_id && !session.is_closed() => {
                self.liveness.heard(node_id, now.mono);
                Ok(session)
            }
            _ => Err(Refused::UnknownSession(session_id.to_owned())),
        }
    }

    fn end_session(&mut self, node_id: &str) {
        if let Some(session) = self.sessions.remove(node_id)
            && !session.is_closed()
        {
            self.outbox.push(Outgoing {
                node_id: node_id.to_owned(),
                session_id: session.id,
                message: Message::Over,
            });
        }
    }

    /// Tells sessions what is new besides their assignments: those in `restate` now, all others when it is their turn.
    fn send_states(&mut self, context: &Context<'_>, outgoing: &mut Vec<Outgoing>) -> Option<Time> {
        let now = context.now.mono;
        let due = self
            .states_sent_at
            .map_or(now, |at| at.after(STATE_INTERVAL_MS));
        let urgent = std::mem::take(&mut self.restate);
        let everyone = self.restate_all && due <= now;
        if everyone {
            self.restate_all = false;
            self.states_sent_at = Some(now);
            self.managers = managers(context.store);
        }
        let nodes: Vec<String> = if everyone {
            self.sessions.keys().cloned().collect()
        } else {
            urgent.into_iter().collect()
        };
        for node_id in nodes {
            let state = self.state_of(&node_id, context.store);
            let Some(session) = self.sessions.get_mut(&node_id) else {
                continue;
            };
            if let Some(state) = state
                && session.state.as_ref() != Some(&state)
            {
                session.state = Some(state.clone());
                outgoing.push(Outgoing {
                    session_id: session.id.clone(),
                    node_id,
                    message: Message::State(state),
                });
            }
        }
        self.restate_all.then_some(due)
    }

    /// What the session of a node should know now; `None` without one.
    fn state_of(&self, node_id: &str, store: &Store) -> Option<SessionState> {
        let session = self.sessions.get(node_id).filter(|s| !s.is_closed())?;
        let node = store.node(node_id)?.clone();
        let after = self
            .sessions
            .range::<str, _>((Bound::Excluded(node_id), Bound::Unbounded));
        let before = self
            .sessions
            .range::<str, _>((Bound::Unbounded, Bound::Excluded(node_id)));
        let peers = after
            .chain(before)
            .map(|(_, session)| session)
            .filter(|session| !session.is_closed() && !session.contact.address.is_empty())
            .map(|session| session.contact.clone());
        Some(SessionState {
            session_id: session.id.clone(),
            term: self.term,
            node,
            managers: self.managers.clone(),
            root_certificate: store
                .cluster()
                .map_or_else(String::new, |c| c.root_ca.certificate.clone()),
            heartbeat_period_ms: self.liveness.period_ms(),
            peers: peers.take(MAX_PEERS).collect(),
        })
    }

    fn send_assignments(&mut self, store: &Store, outgoing: &mut Vec<Outgoing>) {
        for node_id in std::mem::take(&mut self.reassign) {
            let Some(session) = self.sessions.get_mut(&node_id).filter(|s| s.is_open()) else {
                continue;
            };
            let items = assignments::items_of_node(&node_id, store, &self.endpoints, &self.drains);
            if let Some(assignments) = session.assign(items, self.term, store.index()) {
                outgoing.push(Outgoing {
                    session_id: session.id.clone(),
                    node_id,
                    message: Message::Assignments(assignments),
                });
            }
        }
    }
}

impl ControlLoop for Dispatcher {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        *self = Self::new(self.term);
        let now = context.now.mono;
        self.liveness = Liveness::new(period_ms(context.store.cluster()));
        self.liveness.wake(now);
        for node in context.store.nodes() {
            if node.status.state != NodeState::Down {
                self.liveness.await_node(&node.id, now);
            }
        }
        self.managers = managers(context.store);
        self.endpoints.start(context.store);
        self.drains.start(context.store);
        self.writes.start(context.store);
    }

    fn observe(&mut self, event: &StoreEvent) {
        if let StoreEvent::Removed(Object::Network(network)) = event {
            // Afterwards nobody knows which nodes had it.
            self.reassign
                .extend(self.endpoints.nodes(&network.id).cloned());
        }
        self.endpoints.observe(event);
        self.drains.observe(event);
        self.writes.observe(event);
        match event {
            StoreEvent::Created(Object::Node(node)) => {
                self.appeared.insert(node.id.clone());
                self.restate_all = true;
            }
            StoreEvent::Updated {
                old: Object::Node(old),
                new: Object::Node(new),
            } => {
                self.restate.insert(new.id.clone());
                if old.member != new.member {
                    // Agents must know their managers before the next one is gone.
                    self.restate_all = true;
                    self.states_sent_at = None;
                }
                if old.attachments != new.attachments {
                    self.reassign.insert(new.id.clone());
                }
            }
            StoreEvent::Removed(Object::Node(node)) => {
                self.appeared.remove(&node.id);
                self.liveness.forget(&node.id);
                self.end_session(&node.id);
                self.restate_all = true;
            }
            StoreEvent::Created(Object::Cluster(_))
            | StoreEvent::Updated {
                new: Object::Cluster(_),
                ..
            } => {
                self.cluster_changed = true;
                self.restate_all = true;
            }
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => {
                let ended = old.status.state.is_terminal() != new.status.state.is_terminal();
                let appears = (old.status.state < TaskState::Assigned)
                    != (new.status.state < TaskState::Assigned);
                if ended || appears || !assignments::is_same_for_agent(old, new) {
                    self.reassign.insert(new.node_id.clone());
                }
            }
            StoreEvent::Created(Object::Task(task)) | StoreEvent::Removed(Object::Task(task)) => {
                self.reassign.insert(task.node_id.clone());
            }
            StoreEvent::Updated {
                new: Object::Network(network),
                ..
            } => {
                self.reassign
                    .extend(self.endpoints.nodes(&network.id).cloned());
            }
            _ => {}
        }
    }

    /// Writes: which nodes are up or down, what they are, and what became of tasks.
    fn step(&mut self, context: &mut Context<'_>) -> Step {
        self.look(context);
        let (transaction, orphans) = self.writes.step(context.store, &self.sessions, context.now);
        Step {
            transaction,
            wake_at: earlier(self.liveness.wake_at(context.now.mono), orphans),
        }
    }
}

fn managers(store: &Store) -> Vec<Contact> {
    store
        .nodes()
        .filter_map(|node| {
            let member = node.member.as_ref()?;
            Some(Contact {
                node_id: node.id.clone(),
                address: member.addr.clone(),
            })
        })
        .collect()
}

/// The user's period, or the default.
fn period_ms(cluster: Option<&Arc<Cluster>>) -> u64 {
    match cluster.map_or(0, |c| c.spec.dispatcher.heartbeat_period) / 1_000_000 {
        0 => DEFAULT_PERIOD_MS,
        period => period.max(MIN_PERIOD_MS),
    }
}

/// What is before `Accepted` is the managers' doing, and only they give a task up.
fn is_reportable(state: TaskState) -> bool {
    state >= TaskState::Accepted && state != TaskState::Orphaned
}

fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
