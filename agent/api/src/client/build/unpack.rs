//! Unpacking what a build put out into a directory of the user's.
//!
//! The tar comes from the daemon, but its names come from whatever the build ran: every path is resolved inside of the
//! directory (`RESOLVE_IN_ROOT` would follow planted links to other places of it, so links are not followed at all).
//! Files belong to the caller, as with `docker build -o`; what was there stays, unless it is in the way.
//! Source: BuildKit `session/filesync`, tonistiigi/fsutil `diskwriter.go`.

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// Flags of directories that are walked through.
const WALK: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Unpacks a tar into a directory, which is made if it is missing.
///
/// # Errors
/// The tar is malformed or leads out of the directory; a file cannot be written.
pub(super) fn unpack(tar: &mut impl Read, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let root = rustix::fs::open(
        directory,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Times and modes of directories come last: filling them changes the first and may need more than the second.
    let mut directories: Vec<(PathBuf, u32, Timestamps)> = Vec::new();
    let mut archive = Archive::new(&mut *tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(path) = clean(&entry.path_bytes())? else {
            continue;
        };
        let at =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let extra = extensions(&mut entry).map_err(at)?;
        let mode = entry.header().mode().map_err(at)? & 0o7777;
        if entry.header().entry_type() == EntryType::Directory {
            make_directories(root.as_fd(), &path).map_err(at)?;
            directories.push((path, mode, extra.times));
        } else {
            place(root.as_fd(), &path, &mut entry, mode, &extra).map_err(at)?;
        }
    }
    // What follows the end of the archive is read, so that the sender is not left in the middle of it.
    io::copy(tar, &mut io::sink())?;
    for (path, mode, times) in directories.into_iter().rev() {
        let fd = open_beneath(root.as_fd(), &path, WALK)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        rustix::fs::futimens(&fd, &times)?;
    }
    Ok(())
}

/// The path inside of the directory, `None` for the directory itself.
fn clean(bytes: &[u8]) -> io::Result<Option<PathBuf>> {
    let path = Path::new(OsStr::from_bytes(bytes));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: leads out of the directory", path.display()),
                ));
            }
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

/// What an entry's extensions add to its header.
struct Extensions {
    times: Timestamps,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Times in seconds are the header's, exact ones an extension's.
fn extensions<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Extensions> {
    let mut time = Timespec {
        tv_sec: i64::try_from(entry.header().mtime()?).unwrap_or(0),
        tv_nsec: 0,
    };
    let mut attributes = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let key = extension.key().unwrap_or_default();
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
            } else if key == "mtime"
                && let Some(exact) = extension.value().ok().and_then(parse_time)
            {
                time = exact;
            }
        }
    }
    Ok(Extensions {
        times: Timestamps {
            last_access: time,
            last_modification: time,
        },
        attributes,
    })
}

/// `1700000000.5`
fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.get(..9).unwrap_or(fraction);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Timespec {
        tv_sec: seconds.parse().ok()?,
        tv_nsec: format!("{fraction:0<9}").parse().ok()?,
    })
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// The directory, with everything above it. A link or a file that is in the way is replaced.
fn make_directories(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match open_beneath(root, path, WALK) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut fd = root.try_clone_to_owned()?;
    for part in path.components() {
        let name = part.as_os_str();
        let next = match rustix::fs::openat(&fd, name, WALK, Mode::empty()) {
            Err(Errno::NOENT) => None,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                rustix::fs::unlinkat(&fd, name, AtFlags::empty())?;
                None
            }
            other => Some(other?),
        };
        fd = match next {
            Some(next) => next,
            None => {
                rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755))?;
                rustix::fs::openat(&fd, name, WALK, Mode::empty())?
            }
        };
    }
    Ok(fd)
}

