//! Digests of what a step reads.

use agent_build::plan::{CopyOp, InputIndex};
use tokio_util::sync::CancellationToken;

use super::error::Result;
use super::{StatCache, View};
use crate::digest::Digest;

/// Digest of everything that `op` selects in one of its inputs: names, kinds, modes, owners, link targets, attributes
/// and content; no times. Selecting nothing has a digest, too.
///
/// # Errors
/// [`FilesError::NotFound`](super::FilesError::NotFound) as the copy itself would, and what cannot be read.
pub fn content_digest(
    op: &CopyOp,
    input: InputIndex,
    view: &View,
    stats: Option<&StatCache>,
    cancel: &CancellationToken,
) -> Result<Digest> {
    let _ = (op, input, view, stats, cancel);
    todo!()
}

/// Digest of one path and everything below it, links on the way followed (a bind mount's source).
///
/// # Errors
/// As [`content_digest`].
pub fn path_digest(
    view: &View,
    path: &str,
    stats: Option<&StatCache>,
    cancel: &CancellationToken,
) -> Result<Digest> {
    let _ = (view, path, stats, cancel);
    todo!()
}
