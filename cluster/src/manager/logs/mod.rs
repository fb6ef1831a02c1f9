//! What tasks print, wherever they run: the leader stands between those who read and the nodes that have it
//! (SwarmKit `manager/logbroker`).
//!
//! ```text
//! reader ─▶ any manager ─▶ leader ── LogSubscription, over each node's session ──▶ nodes with such tasks
//!    ▲                        │ ▲                                                      │
//!    └──────── batches ───────┘ └────────────────── Publish stream per node ───────────┘
//! ```
//!
//! Without `follow` it ends when every node has sent all it has; a node that cannot is named in the error that ends the
//! stream, after everything else. With `follow` nodes that get a task later are asked later, and a node that comes back
//! goes on where it stopped. All of it is memory of the leader: with the leader, readers lose their streams.
//!
//! Nothing is kept: a slow reader slows the publishers down, and one that is gone ends them.

mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_api::{IdSource, Object, Task, proto};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use proto::session_message::Message as Told;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::thread::Message;
use super::{Manager, address};
use crate::rpc::{Messages, PeerIdentity, Refusal};
use crate::store::{Store, StoreEvent};
use subscription::{Batch, Subscription};

/// Readers at once.
const SUBSCRIPTIONS: usize = 256;
/// Objects one reader may name.
const SELECTED: usize = 1000;
/// Batches waiting for a reader.
const BATCHES: usize = 16;
/// How long a node may take to begin.
const BEGIN: Duration = Duration::from_secs(10);

/// The subscriptions of one leader.
#[derive(Default)]
pub(super) struct Broker(Mutex<BTreeMap<String, Arc<Subscription>>>);

impl Broker {
    /// Someone reads, on the manager that leads.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        manager: &Manager,
        request: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal> {
        let selector = request.selector.unwrap_or_default();
        let selected =
            selector.service_ids.len() + selector.task_ids.len() + selector.node_ids.len();
        if selected == 0 || selected > SELECTED {
            return Err(Refusal::Invalid(format!(
                "logs of 1 to {SELECTED} services, tasks and nodes can be read at once, not of {selected}"
            )));
        }
        let (batches, received) = mpsc::channel(BATCHES);
        let id = IdSource::random().id();
        let options = request.options.unwrap_or_default();
        let subscription = Arc::new(Subscription::new(id.clone(), selector, options, batches));
        {
            let mut subscriptions = self.0.lock();
            if subscriptions.len() >= SUBSCRIPTIONS {
                return Err(Refusal::TooMuch(format!(
                    "{SUBSCRIPTIONS} readers of logs are the most there can be at once"
                )));
            }
            subscriptions.insert(id, Arc::clone(&subscription));
        }
        let attendant = Attendant {
            broker: Arc::clone(self),
            manager: manager.clone(),
            subscription,
        };
        tokio::spawn(attendant.attend());
        let received = stream::unfold(received, |mut received: mpsc::Receiver<Batch>| async {
            let batch = received.recv().await?;
            Some((batch, received))
        });
        Ok(received.boxed())
    }

    /// A node sends what it has for one reader. Returns when it is done, or nobody reads any more.
    pub(super) async fn publish(
        &self,
        peer: &PeerIdentity,
        mut batches: Messages<proto::PublishLogsRequest>,
    ) -> Result<(), Refusal> {
        let Some(first) = batches.next().await.transpose()? else {
            return Ok(());
        };
        let subscription = self
            .0
            .lock()
            .get(&first.subscription_id)
            .cloned()
            .ok_or_else(|| {
                Refusal::NotFound(format!(
                    "nobody reads log subscription {:?}",
                    first.subscription_id
                ))
            })?;
        subscription.publish(peer, first, batches).await
    }

    /// A node is in session (again): what it is to publish.
    pub(super) fn resumed(&self, node_id: &str) -> Vec<proto::LogSubscription> {
        let subscriptions: Vec<_> = self.0.lock().values().cloned().collect();
        subscriptions
            .iter()
            .filter_map(|subscription| subscription.resumed(node_id))
            .collect()
    }
}

/// Looks after one subscription, as long as somebody reads it.
struct Attendant {
    broker: Arc<Broker>,
    manager: Manager,
    subscription: Arc<Subscription>,
}

