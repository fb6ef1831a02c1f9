//! Makes what a path of the root lacks, so that something can be mounted there or a process can start there.
//!
//! A link on the way whose target does not exist yet is followed: an image's `/etc/resolv.conf` may name a file below
//! `/run` that only a running system has. The way is walked name by name, links are read and taken apart here, and every
//! directory is opened with the kernel's own resolution inside of the root, so nothing is ever made outside, whatever a
//! link says. Used between clone and exec: the rules of [`super::child`] hold here as well.
//!
//! Source: what runc does with `securejoin.SecureJoin` and `MkdirAll`.

use core::ffi::CStr;

use crate::sys::raw::{self, Errno};

/// Longest path handled, its final zero included.
const PATH_MAX: usize = 4096;
/// Longest name of a directory entry, with the final zero.
const NAME_MAX: usize = 256;
/// Links followed on one way, as the kernel bounds it.
const LINKS_MAX: u32 = 40;

/// What the last name of the path is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// A directory.
    Directory,
    /// An empty file.
    File,
    /// Left alone: only the directories above are made.
    Nothing,
}

/// Makes every missing directory of `path` below `root`, and the last name as `last` says.
pub(super) fn make(root: i32, path: &CStr, last: Last) -> Result<(), Errno> {
    // Made in its place: the stack here is small, and an unoptimised build would copy it about.
    let mut way = Way {
        walked: [0; PATH_MAX],
        walked_length: 0,
        rest: [0; PATH_MAX],
        rest_start: PATH_MAX,
    };
    way.put_before(path.to_bytes())?;
    let mut links = 0u32;
    loop {
        let mut buffer = [0u8; NAME_MAX];
        let Some(name) = way.next(&mut buffer)? else {
            return Ok(());
        };
        if name.to_bytes() == b".." {
            way.climb();
            continue;
        }
        let is_last = way.is_at_end();
        let parent = way.open(root)?;
        let mut text = [0u8; PATH_MAX];
        let outcome = match raw::readlinkat(parent, name, &mut text) {
            Ok(length) => Ok(Some(length)),
            // It is there, and no link.
            Err(libc::EINVAL) => Ok(None),
            Err(libc::ENOENT) => make_one(parent, name, is_last, last).map(|()| None),
            Err(errno) => Err(errno),
        };
        raw::close(parent);
        match outcome? {
            None => way.enter(name)?,
            Some(length) => {
                links = links.wrapping_add(1);
                if links > LINKS_MAX {
                    return Err(libc::ELOOP);
                }
                way.follow(text.get(..length).ok_or(libc::ENAMETOOLONG)?)?;
            }
        }
    }
}

