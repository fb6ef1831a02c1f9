//! When the engine starts a container again by itself, and after what delay.
//!
//! Pure. The rules are moby `daemon/internal/restartmanager/restartmanager.go`: the delay doubles from 100 ms to one
//! minute and starts over after ten seconds of uptime; `on-failure:N` gives up after N restarts in a row;
//! `unless-stopped` and `always` differ only when the engine itself starts.

use std::time::Duration;

use agent_api::RestartPolicy;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run at least this long counts as a success: the delay starts over.
const STABLE_RUN: Duration = Duration::from_secs(10);

/// The kinds of policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    No,
    Always,
    UnlessStopped,
    /// At most so many times in a row; 0 is without limit.
    OnFailure(u32),
}

impl Policy {
    /// Reads a policy that was validated when the container was created; anything else means never.
    pub(crate) fn of(policy: &RestartPolicy) -> Self {
        match policy.name.as_str() {
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                Self::OnFailure(u32::try_from(policy.maximum_retry_count).unwrap_or(u32::MAX))
            }
            _ => Self::No,
        }
    }

    /// Whether a container that exited by itself starts again. `restarts` counts those in a row.
    pub(crate) fn restarts(self, exit_code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(limit) => exit_code != 0 && (limit == 0 || restarts < limit),
        }
    }

    /// Whether a container that does not run is to be started when the engine starts. `was_alive`: it ran when the
    /// engine last saw it.
    pub(crate) fn starts_with_engine(
        self,
        was_alive: bool,
        stopped_by_user: bool,
        exit_code: i32,
        restarts: u32,
    ) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_user,
            Self::OnFailure(_) => {
                (was_alive || !stopped_by_user) && self.restarts(exit_code, restarts)
            }
        }
    }
}

/// The growing delay between restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The delay before the next restart, after a run of this length.
    pub(crate) fn next(&mut self, uptime: Duration) -> Duration {
        let delay = match self.last {
            Some(last) if uptime < STABLE_RUN => (last * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.last = Some(delay);
        delay
    }

    /// Forgets earlier failures: somebody started the container by hand.
    pub(crate) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_minute_and_start_over_after_a_stable_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        assert_eq!(backoff.next(STABLE_RUN), FIRST_DELAY);
        assert_eq!(backoff.next(short), 2 * FIRST_DELAY);
        backoff.reset();
        assert_eq!(backoff.next(short), FIRST_DELAY);
    }

    #[test]
    fn policies_are_dockers() {
        let policy = |name: &str, limit| {
            Policy::of(&RestartPolicy {
                name: name.into(),
                maximum_retry_count: limit,
            })
        };
        for (name, limit, exit_code, restarts, expected) in [
            ("", 0, 1, 0, false),
            ("no", 0, 1, 0, false),
            ("always", 0, 0, 99, true),
            ("unless-stopped", 0, 0, 99, true),
            ("on-failure", 0, 0, 0, false),
            ("on-failure", 0, 1, 99, true),
            ("on-failure", 3, 1, 2, true),
            ("on-failure", 3, 1, 3, false),
        ] {
            assert_eq!(
                policy(name, limit).restarts(exit_code, restarts),
                expected,
                "{name}:{limit}"
            );
        }
    }

    #[test]
    fn only_unless_stopped_remembers_a_stop_by_hand() {
        assert!(Policy::Always.starts_with_engine(false, true, 0, 0));
        assert!(!Policy::UnlessStopped.starts_with_engine(false, true, 0, 0));
        assert!(Policy::UnlessStopped.starts_with_engine(true, false, 137, 0));
        assert!(Policy::OnFailure(0).starts_with_engine(true, false, 255, 0));
        assert!(!Policy::OnFailure(0).starts_with_engine(false, true, 137, 0));
        assert!(!Policy::No.starts_with_engine(true, false, 1, 0));
    }
}