impl Attendant {
    async fn attend(self) {
        let asked = tokio::select! {
            () = self.subscription.unread() => Ok(()),
            asked = self.ask_nodes() => asked,
        };
        self.broker.0.lock().remove(self.subscription.id());
        for node_id in self.subscription.nodes() {
            self.tell(
                &node_id,
                Told::LogUnsubscribe(self.subscription.id().to_owned()),
            )
            .await;
        }
        self.subscription.end(asked).await;
    }

    /// Until all that was asked for has come, or can come no more.
    async fn ask_nodes(&self) -> Result<(), Refusal> {
        // Watched first, so that no task is missed between the look and the events.
        let mut events = self.manager.events();
        let mut standing = self.manager.standing();
        self.ask_those_with_tasks().await?;
        let follow = self.subscription.follows();
        let mut deadline = Instant::now() + BEGIN;
        loop {
            if !follow && self.subscription.complete() {
                return Ok(());
            }
            tokio::select! {
                () = self.subscription.changed() => {}
                event = events.recv() => match event {
                    Ok(events) => {
                        if self.ask_for(&events).await {
                            deadline = Instant::now() + BEGIN;
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.ask_those_with_tasks().await?,
                    Err(RecvError::Closed) => return Err(lost()),
                },
                changed = standing.changed() => {
                    if changed.is_err() || !standing.borrow().leads {
                        return Err(lost());
                    }
                }
                () = tokio::time::sleep_until(deadline), if !follow => {
                    self.subscription.give_up_silent(BEGIN);
                    deadline = Instant::now() + BEGIN;
                }
            }
        }
    }

    async fn ask_those_with_tasks(&self) -> Result<(), Refusal> {
        let subscription = Arc::clone(&self.subscription);
        let nodes = self
            .manager
            .read(move |store, _| nodes_with_tasks(store, &subscription))
            .await
            .map_err(|failure| Refusal::Unavailable(failure.to_string()))?;
        for node_id in nodes {
            self.ask(&node_id).await;
        }
        Ok(())
    }

    /// Asks nodes that got a task just now. Whether there were any.
    async fn ask_for(&self, events: &[StoreEvent]) -> bool {
        let mut nodes = BTreeSet::new();
        for event in events {
            if let StoreEvent::Created(Object::Task(task))
            | StoreEvent::Updated {
                new: Object::Task(task),
                ..
            } = event
                && self.subscription.concerns(task)
                && !self.subscription.has(&task.node_id)
            {
                nodes.insert(task.node_id.clone());
            }
        }
        for node_id in &nodes {
            self.ask(node_id).await;
        }
        !nodes.is_empty()
    }

    async fn ask(&self, node_id: &str) {
        let Some(message) = self.subscription.asked(node_id) else {
            return;
        };
        if !self.tell(node_id, Told::LogSubscription(message)).await {
            self.subscription.not_there(node_id);
        }
    }

    /// Whether the node is in session.
    async fn tell(&self, node_id: &str, message: Told) -> bool {
        let (reply, told) = oneshot::channel();
        let message = Message::Tell {
            node_id: node_id.to_owned(),
            message,
            reply,
        };
        self.manager.send(message).is_ok() && told.await.unwrap_or(false)
    }
}

fn lost() -> Refusal {
    Refusal::Unavailable("the swarm has another leader now: read the logs again".into())
}

/// Where tasks are whose output is asked for.
fn nodes_with_tasks(store: &Store, subscription: &Subscription) -> BTreeSet<String> {
    let concerned = |task: &&Arc<Task>| subscription.concerns(task);
    store
        .tasks()
        .filter(concerned)
        .map(|task| task.node_id.clone())
        .collect()
}

impl Manager {
    /// What tasks print, from any manager.
    ///
    /// # Errors
    ///
    /// There is no leader, or nothing is selected. The stream itself ends with an error when something is missing.
    pub async fn logs(
        &self,
        request: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal> {
        let standing = self.standing.borrow().clone();
        if standing.leads {
            return self.logs.subscribe(self, request);
        }
        match standing.leader {
            Some(leader) => self.peers.subscribe_logs(&address(&leader), request).await,
            None => Err(Refusal::NotLeader { leader: None }),
        }
    }
}
