//! One `RUN --mount=…` value.
//!
//! Must not: know stages, images or secrets. Follows BuildKit's `instructions/commands_runmount.go`.

use serde::{Deserialize, Serialize};

use super::ParseError;

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that survives between builds.
    Cache,
    /// Empty memory file system.
    Tmpfs,
    /// A secret of the client as a file or variable.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Everyone at once (default).
    Shared,
    /// A second user gets a directory of its own.
    Private,
    /// A second user waits.
    Locked,
}

/// A mount of a RUN step; paths as the user wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// `type=`, bind by default.
    pub kind: MountType,
    /// `from=`: stage, image or named context; `None` means the main context (bind) or an empty start (cache).
    pub from: Option<String>,
    /// `source=`; empty means the root of `from`.
    pub source: String,
    /// `target=`; may be empty for secret and ssh.
    pub target: String,
    /// Whether the step may not write to it.
    pub read_only: bool,
    /// `size=` of a tmpfs in bytes; 0 without limit.
    pub size_bytes: u64,
    /// `id=` of cache, secret and ssh.
    pub id: Option<String>,
    /// `sharing=` of a cache.
    pub sharing: Option<Sharing>,
    /// `required` of secret and ssh: fail when the client does not offer it.
    pub required: bool,
    /// `env=` of a secret: variable to set; `Some("")` means the secret's id.
    pub env: Option<String>,
    /// `mode=` (octal) of cache, secret and ssh.
    pub mode: Option<u32>,
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
}

impl Mount {
    /// Reads one value; `expand` replaces variables of each option's value.
    ///
    /// # Errors
    /// An unknown option, a value out of range, or options that do not fit the type, in BuildKit's words.
    pub fn parse(
        value: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, crate::words::WordError>,
    ) -> Result<Mount, ParseError> {
        let _ = (value, expand);
        todo!()
    }
}
