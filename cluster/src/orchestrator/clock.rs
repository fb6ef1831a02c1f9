//! Waiting for a while that began at a time found in the store. Such times were written by some leader's wall clock,
//! which may differ from ours, so the wall clock is asked once, when a wait is first seen, and never believed to be off
//! by more than the wait is long; from then on the monotonic clock decides. A wrong clock can make a wait last up to
//! twice as long after a change of leaders, never for ever.

use std::collections::BTreeMap;

use cluster_api::{Now, Time, Timestamp};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    /// A replacement's delay.
    RestartDelay,
    /// The end of the task that is being replaced.
    OldTaskStops,
    /// The pause after a slot was updated.
    UpdateDelay,
    /// The time in which a failure is the rollout's.
    Monitor,
    /// A place for the new task of a rollout.
    Placement,
    /// The same, before it is worth telling.
    Patience,
}

/// One wait: what for, whose, since when, how many milliseconds.
type Key = (Wait, String, Timestamp, u64);

/// The waits of one service: when each ends.
pub(super) type Waits = BTreeMap<Key, Time>;

/// The clock during one decision.
#[derive(Debug)]
pub(super) struct Clock {
    now: Now,
    seen: Waits,
    asked: Waits,
    wake_at: Option<Time>,
}

impl Clock {
    /// `seen`: what [`Clock::into_waits`] gave after the last decision about the same service.
    pub(super) const fn new(now: Now, seen: Waits) -> Self {
        Self {
            now,
            seen,
            asked: Waits::new(),
            wake_at: None,
        }
    }

    pub(super) const fn wall(&self) -> Timestamp {
        self.now.wall
    }

    /// Whether `total_ms` have passed since `since`. If not, the decision is to be made again when they have.
    pub(super) fn has_passed(
        &mut self,
        wait: Wait,
        subject: &str,
        since: Timestamp,
        total_ms: u64,
    ) -> bool {
        if total_ms == 0 {
            return true;
        }
        let key = (wait, subject.to_owned(), since, total_ms);
        let left_ms = total_ms.saturating_sub(self.now.wall.millis_since(since));
        let end = self
            .seen
            .get(&key)
            .copied()
            .unwrap_or_else(|| self.now.mono.after(left_ms));
        self.asked.insert(key, end);
        if end <= self.now.mono {
            return true;
        }
        self.wake_at = Some(self.wake_at.map_or(end, |other| other.min(end)));
        false
    }

    /// When to decide again though nothing happened, and what to begin with then.
    pub(super) fn into_waits(self) -> (Option<Time>, Waits) {
        (self.wake_at, self.asked)
    }
}

/// Nanoseconds of a spec as milliseconds; less than nothing is nothing.
pub(super) fn millis(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0).div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use cluster_api::{Now, Time, Timestamp};

    use super::{Clock, Wait, Waits};

    const fn at(mono: u64, wall_seconds: i64) -> Now {
        Now {
            mono: Time(mono),
            wall: Timestamp(wall_seconds * 1_000_000_000),
        }
    }

    fn ask(now: Now, waits: Waits) -> (bool, Option<Time>, Waits) {
        let mut clock = Clock::new(now, waits);
        let passed = clock.has_passed(Wait::Monitor, "t", Timestamp(100_000_000_000), 5000);
        let (wake_at, waits) = clock.into_waits();
        (passed, wake_at, waits)
    }

    #[test]
    fn what_had_passed_before_is_taken_off() {
        let (passed, wake_at, waits) = ask(at(7, 103), Waits::new());
        assert_eq!((passed, wake_at), (false, Some(Time(2007))));
        assert!(!ask(at(2006, 105), waits.clone()).0);
        assert!(ask(at(2007, 105), waits).0);
    }

    #[test]
    fn a_clock_that_is_behind_makes_nobody_wait_longer_than_once_more() {
        let (passed, wake_at, waits) = ask(at(0, 20), Waits::new());
        assert_eq!((passed, wake_at), (false, Some(Time(5000))));
        assert!(ask(at(5000, 25), waits).0);
    }

    #[test]
    fn a_clock_that_jumps_is_not_noticed() {
        let (_, _, waits) = ask(at(0, 100), Waits::new());
        assert!(!ask(at(1000, 5000), waits).0);
    }
}