/// Everything that is not a directory.
fn place<R: Read>(
    root: BorrowedFd<'_>,
    path: &Path,
    entry: &mut Entry<'_, R>,
    mode: u32,
    extra: &Extensions,
) -> io::Result<()> {
    let name = path.file_name().expect("a clean path ends in a name");
    let parent = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => make_directories(root, above)?,
        _ => root.try_clone_to_owned()?,
    };
    clear(parent.as_fd(), name)?;
    let kind = entry.header().entry_type();
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = std::fs::File::from(fd);
            io::copy(entry, &mut file)?;
            for (name, value) in &extra.attributes {
                // As BuildKit: what the caller may not set, or the file system cannot hold, is left out.
                let _ = rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty());
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            rustix::fs::futimens(&file, &extra.times)?;
            return Ok(());
        }
        EntryType::Symlink => {
            let target = link_target(entry)?;
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)?;
        }
        EntryType::Link => {
            let target = link_target(entry)?;
            let target = clean(&target)?
                .ok_or_else(|| io::Error::other("is a link to the directory itself"))?;
            let found = open_beneath(root, &target, OFlags::PATH | OFlags::NOFOLLOW)?;
            // Through /proc: the name must not be looked up a second time.
            let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
            rustix::fs::linkat(CWD, source, &parent, name, AtFlags::SYMLINK_FOLLOW)?;
            return Ok(());
        }
        EntryType::Fifo => make_node(parent.as_fd(), name, FileType::Fifo, mode, 0)?,
        EntryType::Char | EntryType::Block => {
            let header = entry.header();
            let device = rustix::fs::makedev(
                header.device_major()?.unwrap_or(0),
                header.device_minor()?.unwrap_or(0),
            );
            let kind = if kind == EntryType::Char {
                FileType::CharacterDevice
            } else {
                FileType::BlockDevice
            };
            make_node(parent.as_fd(), name, kind, mode, device)?;
        }
        other => return Err(io::Error::other(format!("is an entry of kind {other:?}"))),
    }
    rustix::fs::utimensat(&parent, name, &extra.times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<Vec<u8>> {
    let target = entry
        .link_name_bytes()
        .ok_or_else(|| io::Error::other("is a link to nothing"))?;
    Ok(target.into_owned())
}

fn make_node(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    mode: u32,
    device: u64,
) -> io::Result<()> {
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    // The umask does not count.
    let fd = rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Takes away a file that is in the way; a directory only when it is empty.
fn clear(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(|error| {
                io::Error::new(
                    io::Error::from(error).kind(),
                    "a directory with files in it is in the way",
                )
            })
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use tar::{Builder, Header};

    fn header(kind: EntryType, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_mtime(1_700_000_000);
        header.set_size(size as u64);
        header
    }

    /// A tar whose names are what they are, however hostile.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (kind, path, text) in entries {
            let data = if *kind == EntryType::Regular {
                *text
            } else {
                ""
            };
            let mut header = header(*kind, data.len());
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            if data.is_empty() {
                header.as_mut_bytes()[157..157 + text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack_into(directory: &Path, entries: &[(EntryType, &str, &str)]) -> io::Result<()> {
        unpack(&mut &archive(entries)[..], directory)
    }

    #[test]
    fn files_links_and_directories_arrive_with_modes_and_times() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("made/out");
        unpack_into(
            &out,
            &[
                (EntryType::Directory, "d/", ""),
                (EntryType::Regular, "d/f", "text"),
                (EntryType::Symlink, "l", "../../outside"),
                (EntryType::Link, "hard", "d/f"),
                (EntryType::Regular, "deep/er/g", "x"),
                (EntryType::Fifo, "pipe", ""),
            ],
        )
        .unwrap();
        assert_eq!(fs::read_to_string(out.join("d/f")).unwrap(), "text");
        let file = fs::metadata(out.join("d/f")).unwrap();
        assert_eq!(
            (file.permissions().mode() & 0o7777, file.mtime()),
            (0o640, 1_700_000_000)
        );
        assert_eq!(file.ino(), fs::metadata(out.join("hard")).unwrap().ino());
        let made = fs::metadata(out.join("d")).unwrap();
        assert_eq!(
            (made.permissions().mode() & 0o7777, made.mtime()),
            (0o640, 1_700_000_000)
        );
        assert_eq!(
            fs::read_link(out.join("l")).unwrap(),
            Path::new("../../outside")
        );
        assert_eq!(fs::read(out.join("deep/er/g")).unwrap(), b"x");
    }

    #[test]
    fn nothing_is_written_outside() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        for hostile in [
            &[(EntryType::Regular, "../evil", "x")][..],
            &[(EntryType::Regular, "a/../../evil", "x")],
            &[
                (EntryType::Symlink, "l", ".."),
                (EntryType::Link, "h", "l/secret"),
            ],
            &[(EntryType::Link, "h", "../secret")],
        ] {
            fs::write(directory.path().join("secret"), "s").unwrap();
            assert!(unpack_into(&out, hostile).is_err(), "{hostile:?}");
        }
        // A link in the way is replaced by a directory, not followed.
        unpack_into(
            &out,
            &[
                (EntryType::Symlink, "m", ".."),
                (EntryType::Regular, "m/evil", "x"),
            ],
        )
        .unwrap();
        assert_eq!(fs::read(out.join("m/evil")).unwrap(), b"x");
        unpack_into(&out, &[(EntryType::Regular, "/abs", "x")]).unwrap();
        assert_eq!(fs::read(out.join("abs")).unwrap(), b"x");
        assert!(!directory.path().join("evil").exists());
    }

    #[test]
    fn what_was_there_stays_unless_it_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        fs::write(out.join("kept"), "k").unwrap();
        fs::write(out.join("f"), "old").unwrap();
        fs::create_dir(out.join("full")).unwrap();
        fs::write(out.join("full/x"), "x").unwrap();
        unpack_into(out, &[(EntryType::Regular, "f", "new")]).unwrap();
        assert_eq!(fs::read(out.join("f")).unwrap(), b"new");
        assert_eq!(fs::read(out.join("kept")).unwrap(), b"k");
        let error = unpack_into(out, &[(EntryType::Regular, "full", "x")]).unwrap_err();
        assert!(error.to_string().contains("in the way"), "{error}");
        assert!(unpack(&mut &archive(&[(EntryType::Regular, "f", "x")])[..700], out).is_err());
    }
}
