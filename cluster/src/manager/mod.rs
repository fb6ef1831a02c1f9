//! A running manager: the parts that decide ([`crate::core`]), and around them a clock, a disk, sockets and everyone who
//! asks.
//!
//! ```text
//!  other managers ─▶ raft     ┐                       ┌─▶ transport ─▶ other managers
//!  agents ─────────▶ sessions │   bounded   thread    ├─▶ disk thread ─▶ one fsync for all that waits ─▶ Written
//!  joiners ────────▶ ca       ├─▶  inbox ─▶ "manager" ┼─▶ streams of agents
//!  the API ────────▶ request  │              Core     ├─▶ answers
//!                    read     ┘                       └─▶ watchers (role, events)
//! ```
//!
//! One thread owns the [`Core`]; nobody else touches it. What waits for a commit waits in the asker's task, never
//! in that thread. A full inbox refuses (clients) or drops (Raft repeats itself). Decides nothing.

mod backends;
mod disk;
mod logs;
mod roster;
mod sessions;
mod thread;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use cluster_api::{IdSource, Time};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::control;
use crate::core::{Answer, Command, Core, Failure};
use crate::dispatcher::Contact;
use crate::raft::log::{Files, Key, Log, LogError, Start};
use crate::raft::{Config as RaftConfig, Membership, RaftId, Recovered};
use crate::rpc::{Backends, Peers, Refusal};
use crate::store::{Store, StoreEvent, Transaction};
use roster::{MemberNodes, NodeRoster};
pub use thread::{End, Standing};
use thread::{Message, Thread};

/// Messages waiting for the thread.
const INBOX: usize = 8192;
/// Batches of events a slow watcher may be behind.
const EVENTS: usize = 1024;
/// How long a client's request waits for a leader to be there. An election takes about a second.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// How long a leader that stops waits for its successor, and an asker for the answer of one that leads no more.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

/// What a manager is started with.
pub struct ManagerOptions {
    /// Its log, and nothing else, is here.
    pub directory: PathBuf,
    pub cluster_id: String,
    pub node_id: String,
    /// Encrypts the log.
    pub key: Key,
    /// Channels to other nodes.
    pub peers: Arc<Peers>,
    pub runtime: Handle,
    /// Bounds and timing of Raft; the seed is drawn here.
    pub raft: RaftConfig,
}

/// How it begins.
pub enum Beginning {
    /// The first manager of a new swarm, with its first objects.
    Found {
        address: String,
        objects: Transaction,
    },
    /// A manager that the leader has made a member.
    Join {
        raft_id: RaftId,
        /// Where the others are, until their state says it.
        members: Vec<cluster_api::proto::Member>,
    },
    /// It was here before.
    Resume,
}

/// A manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("cannot use the directory {} for the state of the swarm: {source}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its member number is spent: it joins again.
    #[error("this manager was stopped before the others had sent it their state")]
    NeverJoined,
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the first objects of the swarm were not accepted: {0}")]
    Found(#[source] Failure),
}

/// The way to a running manager. Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    inbox: SyncSender<Message>,
    node_id: Arc<str>,
    peers: Arc<Peers>,
    standing: watch::Receiver<Standing>,
    events: broadcast::Sender<Arc<[StoreEvent]>>,
    roster: Arc<NodeRoster>,
    members: Arc<MemberNodes>,
    logs: Arc<logs::Broker>,
}

