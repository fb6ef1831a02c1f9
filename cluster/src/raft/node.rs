//! The driver: one member of the group, as a state machine without clock, network, disk or threads.
//!
//! ```text
//!              tick, receive, propose, read, …               persisted(n)
//!                          |                                      |
//!                          v                                      v
//!   +------------------ Node ---------------------------------------------------+
//!   |  judge     what makes no sense stays out                                  |
//!   |  RawNode   the algorithm; reads the log from memory                       |
//!   |  gate      what may be said only when it is durable waits for its write   |
//!   |  apply     committed entries become events, changes of the group are made |
//!   +----------------------------------------------------------------------------+
//!                          |
//!                        take()  ->  messages to send, a batch to write, events to apply
//! ```
//!
//! Writes are asynchronous and in order: batch *n* + 1 may be handed out before *n* is durable. A leader sends its entries
//! to the others while it writes them itself (Raft thesis 10.2.1); all proposals that arrive between two `take`s enter
//! the log together and share a write. Nothing is written for heartbeats: a commit index alone is not worth a write,
//! the next leader finds it again.
//!
//! Deterministic: the raft crate draws election timeouts from the thread's generator, so after each change of term or
//! role they are set again, from the seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluster_api::IdSource;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{RawNode, Ready, SnapshotStatus, StateRole};

use super::config::Config;
use super::hostile::{self, Verdict};
use super::membership::{MemberChange, Membership, RaftId, Suffrage};
use super::memory::{MemoryLog, envelope};
use super::message::{Body, PeerMessage, SnapshotAck, SnapshotChunk};
use super::output::{
    Event, Halt, Output, ProposalId, ReadId, Refused, Role, Snapshot, State, Unresolved,
};
use super::proposals::Proposals;
use super::reads::Reads;
use super::snapshot::{Arrival, Encoded, Incoming, Outgoing, Received};
use super::write::{Operation, Recovered, WriteBatch};

/// A learner this close to the end of the log counts as caught up.
const CAUGHT_UP: u64 = 100;

/// How a node stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: RaftId,
    /// Its part.
    pub role: Role,
    /// Committed up to.
    pub commit: u64,
    /// Applied up to.
    pub applied: u64,
    /// The log in memory begins at.
    pub first_index: u64,
    /// The log ends at.
    pub last_index: u64,
    /// Bytes proposed here and not resolved.
    pub inflight_bytes: usize,
    /// The other members as the leader sees them; empty on others.
    pub peers: Vec<Peer>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub id: RaftId,
    /// It has the log up to here.
    pub matched: u64,
    /// It was heard of within the last election timeout.
    pub reachable: bool,
}

/// One member of a Raft group.
pub struct Node {
    pub(super) raw: RawNode<MemoryLog>,
    config: Config,
    random: IdSource,
    /// The election timeout drawn, and for which term and role.
    timeout: usize,
    drawn_for: (u64, StateRole),
    /// Ticks since the start.
    now: u64,
    /// The group as applied.
    pub(super) membership: Membership,
    pub(super) applied: u64,
    pub(super) applied_term: u64,
    /// As reported last.
    role: Role,
    halted: Option<Halt>,
    /// When the others were heard of last.
    heard: BTreeMap<RaftId, u64>,
    pub(super) proposals: Proposals,
    reads: Reads,
    compaction: Compaction,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The snapshot the algorithm was given and has not handed back to be written.
    arrived: Option<Arc<Snapshot>>,
    /// The batch being put together.
    open: Unwritten,
    /// Batches handed out and not durable.
    writing: VecDeque<Unwritten>,
    /// Number of the batch handed out last.
    number: u64,
    /// Term and vote written last, and the term that is durable.
    written: (u64, u64),
    durable_term: u64,
    pub(super) output: Output,
}

/// When to make a snapshot, and the one being made.
#[derive(Default)]
struct Compaction {
    /// Where the last one was made, and the bytes applied since.
    at: u64,
    bytes: usize,
    /// Asked for; the group as it was then.
    pending: Option<Snapshot>,
    /// The offer to members too far behind, and when it was of use last.
    offer: Option<Arc<Encoded>>,
    used_at: u64,
}

