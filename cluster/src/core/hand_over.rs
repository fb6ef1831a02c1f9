//! Handing leadership to another manager so that nobody who asks meanwhile hears of it: what was proposed is answered
//! first, and what comes meanwhile waits for whoever leads afterwards.
//!
//! ```text
//!  draining ──nothing is under way, or too long──▶ transferring ──role──▶ over: what was held goes to the successor
//!     │ no successor                                    │ given up by Raft
//!     └─────────▶ over: what was held is decided ◀──────┘
//! ```

use cluster_api::Now;

use super::{Answer, Command, Core, RequestId};

/// A hand-over under way.
#[derive(Debug)]
pub(super) struct HandOver {
    /// Who asked for it; the membership loop if nobody.
    asker: Option<RequestId>,
    phase: Phase,
    /// What came since it began.
    held: Vec<(RequestId, Command)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing new is proposed, for this many ticks at most.
    Draining { ticks: usize },
    /// The successor is asked to lead.
    Transferring,
}

impl HandOver {
    pub(super) fn hold(&mut self, id: RequestId, command: Command) {
        self.held.push((id, command));
    }

    /// Requests that wait for its end.
    pub(super) fn waiting(&self) -> usize {
        self.held.len() + usize::from(self.asker.is_some())
    }

    /// Those requests.
    pub(super) fn into_waiting(self) -> impl Iterator<Item = RequestId> {
        let held = self.held.into_iter().map(|(id, _)| id);
        self.asker.into_iter().chain(held)
    }

    pub(super) fn tick(&mut self) {
        if let Phase::Draining { ticks } = &mut self.phase {
            *ticks = ticks.saturating_sub(1);
        }
    }
}

impl Core {
    /// Begins to hand over, unless that is under way.
    pub(super) fn begin_hand_over(&mut self, asker: Option<RequestId>) {
        let phase = Phase::Draining {
            ticks: self.election_ticks,
        };
        self.hand_over.get_or_insert(HandOver {
            asker,
            phase,
            held: Vec::new(),
        });
    }

    /// Its next step, when that is due. Whether Raft has something to do.
    pub(super) fn advance_hand_over(&mut self, now: Now) -> bool {
        let Some(hand_over) = &mut self.hand_over else {
            return false;
        };
        if self.leadership.is_none() {
            let waiting = self.hand_over.take().into_iter();
            for id in waiting.flat_map(HandOver::into_waiting) {
                self.not_leader(id);
            }
            return false;
        }
        // Reads of the state can be answered by any manager.
        let under_way = !self.proposals.is_empty()
            || self
                .reads
                .values()
                .any(|waiting| waiting.result != Ok(Answer::Read));
        match hand_over.phase {
            Phase::Draining { ticks } if ticks > 0 && under_way => false,
            Phase::Draining { .. } => match self.raft.transfer_leadership(None) {
                Ok(to) => {
                    hand_over.phase = Phase::Transferring;
                    if let Some(asker) = hand_over.asker.take() {
                        let answer = Ok(Answer::SteppingDown { to });
                        self.output.answers.push((asker, answer));
                    }
                    true
                }
                Err(refused) => {
                    tracing::warn!(reason = %refused, "leadership cannot be handed over now");
                    if let Some(asker) = hand_over.asker.take() {
                        let failure = self.failure(refused);
                        self.answer(asker, Err(failure));
                    }
                    self.go_on_leading(now)
                }
            },
            Phase::Transferring if self.raft.is_handing_over() => false,
            Phase::Transferring => self.go_on_leading(now),
        }
    }

    /// It came to nothing.
    fn go_on_leading(&mut self, now: Now) -> bool {
        let held = self.hand_over.take().map(|hand_over| hand_over.held);
        for (id, command) in held.into_iter().flatten() {
            self.request(id, command, now);
        }
        true
    }
}