impl Manager {
    /// Starts it. With [`Beginning::Found`] returns when the first objects are committed.
    ///
    /// # Errors
    ///
    /// The log cannot be made or read, or the first objects are not accepted.
    pub async fn start(
        options: ManagerOptions,
        beginning: Beginning,
    ) -> Result<Self, ManagerError> {
        let (mut objects, mut known) = (None, Vec::new());
        let resumes = matches!(beginning, Beginning::Resume);
        let start = match beginning {
            Beginning::Found {
                address,
                objects: first,
            } => {
                objects = Some(first);
                let founder = Membership::founded_by(1, options.node_id.clone(), address);
                Some((1, Start::Found(founder)))
            }
            Beginning::Join { raft_id, members } => {
                known = members;
                Some((raft_id, Start::Join))
            }
            Beginning::Resume => None,
        };
        let opened = tokio::task::spawn_blocking({
            let (directory, cluster_id) = (options.directory.clone(), options.cluster_id.clone());
            let key = options.key.clone();
            move || open_log(directory, &cluster_id, &key, start)
        })
        .await;
        let (log, recovered) = match opened {
            Ok(opened) => opened?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if resumes && recovered.is_blank() {
            return Err(ManagerError::NeverJoined);
        }
        let manager = Self::run(options, log, recovered, known).await?;
        if let Some(objects) = objects {
            let founded = manager.apply_first(objects).await;
            if let Err(failure) = founded {
                manager.stop().await;
                return Err(ManagerError::Found(failure));
            }
        }
        Ok(manager)
    }

    /// Returns when what it had is applied: who asks it anything is measured by that.
    async fn run(
        options: ManagerOptions,
        log: Log<Files>,
        recovered: Recovered,
        known: Vec<cluster_api::proto::Member>,
    ) -> Result<Self, ManagerError> {
        let (inbox, messages) = sync_channel(INBOX);
        let (standing, watched) = watch::channel(Standing::default());
        let (events, _) = broadcast::channel(EVENTS);
        let roster = Arc::new(NodeRoster::default());
        let members = Arc::new(MemberNodes::default());
        let mut ids = IdSource::random();
        let config = crate::core::Config {
            raft: RaftConfig {
                seed: ids.bits(),
                ..options.raft
            },
            ..crate::core::Config::default()
        };
        let own_id = recovered.id();
        let core = Core::new(config, recovered, ids);
        let disk = disk::start(log, inbox.clone()).map_err(ManagerError::Thread)?;
        let thread = Thread::new(
            core,
            thread::Surroundings {
                own_id,
                known,
                inbox: inbox.clone(),
                disk,
                peers: Arc::clone(&options.peers),
                runtime: options.runtime,
                standing,
                events: events.clone(),
                roster: Arc::clone(&roster),
                members: Arc::clone(&members),
            },
        );
        let (began, begins) = oneshot::channel();
        std::thread::Builder::new()
            .name("manager".into())
            .spawn(move || thread.run(messages, began))
            .map_err(ManagerError::Thread)?;
        // A thread that ended at once says why in the standing.
        let _ = begins.await;
        Ok(Self {
            inbox,
            node_id: options.node_id.into(),
            peers: options.peers,
            standing: watched,
            events,
            roster,
            members,
            logs: Arc::default(),
        })
    }

    async fn apply_first(&self, objects: Transaction) -> Result<(), Failure> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let standing = self.seen_standing();
            match self.command(Command::Apply(objects.clone())).await {
                Ok(_) => return Ok(()),
                Err(failure @ Failure::NotLeader { .. }) => {
                    if !changes_before(standing, deadline).await {
                        return Err(failure);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// What the node answers while it is a manager.
    pub fn add_backends(&self, backends: &mut Backends) {
        backends.raft = Some(Arc::new(backends::RaftBackend(self.clone())));
        backends.ca = Some(Arc::new(backends::Ca(self.clone())));
        backends.dispatcher = Some(Arc::new(backends::Sessions(self.clone())));
        backends.control = Some(Arc::new(backends::Control(self.clone())));
        backends.membership = Some(Arc::new(backends::Members(self.clone())));
        backends.logs = Some(Arc::new(backends::Logs(self.clone())));
        backends.roster = Some(Arc::clone(&self.roster) as Arc<_>);
    }

    /// Takes back what [`Manager::add_backends`] gave.
    pub fn remove_backends(backends: &mut Backends) {
        *backends = Backends {
            images: backends.images.take(),
            ..Backends::default()
        };
    }

    /// This manager's part in the group, and who leads.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// What is committed from now on, in batches, in order. A watcher that is too slow is told how much it missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<[StoreEvent]>> {
        self.events.subscribe()
    }

    /// Has this manager's core do something only a leader can do.
    ///
    /// # Errors
    ///
    /// As [`Failure`]; among them that this manager does not lead.
    pub async fn command(&self, command: Command) -> Result<Answer, Failure> {
        // What a manager that has stopped did not take in was certainly not carried out.
        let stopped = Failure::NotLeader { leader: None };
        let (reply, answer) = oneshot::channel();
        match self.send(Message::Command { command, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(stopped)),
            Err(Failure::NoQuorum) => Err(stopped),
            Err(failure) => Err(failure),
        }
    }

    /// The same; when this manager was elected a moment ago, waits until its state is current.
    async fn command_of_leader(&self, command: Command) -> Result<Answer, Failure> {
        let deadline = Instant::now() + HAND_OVER_WAIT;
        loop {
            let standing = self.seen_standing();
            match self.command(command.clone()).await {
                Err(Failure::NotLeader {
                    leader: Some(leader),
                }) if *leader.node_id == *self.node_id => {
                    if !changes_before(standing, deadline).await {
                        return Err(Failure::NotLeader { leader: None });
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// A client's request, wherever the leader is. Waits for one if there is none at the moment.
    ///
    /// # Errors
    ///
    /// The request's own, or that there is no leader.
    pub async fn request(
        &self,
        request: control::Request,
    ) -> Result<control::Reply, control::Refusal> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let standing = self.seen_standing();
            let leader = match self
                .command(Command::Control(Box::new(request.clone())))
                .await
            {
                Ok(Answer::Reply(reply)) => return Ok(reply),
                Ok(other) => {
                    return Err(control::Refusal::Unclassified(format!(
                        "the manager gave a strange answer: {other:?}"
                    )));
                }
                Err(Failure::NotLeader { leader }) => leader,
                Err(failure) => return Err(refusal(failure)),
            };
            if let Some(leader) = leader.filter(|leader| *leader.node_id != *self.node_id) {
                let mut changed = standing.clone();
                // One that handed over still tells what it has committed; its machine may be gone.
                let gone = async {
                    let _ = changed
                        .wait_for(|now| now.leader.as_ref() != Some(&leader))
                        .await;
                    tokio::time::sleep(HAND_OVER_WAIT).await;
                };
                let outcome = tokio::select! {
                    outcome = self.forward(&leader, &request) => outcome,
                    () = gone => Err(Refusal::Unavailable("it leads no more".into())),
                };
                match outcome {
                    Ok(outcome) => return outcome,
                    // Certainly not carried out.
                    Err(Refusal::NotLeader { .. } | Refusal::Unreached(_)) => {}
                    Err(refusal) => {
                        return Err(control::Refusal::Unavailable(format!(
                            "rpc error: the leader of the swarm, {}, did not answer: {refusal}; look whether the change was made",
                            leader.address
                        )));
                    }
                }
            }
            if !changes_before(standing, deadline).await {
                return Err(control::Refusal::Unavailable(NO_LEADER.into()));
            }
        }
    }

    async fn forward(
        &self,
        leader: &Contact,
        request: &control::Request,
    ) -> Result<Result<control::Reply, control::Refusal>, Refusal> {
        let message = cluster_api::proto::ForwardRequest {
            request: request.encode().into(),
        };
        let response = self.peers.forward(&address(leader), message).await?;
        let bad = |error: serde_json::Error| Refusal::Internal(error.to_string());
        use cluster_api::proto::forward_response::Outcome;
        match response.outcome {
            Some(Outcome::Answer(bytes)) => control::Reply::decode(&bytes).map(Ok).map_err(bad),
            Some(Outcome::Error(bytes)) => control::Refusal::decode(&bytes).map(Err).map_err(bad),
            None => Err(Refusal::Internal("an answer without content".into())),
        }
    }

    /// Looks at the state, which contains everything acknowledged before the call. The leader's node id comes with it.
    ///
    /// # Errors
    ///
    /// No majority of the managers answers.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store, Option<&str>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |state: Result<(&Store, Option<&str>), Failure>| {
            let _ = reply.send(state.map(|(store, leader)| look(store, leader)));
        });
        self.send(Message::Read { look })?;
        answer.await.unwrap_or(Err(Failure::NoQuorum))
    }

    /// Looks at the state as it is here, which may be behind.
    ///
    /// # Errors
    ///
    /// The manager is being stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |core: &Core| {
            let _ = reply.send(look(core));
        });
        self.send(Message::Look { look })?;
        answer.await.map_err(|_| Failure::NoQuorum)
    }

