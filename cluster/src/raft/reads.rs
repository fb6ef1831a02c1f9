//! Consistent reads by `ReadIndex` (Raft thesis 6.4): the leader says how far it has committed and makes sure, by one round
//! of heartbeats, that it still leads; the reader waits until it has applied that far.
//!
//! One round at a time: reads that come while it runs share the next. A round without an answer is asked again.

use super::membership::RaftId;
use super::output::{Event, ReadId, ReadOutcome};

/// Without an answer for this many ticks a round is asked again.
const RETRY_TICKS: u64 = 6;

#[derive(Default)]
pub(super) struct Reads {
    /// Number of the next request; part of what tells requests of all members apart.
    next: u64,
    waiting: Vec<Read>,
    round: Option<Round>,
    /// Answered, but not applied that far.
    answered: Vec<(u64, Vec<Read>)>,
}

struct Read {
    id: ReadId,
    asked_at: u64,
}

struct Round {
    /// The first request of it; an answer to any later one is as good.
    first: u64,
    asked_at: u64,
    reads: Vec<Read>,
}

impl Reads {
    /// `seed` keeps requests of this life apart from those of former ones.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            next: seed >> 1,
            ..Self::default()
        }
    }

    pub(super) fn ask(&mut self, id: ReadId, now: u64) {
        self.waiting.push(Read { id, asked_at: now });
    }

    /// The request to send now, if any.
    pub(super) fn request(&mut self, me: RaftId, now: u64) -> Option<Vec<u8>> {
        match &mut self.round {
            Some(round) if now.saturating_sub(round.asked_at) < RETRY_TICKS => return None,
            Some(round) => round.asked_at = now,
            None if self.waiting.is_empty() => return None,
            None => {
                let reads = std::mem::take(&mut self.waiting);
                self.round = Some(Round {
                    first: self.next,
                    asked_at: now,
                    reads,
                });
            }
        }
        let context = [me.to_le_bytes(), self.next.to_le_bytes()].concat();
        self.next += 1;
        Some(context)
    }

    /// A request was answered.
    pub(super) fn answer(&mut self, me: RaftId, context: &[u8], index: u64) {
        let Some((id, number)) = context.split_first_chunk::<8>() else {
            return;
        };
        let Ok(number) = <[u8; 8]>::try_from(number) else {
            return;
        };
        if u64::from_le_bytes(*id) != me {
            return;
        }
        let number = u64::from_le_bytes(number);
        if let Some(round) = self
            .round
            .take_if(|round| (round.first..self.next).contains(&number))
        {
            self.answered.push((index, round.reads));
        }
    }

    /// Reads that became possible.
    pub(super) fn applied(&mut self, applied: u64, events: &mut Vec<Event>) {
        self.answered.retain_mut(|(index, reads)| {
            if *index > applied {
                return true;
            }
            let outcome = ReadOutcome::Ready { index: *index };
            events.extend(reads.drain(..).map(|read| Event::Read {
                read: read.id,
                outcome,
            }));
            false
        });
    }

    /// Reads nobody answered within `limit` ticks.
    pub(super) fn expire(&mut self, now: u64, limit: u64, events: &mut Vec<Event>) {
        let mut sift = |reads: &mut Vec<Read>| {
            reads.retain(|read| {
                let late = now.saturating_sub(read.asked_at) >= limit;
                if late {
                    events.push(Event::Read {
                        read: read.id,
                        outcome: ReadOutcome::Unavailable,
                    });
                }
                !late
            });
        };
        sift(&mut self.waiting);
        if let Some(round) = &mut self.round {
            sift(&mut round.reads);
        }
        self.answered.iter_mut().for_each(|(_, reads)| sift(reads));
        self.round.take_if(|round| round.reads.is_empty());
        self.answered.retain(|(_, reads)| !reads.is_empty());
    }

    /// Nobody will answer any more.
    pub(super) fn end(&mut self, events: &mut Vec<Event>) {
        self.expire(u64::MAX, 0, events);
    }
}