/// A write, and what waits for it.
#[derive(Default)]
struct Unwritten {
    number: u64,
    operations: Vec<Operation>,
    /// The last of the algorithm's own numbers it covers.
    ready: Option<u64>,
    messages: Vec<Message>,
    /// Term in it.
    term: Option<u64>,
    /// The state it replaces.
    restore: Option<Arc<Snapshot>>,
    /// The memory it makes unnecessary.
    keep_from: Option<u64>,
}

impl Node {
    /// A node with the state it had before. [`Node::take`] what it has to say then: the state to begin with is in it.
    ///
    /// # Panics
    /// When the state is of nobody: a [`Log`](super::log::Log) never yields such.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered) -> Self {
        let memory = MemoryLog::new(&recovered);
        let mut random = IdSource::seeded(config.seed);
        let snapshot = recovered.snapshot;
        let (applied, applied_term) = snapshot
            .as_ref()
            .map_or((0, 0), |snapshot| (snapshot.index, snapshot.term));
        let membership = snapshot
            .as_ref()
            .map(|snapshot| snapshot.membership.clone())
            .unwrap_or_default();
        let raw = RawNode::new(
            &config.raft(recovered.id, applied),
            memory,
            &super::trace::logger(),
        )
        .expect("the configuration is valid and memory cannot fail");
        let mut node = Self {
            timeout: config.election_ticks,
            drawn_for: (u64::MAX, StateRole::Follower),
            now: 0,
            membership,
            applied,
            applied_term,
            role: Role::default(),
            halted: None,
            heard: BTreeMap::new(),
            proposals: Proposals::default(),
            reads: Reads::new(random.bits()),
            compaction: Compaction {
                at: applied,
                ..Compaction::default()
            },
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            arrived: None,
            open: Unwritten::default(),
            writing: VecDeque::new(),
            number: 0,
            written: (recovered.state.term, recovered.state.vote),
            durable_term: recovered.state.term,
            output: Output::default(),
            raw,
            config,
            random,
        };
        node.output.events.extend(snapshot.map(Event::Restore));
        node.draw_timeout();
        node
    }

    // Inputs

    /// Time passes.
    pub fn tick(&mut self) {
        if self.halted.is_some() {
            return;
        }
        self.now += 1;
        if hostile::may_campaign(&self.raw.raft) {
            self.raw.tick();
            self.settle();
        }
        for arrival in self.outgoing.tick(self.now) {
            self.arrived_at(arrival);
        }
        let patience = 2 * self.config.election_ticks as u64;
        if self.outgoing.is_empty() && self.now.saturating_sub(self.compaction.used_at) > patience {
            self.compaction.offer = None;
            self.raw.mut_store().offer = None;
        }
        self.reads
            .expire(self.now, self.config.read_ticks, &mut self.output.events);
    }

    /// A message arrived. What makes no sense is dropped; what shows that this node's state is damaged halts it.
    pub fn receive(&mut self, message: PeerMessage) {
        let PeerMessage { from, to, body } = message;
        if self.halted.is_some() || from == 0 || to != self.id() || from == to {
            return;
        }
        if self.membership.removed.contains(&from) {
            // It does not know yet, and would go on asking for votes.
            self.output.messages.push(PeerMessage {
                from: to,
                to: from,
                body: Body::Removed,
            });
            return;
        }
        self.heard.insert(from, self.now);
        match body {
            Body::Raft(message) => self.step(*message),
            Body::Chunk(chunk) => self.receive_chunk(from, chunk),
            Body::Ack(ack) => {
                if let Some(arrival) = self.outgoing.acknowledged(from, ack, self.now) {
                    self.arrived_at(arrival);
                }
            }
            Body::Removed => {
                if self.membership.members.is_empty() || self.membership.members.contains_key(&from)
                {
                    self.halt(Halt::Removed { id: self.id() });
                }
            }
        }
    }

    /// Proposes data. All proposals made before the next [`Node::take`] enter the log together.
    ///
    /// # Errors
    /// Refused: nothing of it entered the log.
    pub fn propose(&mut self, id: ProposalId, data: Vec<u8>) -> Result<(), Refused> {
        self.may_propose()?;
        if data.len() > self.config.max_proposal {
            return Err(Refused::TooLarge {
                bytes: data.len(),
                limit: self.config.max_proposal,
            });
        }
        let bytes = self.proposals.bytes();
        if bytes > 0 && bytes + data.len() > self.config.max_inflight {
            return Err(Refused::Busy { bytes });
        }
        let mut entry = Entry::default();
        entry.data = data;
        self.proposals.wait(id, entry);
        Ok(())
    }

    /// Proposes a change of the group. A learner that has caught up is promoted without being asked to.
    ///
    /// # Errors
    /// Refused: nothing of it entered the log.
    pub fn change_membership(
        &mut self,
        id: ProposalId,
        change: MemberChange,
    ) -> Result<(), Refused> {
        self.may_propose()?;
        self.flush();
        if self.raw.raft.has_pending_conf() {
            return Err(Refused::ChangePending);
        }
        self.membership.check(&change)?;
        match change {
            MemberChange::Remove { id } => self.may_remove(id)?,
            MemberChange::Promote { id } => self.may_promote(id)?,
            MemberChange::AddLearner { .. } | MemberChange::UpdateAddress { .. } => {}
        }
        self.enter(vec![(
            Some(id),
            super::apply::change_entry(&change, &self.membership),
        )]);
        Ok(())
    }

    /// Asks for an index to read at; answered with [`Event::Read`].
    pub fn read(&mut self, id: ReadId) {
        self.reads.ask(id, self.now);
        if self.halted.is_some() {
            self.reads.end(&mut self.output.events);
        }
    }

    /// Hands leadership to a member, or to the one best suited. No proposals are taken until that is done, or given up
    /// after an election timeout.
    ///
    /// # Errors
    /// Refused: nothing was done.
    pub fn transfer_leadership(&mut self, to: Option<RaftId>) -> Result<RaftId, Refused> {
        self.may_propose()?;
        self.flush();
        let mut voters = self
            .membership
            .voters()
            .filter(|id| *id != self.id() && self.reachable(*id));
        let successor = match to {
            Some(to) => voters.find(|id| *id == to),
            None => voters.max_by_key(|id| {
                self.raw
                    .raft
                    .prs()
                    .get(*id)
                    .map_or(0, |progress| progress.matched)
            }),
        };
        let successor = successor.ok_or(Refused::NoSuccessor)?;
        self.raw.transfer_leader(successor);
        Ok(successor)
    }

    /// All write batches up to this number are durable.
    pub fn persisted(&mut self, number: u64) {
        while let Some(write) = self.writing.pop_front_if(|write| write.number <= number) {
            if let Some(ready) = write.ready {
                self.raw.on_persist_ready(ready);
            }
            self.durable_term = write.term.unwrap_or(self.durable_term);
            write
                .messages
                .into_iter()
                .for_each(|message| self.send(message));
            if let Some(snapshot) = write.restore {
                self.restore(snapshot);
            }
            if let Some(keep_from) = write.keep_from {
                self.raw.mut_store().compact(keep_from);
            }
        }
        self.settle();
    }

    /// The state at `index`, as asked for with [`Event::SnapshotWanted`].
    pub fn snapshot_made(&mut self, index: u64, data: Vec<u8>) {
        let Some(pending) = self
            .compaction
            .pending
            .take_if(|pending| pending.index == index)
        else {
            return;
        };
        if index < self.compaction.at {
            // The leader's arrived meanwhile.
            return;
        }
        let snapshot = Arc::new(Snapshot { data, ..pending });
        let memory = self.raw.mut_store();
        let keep_from = memory.keep_from(index, self.config.keep_entries, self.config.keep_bytes);
        memory.offer = Some(snapshot.clone());
        self.compaction.offer = Some(Arc::new(Encoded::new(snapshot.clone())));
        self.compaction.at = index;
        self.compaction.used_at = self.now;
        self.open.operations.push(Operation::Compact {
            snapshot,
            keep_from,
        });
        self.open.keep_from = Some(keep_from);
    }

    /// The last message to this member was not delivered.
    pub fn unreachable(&mut self, id: RaftId) {
        if self.halted.is_none() {
            self.raw.report_unreachable(id);
        }
    }

    /// What is to be done after the inputs since it was asked last.
    pub fn take(&mut self) -> Output {
        self.flush();
        self.run();
        if self.promote_learner() {
            self.run();
        }
        self.outgoing
            .pieces(self.raw.raft.id, &mut self.output.messages);
        self.want_snapshot();
        self.close_batch();
        std::mem::take(&mut self.output)
    }

    // Views

    /// This node.
    #[must_use]
    pub fn id(&self) -> RaftId {
        self.raw.raft.id
    }

    /// This node's part, as of the last [`Node::take`].
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The group as applied here.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Why it takes part no longer.
    #[must_use]
    pub const fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.raw.raft;
        let peer = |id: RaftId| {
            let matched = raft.prs().get(id).map_or(0, |progress| progress.matched);
            Peer {
                id,
                matched,
                reachable: self.reachable(id),
            }
        };
        let others = self
            .membership
            .members
            .keys()
            .copied()
            .filter(|id| *id != raft.id);
        Status {
            id: raft.id,
            role: self.role,
            commit: raft.raft_log.committed,
            applied: self.applied,
            first_index: self.raw.store().first(),
            last_index: raft.raft_log.last_index(),
            inflight_bytes: self.proposals.bytes(),
            peers: if raft.state == StateRole::Leader {
                others.map(peer).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// Whether a member was heard of within the last election timeout.
    fn reachable(&self, id: RaftId) -> bool {
        let patience = self.config.election_ticks as u64;
        id == self.id()
            || self
                .heard
                .get(&id)
                .is_some_and(|at| self.now.saturating_sub(*at) <= patience)
    }

    // What may be proposed

    fn may_propose(&self) -> Result<(), Refused> {
        if let Some(halt) = &self.halted {
            return Err(halt.clone().into());
        }
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(Refused::NotLeader {
                leader: hostile::leader(raft),
            });
        }
        raft.lead_transferee
            .map_or(Ok(()), |to| Err(Refused::Transferring { to }))
    }

    fn may_remove(&self, id: RaftId) -> Result<(), Refused> {
        if id == self.id() {
            return Err(Refused::IsLeader { id });
        }
        if self
            .membership
            .members
            .get(&id)
            .is_some_and(|member| member.suffrage == Suffrage::Learner)
        {
            return Ok(());
        }
        let rest: Vec<RaftId> = self
            .membership
            .voters()
            .filter(|voter| *voter != id)
            .collect();
        let reachable = rest.iter().filter(|voter| self.reachable(**voter)).count();
        if reachable <= rest.len() / 2 {
            return Err(Refused::WouldLoseQuorum {
                id,
                reachable,
                voters: rest.len(),
            });
        }
        Ok(())
    }

    fn may_promote(&self, id: RaftId) -> Result<(), Refused> {
        let last = self.raw.raft.raft_log.last_index();
        let matched = self
            .raw
            .raft
            .prs()
            .get(id)
            .map_or(0, |progress| progress.matched);
        if matched + CAUGHT_UP < last || matched == 0 || !self.reachable(id) {
            return Err(Refused::NotCaughtUp { id, matched, last });
        }
        Ok(())
    }

    fn promote_learner(&mut self) -> bool {
        if !self.role.established || self.may_propose().is_err() || self.raw.raft.has_pending_conf()
        {
            return false;
        }
        let Some(id) = self
            .membership
            .learners()
            .find(|id| self.may_promote(*id).is_ok())
        else {
            return false;
        };
        self.enter(vec![(
            None,
            super::apply::change_entry(&MemberChange::Promote { id }, &self.membership),
        )]);
        true
    }

    // Into the algorithm

    /// Waiting proposals enter the log.
    fn flush(&mut self) {
        let waiting = self.proposals.take_waiting();
        if !waiting.is_empty() {
            self.enter(
                waiting
                    .into_iter()
                    .map(|(id, entry)| (Some(id), entry))
                    .collect(),
            );
        }
    }

    /// Entries enter the log, or none of them does.
    fn enter(&mut self, proposals: Vec<(Option<ProposalId>, Entry)>) {
        let (ids, entries): (Vec<_>, Vec<_>) = proposals.into_iter().unzip();
        let sizes: Vec<usize> = entries.iter().map(|entry| entry.data.len()).collect();
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id();
        message.set_entries(entries.into());
        let leads = self.raw.raft.state == StateRole::Leader;
        if leads && self.raw.raft.step(message).is_ok() {
            let term = self.raw.raft.term;
            for (index, (id, bytes)) in (first..).zip(ids.into_iter().zip(sizes)) {
                if let Some(id) = id {
                    self.proposals.place(id, index, term, bytes);
                }
            }
        } else {
            let dropped = |proposal| Event::Resolved {
                proposal,
                outcome: Unresolved::Dropped,
            };
            self.output
                .events
                .extend(ids.into_iter().flatten().map(dropped));
        }
    }

    fn step(&mut self, mut message: Message) {
        match hostile::judge(&self.raw.raft, &mut message) {
            Verdict::Take => {
                let from = message.from;
                if let Err(error) = self.raw.step(message) {
                    tracing::trace!(member = self.id(), from, %error, "message refused");
                }
                self.settle();
            }
            Verdict::Drop => {
                tracing::debug!(member = self.id(), from = message.from, kind = ?message.get_msg_type(), "dropped");
            }
            Verdict::Halt(halt) => self.halt(halt),
        }
    }

    /// After each input: what it changed of this node's part.
    fn settle(&mut self) {
        self.draw_timeout();
        self.note_role();
    }

    /// The election timeout of the present term and role, whatever the crate has drawn.
    fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        if self.drawn_for != (raft.term, raft.state) {
            self.drawn_for = (raft.term, raft.state);
            let least = self.config.election_ticks;
            self.timeout = least + self.random.below(least as u64) as usize;
        }
        raft.set_randomized_election_timeout(self.timeout);
    }

    fn halt(&mut self, halt: Halt) {
        if self.halted.is_some() {
            return;
        }
        tracing::error!(member = self.id(), %halt, "this manager takes part no longer");
        self.halted = Some(halt.clone());
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
        self.settle();
        self.flush();
        self.reads.end(&mut self.output.events);
        self.output.events.push(Event::Halted(halt));
    }

    // Out of the algorithm

    fn run(&mut self) {
        loop {
            self.note_role();
            if let Some(context) = self.reads.request(self.id(), self.now) {
                self.raw.read_index(context);
            }
            if !self.raw.has_ready() {
                break;
            }
            let ready = self.raw.ready();
            self.process(ready);
        }
        self.reads.applied(self.applied, &mut self.output.events);
    }

    fn process(&mut self, mut ready: Ready) {
        for state in ready.take_read_states() {
            self.reads
                .answer(self.id(), &state.request_ctx, state.index);
        }
        if let Some(state) = ready.hs()
            && self.written != (state.term, state.vote)
        {
            self.written = (state.term, state.vote);
            self.open.term = Some(state.term);
            self.open.operations.push(Operation::State {
                term: state.term,
                vote: state.vote,
            });
        }
        if !ready.snapshot().is_empty() {
            let snapshot = self
                .arrived
                .take()
                .expect("only a snapshot that arrived whole was given to the algorithm");
            self.raw.mut_store().restore(snapshot.index, snapshot.term);
            self.compaction.pending = None;
            self.open
                .operations
                .push(Operation::Restore(snapshot.clone()));
            self.open.restore = Some(snapshot);
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            self.raw.mut_store().append(&entries);
            self.open.operations.push(Operation::Append(entries));
            // Alone it is not worth a write.
            if let Some(state) = ready.hs() {
                self.open.operations.push(Operation::Commit(state.commit));
            }
        }
        for message in ready.take_messages() {
            // Before its term is durable a lone voter could lead that term twice, with different entries.
            if message.term <= self.durable_term {
                self.send(message);
            } else {
                self.open.messages.push(message);
            }
        }
        for message in ready.take_persisted_messages() {
            if self.may_leave(&message) {
                self.send(message);
            } else {
                self.open.messages.push(message);
            }
        }
        let committed = ready.take_committed_entries();
        self.open.ready = Some(ready.number());
        self.raw.advance_append_async(ready);
        for entry in committed {
            self.apply(entry);
        }
        if self.applied > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(self.applied);
        }
        if self.raw.raft.state == StateRole::Leader && self.applied_term == self.raw.raft.term {
            self.note_established();
        }
    }

    /// Whether a follower's message may leave before what was handed out is durable: when nothing is to be written, and
    /// when it says nothing that a crash could make untrue. A slow disk does not cost a leader its majority.
    fn may_leave(&self, message: &Message) -> bool {
        if self.writing.is_empty() && self.open.operations.is_empty() {
            return true;
        }
        match message.get_msg_type() {
            MessageType::MsgHeartbeatResponse => message.term == self.durable_term,
            MessageType::MsgReadIndex => true,
            _ => false,
        }
    }

    fn send(&mut self, message: Message) {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let to = message.to;
            match &self.compaction.offer {
                Some(offer) => {
                    self.compaction.used_at = self.now;
                    self.outgoing
                        .start(to, offer.clone(), self.raw.raft.term, self.now);
                }
                None => self.raw.report_snapshot(to, SnapshotStatus::Failure),
            }
            return;
        }
        self.output.messages.push(PeerMessage::raft(message));
    }

    /// Hands out what is to be written; where nothing is, what waited may go on.
    fn close_batch(&mut self) {
        let mut write = std::mem::take(&mut self.open);
        if write.operations.is_empty() {
            if self.writing.is_empty() {
                if let Some(ready) = write.ready {
                    self.raw.on_persist_ready(ready);
                }
                write
                    .messages
                    .into_iter()
                    .for_each(|message| self.send(message));
            } else {
                // It goes with the write before it.
                write.number = self.number;
                self.writing.push_back(write);
            }
            return;
        }
        self.number += 1;
        write.number = self.number;
        let operations = std::mem::take(&mut write.operations);
        self.output.write = Some(WriteBatch {
            number: self.number,
            operations,
        });
        self.writing.push_back(write);
    }

    /// Reports a change of this node's part. A leadership that ended takes its proposals with it.
    fn note_role(&mut self) {
        let raft = &self.raw.raft;
        let state = match raft.state {
            StateRole::Follower => State::Follower,
            StateRole::PreCandidate => State::PreCandidate,
            StateRole::Candidate => State::Candidate,
            StateRole::Leader => State::Leader,
        };
        let same_reign = state == State::Leader
            && self.role.state == State::Leader
            && raft.term == self.role.term;
        let role = Role {
            term: raft.term,
            leader: hostile::leader(raft),
            state,
            established: self.role.established && same_reign,
        };
        if role == self.role {
            return;
        }
        let reign_ended = self.role.state == State::Leader && !same_reign;
        self.role = role;
        self.output.events.push(Event::Role(role));
        if reign_ended {
            self.outgoing.clear();
            let unknown = |proposal| Event::Resolved {
                proposal,
                outcome: Unresolved::Unknown,
            };
            self.output
                .events
                .extend(self.proposals.abandon().into_iter().map(unknown));
        }
        if state == State::Leader {
            // Nobody had a reason to write to this node so far.
            let others: Vec<RaftId> = self.membership.members.keys().copied().collect();
            self.heard
                .extend(others.into_iter().map(|id| (id, self.now)));
        }
    }

    fn note_established(&mut self) {
        if !self.role.established
            && self.role.state == State::Leader
            && self.role.term == self.applied_term
        {
            self.role.established = true;
            self.output.events.push(Event::Role(self.role));
        }
    }

    // Changes of the group

    fn apply(&mut self, entry: Entry) {
        self.applied = entry.index;
        self.applied_term = entry.term;
        self.compaction.bytes += entry.data.len() + entry.context.len();
        let before = self.membership.removed.len();
        match entry.get_entry_type() {
            EntryType::EntryNormal => self.apply_data(entry),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_change(&entry),
        }
        if self.membership.removed.len() != before {
            self.forget_removed();
        }
    }

    fn forget_removed(&mut self) {
        let me = self.id();
        let removed: Vec<RaftId> = self
            .heard
            .keys()
            .copied()
            .filter(|id| self.membership.removed.contains(id))
            .collect();
        for id in removed {
            self.heard.remove(&id);
            self.outgoing.stop(id);
            if self.raw.raft.state == StateRole::Leader {
                self.output.messages.push(PeerMessage {
                    from: me,
                    to: id,
                    body: Body::Removed,
                });
            }
        }
        if self.membership.removed.contains(&me) {
            self.halt(Halt::Removed { id: me });
        }
    }

    // Snapshots

    fn want_snapshot(&mut self) {
        let due = self.applied.saturating_sub(self.compaction.at) >= self.config.snapshot_entries
            || self.compaction.bytes >= self.config.snapshot_bytes
            || self.raw.store().take_wanted();
        if !due || self.compaction.pending.is_some() || self.halted.is_some() {
            return;
        }
        self.compaction.bytes = 0;
        self.compaction.pending = Some(Snapshot {
            index: self.applied,
            term: self.applied_term,
            membership: self.membership.clone(),
            data: Vec::new(),
        });
        self.output.events.push(Event::SnapshotWanted {
            index: self.applied,
        });
    }

    fn receive_chunk(&mut self, from: RaftId, chunk: SnapshotChunk) {
        let raft = &self.raw.raft;
        let stranger =
            chunk.term == raft.term && hostile::leader(raft).is_some_and(|leader| leader != from);
        if chunk.term < raft.term
            || stranger
            || (chunk.term == raft.term && raft.state == StateRole::Leader)
        {
            return;
        }
        let (term, stream, total) = (chunk.term, chunk.stream, chunk.total);
        let next = if stream.index <= raft.raft_log.committed {
            // Known already: nothing of it is needed.
            total
        } else {
            match self.incoming.receive(from, chunk, self.config.max_snapshot) {
                Received::Nonsense => return,
                Received::More { next } => next,
                Received::Again => total,
                Received::Complete(snapshot) => {
                    let mut message = Message::default();
                    message.set_msg_type(MessageType::MsgSnapshot);
                    (message.from, message.to, message.term) = (from, self.id(), term);
                    message.set_snapshot(envelope(&snapshot));
                    self.arrived = Some(Arc::from(snapshot));
                    if let Err(error) = self.raw.step(message) {
                        tracing::debug!(member = self.id(), from, %error, "snapshot refused");
                    }
                    self.settle();
                    // At once, so that what the algorithm took and what is kept here are the same snapshot.
                    self.run();
                    self.arrived = None;
                    total
                }
            }
        };
        let body = Body::Ack(SnapshotAck { term, stream, next });
        self.output.messages.push(PeerMessage {
            from: self.id(),
            to: from,
            body,
        });
    }

    fn arrived_at(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Arrived(id) => self.raw.report_snapshot(id, SnapshotStatus::Finish),
            Arrival::Failed(id) => self.raw.report_snapshot(id, SnapshotStatus::Failure),
        }
        self.compaction.used_at = self.now;
    }

    /// The leader's snapshot is durable here: it is the state now.
    fn restore(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.index <= self.applied {
            return;
        }
        self.applied = snapshot.index;
        self.applied_term = snapshot.term;
        self.membership = snapshot.membership.clone();
        self.compaction = Compaction {
            at: snapshot.index,
            ..Compaction::default()
        };
        self.raw.advance_apply_to(snapshot.index);
        self.output.events.push(Event::Restore(snapshot));
        self.forget_removed();
    }
}
