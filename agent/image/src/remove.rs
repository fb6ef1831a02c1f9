//! Deleting a tree that a stranger made: however deep it is, one directory of it is open at a time and nothing recurses.
//!
//! `std::fs::remove_dir_all` uses stack and a descriptor per level, so a container that nests directories deep enough ends
//! the process. Here directories that are not empty move up to the top until all are there and empty.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a directory with everything in it. Never follows a link. Nobody else may write to it at the same time.
///
/// # Errors
/// The first one; what was not reached stays. `NotFound` when there is no such directory.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    // Removing while reading may hide entries from the reader, so it is read until it is empty.
    while each_entry(top.as_fd(), |name, kind| {
        if remove_one(top.as_fd(), name, kind)? {
            return Ok(());
        }
        let below = open(top.as_fd(), name)?;
        while each_entry(below.as_fd(), |child, kind| {
            match remove_one(below.as_fd(), child, kind)? {
                true => Ok(()),
                false => move_up(below.as_fd(), child, top.as_fd(), &mut moved),
            }
        })? {}
        unlinkat(&top, name, AtFlags::REMOVEDIR)
    })? {}
    Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

fn open(parent: BorrowedFd<'_>, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

/// Whether there was any entry.
fn each_entry(
    directory: BorrowedFd<'_>,
    mut work: impl FnMut(&CStr, FileType) -> rustix::io::Result<()>,
) -> rustix::io::Result<bool> {
    let mut any = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            any = true;
            work(entry.file_name(), entry.file_type())?;
        }
    }
    Ok(any)
}

/// Removes a file or an empty directory; false for a directory that is not empty.
fn remove_one(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> rustix::io::Result<bool> {
    if kind != FileType::Directory {
        match unlinkat(parent, name, AtFlags::empty()) {
            // Only a file system that does not tell kinds gets here with a directory.
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a directory to the top, to the next name that is free (or that of an empty directory, which it replaces).
fn move_up(
    from: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        match renameat(from, name, top, format!(".{moved}")) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            // Names are taken from outside only once each, so this ends.
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn deeper_than_the_stack_and_than_any_path() {
        // 300 frames do not fit the stack below, nor 30,000 bytes into a path.
        const DEPTH: usize = 300;
        let name = "d".repeat(100);
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut here = open(CWD, &tree).unwrap();
        for level in 0..DEPTH {
            rustix::fs::mkdirat(&here, name.as_str(), Mode::RWXU).unwrap();
            if level % 50 == 0 {
                rustix::fs::mkdirat(&here, ".7", Mode::RWXU).unwrap();
                drop(rustix::fs::openat(&here, ".7/f", OFlags::CREATE, Mode::RWXU).unwrap());
            }
            here = open(here.as_fd(), name.as_str()).unwrap();
        }
        drop(here);
        std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || remove_tree(&tree).unwrap())
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        symlink(&other, tree.join("a/b/link")).unwrap();
        symlink(&other, tree.join("link")).unwrap();
        symlink("nowhere", tree.join("a/.1")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.join("kept").exists());
        symlink(&other, &tree).unwrap();
        assert!(remove_tree(&tree).is_err(), "the top is a link");
        assert!(other.join("kept").exists());
        let missing = remove_tree(&root.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn many_entries_in_one_directory() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        for number in 0..300 {
            fs::create_dir_all(tree.join(format!("{number}/x/y"))).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
