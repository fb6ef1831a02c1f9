//! Why a build cannot be planned, and where in the Dockerfile.

use std::collections::BTreeSet;

use super::BaseRequest;
use crate::dockerfile::{Lines, ParseError};
use crate::lint::Lint;
use crate::suggest::{Case, nearest, with_suggestion};
use crate::words::WordError;

/// Why a build cannot be planned. `Display` is BuildKit's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct PlanError {
    /// What is wrong.
    pub kind: PlanErrorKind,
    /// The instructions concerned, innermost first; empty when no line is to blame (an unknown target).
    pub lines: Vec<Lines>,
    /// Findings made before.
    pub warnings: Vec<Lint>,
}

/// What is wrong with a build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanErrorKind {
    /// The Dockerfile or an option says something impossible.
    #[error("{0}")]
    Invalid(String),
    /// The target is no stage.
    #[error("{0}")]
    UnknownTarget(String),
    /// A step needs something that the build was not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// [`bases`](super::bases) asked for an image that the caller did not resolve.
    #[error("the image {0} was not resolved before planning")]
    Unresolved(String),
    /// `# check=error=true`, and there were findings.
    #[error("{0}")]
    Lint(String),
}

impl PlanError {
    fn of(kind: PlanErrorKind) -> PlanError {
        PlanError {
            kind,
            lines: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> PlanError {
        PlanError::of(PlanErrorKind::Invalid(message.into()))
    }

    pub(super) fn forbidden(message: String) -> PlanError {
        PlanError::of(PlanErrorKind::Forbidden(message))
    }

    pub(super) fn unresolved(request: &BaseRequest) -> PlanError {
        PlanError::of(PlanErrorKind::Unresolved(request.written.clone())).at(request.lines)
    }

    pub(super) fn lint(message: String) -> PlanError {
        PlanError::of(PlanErrorKind::Lint(message))
    }

    pub(super) fn unknown_target<'a>(
        message: String,
        name: &str,
        stages: impl Iterator<Item = &'a str>,
    ) -> PlanError {
        let message = with_suggestion(message, name, stages, Case::Matters);
        PlanError::of(PlanErrorKind::UnknownTarget(message))
    }

    /// With the name nearest to the first of `unknown` that has one.
    pub(super) fn suggested(
        message: String,
        unknown: &BTreeSet<String>,
        options: &[&str],
    ) -> PlanError {
        let near = |name: &String| nearest(name, options.iter().copied(), Case::Matters);
        match unknown.iter().find_map(near) {
            Some(near) => PlanError::invalid(format!("{message} (did you mean {near}?)")),
            None => PlanError::invalid(message),
        }
    }

    /// Says where, behind the places that are known already.
    pub(super) fn at(mut self, lines: Lines) -> PlanError {
        if lines != Lines::default() && !self.lines.contains(&lines) {
            self.lines.push(lines);
        }
        self
    }
}

impl From<WordError> for PlanError {
    fn from(error: WordError) -> PlanError {
        PlanError::invalid(error.0)
    }
}

impl From<ParseError> for PlanError {
    fn from(error: ParseError) -> PlanError {
        let lines = error.lines.into_iter().collect();
        PlanError {
            kind: PlanErrorKind::Invalid(error.message),
            lines,
            warnings: Vec::new(),
        }
    }
}
