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
use raft::eraftpb::{Entry, Message};
use raft::{RawNode, StateRole};

use super::config::Config;
use super::hostile;
use super::membership::{MemberChange, Membership, RaftId};
use super::memory::MemoryLog;
use super::message::{Body, PeerMessage};
use super::output::{Event, Halt, Output, ProposalId, ReadId, Refused, Role, Snapshot};
use super::proposals::Proposals;
use super::reads::Reads;
use super::snapshot::{Encoded, Incoming, Outgoing};
use super::write::{Operation, Recovered};

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
    pub(super) config: Config,
    pub(super) random: IdSource,
    /// The election timeout drawn, and for which term and role.
    pub(super) timeout: usize,
    pub(super) drawn_for: (u64, StateRole),
    /// Ticks since the start.
    pub(super) now: u64,
    /// The group as applied.
    pub(super) membership: Membership,
    pub(super) applied: u64,
    pub(super) applied_term: u64,
    /// As reported last.
    pub(super) role: Role,
    pub(super) halted: Option<Halt>,
    /// When the others were heard of last.
    pub(super) heard: BTreeMap<RaftId, u64>,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    pub(super) compaction: Compaction,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// The snapshot the algorithm was given and has not handed back to be written.
    pub(super) arrived: Option<Arc<Snapshot>>,
    /// The batch being put together.
    pub(super) open: Unwritten,
    /// Batches handed out and not durable.
    pub(super) writing: VecDeque<Unwritten>,
    /// Number of the batch handed out last.
    pub(super) number: u64,
    /// Term and vote written last, and the term that is durable.
    pub(super) written: (u64, u64),
    pub(super) commit_written: u64,
    pub(super) durable_term: u64,
    pub(super) output: Output,
}

/// When to make a snapshot, and the one being made.
#[derive(Default)]
pub(super) struct Compaction {
    /// Where the last one was made, and the bytes applied since.
    pub(super) at: u64,
    pub(super) bytes: usize,
    /// Asked for; the group as it was then.
    pub(super) pending: Option<Snapshot>,
    /// The offer to members too far behind, and when it was of use last.
    pub(super) offer: Option<Arc<Encoded>>,
    pub(super) used_at: u64,
}

/// A write, and what waits for it.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) number: u64,
    pub(super) operations: Vec<Operation>,
    /// The last of the algorithm's own numbers it covers.
    pub(super) ready: Option<u64>,
    pub(super) messages: Vec<Message>,
    /// Term in it.
    pub(super) term: Option<u64>,
    /// The state it replaces.
    pub(super) restore: Option<Arc<Snapshot>>,
    /// The memory it makes unnecessary.
    pub(super) keep_from: Option<u64>,
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
            commit_written: recovered.state.commit,
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
        let entry = Entry {
            data,
            ..Entry::default()
        };
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

    /// Whether leadership is being handed to another member.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
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
}
