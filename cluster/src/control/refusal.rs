//! Why a request is refused, in the classes of moby's `errdefs`: what a server makes a status of.

use serde::{Deserialize, Serialize};

/// A request was refused. The text is for the user and complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request is malformed or breaks a rule. (gRPC `InvalidArgument` and `FailedPrecondition`; HTTP 400)
    #[error("{0}")]
    InvalidParameter(String),
    /// What it names does not exist. (HTTP 404)
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what is there. (HTTP 409)
    #[error("{0}")]
    Conflict(String),
    /// Never allowed. (HTTP 403)
    #[error("{0}")]
    Forbidden(String),
    /// Not at the moment. (HTTP 503)
    #[error("{0}")]
    Unavailable(String),
    /// Not supported. (HTTP 501)
    #[error("{0}")]
    Unimplemented(String),
    /// Docker gives it no class. (HTTP 500)
    #[error("{0}")]
    Unclassified(String),
}

impl Refusal {
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidParameter(text.into())
    }

    pub(super) fn not_found(kind: impl std::fmt::Display, id: &str) -> Self {
        Self::NotFound(format!("{kind} {id} not found"))
    }

    /// An option this cluster knows by name and does not have.
    pub(super) fn unsupported(option: impl std::fmt::Display) -> Self {
        Self::Unimplemented(format!("{option} is not supported"))
    }

    /// The client saw an older version. Tools look for this text and try again.
    pub(super) fn out_of_sequence() -> Self {
        Self::Unclassified("update out of sequence".to_owned())
    }
}
