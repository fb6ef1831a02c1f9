//! Raft's messages to the other managers: one task, one bounded queue and one stream per member.
//!
//! Raft bears the loss of any message, so nothing is ever waited for: what does not fit into a queue, or was queued when
//! a connection broke, is dropped, and the member is reported unreachable. What is in a message is not looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_api::proto::raft_client::RaftClient;
use cluster_api::proto::{Member, RaftMessages};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::Refusal;
use super::limits;
use super::peers::{Peers, node_channel};
use super::tls::Expect;

/// Most that goes into one batch, but for a single longer message.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const BATCH_MESSAGES: usize = 256;
/// Batches handed to HTTP/2 ahead of what it has sent.
const BATCHES_AHEAD: usize = 2;
/// Wait before the first new attempt after a broken connection; doubles …
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// … up to this, so that a member that is back is found well before the next election.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Called with the raft id of a member that could not be reached. Must not block; may be called from any thread.
pub type Unreachable = Arc<dyn Fn(u64) + Send + Sync>;

/// Links to all other members.
pub struct RaftTransport {
    own: u64,
    peers: Arc<Peers>,
    runtime: Handle,
    unreachable: Unreachable,
    links: BTreeMap<u64, Link>,
}

struct Link {
    member: Member,
    queue: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl RaftTransport {
    /// For the member with raft id `own`. Links run on `runtime`.
    #[must_use]
    pub fn new(own: u64, peers: Arc<Peers>, runtime: Handle, unreachable: Unreachable) -> Self {
        Self {
            own,
            peers,
            runtime,
            unreachable,
            links: BTreeMap::new(),
        }
    }

    /// Who the members are now. Links to others end; links whose member moved start anew.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = Member>) {
        let wanted: BTreeMap<u64, Member> = members
            .into_iter()
            .filter(|member| member.raft_id != self.own)
            .map(|member| (member.raft_id, member))
            .collect();
        self.links
            .retain(|id, link| wanted.get(id) == Some(&link.member));
        for (id, member) in wanted {
            if !self.links.contains_key(&id) {
                self.links.insert(id, self.link(member));
            }
        }
    }

    /// Sends one encoded message, or drops it and says so. Never blocks.
    pub fn send(&self, to: u64, message: impl Into<Bytes>) {
        let message = message.into();
        let bytes = message.len();
        let sent = self.links.get(&to).is_some_and(|link| {
            if link.queued.fetch_add(bytes, Ordering::Relaxed) + bytes <= limits::RAFT_QUEUE_BYTES
                && link.queue.try_send(message).is_ok()
            {
                return true;
            }
            link.queued.fetch_sub(bytes, Ordering::Relaxed);
            false
        });
        if !sent {
            (self.unreachable)(to);
        }
    }

    fn link(&self, member: Member) -> Link {
        let (queue, messages) = mpsc::channel(limits::RAFT_QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let expect = Expect::ManagerNode(member.node_id.clone());
        let run = Run {
            own: self.own,
            to: member.raft_id,
            channel: node_channel(self.peers.tls(), &member.address, &expect, limits::CONNECT),
            queue: Queue {
                messages,
                queued: queued.clone(),
            },
            unreachable: self.unreachable.clone(),
        };
        Link {
            task: self.runtime.spawn(run.run()),
            member,
            queue,
            queued,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The receiving end of a link's queue.
struct Queue {
    messages: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
}

impl Queue {
    /// The messages that wait, at least one. None when the link is gone.
    async fn batch(&mut self) -> Option<Vec<Bytes>> {
        let first = self.messages.recv().await?;
        let mut bytes = first.len();
        let mut batch = vec![first];
        while bytes < BATCH_BYTES && batch.len() < BATCH_MESSAGES {
            let Ok(message) = self.messages.try_recv() else {
                break;
            };
            bytes += message.len();
            batch.push(message);
        }
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    fn clear(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.queued.fetch_sub(message.len(), Ordering::Relaxed);
        }
    }
}

/// The task of a link.
struct Run {
    own: u64,
    to: u64,
    channel: Channel,
    queue: Queue,
    unreachable: Unreachable,
}

impl Run {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // A stream is opened when there is something to send: nobody is asked for nothing.
        while let Some(first) = self.queue.batch().await {
            let opened = tokio::time::Instant::now();
            let Some(refusal) = self.stream(first).await else {
                return;
            };
            tracing::debug!(raft.id = self.to, error = %refusal, "link to a manager broke");
            self.queue.clear();
            (self.unreachable)(self.to);
            if opened.elapsed() > LAST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
            self.queue.clear();
        }
    }

    /// Sends batches until the stream breaks. None when the link is gone.
    async fn stream(&mut self, first: Vec<Bytes>) -> Option<Refusal> {
        let (batches, outgoing) = mpsc::channel(BATCHES_AHEAD);
        let outgoing = futures_util::stream::unfold(outgoing, async |mut outgoing| {
            let batch: RaftMessages = outgoing.recv().await?;
            Some((batch, outgoing))
        });
        let mut client = RaftClient::new(self.channel.clone());
        let call = client.messages(outgoing);
        let (from, to) = (self.own, self.to);
        let queue = &mut self.queue;
        let pump = async {
            let mut next = Some(first);
            while let Some(messages) = next {
                let batch = RaftMessages { from, to, messages };
                if batches.send(batch).await.is_err() {
                    // The call has ended or is about to: it says why.
                    return std::future::pending().await;
                }
                next = queue.batch().await;
            }
        };
        tokio::select! {
            ended = call => Some(match ended {
                Ok(_) => Refusal::Unavailable("the other side closed the stream".into()),
                Err(status) => status.into(),
            }),
            () = pump => None,
        }
    }
}
