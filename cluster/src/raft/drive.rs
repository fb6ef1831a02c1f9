//! The loop around the algorithm: inputs go in, what it is ready to do comes out, and what may be said only when it is
//! durable waits for its write.

use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Ready, SnapshotStatus, StateRole};

use super::hostile::{self, Verdict};
use super::membership::RaftId;
use super::message::PeerMessage;
use super::node::Node;
use super::output::{Event, Halt, ProposalId, Role, State, Unresolved};
use super::write::{Operation, WriteBatch};

impl Node {
    /// Waiting proposals enter the log.
    pub(super) fn flush(&mut self) {
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
    pub(super) fn enter(&mut self, proposals: Vec<(Option<ProposalId>, Entry)>) {
        let (ids, entries): (Vec<_>, Vec<_>) = proposals.into_iter().unzip();
        let sizes: Vec<usize> = entries.iter().map(|entry| entry.data.len()).collect();
        let first = self.raw.raft.raft_log.last_index() + 1;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id();
        message.set_entries(entries);
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

    pub(super) fn step(&mut self, mut message: Message) {
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
    pub(super) fn settle(&mut self) {
        self.draw_timeout();
        self.note_role();
    }

    /// The election timeout of the present term and role, whatever the crate has drawn.
    pub(super) fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        if self.drawn_for != (raft.term, raft.state) {
            self.drawn_for = (raft.term, raft.state);
            let least = self.config.election_ticks;
            self.timeout = least + self.random.below(least as u64) as usize;
        }
        raft.set_randomized_election_timeout(self.timeout);
    }

    pub(super) fn halt(&mut self, halt: Halt) {
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

    pub(super) fn run(&mut self) {
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

    pub(super) fn process(&mut self, mut ready: Ready) {
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
            let commit = self.raw.raft.raft_log.committed;
            if commit > self.commit_written {
                self.commit_written = commit;
                self.open.operations.push(Operation::Commit(commit));
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
    pub(super) fn may_leave(&self, message: &Message) -> bool {
        if self.writing.is_empty() && self.open.operations.is_empty() {
            return true;
        }
        match message.get_msg_type() {
            MessageType::MsgHeartbeatResponse => message.term == self.durable_term,
            MessageType::MsgReadIndex => true,
            _ => false,
        }
    }

    pub(super) fn send(&mut self, message: Message) {
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
    pub(super) fn close_batch(&mut self) {
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
    pub(super) fn note_role(&mut self) {
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

    pub(super) fn note_established(&mut self) {
        if !self.role.established
            && self.role.state == State::Leader
            && self.role.term == self.applied_term
        {
            self.role.established = true;
            self.output.events.push(Event::Role(self.role));
        }
    }
}
