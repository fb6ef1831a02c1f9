//! BuildKit's progress as the lines of dockerd's legacy builder. Pure.
//!
//! Steps run side by side; lines are told one step after the other, in the plan's order, so that they can be read: what a
//! later step says waits until the earlier ones have ended.

use std::collections::HashMap;

use agent_api::build::{BuildFailure, SolveStatus};
use agent_api::{ErrorDetail, ProgressDetail, ProgressMessage};

/// Bytes of output of a step that waits for its turn.
const WAITING: usize = 1 << 20;

/// Lines told so far.
#[derive(Default)]
pub(super) struct Lines {
    steps: Vec<Step>,
    places: HashMap<String, usize>,
    /// Image look-ups, whose parts are downloads.
    pulls: HashMap<String, ()>,
    /// The step whose turn it is.
    current: usize,
}

struct Step {
    /// `RUN make`
    text: String,
    begun: bool,
    told: bool,
    ended: bool,
    cached: bool,
    waiting: String,
}

/// Text for the client's terminal.
pub(super) fn text(text: String) -> ProgressMessage {
    ProgressMessage {
        stream: Some(text),
        ..ProgressMessage::default()
    }
}

/// The last line of a build that failed.
pub(super) fn failure(failure: &BuildFailure) -> ProgressMessage {
    let message = match failure.exit_code {
        Some(code) => format!(
            "The command '{}' returned a non-zero code: {code}",
            process(&failure.message).unwrap_or(&failure.step)
        ),
        None => failure.message.clone(),
    };
    ProgressMessage {
        error_detail: Some(ErrorDetail {
            code: failure.exit_code,
            message: message.clone(),
        }),
        error: Some(message),
        ..ProgressMessage::default()
    }
}

/// What ran, in `process "…" did not complete successfully`.
fn process(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("process \"")?;
    Some(rest.rsplit_once("\" did not complete")?.0)
}

impl Lines {
    /// What there is to tell of news.
    pub(super) fn take(&mut self, status: &SolveStatus) -> Vec<ProgressMessage> {
        let mut lines = Vec::new();
        for vertex in &status.vertexes {
            if vertex.name.starts_with("[internal] load metadata") {
                self.pulls.insert(vertex.digest.clone(), ());
            }
            let Some(place) = self.place(&vertex.digest, &vertex.name) else {
                continue;
            };
            let step = &mut self.steps[place];
            step.begun |= vertex.started.is_some();
            step.cached |= vertex.cached;
            step.ended |= vertex.completed.is_some();
        }
        for part in &status.statuses {
            if self.pulls.contains_key(&part.vertex) {
                lines.push(ProgressMessage {
                    id: Some(part.id.clone()),
                    status: Some(part.name.clone()),
                    progress_detail: Some(ProgressDetail {
                        current: Some(part.current).filter(|current| *current > 0),
                        total: Some(part.total).filter(|total| *total > 0),
                    }),
                    ..ProgressMessage::default()
                });
            }
        }
        for warning in &status.warnings {
            let warning = String::from_utf8_lossy(&warning.short);
            lines.push(text(format!("[Warning] {warning}\n")));
        }
        for log in &status.logs {
            if let Some(place) = self.places.get(&log.vertex) {
                let step = &mut self.steps[*place];
                if step.waiting.len() < WAITING {
                    step.waiting.push_str(&String::from_utf8_lossy(&log.data));
                }
            }
        }
        self.turn(&mut lines);
        lines
    }

    /// The place of a step that is told of: one of the Dockerfile's.
    fn place(&mut self, digest: &str, name: &str) -> Option<usize> {
        if let Some(place) = self.places.get(digest) {
            return Some(*place);
        }
        let (stage, text) = name.strip_prefix('[')?.split_once("] ")?;
        if stage == "internal" || stage.starts_with("auth") {
            return None;
        }
        self.steps.push(Step {
            text: text.to_owned(),
            begun: false,
            told: false,
            ended: false,
            cached: false,
            waiting: String::new(),
        });
        let place = self.steps.len() - 1;
        self.places.insert(digest.to_owned(), place);
        Some(place)
    }

    /// Tells of the step whose turn it is, and of those after it if it has ended.
    fn turn(&mut self, lines: &mut Vec<ProgressMessage>) {
        let count = self.steps.len();
        while let Some(step) = self.steps.get_mut(self.current).filter(|step| step.begun) {
            step.tell(self.current + 1, count, lines);
            if !step.ended {
                return;
            }
            self.current += 1;
        }
    }

