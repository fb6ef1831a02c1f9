//! Every choice of a run, from its seed.

use cluster_api::IdSource;

pub(super) struct Dice(IdSource);

impl Dice {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(IdSource::seeded(seed))
    }

    /// Below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn per_mille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() {
            None
        } else {
            let at = self.below(from.len() as u64);
            from.get(at as usize)
        }
    }

    pub(super) fn seed(&mut self) -> u64 {
        self.0.bits()
    }

    pub(super) fn id(&mut self) -> String {
        self.0.id()
    }
}
