//! When a manager that could not go on (its disk was full) is started again: soon, then less and less often.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; twice as long each time after it.
const FIRST: Duration = Duration::from_secs(2);
/// The longest one.
const LAST: Duration = Duration::from_secs(60);

/// Of one node.
#[derive(Debug, Default)]
pub(super) struct Resume {
    at: Option<Instant>,
    /// When it was last started again, and how long that had been put off.
    earlier: Option<(Instant, Duration)>,
}

impl Resume {
    /// It could not go on (once more): how long it is let be.
    pub(super) fn postpone(&mut self, now: Instant) -> Duration {
        let pause = match self.earlier {
            // One that ran for long begins anew.
            Some((at, pause)) if now.duration_since(at) < 2 * LAST => (2 * pause).min(LAST),
            _ => FIRST,
        };
        self.earlier = Some((now + pause, pause));
        self.at = Some(now + pause);
        pause
    }

    /// It was started.
    pub(super) fn done(&mut self) {
        self.at = None;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.at.is_some()
    }

    /// Its time has come; never, if nothing was put off.
    pub(super) async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_started_less_and_less_often() {
        let (mut resume, mut now) = (Resume::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let pause = resume.postpone(now);
            assert!(resume.is_pending());
            now += pause;
            resume.done();
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert!(!resume.is_pending());
        // It ran for a while.
        assert_eq!(resume.postpone(now + 2 * LAST), FIRST);
    }
}
