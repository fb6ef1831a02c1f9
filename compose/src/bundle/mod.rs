//! A whole project as one archive: what an offline site needs to bring it up, and nothing it would have to believe.
//!
//! ```text
//! muster/original/…      the compose and env files as they were written; for people, nothing reads them
//! muster/compose.yaml    the resolved model; its paths are relative to where the bundle is unpacked
//! muster/project/…       files of the model that lie below the project directory
//! muster/outside/<n>/…   … and those that do not
//! muster/variables.json  values of secrets that come from variables (only when secrets travel)
//! blobs/sha256/<hex>     configurations, manifests and layers of all images, each once
//! index.json manifest.json oci-layout   so that `docker load` and tools for OCI layouts read it, too
//! muster/lock.json       what every entry above must be; last, so that a bundle cut short has none
//! ```
//!
//! [`portable`] makes the model of a project, [`archive`] writes and lists entries, [`lock`] says what they must be,
//! [`open`] holds one against the other, and [`ship`] picks what a daemon lacks. Equal projects and images give equal
//! bytes: entries have no times and no owners. Nothing here speaks to a daemon, follows a name out of the archive or
//! writes outside of the archive; entries are regular files with names of a few shapes ([`name`]), in bounded numbers.

pub mod archive;
pub mod lock;
pub mod name;
pub mod open;
pub mod portable;
pub mod saved;
pub mod ship;

use std::io;

pub use archive::{Entry, Index, Writer};
pub use lock::{Blob, ImageContent, LeftOut, Lock, LockedFile, LockedImage, LockedService};
pub use open::Bundle;
pub use portable::{Carry, Portable, Wanted};

/// Version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Largest lock, model, configuration or manifest, bytes.
pub const MAX_DOCUMENT: u64 = 16 << 20;
/// Most entries of a bundle.
pub const MAX_ENTRIES: usize = 200_000;

/// Why a bundle cannot be written or read. Messages name the entry.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The archive, or what is to go into it, cannot be read or written.
    #[error("cannot {what}")]
    Io {
        /// What was attempted, with the entry or path.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry is not what it must be.
    #[error("the bundle is damaged: {entry}: {reason}")]
    Damaged {
        /// Name of the entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is something else.
    #[error("this is no bundle: {0}")]
    NotABundle(String),
    /// It was written by a later version.
    #[error(
        "the bundle has version {found}, and this muster reads version {VERSION}: use the muster that wrote it ({by}), or write the bundle again"
    )]
    Version {
        /// Its version.
        found: u64,
        /// Who wrote it.
        by: String,
    },
    /// The project cannot be made into a bundle.
    #[error("{0}")]
    Unsuited(String),
}

impl BundleError {
    pub(crate) fn damaged(entry: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged {
            entry: entry.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// `sha256:<hex>` of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    format!("sha256:{}", hex::encode(digest))
}
