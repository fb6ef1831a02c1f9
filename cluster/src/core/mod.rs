//! One manager without clock, network or disk: Raft, the store, the control loops, the dispatcher and clients' requests,
//! composed. Everything that happens is an input, everything to be done is an output, the same inputs give the same
//! outputs; a thread with sockets and files drives it, or a simulation.
//!
//! ```text
//!  tick, messages, disk ─▶ raft ─▶ committed ─▶ store ─▶ events ─▶ loops, dispatcher ─▶ agents
//!                           ▲                                          │
//!  requests of clients ─────┴────────────── transactions ◀─────────────┘
//! ```
//!
//! - A manager that was elected leads only when it has applied an entry of its own term; loops and sessions begin then.
//! - When leadership is lost they end first, then what was proposed and not confirmed is answered as unknown: it may
//!   still be committed by the successor.
//! - Whether a transaction has effect is decided at its place in the log. A client's request in conflict is decided
//!   again on the new state, up to [`MAX_ATTEMPTS`] times.
//! - Refusals, and answers that change nothing, go out only when a majority has confirmed that this manager still leads.
//! - A leader that hands over answers everything first; what comes meanwhile waits for the successor.
//! - Every queue is bounded: more than [`Config::max_requests`] requests under way are refused as busy.

mod exchange;
mod hand_over;
mod leadership;
mod membership;
mod requests;

pub use exchange::{
    AgentAnswer, AgentCall, AgentRefused, Answer, Command, Failure, Input, Output, RequestId,
    SnapshotJob, Stopped,
};

use std::collections::BTreeMap;

use cluster_api::{IdSource, Now};

use crate::Context;
use crate::dispatcher::Contact;
use crate::raft::{
    self, Committed, Event, MemberChange, Membership, MembershipEvent, Node, ProposalId, RaftId,
    ReadId, ReadOutcome, Recovered, Role, Unresolved,
};
use crate::store::{Store, Transaction};
use hand_over::HandOver;
use leadership::{Leadership, LoopId, Outcome};
use membership::Wanted;
use requests::{Pending, PendingChange, Waiting};

/// How often a request that meets a conflict is decided.
pub const MAX_ATTEMPTS: u32 = 5;

/// Bounds and timing.
#[derive(Debug, Clone)]
pub struct Config {
    pub raft: raft::Config,
    /// Clients' requests not answered yet.
    pub max_requests: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            raft: raft::Config::default(),
            max_requests: 4096,
        }
    }
}

/// One manager.
pub struct Core {
    own_id: RaftId,
    max_requests: usize,
    election_ticks: usize,
    raft: Node,
    store: Store,
    ids: IdSource,
    /// Names of proposals and of reads.
    counter: u64,
    /// While this manager leads and its state is current.
    leadership: Option<Leadership>,
    hand_over: Option<HandOver>,
    proposals: BTreeMap<ProposalId, Origin>,
    reads: BTreeMap<ReadId, Waiting>,
    output: Output,
    stopped: bool,
}

/// Who proposed.
#[derive(Debug)]
enum Origin {
    Loop(LoopId),
    Request(RequestId, Pending),
    Change(RequestId, PendingChange),
    /// The membership loop; it sees the result in the group.
    Group,
}

