//! Paths in a container's file system, resolved inside its root however the container changes it meanwhile.
//!
//! Names are worked out on text, as Docker does; whether something is there and what it is comes from openat2(2) with
//! `RESOLVE_IN_ROOT`, so the text is never trusted to stay inside. Source: moby `daemon/archive.go`,
//! `daemon/containerfs_linux.go`, `moby/go-archive:copy.go`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use agent_api::PathStat;
use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Links that are followed before giving up, as the kernel does.
const LINKS_MAX: usize = 40;
/// How often a resolution that the kernel calls racy is tried again.
const RACES_MAX: u32 = 1000;

/// The path as an absolute one without `.` and `..`; a `/` or `/.` at the end, which asks for a directory, stays.
pub(super) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    let last = path.rsplit('/').next().unwrap_or_default();
    if last == "." {
        if !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push('.');
    } else if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// The last element; of the root it is `/`.
pub(super) fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Everything before the last element, and that.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rfind('/') {
        Some(slash) => path.split_at(slash + 1),
        None => ("", path),
    }
}

/// Opens a path inside the root.
pub(super) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename or mount anywhere on the machine while a `..` was being resolved.
            Err(Errno::AGAIN) if tries < RACES_MAX => tries += 1,
            result => return result,
        }
    }
}

/// What is at an absolute path, the last link not followed.
pub(super) fn stat(root: BorrowedFd<'_>, path: &str) -> io::Result<PathStat> {
    let opened = open(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&opened)?;
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => follow(root, path)?,
        _ => String::new(),
    };
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mtime = Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(PathStat {
        name: base(path).to_owned(),
        size: stat.st_size,
        mode: go_mode(&stat),
        mtime: mtime.to_string(),
        link_target,
    })
}

/// Where a path leads when all links in it are followed inside the root: what cannot be followed stays as text.
pub(super) fn follow(root: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let mut waiting: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
    let mut reached: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = waiting.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                reached.pop();
                continue;
            }
            _ => reached.push(part),
        }
        let here = format!("/{}", reached.join("/"));
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(opened) = open(root, &here, flags) else {
            continue;
        };
        let Ok(link) = rustix::fs::readlinkat(&opened, c"", Vec::new()) else {
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let link = String::from_utf8_lossy(link.as_bytes()).into_owned();
        reached.pop();
        if link.starts_with('/') {
            reached.clear();
        }
        waiting.extend(link.rsplit('/').map(str::to_owned));
    }
    Ok(format!("/{}", reached.join("/")))
}

/// Type and permissions as Go's `os.FileMode` has them.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special: u32 = special
        .iter()
        .filter(|(bit, _)| stat.st_mode & bit != 0)
        .map(|(_, mode)| mode)
        .sum();
    kind | special | (stat.st_mode & 0o777)
}

/// The name as the operating system takes it.
pub(super) fn os(name: &str) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_absolute_and_keep_what_asks_for_a_directory() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            (".", "/."),
            ("/.", "/."),
            ("a", "/a"),
            ("a/", "/a/"),
            ("/a/.", "/a/."),
            ("a/../../b", "/b"),
            ("../../..", "/"),
            ("/a//b/", "/a/b/"),
        ] {
            assert_eq!(absolute(path), expected, "{path:?}");
        }
        for (path, expected) in [("/", "/"), ("/a", "a"), ("/a/b/", "b"), ("/a/.", ".")] {
            assert_eq!(base(path), expected);
        }
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/file"), "hello").unwrap();
        for (link, target) in [
            ("up", "../../../../a"),
            ("absolute", "/a/b"),
            ("broken", "nowhere/x"),
            ("loop", "loop"),
        ] {
            symlink(target, root.path().join(link)).unwrap();
        }
        let opened = fs::File::open(root.path()).unwrap();
        for (path, expected) in [
            ("/up/b", "/a/b"),
            ("/absolute/file", "/a/b/file"),
            ("/broken", "/nowhere/x"),
            ("/missing/x", "/missing/x"),
        ] {
            assert_eq!(follow(opened.as_fd(), path).unwrap(), expected);
        }
        assert!(follow(opened.as_fd(), "/loop").is_err());
        let link = stat(opened.as_fd(), "/absolute").unwrap();
        assert_eq!(
            (link.mode, link.link_target.as_str()),
            (1 << 27 | 0o777, "/a/b")
        );
        let directory = stat(opened.as_fd(), "/absolute/").unwrap();
        assert_eq!(directory.mode >> 31, 1);
        assert_eq!(stat(opened.as_fd(), "/up/b/file").unwrap().size, 5);
        assert_eq!(
            stat(opened.as_fd(), "/a/none").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