    /// Everything that still waits.
    pub(super) fn rest(&mut self) -> Vec<ProgressMessage> {
        let (mut lines, count) = (Vec::new(), self.steps.len());
        for (place, step) in self.steps.iter_mut().enumerate().skip(self.current) {
            if step.begun {
                step.tell(place + 1, count, &mut lines);
            }
        }
        lines
    }

    /// Everything that still waits, the lines of the Dockerfile that are to blame, and the error.
    pub(super) fn failed(&mut self, reason: &BuildFailure) -> Vec<ProgressMessage> {
        let mut lines = self.rest();
        for source in &reason.sources {
            let mut shown = format!(
                "{}:{}\n--------------------\n",
                source.file,
                source
                    .lines
                    .iter()
                    .find(|line| line.marked)
                    .map_or(0, |line| line.number)
            );
            for line in &source.lines {
                let mark = if line.marked { ">>>" } else { "   " };
                shown.push_str(&format!(" {:>3} | {mark} {}\n", line.number, line.text));
            }
            shown.push_str("--------------------\n");
            lines.push(text(shown));
        }
        lines.push(failure(reason));
        lines
    }
}

impl Step {
    fn tell(&mut self, number: usize, count: usize, lines: &mut Vec<ProgressMessage>) {
        if !std::mem::replace(&mut self.told, true) {
            lines.push(text(format!("Step {number}/{count} : {}", self.text)));
            lines.push(text("\n".to_owned()));
            if self.cached {
                lines.push(text(" ---> Using cache\n".to_owned()));
            }
        }
        if !self.waiting.is_empty() {
            lines.push(text(std::mem::take(&mut self.waiting)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::build::{ProgressVertex, VertexLog};
    use jiff::Timestamp;

    fn vertex(digest: &str, name: &str, state: &str) -> ProgressVertex {
        let now = Some(Timestamp::UNIX_EPOCH);
        ProgressVertex {
            digest: digest.into(),
            name: name.into(),
            started: now.filter(|_| state != "waits"),
            completed: now.filter(|_| matches!(state, "ended" | "cached")),
            cached: state == "cached",
            ..ProgressVertex::default()
        }
    }

    fn log(digest: &str, text: &str) -> VertexLog {
        VertexLog {
            vertex: digest.into(),
            stream: 1,
            data: text.into(),
            timestamp: Timestamp::UNIX_EPOCH,
        }
    }

    fn told(lines: &mut Lines, vertexes: &[ProgressVertex], logs: &[VertexLog]) -> String {
        let status = SolveStatus {
            vertexes: vertexes.to_vec(),
            logs: logs.to_vec(),
            ..SolveStatus::default()
        };
        let told = lines.take(&status).into_iter();
        told.filter_map(|line| line.stream).collect()
    }

    #[test]
    fn steps_are_told_one_after_the_other() {
        let mut lines = Lines::default();
        let news = [
            vertex("i", "[internal] load build context", "ended"),
            vertex("a", "[1/3] FROM busybox", "cached"),
            vertex("b", "[2/3] RUN one", "waits"),
            vertex("c", "[3/3] RUN two", "waits"),
        ];
        assert_eq!(
            told(&mut lines, &news, &[]),
            "Step 1/3 : FROM busybox\n ---> Using cache\n"
        );
        // The third begins before the second: what it says waits.
        let news = [vertex("c", "[3/3] RUN two", "runs")];
        assert_eq!(told(&mut lines, &news, &[log("c", "2\n")]), "");
        let news = [vertex("b", "[2/3] RUN one", "runs")];
        assert_eq!(
            told(&mut lines, &news, &[log("b", "1\n")]),
            "Step 2/3 : RUN one\n1\n"
        );
        let news = [vertex("b", "[2/3] RUN one", "ended")];
        assert_eq!(told(&mut lines, &news, &[]), "Step 3/3 : RUN two\n2\n");
        assert_eq!(told(&mut lines, &[], &[log("c", "3\n")]), "3\n");
        assert!(lines.rest().is_empty());
    }

    #[test]
    fn a_failure_is_told_with_the_code_and_the_command() {
        let mut lines = Lines::default();
        told(&mut lines, &[vertex("a", "[1/1] RUN exit 3", "runs")], &[]);
        let failure = BuildFailure {
            message: "failed to solve: process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3".into(),
            exit_code: Some(3),
            ..BuildFailure::default()
        };
        let last = lines.failed(&failure).pop().unwrap();
        assert_eq!(
            last.error.as_deref(),
            Some("The command '/bin/sh -c exit 3' returned a non-zero code: 3")
        );
        assert_eq!(last.error_detail.unwrap().code, Some(3));
    }
}
