//! The thread that owns the core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use cluster_api::{Time, proto};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot, watch};

use super::Clock;
use super::disk::Disk;
use super::roster::{MemberNodes, NodeRoster};
use super::sessions::{Assignments, Sessions, States};
use crate::core::{
    AgentAnswer, AgentCall, AgentRefused, Answer, Command, Core, Failure, Input, Output, RequestId,
    SnapshotJob, Stopped,
};
use crate::dispatcher::{Contact, Registration};
use crate::raft::log::LogError;
use crate::raft::{Halt, Membership, RaftId};
use crate::rpc::{Peers, RaftTransport};
use crate::store::{Store, StoreEvent};

/// One period of Raft's clock.
const TICK: Duration = Duration::from_millis(50);
/// Ticks made up for after the process did not run for a while. More would look like a dead leader to itself.
const TICKS_MADE_UP: u32 = 2;
/// Messages taken in before what they cause is carried out. Proposals that come together share one write.
const BATCH: usize = 512;

/// Looks at the state, or learns why it cannot.
pub(super) type Look = Box<dyn FnOnce(Result<(&Store, Option<&str>), Failure>) + Send>;

/// What others want of the thread.
pub(super) enum Message {
    Input(Input),
    Command {
        command: Command,
        reply: oneshot::Sender<Result<Answer, Failure>>,
    },
    /// After everything acknowledged before is applied.
    Read {
        look: Look,
    },
    /// At once.
    Look {
        look: Box<dyn FnOnce(&Core) + Send>,
    },
    Agent {
        node_id: String,
        call: AgentCall,
        reply: oneshot::Sender<Result<AgentAnswer, AgentRefused>>,
    },
    OpenSession {
        node_id: String,
        registration: Box<Registration>,
        states: States,
        reply: oneshot::Sender<Result<AgentAnswer, AgentRefused>>,
    },
    OpenAssignments {
        node_id: String,
        session_id: String,
        assignments: Assignments,
        reply: oneshot::Sender<Result<AgentAnswer, AgentRefused>>,
    },
    /// Something for an agent that is not the dispatcher's.
    Tell {
        node_id: String,
        message: proto::session_message::Message,
        reply: oneshot::Sender<bool>,
    },
    DiskFailed(LogError),
    Stop,
}

/// A manager's part in the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub term: u64,
    /// It leads, and its state is current.
    pub leads: bool,
    pub leader: Option<Contact>,
    /// It takes part no longer, and why.
    pub stopped: Option<End>,
}

/// Why a manager takes part no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Asked,
    /// It is no member of the group any more.
    Removed,
    /// It cannot go on. What was durable still is: it may be started again.
    Failed(String),
}

/// What the thread works with.
pub(super) struct Surroundings {
    pub(super) own_id: RaftId,
    /// Members by what the leader said; counts until there is a state.
    pub(super) known: Vec<proto::Member>,
    pub(super) inbox: SyncSender<Message>,
    pub(super) disk: Disk,
    pub(super) peers: Arc<Peers>,
    pub(super) runtime: Handle,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) events: broadcast::Sender<Arc<[StoreEvent]>>,
    pub(super) roster: Arc<NodeRoster>,
    pub(super) members: Arc<MemberNodes>,
}

enum Waiting {
    Command(oneshot::Sender<Result<Answer, Failure>>),
    Read(Look),
}

pub(super) struct Thread {
    core: Core,
    clock: Clock,
    around: Surroundings,
    transport: RaftTransport,
    sessions: Sessions,
    waiting: BTreeMap<RequestId, Waiting>,
    requests: u64,
    wake_at: Option<Time>,
    /// Why it ends.
    end: Option<End>,
}

