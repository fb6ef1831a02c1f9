//! What may come in. The raft crate trusts its messages: many a message that no member would send makes it panic. Members
//! are known to each other, but may be broken, restored from an old copy of their disk, or of another version.

use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_ID, Raft, StateRole};

use super::memory::MemoryLog;
use super::output::Halt;

/// Terms and indices are below this.
const LARGEST: u64 = 1 << 60;

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Makes no sense, or is too old to.
    Drop,
    /// Shows that this node's state is damaged: to go on would endanger what was acknowledged.
    Halt(Halt),
}

/// Judges a message, and mends those whose stale parts would lead the algorithm astray.
pub(super) fn judge(raft: &Raft<MemoryLog>, message: &mut Message) -> Verdict {
    // No group lives to see these; sums of them overflow.
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.reject_hint,
    ];
    if numbers.iter().any(|number| *number > LARGEST) {
        return Verdict::Drop;
    }
    let last = raft.raft_log.last_index();
    let current = message.term >= raft.term;
    let sensible = match message.get_msg_type() {
        // Only what is before the first entry has term 0; of an entry that is not there the crate says so, too.
        MessageType::MsgAppend if (message.index == 0) != (message.log_term == 0) => false,
        MessageType::MsgAppend => {
            if current
                && message.index == raft.raft_log.committed
                && raft.raft_log.term(message.index) != Ok(message.log_term)
            {
                return Verdict::Halt(Halt::Contradiction {
                    index: message.index,
                    from: message.from,
                });
            }
            message.term != 0 && consecutive(message)
        }
        MessageType::MsgHeartbeat => {
            // The leader never says more than what this node has acknowledged to it.
            if current && message.commit > last {
                return Verdict::Halt(Halt::LogLost {
                    acknowledged: message.commit,
                    last,
                });
            }
            message.term != 0
        }
        MessageType::MsgAppendResponse => {
            if message.reject {
                clamp_rejection(raft, message)
            } else {
                message.term != 0 && (message.term != raft.term || message.index <= last)
            }
        }
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => message.term != 0,
        MessageType::MsgTimeoutNow => {
            message.term == raft.term && message.from == raft.leader_id && may_campaign(raft)
        }
        MessageType::MsgReadIndex => message.entries.len() == 1,
        MessageType::MsgReadIndexResp => {
            message.term != 0 && message.entries.len() == 1 && raft.state == StateRole::Follower
        }
        // Proposals are not forwarded here, snapshots come in pieces, and the rest a node says to itself only.
        _ => false,
    };
    if sensible {
        Verdict::Take
    } else {
        Verdict::Drop
    }
}

/// Whether time may pass for a member that does not lead, and could make it stand for election. A lone voter elects itself on
/// the spot, and the crate insists that nothing of its log is on its way to disk then; and it looks at what is not applied,
/// which is gone while a snapshot is on its way there.
pub(super) fn may_campaign(raft: &Raft<MemoryLog>) -> bool {
    let log = &raft.raft_log;
    let restoring = log.applied + 1 < log.first_index();
    let alone = raft.prs().is_singleton();
    raft.state == StateRole::Leader || !restoring && (!alone || log.persisted == log.last_index())
}

fn consecutive(message: &Message) -> bool {
    let mut index = message.index;
    let mut term = message.log_term;
    message.entries.iter().all(|entry| {
        let follows = index.checked_add(1) == Some(entry.index)
            && (term..=message.term).contains(&entry.term);
        (index, term) = (entry.index, entry.term);
        follows
    })
}

/// A late rejection must not make the leader forget what the follower has acknowledged since: raft 0.7 would probe below
/// that, where its log may be compacted already (fixed after 0.7, <https://github.com/tikv/raft-rs/pull/557>).
fn clamp_rejection(raft: &Raft<MemoryLog>, message: &mut Message) -> bool {
    if message.term == 0 || message.request_snapshot != 0 {
        return false;
    }
    if raft.state != StateRole::Leader || message.term != raft.term {
        return true;
    }
    let Some(progress) = raft.prs().get(message.from) else {
        return false;
    };
    if message.index <= progress.matched {
        return false;
    }
    let probe = if message.log_term > 0 && message.reject_hint <= raft.raft_log.last_index() {
        raft.raft_log
            .find_conflict_by_term(message.reject_hint, message.log_term)
            .0
    } else {
        message.reject_hint
    };
    if probe < progress.matched {
        message.reject_hint = progress.matched;
        message.log_term = 0;
    }
    true
}

/// The leader of the present term, if known.
pub(super) fn leader(raft: &Raft<MemoryLog>) -> Option<u64> {
    (raft.leader_id != INVALID_ID).then_some(raft.leader_id)
}
