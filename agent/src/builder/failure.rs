//! Why a build fails: one sentence as BuildKit words it, the step, the lines of the Dockerfile, the last output.
//!
//! Cheap to clone: equal steps of several builds fail together. Source of texts and of what an excerpt shows: buildkit
//! `solver/errdefs/{source,solve}.go`, `executor/executor.go`.

use std::sync::Arc;

use agent_api::build::{BuildFailure, FailureKind, FailureSource, MAX_TAIL, SourceLine};
use agent_build::plan::PlanError;
use agent_build::{Dockerfile, Lines, ParseError};
use agent_image::build::FilesError;

use crate::error::Error;

/// A build, or a step of several builds, has failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Arc<Reason>);

#[derive(Debug, Clone)]
struct Reason {
    message: String,
    kind: FailureKind,
    exit_code: Option<i32>,
    step: String,
    lines: Vec<Lines>,
    tail: Vec<String>,
    /// A file could not be read that somebody else may be able to read.
    denied: bool,
}

impl Failure {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Reason {
            message: message.into(),
            kind,
            exit_code: None,
            step: String::new(),
            lines: Vec::new(),
            tail: Vec::new(),
            denied: false,
        }))
    }

    /// The Dockerfile or the request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// A step cannot do what it says.
    pub(crate) fn step(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Step, message)
    }

    /// The machine failed.
    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self::new(FailureKind::System, message)
    }

    /// Nobody wanted it any more.
    pub(crate) fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "context canceled")
    }

    /// A step's process ended with another code than 0.
    pub(crate) fn exit(args: &[String], code: i32, oom: bool) -> Self {
        let process = go_quote(&args.join(" "));
        let how = match oom {
            true => format!("exit code: {code}: out of memory"),
            false => format!("exit code: {code}"),
        };
        let message = format!("process {process} did not complete successfully: {how}");
        Self::new(FailureKind::Step, message).with(|reason| reason.exit_code = Some(code))
    }

    /// Says what happened in the words of whoever noticed.
    #[must_use]
    pub(crate) fn context(self, context: &str) -> Self {
        self.with(|reason| reason.message = format!("{context}: {}", reason.message))
    }

    /// Says which step it was and where it is written, unless that is known.
    #[must_use]
    pub(crate) fn at(self, step: &str, lines: Lines) -> Self {
        self.with(|reason| {
            if reason.step.is_empty() {
                step.clone_into(&mut reason.step);
                if lines.first > 0 && reason.lines.is_empty() {
                    reason.lines.push(lines);
                }
            }
        })
    }

    /// Adds the last lines that the step wrote.
    #[must_use]
    pub(crate) fn after(self, output: &[u8]) -> Self {
        self.with(|reason| {
            let text = String::from_utf8_lossy(output);
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(MAX_TAIL)..];
            reason.tail = last.iter().map(|line| (*line).to_owned()).collect();
        })
    }

    fn with(self, change: impl FnOnce(&mut Reason)) -> Self {
        let mut reason = Arc::unwrap_or_clone(self.0);
        change(&mut reason);
        Self(Arc::new(reason))
    }

    /// The sentence.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether a file could not be read that its owner may be able to read.
    pub(crate) fn is_denied(&self) -> bool {
        self.0.denied
    }

    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// What clients are told.
    pub(crate) fn report(&self, dockerfile: Option<&Text>) -> BuildFailure {
        let reason = &*self.0;
        let source = dockerfile.and_then(|text| text.excerpt(&reason.lines));
        BuildFailure {
            message: format!("failed to solve: {}", reason.message),
            kind: reason.kind,
            step: reason.step.clone(),
            exit_code: reason.exit_code,
            sources: source.into_iter().collect(),
            tail: reason.tail.clone(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::System(text) | Error::Unavailable(text) => Self::system(text),
            other => Self::invalid(other.to_string()),
        }
    }
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        match &error {
            FilesError::Cancelled => Self::cancelled(),
            error if error.is_input() => Self::step(error.to_string()),
            error => {
                Self::system(error.to_string()).with(|reason| reason.denied = error.is_denied())
            }
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::invalid(error.to_string()).with(|reason| reason.lines = error.lines)
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::invalid(error.to_string()).with(|reason| reason.lines.extend(error.lines))
    }
}