impl Thread {
    pub(super) fn new(core: Core, around: Surroundings) -> Self {
        let inbox = around.inbox.clone();
        let unreachable = Arc::new(move |id| {
            // A full inbox: Raft finds out by itself.
            let _ = inbox.try_send(Message::Input(Input::Unreachable(id)));
        });
        let transport = RaftTransport::new(
            around.own_id,
            Arc::clone(&around.peers),
            around.runtime.clone(),
            unreachable,
        );
        Self {
            core,
            clock: Clock::start(),
            around,
            transport,
            sessions: Sessions::default(),
            waiting: BTreeMap::new(),
            requests: 0,
            wake_at: None,
            end: None,
        }
    }

    /// Until it is told to stop, or cannot go on. Tells when the state it was started with is applied.
    pub(super) fn run(mut self, messages: Receiver<Message>, began: oneshot::Sender<()>) {
        // Links to other members are made here and live on the runtime.
        let runtime = self.around.runtime.clone();
        let _context = runtime.enter();
        self.members_changed();
        let mut next_tick = Instant::now() + TICK;
        self.carry_out();
        let _ = began.send(());
        while self.end.is_none() {
            match messages.recv_timeout(self.patience(next_tick)) {
                Ok(first) => {
                    self.take_in(first);
                    for message in messages.try_iter().take(BATCH) {
                        self.take_in(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= next_tick {
                let late = now.duration_since(next_tick).as_nanos() / TICK.as_nanos();
                let ticks = u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1);
                for _ in 0..ticks.min(TICKS_MADE_UP) {
                    self.core.handle(Input::Tick);
                }
                next_tick = now + TICK;
            }
            if self.wake_at.is_some_and(|at| at <= self.clock.now().mono) {
                self.core.handle(Input::Time);
            }
            self.carry_out();
        }
        let why = self.end.unwrap_or(End::Asked);
        drop(messages);
        for waiting in self.waiting.into_values() {
            match waiting {
                Waiting::Command(reply) => drop(reply.send(Err(Failure::Unknown))),
                Waiting::Read(look) => look(Err(Failure::NoQuorum)),
            }
        }
        // Who is told that it has stopped may start it again: the log must be free by then.
        self.around.disk.finish();
        self.around.standing.send_modify(|standing| {
            standing.leads = false;
            standing.leader = None;
            standing.stopped = Some(why);
        });
    }

    /// How long nothing has to be done.
    fn patience(&self, next_tick: Instant) -> Duration {
        let to_tick = next_tick.saturating_duration_since(Instant::now());
        match self.wake_at {
            None => to_tick,
            Some(at) => to_tick.min(Duration::from_millis(at.since(self.clock.now().mono))),
        }
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.core.handle(input),
            Message::Command { command, reply } => {
                let id = self.wait(Waiting::Command(reply));
                self.core.request(id, command, self.clock.now());
            }
            Message::Read { look } => {
                let id = self.wait(Waiting::Read(look));
                self.core.read(id);
            }
            Message::Look { look } => look(&self.core),
            Message::Agent {
                node_id,
                call,
                reply,
            } => {
                if let AgentCall::Disconnected { session_id } = &call {
                    self.sessions.close(session_id);
                }
                let _ = reply.send(self.core.agent(&node_id, call, self.clock.now()));
            }
            Message::OpenSession {
                node_id,
                registration,
                states,
                reply,
            } => {
                let call = AgentCall::Register(registration);
                let answer = self.core.agent(&node_id, call, self.clock.now());
                if let Ok(AgentAnswer::Registered { session_id }) = &answer {
                    self.sessions.open(session_id.clone(), node_id, states);
                }
                let _ = reply.send(answer);
            }
            Message::OpenAssignments {
                node_id,
                session_id,
                assignments,
                reply,
            } => {
                self.sessions.open_assignments(&session_id, assignments);
                let call = AgentCall::Open { session_id };
                let _ = reply.send(self.core.agent(&node_id, call, self.clock.now()));
            }
            Message::Tell {
                node_id,
                message,
                reply,
            } => drop(reply.send(self.sessions.tell(&node_id, message))),
            Message::DiskFailed(error) => {
                tracing::error!(%error, "the state of the swarm cannot be written: this manager stops");
                self.end = Some(End::Failed(error.to_string()));
            }
            Message::Stop => self.end = Some(End::Asked),
        }
    }

    fn wait(&mut self, waiting: Waiting) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.waiting.insert(id, waiting);
        id
    }

    fn carry_out(&mut self) {
        let output = self.core.take(self.clock.now());
        let Output {
            messages,
            writes,
            snapshot,
            answers,
            agents,
            events,
            restored,
            role,
            members_changed,
            stopped,
            wake_at,
        } = output;
        self.wake_at = wake_at;
        if members_changed {
            self.members_changed();
        }
        for message in messages {
            self.transport.send(message.to, message.encode());
        }
        if !writes.is_empty() {
            self.around.disk.write(writes);
        }
        if let Some(job) = snapshot {
            self.write_snapshot(job);
        }
        if restored {
            self.around.roster.reset(self.core.store());
        }
        if !events.is_empty() {
            self.around.roster.observe(&events, self.core.store());
            // An error means that nobody watches.
            let _ = self.around.events.send(events.into());
        }
        if let Some(role) = role
            && !role.established
        {
            self.sessions.clear();
        }
        for outgoing in agents {
            self.sessions.deliver(outgoing);
        }
        self.announce();
        for (id, answer) in answers {
            self.answer(id, answer);
        }
        if let Some(stopped) = stopped {
            tracing::error!(reason = %stopped, "this manager takes part no longer");
            self.end = Some(match stopped {
                Stopped::Raft(Halt::Removed { .. }) => End::Removed,
                other => End::Failed(other.to_string()),
            });
        }
    }

    fn members_changed(&mut self) {
        let group = self.core.membership();
        self.around.members.reset(group);
        if group.members.is_empty() {
            self.transport.set_members(self.around.known.clone());
        } else {
            self.transport.set_members(members(group));
        }
    }

    fn answer(&mut self, id: RequestId, answer: Result<Answer, Failure>) {
        match self.waiting.remove(&id) {
            Some(Waiting::Command(reply)) => drop(reply.send(answer)),
            Some(Waiting::Read(look)) => {
                let leader = self.core.leader();
                let leader = leader.as_ref().map(|leader| leader.node_id.as_str());
                look(answer.map(|_| (self.core.store(), leader)));
            }
            None => {}
        }
    }

    fn announce(&self) {
        let role = self.core.role();
        let (term, leads, leader) = (role.term, role.established, self.core.leader());
        self.around.roster.set_complete(leads);
        self.around.standing.send_if_modified(|standing| {
            let changed =
                standing.term != term || standing.leads != leads || standing.leader != leader;
            if changed {
                tracing::info!(
                    term,
                    leads,
                    leader = leader.as_ref().map_or("none", |leader| &leader.node_id),
                    "the swarm's leader as this manager sees it"
                );
                (standing.term, standing.leads, standing.leader) = (term, leads, leader);
            }
            changed
        });
    }

    /// On a thread of its own: it takes long with a large state, and the heart must beat meanwhile.
    fn write_snapshot(&mut self, job: SnapshotJob) {
        let inbox = self.around.inbox.clone();
        let job = Arc::new(job);
        let work = {
            let job = Arc::clone(&job);
            move || {
                let _ = inbox.send(Message::Input(made(&job)));
            }
        };
        let spawned = std::thread::Builder::new()
            .name("manager-snapshot".into())
            .spawn(work);
        if let Err(error) = spawned {
            // Without it the log would grow for ever: nothing else asks for one.
            tracing::warn!(%error, "there is no thread to make a snapshot of the state on");
            self.core.handle(made(&job));
        }
    }
}

fn made(job: &SnapshotJob) -> Input {
    Input::SnapshotMade {
        index: job.index,
        data: job.state.encode(),
    }
}

pub(super) fn members(group: &Membership) -> impl Iterator<Item = proto::Member> + '_ {
    group.members.iter().map(|(id, member)| proto::Member {
        raft_id: *id,
        node_id: member.node_id.clone(),
        address: member.address.clone(),
    })
}
