//! Tar archives of file trees that are in use: a container's root, or a directory of the host (`cp`, both ways).
//!
//! Unlike a layer, such a tree is shared with others who write to it at the same time, so nothing is remembered about it
//! but open directories, and every path is resolved by the kernel inside the tree's root.
//!
//! Must not: know containers, or interpret whiteouts (a tree in use has none).

mod extract;
mod payload;

pub(crate) use payload::{PayloadError, write_payload};

pub use extract::{Destination, ExtractError, ExtractOptions, Overwrite, Owner, extract};

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::ImageError;
use crate::layers::{Stream, pack_named};
use crate::limits::Limits;
use crate::store::pack_error;

/// Writes a tar of `child` of an open directory with everything below it, called `name` in the archive; without `child`,
/// of the directory itself. Links are archived, not followed. `path` is what messages call it.
///
/// # Errors
/// [`ImageError::Output`] when `output` refuses, else what could not be read.
pub fn write_tree(
    directory: &OwnedFd,
    child: Option<&OsStr>,
    name: &[u8],
    path: &Path,
    output: &mut dyn Write,
) -> Result<(), ImageError> {
    let mut output = Stream(output);
    pack_named(
        directory,
        child,
        name,
        path,
        &Limits::default(),
        &mut output,
    )
    .map_err(pack_error)
}
