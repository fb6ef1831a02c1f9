//! Snapshots: when one is made, how a member too far behind gets it, and how this node becomes what one says.
//!
//! A snapshot for another member is made when it is needed, so that it says who is in the group *then*: an old one could
//! tell the receiver that it is no member.

use std::sync::Arc;

use raft::eraftpb::{Message, MessageType};
use raft::{SnapshotStatus, StateRole};

use super::hostile;
use super::membership::RaftId;
use super::memory::envelope;
use super::message::{Body, PeerMessage, SnapshotAck, SnapshotChunk};
use super::node::{Compaction, Node};
use super::output::{Event, Snapshot};
use super::snapshot::{Arrival, Encoded, Received};
use super::write::Operation;

impl Node {
    pub(super) fn want_snapshot(&mut self) {
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

    pub(super) fn receive_chunk(&mut self, from: RaftId, chunk: SnapshotChunk) {
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

    pub(super) fn arrived_at(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Arrived(id) => self.raw.report_snapshot(id, SnapshotStatus::Finish),
            Arrival::Failed(id) => self.raw.report_snapshot(id, SnapshotStatus::Failure),
        }
        self.compaction.used_at = self.now;
    }

    /// The leader's snapshot is durable here: it is the state now.
    pub(super) fn restore(&mut self, snapshot: Arc<Snapshot>) {
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
