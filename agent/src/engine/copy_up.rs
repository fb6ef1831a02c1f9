//! Filling an empty volume with what the image has at the place where it is mounted.
//!
//! The image's layers are looked at through a detached read-only overlay mount (or, for one layer, its directory), so
//! nothing is attached anywhere and a crash leaves no mount. Links in the target path are followed inside the image
//! only. Owner, mode, times, extended attributes, hard links and special files are kept.
//! Behaviour: moby `daemon/container.go:copyExistingContents` (the directory's own owner and mode are copied too).

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// Deepest directory that is copied: protects the stack from a hostile image.
const DEPTH_MAX: usize = 512;

/// Copies the directory `target` of the image into the empty directory `into`. `false` when the image has no
/// directory there. Blocks.
pub(crate) fn copy_up(layers: &[PathBuf], target: &str, into: &Path) -> io::Result<bool> {
    let Some(root) = open_image(layers)? else {
        return Ok(false);
    };
    let inside = target.trim_start_matches('/');
    let inside = if inside.is_empty() { "." } else { inside };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match rustix::fs::openat2(&root, inside, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        other => other?,
    };
    let into = rustix::fs::open(into, flags, Mode::empty())?;
    let mut copy = Copy {
        links: HashMap::new(),
    };
    copy.children(&source, &into, 0)?;
    copy.attributes(&source, &into, &rustix::fs::fstat(&source)?)?;
    Ok(true)
}

/// The merged root of the layers, top first; `None` without layers.
fn open_image(layers: &[PathBuf]) -> io::Result<Option<OwnedFd>> {
    match layers {
        [] => Ok(None),
        [only] => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(Some(rustix::fs::open(only, flags, Mode::empty())?))
        }
        many => agent_runtime::root::layers(many).map(Some),
    }
}

struct Copy {
    /// Path of the first copy of every file with several links, by device and inode: a descriptor of its directory
    /// and its name.
    links: HashMap<(u64, u64), (OwnedFd, CString)>,
}

impl Copy {
    fn children(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!(
                "directories are nested more than {DEPTH_MAX} deep"
            )));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                self.entry(from.as_fd(), to, name, depth)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: &OwnedFd,
        name: &CStr,
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let several = stat.st_nlink > 1 && kind != FileType::Directory;
        if several && let Some((directory, first)) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            rustix::fs::linkat(directory, first.as_c_str(), to, name, AtFlags::empty())?;
            return Ok(());
        }
        let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = open | OFlags::DIRECTORY | OFlags::RDONLY;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
                self.children(&source, &copy, depth + 1)?;
                self.attributes(&source, &copy, &stat)?;
            }
            FileType::RegularFile => {
                let source = rustix::fs::openat(from, name, open | OFlags::RDONLY, Mode::empty())?;
                let flags = open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let copy = rustix::fs::openat(to, name, flags, private)?;
                let mut reader = std::fs::File::from(source);
                let mut writer = std::fs::File::from(copy);
                io::copy(&mut reader, &mut writer)?;
                self.attributes(&reader.into(), &writer.into(), &stat)?;
            }
            FileType::Symlink => {
                let destination = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(destination.as_c_str(), to, name)?;
                self.owner_and_times(to.as_fd(), name, &stat)?;
            }
            _ => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                self.owner_and_times(to.as_fd(), name, &stat)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
            }
        }
        if several {
            let directory = rustix::io::fcntl_dupfd_cloexec(to, 0)?;
            self.links
                .insert((stat.st_dev, stat.st_ino), (directory, name.to_owned()));
        }
        Ok(())
    }

    /// Extended attributes, owner, mode and times, in an order that keeps set-uid bits and times.
    fn attributes(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
        copy_xattrs(from, to)?;
        rustix::fs::fchown(
            to,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        rustix::fs::futimens(to, &times(stat))?;
        Ok(())
    }

    fn owner_and_times(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), nofollow)?;
        rustix::fs::utimensat(directory, name, &times(stat), nofollow)?;
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Copies extended attributes; those of overlayfs itself are not the image's.
fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0_u8; 64 * 1024];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"security.selinux") {
            continue;
        }
        let size = rustix::fs::fgetxattr(from, name, &mut value)?;
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn content_owner_mode_and_links_are_copied() {
        let layer = tempfile::tempdir().unwrap();
        let data = layer.path().join("var/data");
        fs::create_dir_all(data.join("deep/er")).unwrap();
        fs::write(data.join("deep/er/file"), "hello").unwrap();
        fs::set_permissions(data.join("deep/er/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(data.join("deep/er/file"), data.join("same")).unwrap();
        symlink("/etc/passwd", data.join("link")).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).unwrap();
        let into = tempfile::tempdir().unwrap();

        assert!(copy_up(&[layer.path().to_owned()], "/var/data", into.path()).unwrap());
        assert_eq!(
            fs::read_to_string(into.path().join("deep/er/file")).unwrap(),
            "hello"
        );
        let file = fs::metadata(into.path().join("deep/er/file")).unwrap();
        assert_eq!(file.mode() & 0o7777, 0o640);
        assert_eq!(
            file.ino(),
            fs::metadata(into.path().join("same")).unwrap().ino()
        );
        assert_eq!(
            fs::read_link(into.path().join("link")).unwrap(),
            Path::new("/etc/passwd")
        );
        assert_eq!(fs::metadata(into.path()).unwrap().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn links_of_the_image_do_not_lead_outside() {
        let layer = tempfile::tempdir().unwrap();
        symlink("/etc", layer.path().join("data")).unwrap();
        let into = tempfile::tempdir().unwrap();
        assert!(!copy_up(&[layer.path().to_owned()], "/data", into.path()).unwrap());
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_there_is_no_error() {
        let layer = tempfile::tempdir().unwrap();
        fs::write(layer.path().join("file"), "").unwrap();
        let into = tempfile::tempdir().unwrap();
        for target in ["/missing", "/file", "/file/below"] {
            assert!(
                !copy_up(&[layer.path().to_owned()], target, into.path()).unwrap(),
                "{target}"
            );
        }
        assert!(!copy_up(&[], "/x", into.path()).unwrap());
    }

    #[test]
    fn layers_are_seen_merged() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: overlay mounts need root");
            return;
        }
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (layer, name) in [(&lower, "a"), (&upper, "b")] {
            fs::create_dir(layer.path().join("d")).unwrap();
            fs::write(layer.path().join("d").join(name), name).unwrap();
        }
        let into = tempfile::tempdir().unwrap();
        let layers = [upper.path().to_owned(), lower.path().to_owned()];
        assert!(copy_up(&layers, "/d", into.path()).unwrap());
        assert!(into.path().join("a").exists() && into.path().join("b").exists());
    }
}