impl Core {
    /// A manager with the state it had. What is to be done first comes from [`Core::take`].
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, ids: IdSource) -> Self {
        Self {
            own_id: recovered.id(),
            max_requests: config.max_requests,
            election_ticks: config.raft.election_ticks,
            raft: Node::new(config.raft, recovered),
            store: Store::default(),
            ids,
            counter: 0,
            leadership: None,
            hand_over: None,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            output: Output::default(),
            stopped: false,
        }
    }

    /// The state as far as it is applied here. For a read that misses nothing ask [`Core::read`] first.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// This manager's part in the group.
    #[must_use]
    pub fn role(&self) -> Role {
        self.raft.role()
    }

    /// The group as applied here.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.raft.membership()
    }

    /// How Raft stands here.
    #[must_use]
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    /// The leader, when one is known and a member.
    #[must_use]
    pub fn leader(&self) -> Option<Contact> {
        let leader = self.raft.role().leader?;
        let member = self.raft.membership().members.get(&leader)?;
        Some(Contact {
            node_id: member.node_id.clone(),
            address: member.address.clone(),
        })
    }

    /// Takes note of what happened. Several inputs may be given before the next [`Core::take`].
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Tick => {
                self.raft.tick();
                if let Some(hand_over) = &mut self.hand_over {
                    hand_over.tick();
                }
                self.look_at_group();
            }
            Input::Time => {}
            Input::Peer(message) => self.raft.receive(message),
            Input::Unreachable(id) => self.raft.unreachable(id),
            Input::Written(number) => self.raft.persisted(number),
            Input::SnapshotMade { index, data } => self.raft.snapshot_made(index, data),
        }
    }

    /// An agent's call.
    ///
    /// # Errors
    ///
    /// This manager does not lead, or the dispatcher refuses it.
    pub fn agent(
        &mut self,
        node_id: &str,
        call: AgentCall,
        now: Now,
    ) -> Result<AgentAnswer, AgentRefused> {
        let Some(leadership) = &mut self.leadership else {
            return Err(AgentRefused::NotLeader {
                leader: self.leader(),
            });
        };
        leadership.dispatcher_has_news();
        let dispatcher = &mut leadership.dispatcher;
        let mut context = Context {
            store: &self.store,
            now,
            ids: &mut self.ids,
        };
        match call {
            AgentCall::Register(registration) => {
                let session_id = dispatcher.register(node_id, *registration, &mut context)?;
                return Ok(AgentAnswer::Registered { session_id });
            }
            AgentCall::Heartbeat { session_id } => {
                let period_ms = dispatcher.heartbeat(node_id, &session_id, now)?;
                return Ok(AgentAnswer::Alive { period_ms });
            }
            AgentCall::Open { session_id } => {
                dispatcher.open_assignments(node_id, &session_id, now)?;
            }
            AgentCall::Report {
                session_id,
                updates,
            } => dispatcher.update_status(node_id, &session_id, updates, &context)?,
            AgentCall::Acknowledge {
                session_id,
                results_in,
            } => dispatcher.acknowledge(node_id, &session_id, &results_in, now)?,
            AgentCall::Disconnected { session_id } => {
                dispatcher.disconnected(node_id, &session_id, now);
            }
        }
        Ok(AgentAnswer::Noted)
    }

    /// Everything that is to be done after the inputs since the last call.
    pub fn take(&mut self, now: Now) -> Output {
        loop {
            let output = self.raft.take();
            let quiet = output.is_empty();
            self.output.messages.extend(output.messages);
            self.output.writes.extend(output.write);
            for event in output.events {
                self.event(event, now);
            }
            let went_on = self.advance_hand_over(now);
            let proposed = self.run_loops(now);
            if quiet && !proposed && !went_on {
                break;
            }
        }
        let hands_over = self.hand_over.is_some();
        if let Some(leadership) = &mut self.leadership {
            let context = Context {
                store: &self.store,
                now,
                ids: &mut self.ids,
            };
            let (outgoing, wake_at) = leadership.dispatcher.dispatch(&context);
            self.output.agents.extend(outgoing);
            // Loops that wait for the end of a hand-over are asked then.
            let loops_at = leadership.wake_at().filter(|_| !hands_over);
            self.output.wake_at = [wake_at, loops_at]
                .into_iter()
                .flatten()
                .min()
                // A time that has passed already would have its owner ask in a circle.
                .map(|at| at.max(now.mono.after(1)));
        }
        std::mem::take(&mut self.output)
    }

    fn event(&mut self, event: Event, now: Now) {
        if self.stopped {
            return;
        }
        match event {
            Event::Restore(snapshot) => {
                if snapshot.data.is_empty() {
                    self.store = Store::default();
                    self.store.skip_to(snapshot.index);
                } else {
                    match Store::restore(&snapshot.data) {
                        Ok(store) => self.store = store,
                        Err(error) => return self.stop(error),
                    }
                }
                self.output.events.clear();
                self.output.restored = true;
                self.output.members_changed = true;
            }
            Event::Committed(entry) => self.committed(entry, now),
            Event::Membership(change) => self.group_changed(change),
            Event::Resolved { proposal, outcome } => self.unresolved(proposal, outcome, now),
            Event::Read { read, outcome } => self.read_ended(read, outcome),
            Event::Role(role) => self.role_changed(role, now),
            Event::SnapshotWanted { index } => {
                self.output.snapshot = Some(SnapshotJob {
                    index,
                    state: self.store.capture(),
                });
            }
            Event::Halted(halt) => self.stop(halt),
        }
    }

    fn committed(&mut self, entry: Committed, now: Now) {
        let transaction: Transaction = match serde_json::from_slice(&entry.data) {
            Ok(transaction) => transaction,
            Err(source) => {
                return self.stop(Stopped::Entry {
                    index: entry.index,
                    source,
                });
            }
        };
        let result = self.store.apply(entry.index, &transaction);
        if let Ok(events) = &result {
            if let Some(leadership) = &mut self.leadership {
                for event in events {
                    leadership.observe(event);
                }
            }
            self.output.events.extend(events.iter().cloned());
        }
        match entry.proposal.and_then(|id| self.proposals.remove(&id)) {
            Some(Origin::Loop(id)) => {
                if let Some(leadership) = &mut self.leadership {
                    leadership.ended(id, Outcome::Resolved, now);
                }
            }
            Some(Origin::Request(id, pending)) => {
                self.request_committed(id, pending, result.err(), now);
            }
            // Changes of the group are no transactions.
            Some(Origin::Change(..) | Origin::Group) | None => {}
        }
    }

    fn group_changed(&mut self, event: MembershipEvent) {
        self.store.skip_to(event.index);
        self.output.members_changed = true;
        if let Some(Origin::Change(id, pending)) = event
            .proposal
            .and_then(|proposal| self.proposals.remove(&proposal))
        {
            self.change_committed(id, pending, event.change.id(), event.outcome);
        }
        self.look_at_group();
    }

    fn unresolved(&mut self, proposal: ProposalId, outcome: Unresolved, now: Now) {
        match self.proposals.remove(&proposal) {
            Some(Origin::Request(id, _) | Origin::Change(id, _)) => {
                let failure = match outcome {
                    Unresolved::Dropped => Failure::NotLeader {
                        leader: self.leader(),
                    },
                    Unresolved::Unknown => Failure::Unknown,
                };
                self.output.answers.push((id, Err(failure)));
            }
            Some(Origin::Loop(id)) => {
                if let Some(leadership) = &mut self.leadership {
                    leadership.ended(id, Outcome::NoRoom, now);
                }
            }
            Some(Origin::Group) | None => {}
        }
    }

    /// Loops and sessions live exactly as long as this manager's leadership of one term is established.
    fn role_changed(&mut self, role: Role, now: Now) {
        self.output.role = Some(role);
        if !role.established {
            // Messages of a leader that is none any more must not go out.
            self.output.agents.clear();
            self.leadership = None;
        } else if self.leadership.is_none() {
            let mut context = Context {
                store: &self.store,
                now,
                ids: &mut self.ids,
            };
            self.leadership = Some(Leadership::begin(role.term, &mut context));
            self.look_at_group();
        }
    }

    /// Tells the membership loop how the group is, if it has changed.
    fn look_at_group(&mut self) {
        if let Some(leadership) = &mut self.leadership {
            let reachable = self
                .raft
                .status()
                .peers
                .iter()
                .map(|peer| (peer.id, peer.reachable))
                .collect();
            let group = self.raft.membership();
            if leadership.membership.update(self.own_id, group, reachable) {
                leadership.membership_has_news();
            }
        }
    }

    /// Gives each loop its turn. Whether something was proposed.
    fn run_loops(&mut self, now: Now) -> bool {
        if self.hand_over.is_some() {
            return false;
        }
        let mut proposed = false;
        let mut from = 0;
        while let Some(leadership) = &mut self.leadership
            && let Some((id, transaction)) = leadership.next(from, &self.store, now, &mut self.ids)
        {
            from = id.following();
            let outcome = match self.propose(&transaction, Origin::Loop(id)) {
                Ok(()) => {
                    proposed = true;
                    continue;
                }
                Err(raft::Refused::TooLarge { .. }) => Outcome::TooLarge,
                Err(_) => Outcome::NoRoom,
            };
            if let Some(leadership) = &mut self.leadership {
                leadership.ended(id, outcome, now);
            }
        }
        self.change_group(now) || proposed
    }

    /// Makes the change of the group the membership loop wants. Whether one was proposed.
    fn change_group(&mut self, now: Now) -> bool {
        let Some(leadership) = &mut self.leadership else {
            return false;
        };
        let Some(wanted) = leadership.membership.take_wanted() else {
            return false;
        };
        let id = match wanted {
            Wanted::Remove(id) => id,
            Wanted::HandOver => {
                // Found out in the next step whether there is a successor; if not, this is wanted again after a while.
                leadership.membership.proposed(now.mono);
                leadership.membership_has_news();
                self.begin_hand_over(None);
                return true;
            }
        };
        self.counter += 1;
        let proposal = ProposalId(self.counter);
        let result = self
            .raft
            .change_membership(proposal, MemberChange::Remove { id });
        let made = result.is_ok();
        if made {
            self.proposals.insert(proposal, Origin::Group);
        }
        match result {
            Ok(()) => leadership.membership.proposed(now.mono),
            Err(reason) => leadership.membership.refused(wanted, &reason, now.mono),
        }
        leadership.membership_has_news();
        made
    }

    fn propose(&mut self, transaction: &Transaction, origin: Origin) -> Result<(), raft::Refused> {
        let data = serde_json::to_vec(transaction).expect("maps of the objects have text keys");
        self.counter += 1;
        let id = ProposalId(self.counter);
        match self.raft.propose(id, data) {
            Ok(()) => {
                self.proposals.insert(id, origin);
                Ok(())
            }
            Err(refused) => {
                if let (Origin::Loop(_), raft::Refused::TooLarge { .. }) = (&origin, &refused) {
                    tracing::error!(%refused, "a control loop made a transaction that is too large");
                }
                Err(refused)
            }
        }
    }

    fn stop(&mut self, why: impl Into<Stopped>) {
        self.stopped = true;
        self.leadership = None;
        self.output.agents.clear();
        for origin in std::mem::take(&mut self.proposals).into_values() {
            if let Origin::Request(id, _) | Origin::Change(id, _) = origin {
                self.output.answers.push((id, Err(Failure::Unknown)));
            }
        }
        let held = self.hand_over.take().into_iter();
        for id in held.flat_map(HandOver::into_waiting) {
            let nobody = Failure::NotLeader { leader: None };
            self.output.answers.push((id, Err(nobody)));
        }
        for waiting in std::mem::take(&mut self.reads).into_values() {
            self.output
                .answers
                .push((waiting.id, Err(Failure::NoQuorum)));
        }
        self.output.stopped = Some(why.into());
    }

    /// Asks for [`Answer::Read`]: after it [`Core::store`] contains everything acknowledged before this call. Any
    /// manager may be asked.
    pub fn read(&mut self, id: RequestId) {
        self.wait_for_majority(Waiting {
            id,
            result: Ok(Answer::Read),
        });
    }

    fn wait_for_majority(&mut self, waiting: Waiting) {
        if self.stopped || self.under_way() >= self.max_requests {
            let under_way = self.under_way();
            self.output
                .answers
                .push((waiting.id, Err(Failure::Busy { under_way })));
            return;
        }
        self.counter += 1;
        let read = ReadId(self.counter);
        self.reads.insert(read, waiting);
        self.raft.read(read);
    }

    fn read_ended(&mut self, read: ReadId, outcome: ReadOutcome) {
        let Some(Waiting { id, result }) = self.reads.remove(&read) else {
            return;
        };
        let answer = match outcome {
            ReadOutcome::Ready { .. } => result,
            ReadOutcome::Unavailable => Err(Failure::NoQuorum),
        };
        self.output.answers.push((id, answer));
    }

    fn under_way(&self) -> usize {
        let held = self.hand_over.as_ref().map_or(0, HandOver::waiting);
        self.proposals.len() + self.reads.len() + held
    }
}
