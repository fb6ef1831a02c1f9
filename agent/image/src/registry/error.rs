//! Why a registry did not give what was asked for, in Docker's words where tools match on them
//! (moby `daemon/internal/distribution/errors.go`).

use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::ErrorClass;

/// An exchange with a registry failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The address of a registry makes no sense.
    #[error("invalid registry address {0:?}: give host[:port]")]
    Address(String),
    /// The registry does not know the tag or digest.
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    ManifestUnknown(String),
    /// The repository is not there, or not for this user. Registries do not tell which.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login': denied: {reason}"
    )]
    Denied {
        /// The repository.
        repository: String,
        /// In the registry's words.
        reason: String,
    },
    /// The user may not write to the repository.
    #[error(
        "denied: requested access to the resource is denied: {0} cannot be pushed to (log in as somebody who may)"
    )]
    PushDenied(String),
    /// The registry does not take what is pushed, for a reason of its own: a quota, a rule.
    #[error("denied: {reason}: {repository} cannot be pushed to")]
    PushRefused {
        /// The repository.
        repository: String,
        /// In the registry's words.
        reason: String,
    },
    /// The registry does not take the credentials.
    #[error("login attempt to {url} failed with status: {status}")]
    Login {
        /// Where.
        url: String,
        /// What it answered.
        status: String,
    },
    /// The registry wants a user and none was given.
    #[error("{0}: no basic auth credentials: log in first (login {1})")]
    NoCredentials(String, String),
    /// The registry refuses the user.
    #[error("unauthorized: authentication required: {0} refuses these credentials (login again)")]
    Unauthorized(String),
    /// The registry holds no image for the platform.
    #[error(
        "no matching manifest for {wanted} in the manifest list entries of {reference}: there are {offered}"
    )]
    NoPlatform {
        /// Name of the image.
        reference: String,
        /// `os/architecture[/variant]` looked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// No connection, or it broke again and again.
    #[error("cannot reach registry {registry}: {reason}")]
    Unreachable {
        /// Where.
        registry: String,
        /// In which way.
        reason: String,
    },
    /// The registry answered with a status that was not expected.
    #[error("{what}: {registry} answered {status}{detail}")]
    Status {
        /// What was attempted.
        what: String,
        /// Who answered.
        registry: String,
        /// The status code.
        status: u16,
        /// `: ` and what the registry says, or nothing.
        detail: String,
    },
    /// The registry sends something that breaks the protocol or a limit.
    #[error("{what}: {reason}")]
    Protocol {
        /// What was fetched.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those that the digest promises.
    #[error("{what}: filesystem layer verification failed for digest {expected}: got {actual}")]
    Digest {
        /// What was fetched.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A certificate or key for a registry is not usable.
    #[error("cannot use {} for registry {registry}: {reason}", path.display())]
    Certificate {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Whoever asked is gone.
    #[error("the exchange with the registry was cancelled")]
    Cancelled,
}

impl RegistryError {
    /// The class of the failure.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Address(_) => ErrorClass::InvalidParameter,
            Self::ManifestUnknown(_) | Self::Denied { .. } | Self::NoPlatform { .. } => {
                ErrorClass::NotFound
            }
            Self::NoCredentials(..)
            | Self::Unauthorized(_)
            | Self::Login { .. }
            | Self::PushRefused { .. }
            | Self::PushDenied(_) => ErrorClass::Unauthorized,
            _ => ErrorClass::System,
        }
    }

    /// Whether another endpoint may have the answer.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether something answered that does not speak TLS.
    pub(super) fn is_no_tls(&self) -> bool {
        matches!(self, Self::Unreachable { reason, .. } if reason.contains("InvalidContentType"))
    }

    /// Whether an upload that failed in this way can be gone on with: the connection broke, the server is overloaded, the
    /// token ended meanwhile, or both sides disagree about how much there is.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => matches!(status, 401 | 404 | 408 | 416 | 429 | 500..),
            _ => false,
        }
    }

    /// Whether the registry does not know an upload (any more), or does not let it go on: another one may work.
    pub(super) fn is_of_upload(&self) -> bool {
        matches!(self, Self::Status { status, .. } if matches!(status, 400 | 404 | 416))
    }

    /// Whether the registry has no such part of a blob.
    pub(super) fn is_range(&self) -> bool {
        matches!(self, Self::Status { status: 416, .. })
    }

    /// Whether what has arrived is still good when somebody asks again another day.
    pub(crate) fn may_pass_later(&self) -> bool {
        self.is_cancelled() || self.may_pass()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}