    /// Stops it. A leader hands leadership over first. What is durable stays.
    pub async fn stop(&self) {
        let mut standing = self.standing.clone();
        if standing.borrow().leads
            && let Ok(Answer::SteppingDown { .. }) = self.command(Command::StepDown).await
        {
            let followed =
                standing.wait_for(|standing| !standing.leads && standing.leader.is_some());
            let _ = tokio::time::timeout(HAND_OVER_WAIT, followed).await;
        }
        self.abort().await;
    }

    /// Stops it at once: the others notice that it is gone. What is durable stays.
    pub async fn abort(&self) {
        let mut standing = self.standing.clone();
        // The thread ends even when its inbox is full: it takes one message after the other.
        while let Err(Failure::Busy { .. }) = self.send(Message::Stop) {
            tokio::task::yield_now().await;
        }
        let _ = standing
            .wait_for(|standing| standing.stopped.is_some())
            .await;
    }

    fn send(&self, message: Message) -> Result<(), Failure> {
        self.inbox.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => Failure::Busy { under_way: INBOX },
            TrySendError::Disconnected(_) => Failure::NoQuorum,
        })
    }

    /// The standing, of which what is there now counts as seen. Taken before a question is asked, so that a change
    /// while it is answered is not missed.
    fn seen_standing(&self) -> watch::Receiver<Standing> {
        let mut standing = self.standing.clone();
        standing.mark_unchanged();
        standing
    }
}

