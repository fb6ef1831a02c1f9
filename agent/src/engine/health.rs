//! Health checks: how probes follow each other, what their results mean, and the task that runs them.
//!
//! ```text
//!           first probe at once                     success
//! starting ─────────────────────▶ probes every ──────────────────▶ healthy ◀──┐
//!    │                            start interval                      │       │ success
//!    │  retries failures in a row (those in the start period          ▼       │
//!    └──────────── do not count) ───────────────────────────────▶ unhealthy ──┘
//! ```
//!
//! The first probe runs at once and, until the first success, probes follow quickly, so that whoever waits for
//! `healthy` does not wait for a whole interval. Docker would not have probed before the first interval was over, so
//! failures of these early probes are forgiven like those of the start period. The regular probes follow the user's
//! interval, counted from the end of the last one. Rules: moby `daemon/health.go`.

use std::sync::Arc;
use std::time::Duration;

use agent_api::{Health, HealthConfig, HealthStatus, HealthcheckResult};
use jiff::Timestamp;

/// Results that are remembered.
const LOG_ENTRIES: usize = 5;
/// Bytes of a probe's output that are kept.
pub(crate) const OUTPUT_MAX: usize = 4096;
/// Delay between probes while nothing is known yet; doubles up to the start interval.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A health check with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What runs in the container.
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl Check {
    /// The check of a container; `None` when it has none or `NONE`. `shell` runs `CMD-SHELL` (the image's `SHELL`).
    pub(crate) fn of(config: Option<&HealthConfig>, shell: Option<&[String]>) -> Option<Self> {
        let config = config?;
        let command = match config.test.as_deref()? {
            [kind, command @ ..] if kind == "CMD" && !command.is_empty() => command.to_vec(),
            [kind, line] if kind == "CMD-SHELL" => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
                shell.iter().chain([line]).cloned().collect()
            }
            _ => return None,
        };
        let or = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
            Ok(given) if given > 0 => Duration::from_nanos(given),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: or(config.interval, 30),
            timeout: or(config.timeout, 30),
            start_period: or(config.start_period, 0),
            start_interval: or(config.start_interval, 5),
            retries: u32::try_from(config.retries)
                .ok()
                .filter(|count| *count > 0)
                .unwrap_or(3),
        })
    }

    /// How long to wait after a probe ended. `probes` counts those so far.
    pub(crate) fn pause(&self, status: HealthStatus, probes: u32, uptime: Duration) -> Duration {
        if status != HealthStatus::Starting {
            return self.interval;
        }
        match uptime < self.grace() {
            true => {
                let quick = FIRST_PAUSE.saturating_mul(1 << probes.min(16));
                quick.min(self.start_interval).min(self.interval)
            }
            // Failures count now: quick probing would use them up before the service is ready.
            false => self.interval,
        }
    }

    /// The time after the start in which failures do not count.
    fn grace(&self) -> Duration {
        self.start_period.max(self.interval)
    }
}

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeResult {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// 0 healthy; -1 when it could not run or ran out of time.
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

/// The health of a container that has just started.
pub(crate) fn starting() -> Health {
    Health {
        status: HealthStatus::Starting,
        failing_streak: 0,
        log: Vec::new(),
    }
}

/// Enters a result. The second value is the new status if it changed.
pub(crate) fn enter(
    before: &Health,
    check: &Check,
    result: ProbeResult,
    started_at: Timestamp,
) -> (Health, Option<HealthStatus>) {
    let mut health = before.clone();
    let success = result.exit_code == 0;
    let uptime: Duration = result
        .start
        .duration_since(started_at)
        .try_into()
        .unwrap_or_default();
    if success {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else {
        let forgiven = health.status == HealthStatus::Starting && uptime < check.grace();
        if !forgiven {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= check.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
    }
    if health.log.len() >= LOG_ENTRIES {
        health.log.drain(..=health.log.len() - LOG_ENTRIES);
    }
    health.log.push(HealthcheckResult {
        start: result.start.to_string(),
        end: result.end.to_string(),
        exit_code: result.exit_code,
        output: result.output,
    });
    let changed = (health.status != before.status).then_some(health.status);
    (health, changed)
}

/// Cuts a probe's output to what is kept.
pub(crate) fn clip(output: &[u8], truncated: bool) -> String {
    let text = String::from_utf8_lossy(&output[..output.len().min(OUTPUT_MAX)]).into_owned();
    if truncated || output.len() > OUTPUT_MAX {
        text + "..."
    } else {
        text
    }
}

/// A duration as Go writes it: `90s` is `1m30s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    if minutes == 0 {
        return format!("{duration:?}");
    }
    let seconds = (duration - Duration::from_secs(60 * minutes)).as_secs_f64();
    match minutes / 60 {
        0 => format!("{minutes}m{seconds}s"),
        hours => format!("{hours}h{}m{seconds}s", minutes % 60),
    }
}

/// What the monitor needs from the rest of the engine: a seam at the edge to processes.
pub(crate) trait Prober: Send + Sync + 'static {
    /// Runs the command in the container; ends it after the timeout.
    fn probe(&self, check: &Check) -> impl Future<Output = ProbeResult> + Send;
    /// Enters a result; the new status, or `None` when the container's run is over.
    fn report(&self, result: ProbeResult) -> impl Future<Output = Option<HealthStatus>> + Send;
}

