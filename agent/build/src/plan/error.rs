//! Why a build cannot be planned, and where in the Dockerfile.

use crate::dockerfile::Lines;

/// Why a build cannot be planned. `Display` is BuildKit's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct PlanError {
    /// What is wrong.
    pub kind: PlanErrorKind,
    /// The instructions concerned, innermost first; empty when no line is to blame (an unknown target).
    pub lines: Vec<Lines>,
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
    pub(super) fn invalid(message: impl Into<String>) -> PlanError {
        PlanError {
            kind: PlanErrorKind::Invalid(message.into()),
            lines: Vec::new(),
        }
    }

    /// Says where, unless a closer place is known already.
    pub(super) fn at(mut self, lines: Lines) -> PlanError {
        if !self.lines.contains(&lines) {
            self.lines.push(lines);
        }
        self
    }
}
