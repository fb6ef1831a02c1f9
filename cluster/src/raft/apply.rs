//! Committed entries become events. What is decided here is decided the same on every member: from the entry and the group
//! alone.
//!
//! A change of the group is one entry: the change as JSON in its context, and as the raft crate knows it in its data. The
//! first is what counts; the second is there because the crate counts pending changes by it. The group never enters a
//! joint configuration: an entry that would is of nobody's making here, and passed over. So is the one without data
//! with which the crate leaves a joint configuration, and which must not be mistaken for an empty entry of a new leader.

use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};

use super::membership::{MemberChange, Membership, RaftId, Suffrage};
use super::message::{Body, PeerMessage};
use super::node::Node;
use super::output::{Committed, Event, Halt, MembershipEvent, Unresolved};

/// The entry that proposes a change.
pub(super) fn change_entry(change: &MemberChange, membership: &Membership) -> Entry {
    let mut entry = Entry::default();
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry.data = raft_change(change, membership)
        .write_to_bytes()
        .expect("encoding into memory cannot fail");
    entry.context = serde_json::to_vec(change).expect("numbers and strings are valid JSON");
    entry
}

/// The change in the crate's terms. A new address changes nothing there: the member is made what it is.
fn raft_change(change: &MemberChange, membership: &Membership) -> ConfChangeV2 {
    let kind = match change {
        MemberChange::AddLearner { .. } => ConfChangeType::AddLearnerNode,
        MemberChange::Promote { .. } => ConfChangeType::AddNode,
        MemberChange::Remove { .. } => ConfChangeType::RemoveNode,
        MemberChange::UpdateAddress { id, .. } => unchanged(membership, *id),
    };
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = change.id();
    let mut out = ConfChangeV2::default();
    out.set_changes(vec![single]);
    out
}

fn unchanged(membership: &Membership, id: RaftId) -> ConfChangeType {
    match membership.members.get(&id).map(|member| member.suffrage) {
        Some(Suffrage::Voter) => ConfChangeType::AddNode,
        _ => ConfChangeType::AddLearnerNode,
    }
}

impl Node {
    pub(super) fn apply(&mut self, entry: Entry) {
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

    pub(super) fn forget_removed(&mut self) {
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

    fn apply_data(&mut self, entry: Entry) {
        let Entry {
            index, term, data, ..
        } = entry;
        let proposal = self.proposals.committed(index, term);
        if !data.is_empty() {
            self.output.events.push(Event::Committed(Committed {
                index,
                term,
                proposal,
                data,
            }));
        } else if let Some(proposal) = proposal {
            // The crate makes an empty entry of a change that came while another was pending.
            self.output.events.push(Event::Resolved {
                proposal,
                outcome: Unresolved::Dropped,
            });
        }
    }

    fn apply_change(&mut self, entry: &Entry) {
        let proposal = self.proposals.committed(entry.index, entry.term);
        let Ok(change) = serde_json::from_slice::<MemberChange>(&entry.context) else {
            tracing::warn!(
                index = entry.index,
                "passed over a change of the group that is none"
            );
            return;
        };
        let raft_change = raft_change(&change, &self.membership);
        let outcome = self.membership.apply(&change);
        if outcome.is_ok()
            && let Err(error) = self.raw.apply_conf_change(&raft_change)
        {
            tracing::error!(index = entry.index, ?change, %error, "the algorithm refused a change of the group");
        }
        let (index, term) = (entry.index, entry.term);
        let event = MembershipEvent {
            index,
            term,
            proposal,
            change,
            outcome,
        };
        self.output.events.push(Event::Membership(event));
    }
}
