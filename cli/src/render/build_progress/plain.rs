//! Progress as lines: one step at a time, the others when it is their turn.
//! Source: BuildKit `util/progress/progressui/printer.go`.

use super::trace::{Step, Trace, bytes, seconds};
use agent_api::build::VertexStatus;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Seconds that a step which is not shown waits at most.
const MAX_DELAY: f64 = 10.0;
/// Seconds a step is shown at least, weighed by how much it has to say.
const ANTI_FLICKER: f64 = 5.0;
/// A part that is not complete is shown again after so many seconds …
const MIN_SECONDS: f64 = 5.0;
/// … or so much more of it.
const MIN_SHARE: f64 = 0.05;

/// News that come closer together than so many seconds are printed together.
const TOGETHER: f64 = 0.1;

/// Which step is being printed, and what was said of parts.
#[derive(Debug, Default)]
pub(super) struct Plain {
    headline: String,
    current: Option<String>,
    parts: BTreeMap<String, (Timestamp, i64)>,
    indexes: usize,
    begun: bool,
    printed: Option<Timestamp>,
}

impl Plain {
    pub(super) fn new(headline: &str) -> Self {
        Self {
            headline: headline.to_owned(),
            ..Self::default()
        }
    }

    /// Whether it is time to print what is new.
    pub(super) fn is_due(&self, trace: &Trace, now: Timestamp) -> bool {
        let rested = |printed| seconds(printed, now) >= TOGETHER;
        !trace.updates.is_empty() && self.printed.is_none_or(rested)
    }

    /// The lines that the trace's news are worth now.
    pub(super) fn print(&mut self, trace: &mut Trace, now: Timestamp) -> String {
        self.printed = Some(now);
        let mut text = String::new();
        let (completed, rest): (Vec<String>, Vec<String>) = trace
            .updates
            .iter()
            .filter(|digest| {
                trace
                    .steps
                    .get(*digest)
                    .is_some_and(|step| !step.is_grouped())
            })
            .cloned()
            .partition(|digest| trace.steps[digest].is_completed());
        self.print_completed(trace, completed, &mut text);
        self.print_running(trace, rest.into_iter().collect(), now, &mut text);
        text
    }

    /// Steps that have ended come first: the one that is being printed, then the others as they ended.
    fn print_completed(
        &mut self,
        trace: &mut Trace,
        mut completed: Vec<String>,
        text: &mut String,
    ) {
        let current = self.current.clone();
        completed.sort_by_key(|digest| {
            let step = &trace.steps[digest];
            (Some(digest) != current.as_ref(), step.vertex.completed)
        });
        for digest in completed {
            self.step(trace, &digest, text);
        }
    }

    fn print_running(
        &mut self,
        trace: &mut Trace,
        mut rest: BTreeSet<String>,
        now: Timestamp,
        text: &mut String,
    ) {
        let Some(current) = self.current.clone() else {
            // Whichever has the most to say; without news any that runs.
            let next = loudest(trace, &rest, now).or_else(|| {
                let running =
                    |step: &Step| step.is_started() && !step.is_completed() && !step.is_grouped();
                let mut steps = trace.steps.iter();
                steps
                    .find(|(_, step)| running(step))
                    .map(|(digest, _)| digest.clone())
            });
            if let Some(next) = next {
                self.step(trace, &next, text);
            }
            return;
        };
        if rest.is_empty() {
            return;
        }
        if rest.contains(&current) {
            self.step(trace, &current, text);
        }
        rest.insert(current.clone());
        let waited = |digest: &str| {
            let since = trace.steps[digest].since;
            since.map_or(0.0, |since| seconds(since, now))
        };
        let overdue = rest
            .iter()
            .find(|digest| **digest != current && waited(digest) > MAX_DELAY)
            .cloned();
        let next = overdue.or_else(|| {
            // A fair split: the more a step has said of all, the longer it stays.
            let total: f64 = rest
                .iter()
                .map(|digest| speed(&trace.steps[digest], now))
                .sum();
            let share = if total > 0.0 {
                speed(&trace.steps[&current], now) / total
            } else {
                1.0
            };
            let stays = ANTI_FLICKER / (1.0 - share);
            (stays < waited(&current))
                .then(|| loudest(trace, &rest, now))
                .flatten()
        });
        if let Some(next) = next.filter(|next| *next != current) {
            self.step(trace, &next, text);
        }
    }

