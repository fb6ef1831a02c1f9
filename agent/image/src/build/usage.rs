//! What a tree takes on the disk.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of the blocks of `directory` and everything in it, each inode once: what du(1) says. Links are not followed, and nobody
/// else may write to it meanwhile. Trees that are too deep for a path are refused by the system.
pub(super) fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut blocks = directory.symlink_metadata()?.blocks();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() > 1 && !seen.insert(metadata.ino()) {
                continue;
            }
            blocks += metadata.blocks();
        }
    }
    Ok(blocks * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_once_for_each_inode() {
        let root = tempfile::tempdir().unwrap();
        let empty = disk_bytes(root.path()).unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, vec![1; 300_000]).unwrap();
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        let one = disk_bytes(root.path()).unwrap();
        assert!(one >= empty + 300_000, "{one} after {empty}");
        std::fs::hard_link(&file, root.path().join("again")).unwrap();
        assert_eq!(disk_bytes(root.path()).unwrap(), one);
    }
}
