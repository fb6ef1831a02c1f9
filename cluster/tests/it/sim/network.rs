//! Links between hosts, each direction for itself.

use std::collections::BTreeSet;

use super::dice::Dice;

#[derive(Default)]
pub(super) struct Network {
    /// From, to.
    blocked: BTreeSet<(usize, usize)>,
    /// Of a thousand datagrams, how many are lost, and how many arrive twice.
    pub(super) loss: u64,
    pub(super) duplicates: u64,
    /// A tenth of everything takes up to this long.
    pub(super) slow_ms: u64,
}

impl Network {
    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        from == to || !self.blocked.contains(&(from, to))
    }

    pub(super) fn block(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked.insert((from, to));
        }
    }

    pub(super) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn delay(&self, dice: &mut Dice) -> u64 {
        if self.slow_ms > 1 && dice.one_in(10) {
            dice.between(1, self.slow_ms)
        } else {
            dice.between(0, 3)
        }
    }
}