    /// Prints the news of one step, which becomes the one that is printed.
    fn step(&mut self, trace: &mut Trace, digest: &str, text: &mut String) {
        if self.current.as_deref() != Some(digest) {
            self.leave(trace, text);
            if self.begun {
                text.push('\n');
            } else if !self.headline.is_empty() {
                let _ = writeln!(text, "#0 {}\n", self.headline);
            }
            self.begun = true;
        }
        trace.updates.remove(digest);
        let Some(step) = trace.steps.get_mut(digest) else {
            return;
        };
        if step.index == 0 {
            self.indexes += 1;
            step.index = self.indexes;
        }
        let index = step.index;
        if self.current.as_deref() != Some(digest) {
            let _ = writeln!(text, "#{index} {}", step.vertex.name);
            self.current = Some(digest.to_owned());
        }
        let open = self.parts(step, text);
        for warning in &step.warnings[step.warned..] {
            let _ = writeln!(text, "#{index} WARN: {warning}");
        }
        step.warned = step.warnings.len();
        lines(step, text);
        if step.is_completed() && !open {
            self.current = None;
            step.news = 0;
            if step.partial {
                text.push('\n');
                step.partial = false;
            }
            let _ = writeln!(text, "#{index} {}", ending(step));
        }
    }

    /// The step that was being printed goes on unseen.
    fn leave(&mut self, trace: &mut Trace, text: &mut String) {
        let Some(old) = self
            .current
            .take()
            .and_then(|old| trace.steps.get_mut(&old))
        else {
            return;
        };
        if old.partial && old.printed > 0 {
            text.push('\n');
        }
        old.printed = 0;
        old.news = 0;
        let _ = writeln!(text, "#{} ...", old.index);
    }

    /// Parts with news; tells whether one of them goes on.
    fn parts(&mut self, step: &mut Step, text: &mut String) -> bool {
        let mut open = false;
        let updates = std::mem::take(&mut step.status_updates);
        for (id, status) in &step.statuses {
            if !updates.contains(id) || !self.worth_a_line(id, status) {
                continue;
            }
            self.parts
                .insert(id.clone(), (status.timestamp, status.current));
            let amount = match (status.current, status.total) {
                (0, 0) => String::new(),
                (current, 0) => format!(" {}", bytes(current)),
                (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
            };
            let end = status.completed.unwrap_or(status.timestamp);
            let time = match status.started.map(|start| seconds(start, end)) {
                Some(time) if time > 0.01 => format!(" {time:.1}s"),
                _ => String::new(),
            };
            let done = if status.completed.is_some() {
                " done"
            } else {
                ""
            };
            open |= status.completed.is_none();
            let _ = writeln!(text, "#{} {id}{amount}{time}{done}", step.index);
        }
        open
    }

    fn worth_a_line(&self, id: &str, status: &VertexStatus) -> bool {
        let Some((at, current)) = self.parts.get(id) else {
            return true;
        };
        #[expect(clippy::cast_precision_loss, reason = "a share of a progress bar")]
        let share = match status.total {
            1.. => (status.current - current) as f64 / status.total as f64,
            _ => 0.0,
        };
        status.completed.is_some()
            || share >= MIN_SHARE
            || seconds(*at, status.timestamp) >= MIN_SECONDS
    }
}

/// News for each second that it has waited.
fn speed(step: &Step, now: Timestamp) -> f64 {
    let waited = step.since.map_or(0.0, |since| seconds(since, now));
    #[expect(clippy::cast_precision_loss, reason = "compared with others alike")]
    let news = step.news as f64;
    news / waited.max(0.001)
}

fn loudest(trace: &Trace, among: &BTreeSet<String>, now: Timestamp) -> Option<String> {
    let speed = |digest: &String| speed(&trace.steps[digest], now);
    let best = among.iter().max_by(|a, b| speed(a).total_cmp(&speed(b)));
    best.cloned()
}

/// Output, an incomplete last line as far as it is there.
fn lines(step: &mut Step, text: &mut String) {
    let count = step.lines.len();
    for (position, line) in step.lines.iter().enumerate() {
        match line.get(step.printed..) {
            Some(rest) if position == 0 && step.printed > 0 => text.push_str(rest),
            _ => {
                let _ = write!(text, "#{} {line}", step.index);
            }
        }
        if position + 1 < count || !step.partial {
            text.push('\n');
        }
    }
    match step.lines.pop_back() {
        Some(last) if step.partial => {
            step.printed = last.len();
            step.lines.clear();
            step.lines.push_back(last);
        }
        Some(_) => {
            step.printed = 0;
            step.lines.clear();
        }
        None => {}
    }
}

fn ending(step: &Step) -> String {
    let vertex = &step.vertex;
    if step.is_cancelled() {
        "CANCELED".to_owned()
    } else if !vertex.error.is_empty() {
        format!("ERROR: {}", vertex.error)
    } else if vertex.cached {
        "CACHED".to_owned()
    } else {
        let end = vertex.completed.unwrap_or_default();
        match step.duration(end) {
            Some(time) => format!("DONE {time:.1}s"),
            None => "DONE".to_owned(),
        }
    }
}
