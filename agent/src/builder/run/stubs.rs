//! Mount points that a root lacks: made by the launch, and no part of the step's result.
//!
//! [`find`] says before the launch which paths are missing; [`remove`] takes those that are still empty out of the
//! writable layer afterwards. What the command put there stays. A directory that is in the writable layer only because a
//! mount point was made in it goes, too, so that the layer says nothing about it.
//!
//! `/proc`, `/sys` and `/dev` stay where an image lacks them, as in images that BuildKit makes. Source: buildkit
//! `executor/stubs.go`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Links followed on the way to one path, as the kernel bounds it.
const LINKS_MAX: usize = 40;
/// Mounted in every sandbox.
const ALWAYS: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// What a root lacks of the mount points. Paths are relative to the root and free of links.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Children before parents.
    stubs: Vec<PathBuf>,
    /// Directories of the root above them, as they were.
    above: BTreeMap<PathBuf, Before>,
}

/// A directory of the root before the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Before {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    has_attributes: bool,
}

/// Finds out which of `targets` and of what is always mounted the layers (uppermost first) lack. Blocks.
pub(super) fn find(layers: &[PathBuf], targets: &[PathBuf]) -> Result<Missing> {
    let failed =
        |error: io::Error| Error::system(format!("cannot look into a step's root: {error}"));
    let root = open_root(layers).map_err(failed)?;
    let mut stubs = BTreeSet::new();
    let mut missing = Missing::default();
    for target in ALWAYS
        .iter()
        .map(Path::new)
        .chain(targets.iter().map(PathBuf::as_path))
    {
        let mut path = resolve(root.as_fd(), target).map_err(failed)?;
        if stat(root.as_fd(), &path).map_err(failed)?.is_some() {
            continue;
        }
        while !path.as_os_str().is_empty() && stat(root.as_fd(), &path).map_err(failed)?.is_none() {
            stubs.insert(path.clone());
            path.pop();
        }
        while !path.as_os_str().is_empty() && !missing.above.contains_key(&path) {
            // Where a file is in the way, the launch will fail and say so.
            if let Some(directory) = optional(open_beneath(root.as_fd(), &path)).map_err(failed)? {
                let before = Before::of(&directory).map_err(failed)?;
                missing.above.insert(path.clone(), before);
            }
            path.pop();
        }
    }
    // A path sorts before what is below it.
    missing.stubs = stubs.into_iter().rev().collect();
    Ok(missing)
}

/// Takes what was missing and is still empty out of the writable layer. `launched` is when the command began: until then
/// nobody but the launch changed a directory. Blocks.
pub(super) fn remove(upper: &Path, missing: &Missing, launched: SystemTime) -> Result<()> {
    let failed = |error: io::Error| {
        Error::system(format!(
            "cannot clear mount points away from {}: {error}",
            upper.display()
        ))
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper =
        rustix::fs::open(upper, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    for stub in &missing.stubs {
        remove_stub(&upper, stub).map_err(failed)?;
    }
    for (path, before) in missing.above.iter().rev() {
        forget_unchanged(&upper, path, before, launched).map_err(failed)?;
    }
    Ok(())
}

fn open_root(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match layers {
        [only] => Ok(rustix::fs::open(only, flags, Mode::empty())?),
        many => agent_runtime::root::layers(many),
    }
}

/// Where a path leads inside of a root; what does not exist stays as it is written.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        real.push(&name);
        let link = stat(root, &real)?
            .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if !link {
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(io::Error::other(format!(
                "too many links on the way to {}",
                path.display()
            )));
        }
        let to = rustix::fs::readlinkat(root, &real, Vec::new())?;
        let to = PathBuf::from(OsString::from_vec(to.into_bytes()));
        match to.is_absolute() {
            true => real.clear(),
            false => drop(real.pop()),
        }
        for name in names(&to).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(name);
        }
    }
    Ok(real)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn stat(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Before {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(directory)?;
        Ok(Self {
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            has_attributes: attributes(directory)?
                .iter()
                .any(|name| !name.starts_with(b"trusted.overlay.")),
        })
    }
}

/// A directory below another one, without following any link.
fn open_beneath(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}

