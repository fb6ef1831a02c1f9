//! Sizes of directory trees, in bytes of their files' content, each inode counted once. Blocks; links are not followed.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes below a directory; what cannot be read counts nothing.
pub(super) fn size_of(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut waiting = vec![directory.to_owned()];
    let mut total = 0;
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total += metadata.len();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn hard_links_count_once_and_links_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/a"), vec![0; 1000]).unwrap();
        fs::hard_link(root.path().join("d/a"), root.path().join("b")).unwrap();
        assert_eq!(size_of(root.path()), 1000);
        assert_eq!(size_of(&root.path().join("missing")), 0);
    }
}
