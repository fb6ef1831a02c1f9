//! The log as the raft algorithm reads it: in memory, from the last compaction on. Durability is another's business: what
//! is here may be ahead of the disk, never behind it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, Snapshot as RaftSnapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::membership::{Membership, RaftId};
use super::output::Snapshot;
use super::write::Recovered;

pub(super) struct MemoryLog {
    /// What a node starts with; not kept up to date.
    initial: RaftState,
    /// Index and term of the entry before the first.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// A snapshot made lately, to be sent to whom the log does not reach any more.
    pub(super) offer: Option<Arc<Snapshot>>,
    /// Somebody needs a snapshot and none fits.
    wanted: Cell<bool>,
}

impl MemoryLog {
    pub(super) fn new(recovered: &Recovered) -> Self {
        let snapshot = recovered.snapshot.as_deref();
        let point = snapshot.map_or((0, 0), |snapshot| (snapshot.index, snapshot.term));
        let mut entries: VecDeque<Entry> = recovered.entries.iter().cloned().collect();
        let base = match entries.front() {
            // The term before it is known from the snapshot or not at all; in the latter case it is the base itself.
            Some(first) if first.index != point.0 + 1 => {
                let base = (first.index, first.term);
                entries.pop_front();
                base
            }
            _ => point,
        };
        let mut state = recovered.state.clone();
        let last = entries.back().map_or(base.0, |entry| entry.index);
        state.commit = state.commit.clamp(point.0, last);
        let conf_state = snapshot.map_or_else(ConfState::default, |snapshot| {
            conf_state(&snapshot.membership)
        });
        Self {
            initial: RaftState::new(state, conf_state),
            base,
            entries,
            offer: None,
            wanted: Cell::new(false),
        }
    }

    /// Adds entries; where an index is there already, it and all behind it are replaced.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        debug_assert!(
            first.index > self.base.0 && first.index <= self.last() + 1,
            "entries follow what is there"
        );
        self.entries
            .truncate((first.index - self.base.0 - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// The leader's snapshot replaces everything.
    pub(super) fn restore(&mut self, index: u64, term: u64) {
        self.base = (index, term);
        self.entries.clear();
        self.offer = None;
    }

    /// Forgets entries below `keep_from`.
    pub(super) fn compact(&mut self, keep_from: u64) {
        while self.base.0 + 1 < keep_from {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.base = (entry.index, entry.term);
        }
        if self
            .offer
            .as_ref()
            .is_some_and(|offer| offer.index < self.base.0)
        {
            self.offer = None;
        }
    }

    /// Where to keep from, so that at most `entries` and about `bytes` remain below `index`.
    pub(super) fn keep_from(&self, index: u64, entries: u64, bytes: usize) -> u64 {
        let mut from = index + 1;
        let mut size = 0;
        while from > self.base.0 + 1 && index + 1 - from < entries {
            let entry = &self.entries[(from - 1 - self.base.0 - 1) as usize];
            size += entry.data.len();
            if size > bytes {
                break;
            }
            from -= 1;
        }
        from
    }

    /// Whether a fresh snapshot was missed since it was asked last.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    pub(super) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.entries.back().map_or(self.base.0, |entry| entry.index)
    }
}

pub(super) fn conf_state(membership: &Membership) -> ConfState {
    ConfState {
        voters: membership.voters().collect(),
        learners: membership.learners().collect(),
        ..ConfState::default()
    }
}

/// The snapshot as the algorithm sees it: where, and who; the data travel beside it.
pub(super) fn envelope(snapshot: &Snapshot) -> RaftSnapshot {
    let mut out = RaftSnapshot::default();
    let metadata = out.mut_metadata();
    metadata.index = snapshot.index;
    metadata.term = snapshot.term;
    metadata.set_conf_state(conf_state(&snapshot.membership));
    out
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut size: u64 = 0;
        let range = (low - self.base.0 - 1) as usize..(high - self.base.0 - 1) as usize;
        let mut out = Vec::new();
        for entry in self.entries.range(range) {
            // The fixed part of an entry on the wire is at most this.
            size += entry.data.len() as u64 + entry.context.len() as u64 + 40;
            if size > max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entries
            .get((index - self.base.0 - 1) as usize)
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: RaftId) -> Result<RaftSnapshot> {
        match &self.offer {
            // One made before the receiver was a member would tell it that it is none.
            Some(offer)
                if offer.index >= request_index && offer.membership.members.contains_key(&to) =>
            {
                Ok(envelope(offer))
            }
            _ => {
                self.wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
