//! Archives that `ADD` unpacks.

use std::os::fd::OwnedFd;

use tokio_util::sync::CancellationToken;

use super::error::Result;
use super::target::Target;

/// A file that is an archive.
pub(super) struct Archive {}

/// Looks at a file's content: `None` if it is no archive.
pub(super) fn open(file: OwnedFd) -> Result<Option<Archive>> {
    let _ = file;
    Ok(None)
}

impl Archive {
    pub(super) fn unpack(
        self,
        target: &Target,
        directory: &[Vec<u8>],
        owner: Option<(u32, u32)>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let _ = (target, directory, owner, cancel);
        todo!()
    }
}
