//! Bounds and timing of a node.

use super::membership::RaftId;
use super::message::MAX_APPEND;

/// [`Config::max_proposal`] of managers.
pub const MAX_PROPOSAL: usize = 2 << 20;

/// Times are in ticks; a tick is whatever the owner makes it (50 ms in a manager).
#[derive(Debug, Clone)]
pub struct Config {
    /// A leader says that it is there this often.
    pub heartbeat_ticks: usize,
    /// Without a leader for this long (up to twice, at random) a follower asks for votes; without a majority for this
    /// long a leader steps down.
    pub election_ticks: usize,
    /// Seeds the random part of the above.
    pub seed: u64,
    /// A snapshot is wanted after this many entries.
    pub snapshot_entries: u64,
    /// A snapshot is wanted after this many bytes of entries.
    pub snapshot_bytes: usize,
    /// Entries kept behind a snapshot, for followers a little behind.
    pub keep_entries: u64,
    /// And at most about this many bytes of them.
    pub keep_bytes: usize,
    /// One proposal is not larger.
    pub max_proposal: usize,
    /// Proposals in flight are not larger in sum.
    pub max_inflight: usize,
    /// A snapshot from the leader is not larger.
    pub max_snapshot: usize,
    /// A read not answered for this long is unavailable.
    pub read_ticks: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_ticks: 2,
            election_ticks: 10,
            seed: 0,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 500,
            keep_bytes: 8 << 20,
            max_proposal: MAX_PROPOSAL,
            max_inflight: 32 << 20,
            max_snapshot: 1 << 30,
            read_ticks: 100,
        }
    }
}

impl Config {
    pub(super) fn raft(&self, id: RaftId, applied: u64) -> raft::Config {
        raft::Config {
            id,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: MAX_APPEND as u64,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: 16 << 20,
            ..raft::Config::default()
        }
    }
}
