//! Why a step on files failed.
//!
//! Texts that users of BuildKit know are kept (`solver/llbsolver/file`, `tonistiigi/fsutil/copy`), with paths as the
//! build sees them.

use std::io;

use agent_build::pattern::PatternError;

use super::SnapshotId;
use crate::error::ImageError;

/// A step on files failed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// What a step wants to read is not there.
    #[error("{0:?}: not found")]
    NotFound(String),
    /// The step cannot be done on what is there; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A pattern is malformed.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// More than is allowed.
    #[error("too many {what}: the limit is {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// A snapshot is gone, or a crash of the machine may have damaged it: the step must run again.
    #[error("the snapshot {0} is not there any more")]
    Lost(SnapshotId),
    /// The caller gave up.
    #[error("canceled")]
    Cancelled,
    /// A system call on a file failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// Verb, for example `open`.
        what: &'static str,
        /// The path in the tree.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] ImageError),
}

impl FilesError {
    /// Whether the caller's input is to blame, rather than the machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::NotFound(_) | Self::Invalid(_) | Self::Pattern(_) | Self::Limit { .. } => true,
            Self::Lost(_) | Self::Cancelled | Self::Io { .. } | Self::Store(_) => false,
        }
    }

    /// Whether a file that is there could not be read: by rights, or because its server is in trouble. Whoever it belongs to may
    /// be able to.
    pub fn is_denied(&self) -> bool {
        use rustix::io::Errno;
        let Self::Io { source, .. } = self else {
            return false;
        };
        let errno = Errno::from_io_error(source);
        [
            Errno::ACCESS,
            Errno::PERM,
            Errno::IO,
            Errno::STALE,
            Errno::NOTCONN,
        ]
        .iter()
        .any(|denied| errno == Some(*denied))
    }

    pub(super) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<[u8]>,
    ) -> impl FnOnce(E) -> Self {
        let path = String::from_utf8_lossy(path.as_ref()).into_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, FilesError>;