fn attributes(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 1 << 16];
    let length = match rustix::fs::flistxattr(directory, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let names = list[..length].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// Removes an empty directory or file; its directory keeps its times.
fn remove_stub(upper: &OwnedFd, stub: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (stub.parent(), stub.file_name()) else {
        return Ok(());
    };
    let Some(parent) = optional(open_beneath(upper.as_fd(), parent))? else {
        return Ok(());
    };
    let Some(stat) = stat(parent.as_fd(), Path::new(name))? else {
        return Ok(());
    };
    let flags = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    let times = rustix::fs::fstat(&parent)?;
    match rustix::fs::unlinkat(&parent, name, flags) {
        Ok(()) => set_modified(&parent, (times.st_mtime, times.st_mtime_nsec as i64)),
        Err(Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes a directory of the root out of the writable layer if it is there without any change of its own.
fn forget_unchanged(
    upper: &OwnedFd,
    path: &Path,
    before: &Before,
    launched: SystemTime,
) -> io::Result<()> {
    let Some(directory) = optional(open_beneath(upper.as_fd(), path))? else {
        return Ok(());
    };
    let now = Before::of(&directory)?;
    let same = Before {
        modified: before.modified,
        ..now
    } == *before
        && !now.has_attributes;
    let replaced = attributes(&directory)?
        .iter()
        .any(|name| name == b"trusted.overlay.opaque");
    if !same || replaced {
        return Ok(());
    }
    if now.modified != before.modified {
        if system_time(now.modified) > launched {
            return Ok(());
        }
        set_modified(&directory, before.modified)?;
    }
    let mut entries = Dir::read_from(&directory)?;
    let empty = entries
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")));
    if !empty {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent = open_beneath(upper.as_fd(), parent)?;
    let times = rustix::fs::fstat(&parent)?;
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    set_modified(&parent, (times.st_mtime, times.st_mtime_nsec as i64))
}

/// `None` where the step has left no such directory.
fn optional(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn set_modified(directory: &OwnedFd, (seconds, nanoseconds): (i64, i64)) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        },
    };
    Ok(rustix::fs::futimens(directory, &times)?)
}

fn system_time((seconds, nanoseconds): (i64, i64)) -> SystemTime {
    let fraction = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + fraction,
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt as _;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["root/etc", "root/real", "upper", "work"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::os::unix::fs::symlink("/real", dir.path().join("root/link")).unwrap();
        dir
    }

    fn missing_in(dir: &Path, targets: &[&str]) -> Vec<String> {
        let targets: Vec<PathBuf> = targets.iter().map(PathBuf::from).collect();
        let missing = find(&[dir.join("root")], &targets).unwrap();
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        missing.stubs.iter().map(text).collect()
    }

    #[test]
    fn what_is_missing_is_found_through_links_and_with_its_parents() {
        let dir = tree();
        fs::write(dir.path().join("root/etc/hosts"), "x").unwrap();
        assert_eq!(
            missing_in(dir.path(), &["/link/a/b", "/link/../c", "/real"]),
            ["real/a/b", "real/a", "etc/resolv.conf", "c"]
        );
        std::os::unix::fs::symlink("loop", dir.path().join("root/loop")).unwrap();
        let error = find(&[dir.path().join("root")], &["/loop/x".into()]).unwrap_err();
        assert!(error.to_string().contains("too many links"), "{error}");
    }

    /// Runs `command` between the two halves, on an overlay as a step has it.
    fn step(dir: &Path, targets: &[&str], command: impl FnOnce(&Path)) {
        let targets: Vec<PathBuf> = targets.iter().map(PathBuf::from).collect();
        let (root, upper) = (dir.join("root"), dir.join("upper"));
        let missing = find(std::slice::from_ref(&root), &targets).unwrap();
        let mount =
            agent_runtime::root::writable_layers(&[&root], &upper, &dir.join("work")).unwrap();
        let merged = PathBuf::from(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&mount)
        ));
        for stub in missing.stubs.iter().rev() {
            match stub.starts_with("etc") {
                true => drop(File::create(merged.join(stub)).unwrap()),
                false => fs::create_dir(merged.join(stub)).unwrap(),
            }
        }
        let launched = SystemTime::now();
        // The clock of files is coarser than ours.
        std::thread::sleep(Duration::from_millis(20));
        command(&merged);
        drop(mount);
        remove(&upper, &missing, launched).unwrap();
    }

    fn left(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![dir.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn nothing_is_left_of_mount_points_and_what_the_command_made_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tree();
        let targets = ["/run/secrets/s", "/cache/a", "/link/x"];
        step(dir.path(), &targets, |_| {});
        assert_eq!(left(&dir.path().join("upper")), [] as [&str; 0]);

        let dir = tree();
        step(dir.path(), &targets, |root| {
            fs::write(root.join("cache/kept"), "x").unwrap();
            fs::write(root.join("etc/hosts"), "mine").unwrap();
            fs::set_permissions(root.join("real"), fs::Permissions::from_mode(0o700)).unwrap();
        });
        assert_eq!(
            left(&dir.path().join("upper")),
            ["cache", "cache/kept", "etc", "etc/hosts", "real"]
        );

        // A change that leaves no entry: the directory's time says so.
        let dir = tree();
        step(dir.path(), &[], |root| {
            fs::write(root.join("etc/gone"), "x").unwrap();
            fs::remove_file(root.join("etc/gone")).unwrap();
        });
        assert_eq!(left(&dir.path().join("upper")), ["etc"]);
    }

    #[test]
    fn a_link_made_by_the_command_leads_nowhere() {
        let dir = tree();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("b")).unwrap();
        let missing = find(&[dir.path().join("root")], &["/a/b".into()]).unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("upper/a")).unwrap();
        remove(&dir.path().join("upper"), &missing, SystemTime::now()).unwrap();
        assert!(outside.join("b").exists());
    }
}
