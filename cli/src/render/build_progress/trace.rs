//! What is known of every step of a build. Source: BuildKit `util/progress/progressui/display.go:trace`.

use super::screen::Screen;
use agent_api::build::{ProgressVertex, SolveStatus, VertexStatus};
use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// Lines of a step's output that are shown again when it fails.
const TAIL: usize = 10;

/// All steps, by digest, in the order they were heard of.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) steps: IndexMap<String, Step>,
    /// Digests of the steps that have started, in that order.
    pub(super) started: Vec<String>,
    /// Steps with news that have not been printed.
    pub(super) updates: BTreeSet<String>,
    /// When the first step started, by this side's clock.
    pub(super) begun: Option<Timestamp>,
    /// What this side's clock is ahead of the daemon's, seconds.
    ahead: f64,
}

/// One step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) vertex: ProgressVertex,
    pub(super) statuses: IndexMap<String, VertexStatus>,
    pub(super) status_updates: BTreeSet<String>,
    pub(super) warnings: Vec<String>,
    /// Warnings that have been printed.
    pub(super) warned: usize,
    /// Times it ran: start → end.
    intervals: BTreeMap<Timestamp, Option<Timestamp>>,
    /// Lines that have not been printed; the last one is incomplete when `partial`.
    pub(super) lines: VecDeque<String>,
    pub(super) partial: bool,
    /// Bytes of the incomplete line that have been printed.
    pub(super) printed: usize,
    /// The last lines.
    tail: VecDeque<String>,
    pub(super) screen: Screen,
    /// Its number in plain output, 0 until it has one.
    pub(super) index: usize,
    /// News since it was last the one that is printed, and since when.
    pub(super) news: u64,
    pub(super) since: Option<Timestamp>,
}

impl Trace {
    /// Takes news in.
    pub(super) fn update(&mut self, status: SolveStatus, now: Timestamp) {
        for vertex in status.vertexes {
            self.vertex(vertex, now);
        }
        for status in status.statuses {
            let Some(step) = self.steps.get_mut(&status.vertex) else {
                continue;
            };
            step.status_updates.insert(status.id.clone());
            step.count(now);
            self.updates.insert(status.vertex.clone());
            step.statuses.insert(status.id.clone(), status);
        }
        for warning in status.warnings {
            if let Some(step) = self.steps.get_mut(&warning.vertex) {
                let text = String::from_utf8_lossy(&warning.short).into_owned();
                step.warnings.push(text);
                step.count(now);
                self.updates.insert(warning.vertex);
            }
        }
        for log in status.logs {
            if let Some(step) = self.steps.get_mut(&log.vertex) {
                step.log(&log.data, log.timestamp);
                step.count(now);
                self.updates.insert(log.vertex);
            }
        }
    }

    fn vertex(&mut self, vertex: ProgressVertex, now: Timestamp) {
        let digest = vertex.digest.clone();
        let step = self.steps.entry(digest.clone()).or_default();
        if let Some(start) = vertex.started {
            if step.vertex.started.is_none() {
                self.started.push(digest.clone());
                if self.begun.is_none() {
                    self.begun = Some(now);
                    self.ahead = seconds(start, now);
                }
            }
            step.intervals.insert(start, vertex.completed);
            if step.vertex != vertex {
                step.count(now);
                self.updates.insert(digest);
            }
        }
        // One that is announced again after it has started says nothing new.
        if step.vertex.started.is_none() || vertex.started.is_some() {
            step.vertex = vertex;
        }
    }

    /// A time of this side by the daemon's clock.
    pub(super) fn daemon_time(&self, now: Timestamp) -> Timestamp {
        SignedDuration::try_from_secs_f64(self.ahead)
            .ok()
            .and_then(|ahead| now.checked_sub(ahead).ok())
            .unwrap_or(now)
    }

    /// Steps that are complete, and all steps.
    pub(super) fn counts(&self) -> (usize, usize) {
        let shown = self.steps.values().filter(|step| !step.is_grouped());
        shown.fold((0, 0), |(complete, all), step| {
            (complete + usize::from(step.is_completed()), all + 1)
        })
    }

    /// The last output of the steps that failed.
    pub(super) fn error_logs(&self) -> String {
        let mut text = String::new();
        for step in self
            .started
            .iter()
            .filter_map(|digest| self.steps.get(digest))
        {
            if step.vertex.error.is_empty() || step.is_cancelled() {
                continue;
            }
            let _ = writeln!(text, "------\n > {}:", step.vertex.name);
            for line in &step.tail {
                let _ = writeln!(text, "{line}");
            }
            text.push_str("------\n");
        }
        text
    }
}

impl Step {
    fn count(&mut self, now: Timestamp) {
        if self.news == 0 {
            self.since = Some(now);
        }
        self.news += 1;
    }

    pub(super) fn is_started(&self) -> bool {
        self.vertex.started.is_some()
    }

    pub(super) fn is_completed(&self) -> bool {
        self.vertex.completed.is_some()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.vertex.error.ends_with("context canceled")
    }

    /// Steps of a group are shown as one, which the daemon does by itself.
    pub(super) fn is_grouped(&self) -> bool {
        self.vertex.progress_group.is_some()
    }

    /// Seconds it has run; an end that has not come is `now`. Overlapping times count once.
    pub(super) fn duration(&self, now: Timestamp) -> Option<f64> {
        let mut total = 0.0;
        let mut until: Option<Timestamp> = None;
        for (start, stop) in &self.intervals {
            let stop = stop.unwrap_or(now);
            let start = until.map_or(*start, |until| until.max(*start));
            total += seconds(start, stop).max(0.0);
            until = Some(until.map_or(stop, |until| until.max(stop)));
        }
        until.map(|_| total)
    }

    fn log(&mut self, data: &[u8], at: Timestamp) {
        self.screen.write(data);
        let began = self.intervals.keys().next_back();
        let since = began.map_or(0.0, |start| seconds(*start, at));
        let decimals = match since {
            ..10.0 => 3,
            ..100.0 => 2,
            _ => 1,
        };
        let text = String::from_utf8_lossy(data);
        let mut pieces = text.split('\n').peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            if last && piece.is_empty() {
                break;
            }
            if self.partial {
                for lines in [&mut self.lines, &mut self.tail] {
                    if let Some(line) = lines.back_mut() {
                        line.push_str(piece);
                    }
                }
            } else {
                let line = format!("{since:.decimals$} {piece}");
                if self.tail.len() == TAIL {
                    self.tail.pop_front();
                }
                self.tail.push_back(line.clone());
                self.lines.push_back(line);
            }
            self.partial = last;
        }
    }
}

/// From one time to another.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// `255B`, `2.08MB`: two decimals past the bytes.
pub(super) fn bytes(count: i64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count.abs() < 1000 {
        return format!("{count}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}
