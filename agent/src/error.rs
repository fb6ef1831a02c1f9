//! What an operation of the engine can fail with, in the classes of moby's `errdefs`.
//!
//! The class is what a server maps to a status; the text is what a user reads, with Docker's wording wherever tools
//! match on it. "Already there" is never an error: operations that can be no-ops return an outcome.

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation failed. The text is complete: no context need be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The named object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request is malformed or asks for something impossible.
    #[error("{0}")]
    InvalidParameter(String),
    /// The request contradicts the present state of the object.
    #[error("{0}")]
    Conflict(String),
    /// The request is understood and refused for good.
    #[error("{0}")]
    Forbidden(String),
    /// The request asks for something that this engine does not have.
    #[error("{0}")]
    NotImplemented(String),
    /// The engine cannot serve the request at the moment; trying again later may help.
    #[error("{0}")]
    Unavailable(String),
    /// A registry does not know the user.
    #[error("{0}")]
    Unauthorized(String),
    /// The host failed.
    #[error("{0}")]
    System(String),
}

impl Error {
    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::NotFound(text.into())
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidParameter(text.into())
    }

    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::Conflict(text.into())
    }

    pub(crate) fn system(text: impl Into<String>) -> Self {
        Self::System(text.into())
    }

    /// An option that this engine knows by name and does not implement.
    pub(crate) fn unsupported(option: impl std::fmt::Display) -> Self {
        Self::NotImplemented(format!("{option} is not supported"))
    }

    /// A file operation failed: `what` is the verb, for example `create`.
    pub(crate) fn io(what: &str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let attempted = format!("cannot {what} {}", path.display());
        move |source| Self::System(format!("{attempted}: {source}"))
    }

    /// The same class with text in front: `context: text`.
    #[must_use]
    pub fn context(self, context: impl std::fmt::Display) -> Self {
        let prefix = |text: String| format!("{context}: {text}");
        match self {
            Self::NotFound(text) => Self::NotFound(prefix(text)),
            Self::InvalidParameter(text) => Self::InvalidParameter(prefix(text)),
            Self::Conflict(text) => Self::Conflict(prefix(text)),
            Self::Forbidden(text) => Self::Forbidden(prefix(text)),
            Self::NotImplemented(text) => Self::NotImplemented(prefix(text)),
            Self::Unavailable(text) => Self::Unavailable(prefix(text)),
            Self::Unauthorized(text) => Self::Unauthorized(prefix(text)),
            Self::System(text) => Self::System(prefix(text)),
        }
    }
}

impl From<agent_api::FilterError> for Error {
    fn from(error: agent_api::FilterError) -> Self {
        Self::InvalidParameter(error.to_string())
    }
}

impl From<cluster::control::Refusal> for Error {
    fn from(refusal: cluster::control::Refusal) -> Self {
        use cluster::control::Refusal;
        match refusal {
            Refusal::InvalidParameter(text) => Self::InvalidParameter(text),
            Refusal::NotFound(text) => Self::NotFound(text),
            Refusal::Conflict(text) => Self::Conflict(text),
            Refusal::Forbidden(text) => Self::Forbidden(text),
            Refusal::Unavailable(text) => Self::Unavailable(text),
            Refusal::Unimplemented(text) => Self::NotImplemented(text),
            Refusal::Unclassified(text) => Self::System(text),
        }
    }
}
