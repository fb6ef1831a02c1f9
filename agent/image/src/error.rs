//! Why an operation on the image store failed, and the class a server maps to a status.
//!
//! Messages that Docker's users and scripts know (`No such image: …`, `conflict: unable to …`) are
//! kept word for word (moby `daemon/images/errors.go`, `image_delete.go`, `tarexport/load.go`).

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::layers::UnpackError;
use crate::reference::ReferenceError;
use crate::registry::RegistryError;

/// An operation on the image store failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name, id or id prefix.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// What is to be pushed is not here under that name. The text is complete.
    #[error("{0}")]
    NoSuchTag(String),
    /// A short id fits more than one image.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// A name does not follow the reference grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Removing would break something. The text is Docker's, complete.
    #[error("{0}")]
    Conflict(String),
    /// An option or argument of the caller makes no sense; the text says which and what is possible.
    #[error("{0}")]
    Invalid(String),
    /// The archive handed in is malformed; nothing of it was kept.
    #[error("invalid archive: {0}")]
    Archive(String),
    /// A layer inside the archive cannot be unpacked; nothing of the archive was kept.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Name of the layer within the archive.
        layer: String,
        /// What was wrong with it.
        source: UnpackError,
    },
    /// Bytes do not have the digest their name or descriptor promises.
    #[error("{what} has the wrong content: expected {expected}, got {actual}")]
    WrongDigest {
        /// Which blob, by its name in the archive or store.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// The image is for another operating system or processor.
    #[error(
        "image is for {image}, this machine is {machine}: load or build a {machine} variant of it"
    )]
    Platform {
        /// `os/arch[/variant]` of the image.
        image: String,
        /// `os/arch` of this machine.
        machine: String,
    },
    /// The image is there, but not for the platform that was asked for. The text is complete.
    #[error("{0}")]
    NoSuchPlatform(String),
    /// The exchange with a registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of the store itself is damaged.
    #[error("image store: {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
    /// Another process has the store open.
    #[error("image store {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The input stream of a load or import ended in an error.
    #[error("cannot read the archive: {0}")]
    Input(#[source] io::Error),
    /// The output stream of a save failed.
    #[error("cannot write the archive: {0}")]
    Output(#[source] io::Error),
    /// A system call on a file of the store failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Verb, for example `create`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// What kind of failure an [`ImageError`] is, in the words of moby's `errdefs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The thing named does not exist.
    NotFound,
    /// What the caller sent is malformed.
    InvalidParameter,
    /// The state of the store forbids it.
    Conflict,
    /// A registry refuses the user.
    Unauthorized,
    /// The machine failed, or another one that was needed.
    System,
}

impl ImageError {
    /// The class of the failure.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoSuchImage(_) | Self::NoSuchPlatform(_) | Self::NoSuchTag(_) => {
                ErrorClass::NotFound
            }
            Self::Registry(error) => error.class(),
            Self::AmbiguousId(_)
            | Self::Reference(_)
            | Self::Invalid(_)
            | Self::Archive(_)
            | Self::WrongDigest { .. }
            | Self::Platform { .. }
            | Self::Input(_) => ErrorClass::InvalidParameter,
            Self::Layer { source, .. } if source.is_input() => ErrorClass::InvalidParameter,
            Self::Conflict(_) => ErrorClass::Conflict,
            Self::Layer { .. }
            | Self::Damaged { .. }
            | Self::Locked(_)
            | Self::Output(_)
            | Self::Io { .. } => ErrorClass::System,
        }
    }

    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
