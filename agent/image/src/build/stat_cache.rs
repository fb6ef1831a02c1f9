//! Digests of files of contexts that did not change since they were read.

/// Digests by device, inode, size, times and mode.
pub struct StatCache {}

impl StatCache {
    pub(super) fn open(path: std::path::PathBuf) -> Self {
        let _ = path;
        Self {}
    }
}