/// The text that messages quote.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// As messages call it.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
}

impl Text {
    /// The text of a Dockerfile.
    pub(crate) fn of(dockerfile: &Dockerfile) -> Self {
        Self {
            name: dockerfile.name.clone(),
            text: dockerfile.source.clone(),
        }
    }

    /// The lines meant with some around them.
    fn excerpt(&self, meant: &[Lines]) -> Option<FailureSource> {
        let text: Vec<&str> = self.text.split('\n').collect();
        let count = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut first = meant.iter().map(|lines| lines.first).min()?;
        let mut last = meant.iter().map(|lines| lines.last).max()?.min(count);
        if first < 1 || first > count {
            return None;
        }
        let wanted = if first == last { 4 } else { 2 };
        let mut shown = 0;
        while shown < wanted {
            if first > 1 {
                first -= 1;
                shown += 1;
            }
            if last < count {
                last += 1;
                shown += 1;
            }
            shown += 1;
        }
        let line = |number: u32| SourceLine {
            number,
            text: text[number as usize - 1].trim_end_matches('\r').to_owned(),
            marked: meant
                .iter()
                .any(|lines| (lines.first..=lines.last).contains(&number)),
        };
        Some(FailureSource {
            file: self.name.clone(),
            lines: (first..=last).map(line).collect(),
        })
    }
}

/// Go's `%q`.
fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            control if control.is_control() => {
                let code = u32::from(control);
                match code < 0x80 {
                    true => quoted.push_str(&format!("\\x{code:02x}")),
                    false => quoted.push_str(&format!("\\u{code:04x}")),
                }
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str, meant: &[Lines]) -> Option<String> {
        let text = Text {
            name: "Dockerfile".to_owned(),
            text: text.to_owned(),
        };
        let shown = text.excerpt(meant)?;
        let line =
            |line: &SourceLine| format!("{}{}", if line.marked { ">" } else { "" }, line.number);
        Some(shown.lines.iter().map(line).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn excerpts_show_what_buildkits_show() {
        let ten = ["x"; 10].join("\n");
        for (text, lines, expected) in [
            (&*ten, Lines::one(5), Some("3 4 >5 6 7")),
            (&ten, Lines::one(1), Some(">1 2 3")),
            (&ten, Lines::one(10), Some("8 9 >10")),
            (&ten, Lines::new(4, 6), Some("3 >4 >5 >6 7")),
            ("x", Lines::one(1), Some(">1")),
            ("x", Lines::one(2), None),
        ] {
            assert_eq!(numbers(text, &[lines]).as_deref(), expected, "{lines:?}");
        }
        assert_eq!(numbers(&ten, &[]), None);
    }

    #[test]
    fn a_failed_process_is_told_as_buildkit_tells_it() {
        let args = ["/bin/sh", "-c", "echo \"a\"\nexit 3"].map(str::to_owned);
        let failure = Failure::exit(&args, 3, false)
            .at("[2/2] RUN x", Lines::one(2))
            .at("[1/2] other", Lines::one(1))
            .after(b"one\ntwo\n");
        let text = Text {
            name: "Dockerfile".to_owned(),
            text: "FROM x\nRUN x".to_owned(),
        };
        let report = failure.report(Some(&text));
        assert_eq!(
            report.message,
            "failed to solve: process \"/bin/sh -c echo \\\"a\\\"\\nexit 3\" did not complete successfully: exit code: 3"
        );
        assert_eq!(report.exit_code, Some(3));
        assert_eq!(report.step, "[2/2] RUN x");
        assert_eq!(report.tail, ["one", "two"]);
        let marked: Vec<_> = report.sources[0]
            .lines
            .iter()
            .filter(|line| line.marked)
            .collect();
        assert_eq!(marked[0].text, "RUN x");
    }
}
