//! One reader of logs: the nodes it was asked of, and how far each of them is.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_api::{Task, proto};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::rpc::{Messages, PeerIdentity, Refusal};

/// What a reader gets.
pub(super) type Batch = Result<proto::LogBatch, Refusal>;

pub(super) struct Subscription {
    id: String,
    selector: proto::LogSelector,
    options: proto::LogOptions,
    batches: mpsc::Sender<Batch>,
    nodes: Mutex<BTreeMap<String, Node>>,
    changed: Notify,
}

struct Node {
    progress: Progress,
    /// Counts its publishers: the youngest counts, an older one is of a connection that is lost.
    publisher: u64,
    /// Of the last line it sent, in nanoseconds since 1970.
    last: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// It was told, and has not begun.
    Asked,
    Publishing,
    Done,
    /// And why.
    Failed(String),
}

impl Subscription {
    pub(super) fn new(
        id: String,
        selector: proto::LogSelector,
        options: proto::LogOptions,
        batches: mpsc::Sender<Batch>,
    ) -> Self {
        Self {
            id,
            selector,
            options,
            batches,
            nodes: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) const fn follows(&self) -> bool {
        self.options.follow
    }

    /// Whether a task's output is asked for. One that is on no node has none.
    pub(super) fn concerns(&self, task: &Task) -> bool {
        let wanted = &self.selector;
        !task.node_id.is_empty()
            && (wanted.task_ids.contains(&task.id)
                || wanted.service_ids.contains(&task.service_id)
                || wanted.node_ids.contains(&task.node_id))
    }

    pub(super) fn nodes(&self) -> Vec<String> {
        self.nodes.lock().keys().cloned().collect()
    }

    pub(super) fn has(&self, node_id: &str) -> bool {
        self.nodes.lock().contains_key(node_id)
    }

    /// What a node is to be told that was not asked before.
    pub(super) fn asked(&self, node_id: &str) -> Option<proto::LogSubscription> {
        let mut nodes = self.nodes.lock();
        if nodes.contains_key(node_id) {
            return None;
        }
        let node = Node {
            progress: Progress::Asked,
            publisher: 0,
            last: 0,
        };
        nodes.insert(node_id.to_owned(), node);
        Some(self.message(0))
    }

    /// What a node is to be told that has a new session: to go on after the last line it sent. Nothing when it is done.
    pub(super) fn resumed(&self, node_id: &str) -> Option<proto::LogSubscription> {
        let mut nodes = self.nodes.lock();
        let node = nodes.get_mut(node_id)?;
        match node.progress {
            Progress::Done => None,
            Progress::Failed(_) if !self.options.follow => None,
            Progress::Asked | Progress::Publishing | Progress::Failed(_) => {
                node.progress = Progress::Asked;
                node.publisher += 1;
                Some(self.message(node.last))
            }
        }
    }

    fn message(&self, last: i64) -> proto::LogSubscription {
        let mut options = self.options;
        if last > 0 {
            options.since = last.saturating_add(1);
            options.tail = -1;
        }
        proto::LogSubscription {
            id: self.id.clone(),
            selector: Some(self.selector.clone()),
            options: Some(options),
        }
    }

    /// A node that is not in session. It may come back while somebody follows.
    pub(super) fn not_there(&self, node_id: &str) {
        if let Some(node) = self.nodes.lock().get_mut(node_id) {
            node.progress = Progress::Failed("it is not available".into());
        }
        self.changed.notify_one();
    }

    /// Waits no longer for nodes that have not begun.
    pub(super) fn give_up_silent(&self, waited: Duration) {
        for node in self.nodes.lock().values_mut() {
            if node.progress == Progress::Asked {
                node.progress = Progress::Failed(format!("it did not answer within {waited:?}"));
            }
        }
        self.changed.notify_one();
    }

    /// Whether nothing more can come from any node.
    pub(super) fn complete(&self) -> bool {
        let over = |node: &Node| matches!(node.progress, Progress::Done | Progress::Failed(_));
        self.nodes.lock().values().all(over)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Until nobody reads any more.
    pub(super) async fn unread(&self) {
        self.batches.closed().await;
    }

    /// The last word: why something is missing, if it is.
    pub(super) async fn end(&self, asked: Result<(), Refusal>) {
        let failures: Vec<String> = {
            let nodes = self.nodes.lock();
            let failed = |(id, node): (&String, &Node)| match &node.progress {
                Progress::Failed(reason) => Some(format!("node {id}: {reason}")),
                _ => None,
            };
            nodes.iter().filter_map(failed).collect()
        };
        let missing = match asked {
            Err(refusal) => refusal,
            Ok(()) if failures.is_empty() => return,
            // Docker's words (`manager/logbroker/subscription.go`).
            Ok(()) => Refusal::Unavailable(format!(
                "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
                failures.join(", ")
            )),
        };
        // An error means that nobody reads.
        let _ = self.batches.send(Err(missing)).await;
    }

    /// Passes on what a node sends.
    pub(super) async fn publish(
        &self,
        peer: &PeerIdentity,
        first: proto::PublishLogsRequest,
        mut rest: Messages<proto::PublishLogsRequest>,
    ) -> Result<(), Refusal> {
        let publisher = self.begin(&peer.node_id)?;
        let mut next = Some(Ok(first));
        let ended = loop {
            let request = match next {
                Some(Ok(request)) => request,
                Some(Err(refusal)) => break Err(refusal),
                None => break Err(Refusal::Unavailable("it broke off".into())),
            };
            if request.subscription_id != self.id {
                break Err(Refusal::Invalid(
                    "one stream is for one subscription".into(),
                ));
            }
            if !self
                .pass_on(&peer.node_id, publisher, request.messages)
                .await
            {
                // The node may stop.
                return Ok(());
            }
            if request.close {
                break if request.error.is_empty() {
                    Ok(())
                } else {
                    Err(Refusal::Unavailable(request.error))
                };
            }
            next = tokio::select! {
                next = rest.next() => next,
                () = self.unread() => return Ok(()),
            };
        };
        if let Some(node) = self.nodes.lock().get_mut(&peer.node_id)
            && node.publisher == publisher
        {
            node.progress = match &ended {
                Ok(()) => Progress::Done,
                Err(refusal) => Progress::Failed(refusal.to_string()),
            };
        }
        self.changed.notify_one();
        ended
    }

    /// Only a node that was asked may publish, and only once at a time. Gives the publisher's number.
    fn begin(&self, node_id: &str) -> Result<u64, Refusal> {
        let mut nodes = self.nodes.lock();
        match nodes.get_mut(node_id) {
            Some(node) if node.progress == Progress::Publishing => Err(Refusal::Conflict(
                "this node publishes for this subscription already".into(),
            )),
            Some(node) if node.progress != Progress::Done => {
                node.progress = Progress::Publishing;
                Ok(node.publisher)
            }
            _ => Err(Refusal::Forbidden(
                "this node was not asked for these logs".into(),
            )),
        }
    }

    /// Whether to go on: somebody reads, and no younger publisher of the node has begun. Lines bear the node they came
    /// from, whatever the node says.
    async fn pass_on(
        &self,
        node_id: &str,
        publisher: u64,
        mut messages: Vec<proto::LogMessage>,
    ) -> bool {
        let last = messages.iter().map(|message| message.timestamp).max();
        for message in &mut messages {
            node_id.clone_into(&mut message.node_id);
        }
        let Ok(room) = self.batches.reserve().await else {
            return false;
        };
        // After the wait, and before anyone can be told to go on from what is not counted yet.
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get_mut(node_id) else {
            return false;
        };
        if node.publisher != publisher {
            return false;
        }
        if let Some(last) = last {
            node.last = node.last.max(last);
            room.send(Ok(proto::LogBatch { messages }));
        }
        true
    }
}
