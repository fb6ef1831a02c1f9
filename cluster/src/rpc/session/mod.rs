//! A node's session with the leader: finds it, registers, delivers what it says in order, and carries reports back.
//!
//! ```text
//!          ┌── searching ◀──────────────── lost: stream ended, heartbeat unanswered, report refused
//!          ▼  a manager after the other,              ▲
//!   asks ──┤  the leader it names first               │ Down
//!          │  pauses 0.1 s … 8 s after each round     │
//!          └──▶ registered ── Up ──▶ State · Assignments · log subscriptions, in order
//! ```
//!
//! What must reach the leader is put into an outbox, which takes it at once: whoever reports never waits for the
//! network. The outbox is bounded by its keys (one status per task, one acknowledgement) and emptied with each session,
//! because a node reports everything anew in each.
//!
//! Decides nothing: what an assignment means, and whether its term is too old, is [`crate::worker`]'s business.

mod registered;
mod search;

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::{TaskStatus, proto};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::Peers;
use crate::dispatcher::{Assignments, Contact, Registration, SessionState};

/// What a node learns. `Down` follows each `Up`; in between come the others.
#[derive(Debug)]
pub enum SessionEvent {
    /// The node is registered. From now on reports belong to this session.
    Up(Box<SessionState>),
    /// Something in the state changed: managers, the node's own object, peers.
    State(Box<SessionState>),
    Assignments(Box<Assignments>),
    /// Publish what these tasks print to `leader` ([`Peers::publish_logs`]). One whose id is known begins anew.
    LogSubscription {
        leader: proto::ManagerAddress,
        subscription: proto::LogSubscription,
    },
    /// Nobody reads the subscription with this id any more.
    LogUnsubscribe(String),
    /// The session is over; another is looked for.
    Down {
        reason: String,
    },
}

/// The session of a node. Dropping it ends it.
pub struct AgentSession {
    outbox: Arc<Outbox>,
    task: JoinHandle<()>,
}

impl AgentSession {
    /// Begins to look for the leader, at `managers` first (a node id may be empty: any manager will do). Must be called
    /// within a Tokio runtime. Events wait when nobody takes them; heartbeats do not.
    #[must_use]
    pub fn start(
        peers: Arc<Peers>,
        managers: Vec<Contact>,
        registration: Registration,
        events: mpsc::Sender<SessionEvent>,
    ) -> Self {
        let outbox = Arc::new(Outbox {
            contents: Mutex::new(Contents {
                registration,
                ..Contents::default()
            }),
            changed: Notify::new(),
            resync: Notify::new(),
            problem: Mutex::new(None),
        });
        let task = tokio::spawn(run(
            search::Search::new(peers, managers),
            outbox.clone(),
            events,
        ));
        Self { outbox, task }
    }

    /// Reports statuses. When that fails the session is over, and everything is to be reported again in the next.
    pub fn report(&self, statuses: impl IntoIterator<Item = (String, TaskStatus)>) {
        self.outbox.change(|contents| {
            for (task_id, status) in statuses {
                let newer = |old: &TaskStatus| old.state <= status.state;
                if contents.statuses.get(&task_id).is_none_or(newer) {
                    contents.statuses.insert(task_id, status);
                }
            }
        });
    }

    /// Everything up to the assignments with this result is programmed.
    pub fn acknowledge(&self, results_in: String) {
        self.outbox
            .change(|contents| contents.acknowledgement = Some(results_in));
    }

    /// The chain of assignments is broken: a complete set is asked for, over the same session.
    pub fn resync(&self) {
        self.outbox.resync.notify_one();
    }

    /// Ends the session and looks for another manager.
    pub fn end(&self, reason: String) {
        self.outbox.change(|contents| contents.end = Some(reason));
    }

    /// The node is something else now; it registers again if that changes anything.
    pub fn describe(&self, registration: Registration) {
        self.outbox
            .change(|contents| contents.registration = registration);
    }

    /// Why there is no session, for people; nothing while there is one.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.outbox.problem.lock().clone()
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What waits for the leader.
struct Outbox {
    contents: Mutex<Contents>,
    changed: Notify,
    resync: Notify,
    problem: Mutex<Option<String>>,
}

#[derive(Default)]
struct Contents {
    registration: Registration,
    statuses: BTreeMap<String, TaskStatus>,
    acknowledgement: Option<String>,
    end: Option<String>,
}

impl Outbox {
    fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents.lock());
        self.changed.notify_one();
    }

    fn registration(&self) -> Registration {
        self.contents.lock().registration.clone()
    }

    /// Forgets what was for an older session.
    fn begin(&self) {
        let mut contents = self.contents.lock();
        contents.statuses.clear();
        contents.acknowledgement = None;
        contents.end = None;
        *self.problem.lock() = None;
    }
}

async fn run(mut search: search::Search, outbox: Arc<Outbox>, events: mpsc::Sender<SessionEvent>) {
    loop {
        let opened = search.find(&outbox).await;
        let since = tokio::time::Instant::now();
        let manager = opened.manager.clone();
        outbox.begin();
        tracing::info!(
            manager.address = manager.address,
            term = opened.state.term,
            "registered"
        );
        search.learn(&opened.state);
        let up = SessionEvent::Up(Box::new(opened.state.clone()));
        if events.send(up).await.is_err() {
            return;
        }
        let ended = registered::serve(opened, &outbox, &events, &mut search).await;
        search.lost(since.elapsed(), &ended);
        let reason = ended.to_string();
        tracing::info!(manager.address = manager.address, reason, "session lost");
        *outbox.problem.lock() = Some(reason.clone());
        if events.send(SessionEvent::Down { reason }).await.is_err() {
            return;
        }
    }
}