/// Waits for a change of the standing; `false` when there was none in time or never will be.
async fn changes_before(mut standing: watch::Receiver<Standing>, deadline: Instant) -> bool {
    if standing.borrow().stopped.is_some() {
        return false;
    }
    matches!(
        tokio::time::timeout_at(deadline, standing.changed()).await,
        Ok(Ok(()))
    )
}

/// Docker's words.
const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/// What a client is told.
fn refusal(failure: Failure) -> control::Refusal {
    match failure {
        Failure::Refused(refusal) => refusal,
        Failure::NotLeader { .. } | Failure::NoQuorum => {
            control::Refusal::Unavailable(NO_LEADER.into())
        }
        failure @ (Failure::Busy { .. } | Failure::Unknown) => {
            control::Refusal::Unavailable(failure.to_string())
        }
    }
}

fn address(contact: &Contact) -> cluster_api::proto::ManagerAddress {
    cluster_api::proto::ManagerAddress {
        node_id: contact.node_id.clone(),
        address: contact.address.clone(),
    }
}

fn open_log(
    directory: PathBuf,
    cluster_id: &str,
    key: &Key,
    start: Option<(RaftId, Start)>,
) -> Result<(Log<Files>, Recovered), ManagerError> {
    let files = Files::new(&directory).map_err(|source| ManagerError::Directory {
        path: directory,
        source,
    })?;
    let nonces = IdSource::random();
    Ok(match start {
        Some((id, start)) => Log::create(files, cluster_id, id, key, nonces, start)?,
        None => Log::open(files, cluster_id, key, nonces)?,
    })
}

/// The moment as the deciding parts are told it.
#[derive(Debug, Clone, Copy)]
struct Clock(std::time::Instant);

impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(self) -> cluster_api::Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        cluster_api::Now {
            mono: Time(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)),
            wall: cluster_api::Timestamp(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)),
        }
    }
}
