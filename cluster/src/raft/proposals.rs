//! Proposals of this node that are not resolved: waiting to enter the log together, or in it and not yet committed.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;

use super::output::ProposalId;

#[derive(Default)]
pub(super) struct Proposals {
    /// Not yet in the log: all that arrive between two looks enter it at once, and share one write.
    waiting: Vec<(ProposalId, Entry)>,
    /// In the log, by index; the term tells them from what another leader may have put there.
    in_log: BTreeMap<u64, Placed>,
    bytes: usize,
}

struct Placed {
    term: u64,
    id: ProposalId,
    bytes: usize,
}

impl Proposals {
    pub(super) fn wait(&mut self, id: ProposalId, entry: Entry) {
        self.bytes += entry.data.len();
        self.waiting.push((id, entry));
    }

    /// Those waiting; each is either [placed](Self::place) or dropped by the caller.
    pub(super) fn take_waiting(&mut self) -> Vec<(ProposalId, Entry)> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes -= waiting
            .iter()
            .map(|(_, entry)| entry.data.len())
            .sum::<usize>();
        waiting
    }

    pub(super) fn place(&mut self, id: ProposalId, index: u64, term: u64, bytes: usize) {
        self.bytes += bytes;
        self.in_log.insert(index, Placed { term, id, bytes });
    }

    /// The proposal an entry was made of. What waited for that index in another term is lost for certain.
    pub(super) fn committed(&mut self, index: u64, term: u64) -> Option<ProposalId> {
        let placed = self.in_log.remove(&index)?;
        self.bytes -= placed.bytes;
        (placed.term == term).then_some(placed.id)
    }

    /// Leadership of that term is over: nobody here will see how they end.
    pub(super) fn abandon(&mut self) -> Vec<ProposalId> {
        self.bytes -= self
            .in_log
            .values()
            .map(|placed| placed.bytes)
            .sum::<usize>();
        std::mem::take(&mut self.in_log)
            .into_values()
            .map(|placed| placed.id)
            .collect()
    }

    /// In flight.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