/// Runs probes until the run of the container is over. Dropping the future stops it.
pub(crate) async fn monitor<P: Prober>(prober: Arc<P>, check: Check, started_at: Timestamp) {
    let mut probes = 0;
    loop {
        let result = prober.probe(&check).await;
        let ended = result.end;
        let Some(status) = prober.report(result).await else {
            return;
        };
        let uptime = ended
            .duration_since(started_at)
            .try_into()
            .unwrap_or_default();
        tokio::time::sleep(check.pause(status, probes, uptime)).await;
        probes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64) -> Check {
        Check {
            command: vec!["probe".into()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::from_secs(5),
            retries: 3,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    fn result(second: i64, exit_code: i32) -> ProbeResult {
        ProbeResult {
            start: at(second),
            end: at(second),
            exit_code,
            output: String::new(),
        }
    }

    /// Runs results through and writes down status and streak after each.
    fn story(check: &Check, results: &[(i64, i32)]) -> Vec<(HealthStatus, u32)> {
        let mut health = starting();
        let mut story = Vec::new();
        for (second, code) in results {
            let (next, changed) = enter(&health, check, result(*second, *code), at(0));
            assert_eq!(changed.is_some(), next.status != health.status);
            story.push((next.status, next.failing_streak));
            health = next;
        }
        story
    }

    #[test]
    fn three_failures_in_a_row_are_unhealthy_and_one_success_heals() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        assert_eq!(
            story(
                &check(0),
                &[
                    (30, 1),
                    (31, 1),
                    (32, 0),
                    (33, 1),
                    (34, 1),
                    (35, 1),
                    (36, 0)
                ]
            ),
            [
                (Starting, 1),
                (Starting, 2),
                (Healthy, 0),
                (Healthy, 1),
                (Healthy, 2),
                (Unhealthy, 3),
                (Healthy, 0)
            ]
        );
    }

    #[test]
    fn failures_in_the_start_period_and_the_first_interval_do_not_count() {
        use HealthStatus::{Starting, Unhealthy};
        for (start_period, counted_from) in [(0, 30), (10, 30), (60, 60)] {
            let times = [
                0,
                counted_from - 1,
                counted_from,
                counted_from + 1,
                counted_from + 2,
            ];
            assert_eq!(
                story(&check(start_period), &times.map(|second| (second, 1))),
                [
                    (Starting, 0),
                    (Starting, 0),
                    (Starting, 1),
                    (Starting, 2),
                    (Unhealthy, 3)
                ]
            );
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in [
            (20, "20ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (90_500, "1m30.5s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn only_the_last_five_results_are_kept() {
        let mut health = starting();
        for second in 0..9 {
            health = enter(&health, &check(0), result(second, 0), at(0)).0;
        }
        assert_eq!(health.log.len(), LOG_ENTRIES);
        assert_eq!(health.log[0].start, at(4).to_string());
    }

    #[test]
    fn probes_are_quick_in_the_start_period_and_then_regular() {
        let check = check(60);
        let pauses: Vec<u128> = (0..9)
            .map(|probes| {
                check
                    .pause(HealthStatus::Starting, probes, Duration::ZERO)
                    .as_millis()
            })
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let late = Duration::from_secs(61);
        assert_eq!(check.pause(HealthStatus::Starting, 0, late), check.interval);
        assert_eq!(
            check.pause(HealthStatus::Healthy, 0, Duration::ZERO),
            check.interval
        );
    }

    #[test]
    fn checks_are_read_with_dockers_defaults() {
        let of = |words: &[&str]| {
            let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
            Check::of(
                Some(&HealthConfig {
                    test,
                    ..HealthConfig::default()
                }),
                None,
            )
        };
        assert_eq!(of(&["NONE"]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(Check::of(None, None), None);
        assert_eq!(of(&["CMD", "a", "b"]).unwrap().command, ["a", "b"]);
        let shell = of(&["CMD-SHELL", "a | b"]).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "a | b"]);
        assert_eq!(
            (
                shell.interval.as_secs(),
                shell.timeout.as_secs(),
                shell.retries
            ),
            (30, 30, 3)
        );
        assert_eq!(
            (shell.start_period.as_secs(), shell.start_interval.as_secs()),
            (0, 5)
        );
    }

    #[test]
    fn long_output_is_cut() {
        assert_eq!(clip(b"ok\n", false), "ok\n");
        let long = clip(&vec![b'x'; OUTPUT_MAX + 1], false);
        assert_eq!(long.len(), OUTPUT_MAX + 3);
        assert!(long.ends_with("..."));
    }
}
