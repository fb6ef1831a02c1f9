//! A stage's file system as one tar.

use std::io::Write;

use tokio_util::sync::CancellationToken;

use super::error::Result;
use super::{Rewrite, View};

/// Writes everything in `view` as a plain tar, without an entry for the root (`--output type=tar` and `type=local`).
///
/// # Errors
/// What cannot be read, and `output`'s own.
pub fn write_tar(
    view: &View,
    rewrite: Rewrite,
    output: &mut dyn Write,
    cancel: &CancellationToken,
) -> Result<()> {
    let _ = (view, rewrite, output, cancel);
    todo!()
}