fn make_one(parent: i32, name: &CStr, is_last: bool, last: Last) -> Result<(), Errno> {
    let made = match (is_last, last) {
        (true, Last::Nothing) => return Ok(()),
        (true, Last::File) => raw::mknodat(parent, name, libc::S_IFREG | 0o644, 0),
        (true, Last::Directory) | (false, _) => raw::mkdirat(parent, name, 0o755),
    };
    match made {
        Ok(_) | Err(libc::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A path on the way from the root to where it leads.
struct Way {
    /// What was walked: names without links, each after a slash.
    walked: [u8; PATH_MAX],
    walked_length: usize,
    /// What is left is at the end of this.
    rest: [u8; PATH_MAX],
    rest_start: usize,
}

impl Way {
    fn put_before(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let start = self
            .rest_start
            .checked_sub(bytes.len())
            .ok_or(libc::ENAMETOOLONG)?;
        let space = self.rest.get_mut(start..self.rest_start);
        space.ok_or(libc::ENAMETOOLONG)?.copy_from_slice(bytes);
        self.rest_start = start;
        Ok(())
    }

    fn left(&self) -> &[u8] {
        self.rest.get(self.rest_start..).unwrap_or(&[])
    }

    /// Whether no name is left.
    fn is_at_end(&self) -> bool {
        let mut names = self.left().split(|byte| *byte == b'/');
        names.all(|name| name.is_empty() || name == b".")
    }

    /// Takes the next name, which may be `..`; `None` at the end.
    fn next<'b>(&mut self, buffer: &'b mut [u8; NAME_MAX]) -> Result<Option<&'b CStr>, Errno> {
        loop {
            let left = self.left();
            if left.is_empty() {
                return Ok(None);
            }
            let length = left.iter().take_while(|byte| **byte != b'/').count();
            let name = left.get(..length).unwrap_or(&[]);
            // With the slash behind it, if there is one.
            let taken = length.wrapping_add(usize::from(length < left.len()));
            let counts = !name.is_empty() && name != b".";
            if counts {
                // One byte has to stay for the terminator.
                if name.len() >= NAME_MAX {
                    return Err(libc::ENAMETOOLONG);
                }
                if let Some(space) = buffer.get_mut(..name.len()) {
                    space.copy_from_slice(name);
                }
            }
            self.rest_start = self.rest_start.wrapping_add(taken);
            if counts {
                let name = CStr::from_bytes_until_nul(buffer).map_err(|_| libc::ENAMETOOLONG)?;
                return Ok(Some(name));
            }
        }
    }

    /// Opens the directory walked to.
    fn open(&self, root: i32) -> Result<i32, Errno> {
        let path = match self.walked_length {
            0 => c".",
            _ => CStr::from_bytes_until_nul(&self.walked).map_err(|_| libc::ENAMETOOLONG)?,
        };
        raw::open_in_root(root, path, libc::O_PATH | libc::O_DIRECTORY).map(|fd| fd as i32)
    }

    fn enter(&mut self, name: &CStr) -> Result<(), Errno> {
        let name = name.to_bytes();
        let start = self.walked_length.wrapping_add(1);
        let end = start.wrapping_add(name.len());
        // One byte has to stay for the terminator.
        if end >= PATH_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        if let Some(slash) = self.walked.get_mut(self.walked_length) {
            *slash = b'/';
        }
        if let Some(space) = self.walked.get_mut(start..end) {
            space.copy_from_slice(name);
        }
        self.walked_length = end;
        Ok(())
    }

    /// One directory up; the root's parent is the root.
    fn climb(&mut self) {
        let walked = self.walked.get(..self.walked_length).unwrap_or(&[]);
        let parent = walked.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.truncate(parent);
    }

    /// Puts a link's text in the place of its name.
    fn follow(&mut self, text: &[u8]) -> Result<(), Errno> {
        if text.first() == Some(&b'/') {
            self.truncate(0);
        }
        self.put_before(b"/")?;
        self.put_before(text)
    }

    fn truncate(&mut self, length: usize) {
        if let Some(space) = self.walked.get_mut(length..self.walked_length) {
            space.fill(0);
        }
        self.walked_length = length;
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn make_in(root: &Path, path: &str, last: Last) -> Result<(), Errno> {
        let root = fs::File::open(root).unwrap();
        make(root.as_raw_fd(), &CString::new(path).unwrap(), last)
    }

    #[test]
    fn links_to_nothing_are_followed_inside_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        // link, its text, what is asked for, what is made
        let cases = [
            (
                "etc/resolv.conf",
                "../run/systemd/stub.conf",
                "/etc/resolv.conf",
                "run/systemd/stub.conf",
            ),
            ("v", "/data/deep/", "/v/x", "data/deep/x"),
            ("v", "data", "v//x/./y/", "data/x/y"),
            ("etc/up", "../../../../../a/../b", "/etc/up", "b"),
            ("etc/two", "one", "/etc/two", "etc/one"),
            ("v", "missing/../real", "/v", "real"),
        ];
        for (link, text, path, made) in cases {
            for last in [Last::File, Last::Directory] {
                let root = tempfile::tempdir_in(outside.path()).unwrap();
                fs::create_dir(root.path().join("etc")).unwrap();
                symlink(text, root.path().join(link)).unwrap();
                make_in(root.path(), path, last).unwrap();
                let made = fs::symlink_metadata(root.path().join(made)).unwrap();
                assert_eq!(made.is_dir(), last == Last::Directory, "{path}");
                assert!(made.is_dir() || made.is_file(), "{path}");
                drop(root);
            }
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_stays_and_what_is_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        fs::write(root.path().join("d/f"), "x").unwrap();
        make_in(root.path(), "/d/f", Last::File).unwrap();
        make_in(root.path(), "/", Last::Directory).unwrap();
        make_in(root.path(), "/../d/new/node", Last::Nothing).unwrap();
        assert_eq!(fs::read_dir(root.path().join("d/new")).unwrap().count(), 0);
        assert_eq!(fs::read(root.path().join("d/f")).unwrap(), b"x");
        assert_eq!(
            make_in(root.path(), "/d/f/below", Last::File),
            Err(libc::ENOTDIR)
        );
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert_eq!(make_in(root.path(), "/a", Last::File), Err(libc::ELOOP));
        let long = "n".repeat(256);
        assert_eq!(
            make_in(root.path(), &long, Last::File),
            Err(libc::ENAMETOOLONG)
        );
        let deep = format!("{}/", "n".repeat(200)).repeat(21);
        assert_eq!(
            make_in(root.path(), &deep, Last::Nothing),
            Err(libc::ENAMETOOLONG)
        );
    }
}
