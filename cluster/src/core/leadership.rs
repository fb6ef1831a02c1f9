//! What a manager runs while it leads: the control loops and the dispatcher, from the moment its state is current until
//! leadership is lost. Nothing of it survives; a successor finds all it needs in the store.
//!
//! Each loop has at most one transaction under way, so it decides on a state that contains its own last decision. The
//! loops do not wait for each other.

use cluster_api::{IdSource, Now, Time};

use super::membership::MembershipLoop;
use crate::allocator::Allocator;
use crate::dispatcher::Dispatcher;
use crate::orchestrator;
use crate::scheduler::Scheduler;
use crate::store::{Store, StoreEvent, Transaction};
use crate::{Context, ControlLoop};

/// How long a loop waits before it proposes again what the log had no room for, in milliseconds.
const BUSY_RETRY_MS: u64 = 20;

pub(super) struct Leadership {
    loops: Vec<Box<dyn ControlLoop + Send>>,
    pub(super) dispatcher: Dispatcher,
    pub(super) membership: MembershipLoop,
    /// One for each of `loops`, then the dispatcher's, then the membership's.
    turns: Vec<Turn>,
}

/// Whether it is a loop's turn.
#[derive(Debug, Default, Clone, Copy)]
struct Turn {
    under_way: bool,
    dirty: bool,
    wake_at: Option<Time>,
}

/// Which loop a transaction is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoopId(usize);

/// How a loop's transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Committed, or found in conflict: the loop sees the result in the store.
    Resolved,
    /// Never entered the log.
    NoRoom,
    /// Never will: the loop is asked again when something has changed.
    TooLarge,
}

impl Leadership {
    /// All loops look at everything.
    pub(super) fn begin(term: u64, context: &mut Context<'_>) -> Self {
        let mut loops = orchestrator::loops();
        loops.push(Box::new(Allocator::new()));
        loops.push(Box::new(Scheduler::new()));
        let turn = Turn {
            dirty: true,
            ..Turn::default()
        };
        let turns = vec![turn; loops.len() + 2];
        let mut leadership = Self {
            loops,
            dispatcher: Dispatcher::new(term),
            membership: MembershipLoop::default(),
            turns,
        };
        for number in 0..leadership.turns.len() {
            leadership.control_loop(number).start(context);
        }
        leadership
    }

    pub(super) fn observe(&mut self, event: &StoreEvent) {
        for number in 0..self.turns.len() {
            self.control_loop(number).observe(event);
            self.turns[number].dirty = true;
        }
    }

    /// The dispatcher was told something by an agent.
    pub(super) fn dispatcher_has_news(&mut self) {
        let number = self.loops.len();
        self.turns[number].dirty = true;
    }

    /// The group of managers, or who of them can be reached, has changed.
    pub(super) fn membership_has_news(&mut self) {
        let number = self.loops.len() + 1;
        self.turns[number].dirty = true;
    }

    /// The next loop from `from` on whose turn it is and that wants to change something.
    pub(super) fn next(
        &mut self,
        from: usize,
        store: &Store,
        now: Now,
        ids: &mut IdSource,
    ) -> Option<(LoopId, Transaction)> {
        for number in from..self.turns.len() {
            let turn = &mut self.turns[number];
            let due = turn.dirty || turn.wake_at.is_some_and(|at| at <= now.mono);
            if turn.under_way || !due {
                continue;
            }
            *turn = Turn::default();
            let mut context = Context { store, now, ids };
            let step = self.control_loop(number).step(&mut context);
            let turn = &mut self.turns[number];
            turn.wake_at = step.wake_at;
            if let Some(transaction) = step.transaction.and_then(Transaction::non_empty) {
                turn.under_way = true;
                return Some((LoopId(number), transaction));
            }
        }
        None
    }

    /// A loop's transaction has ended.
    pub(super) fn ended(&mut self, LoopId(number): LoopId, outcome: Outcome, now: Now) {
        let turn = &mut self.turns[number];
        turn.under_way = false;
        match outcome {
            Outcome::Resolved => turn.dirty = true,
            Outcome::TooLarge => {}
            Outcome::NoRoom => {
                let retry_at = now.mono.after(BUSY_RETRY_MS);
                turn.wake_at = Some(turn.wake_at.map_or(retry_at, |at| at.min(retry_at)));
            }
        }
    }

    /// When a loop wants to be asked again though nothing happens.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.turns
            .iter()
            .filter(|turn| !turn.under_way)
            .filter_map(|turn| turn.wake_at)
            .min()
    }

    fn control_loop(&mut self, number: usize) -> &mut dyn ControlLoop {
        let loops = self.loops.len();
        if number < loops {
            &mut *self.loops[number]
        } else if number == loops {
            &mut self.dispatcher
        } else {
            &mut self.membership
        }
    }
}

impl LoopId {
    /// The one that is asked after it.
    pub(super) const fn following(self) -> usize {
        self.0 + 1
    }
}
