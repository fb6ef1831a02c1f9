//! The root file system of a container as a detached mount: nobody but the holder of the descriptor can reach it.
//!
//! Overlays use `lowerdir+` (Linux 6.7) with one option per layer. Older kernels take one option string for all layers,
//! which has to be short: layers are then named `/proc/self/fd/N`, and mounted by mount(2) on a thread with a mount
//! namespace of its own. Source: kernel `Documentation/filesystems/overlayfs.rst`.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::spec::Rootfs;
use crate::sys::kernel::{self, Filesystem};
use crate::sys::raw::MountAttr;
use crate::tree;

/// The longest value `fsconfig` takes, the final zero included.
const FSCONFIG_MAX: usize = 256;

/// Features that would make an upper layer unreadable without its lower ones are off: a layer must be a plain diff.
const FIXED: [(&CStr, &CStr); 3] = [
    (c"index", c"off"),
    (c"redirect_dir", c"off"),
    (c"metacopy", c"off"),
];

/// `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
const OVERLAY_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// Why the root cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    /// A directory is missing or unusable.
    #[error("open {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error("mount overlay of {layers} layers: {source}")]
    Overlay { layers: usize, source: io::Error },
    /// What is written cannot be kept there.
    #[error(
        "{path} lies on an overlay, on which the kernel mounts no other: keep the data root on a volume, a tmpfs, or \
         another file system"
    )]
    Nested { path: String },
    #[error("copy the mount of {path}: {source}")]
    Clone { path: String, source: io::Error },
}

/// A detached, private mount of the root.
pub(crate) fn detached(rootfs: &Rootfs) -> Result<OwnedFd, RootError> {
    match rootfs {
        Rootfs::Directory(path) => {
            let directory = open_directory(path)?;
            let clone = |source| RootError::Clone {
                path: path.display().to_string(),
                source,
            };
            let mut tree = kernel::clone_tree(directory.as_fd(), true).map_err(clone)?;
            let private = MountAttr {
                propagation: libc::MS_PRIVATE,
                ..MountAttr::default()
            };
            tree::set_attributes(&mut tree, &private, true).map_err(clone)?;
            Ok(tree)
        }
        Rootfs::Overlay { lower, upper, work } => {
            let lower: Vec<&Path> = lower.iter().map(AsRef::as_ref).collect();
            let failed = |source| RootError::Overlay {
                layers: lower.len(),
                source,
            };
            let writable = Some((upper.as_path(), work.as_path()));
            overlay(&lower, writable).map_err(|source| {
                // The kernel does not say which directory: look.
                let all = lower
                    .iter()
                    .copied()
                    .chain([upper.as_path(), work.as_path()]);
                let missing = all.map(open_directory).find_map(Result::err);
                missing.unwrap_or_else(|| nested(upper).unwrap_or_else(|| failed(source)))
            })
        }
    }
}

/// A detached read-only mount of several layers put together, the uppermost first: what an image looks like.
pub fn layers(layers: &[impl AsRef<Path>]) -> io::Result<OwnedFd> {
    let lower: Vec<&Path> = layers.iter().map(AsRef::as_ref).collect();
    overlay(&lower, None)
}

/// A detached mount of several layers put together, the uppermost first, that takes what is written into `upper`. `work`
/// is empty and on the same file system.
pub fn writable_layers(
    layers: &[impl AsRef<Path>],
    upper: &Path,
    work: &Path,
) -> io::Result<OwnedFd> {
    let lower: Vec<&Path> = layers.iter().map(AsRef::as_ref).collect();
    overlay(&lower, Some((upper, work)))
}

/// Directories that make an overlay writable: where changes go, and the kernel's work directory beside it.
type Writable<'a> = Option<(&'a Path, &'a Path)>;

fn overlay(lower: &[&Path], writable: Writable<'_>) -> io::Result<OwnedFd> {
    match modern_overlay(lower, writable) {
        Err(Modern::Unsupported) => classic_overlay(lower, writable),
        Err(Modern::Failed(source)) => Err(source),
        Ok(mount) => Ok(mount),
    }
}

/// The error of an upper directory that is itself on an overlay.
fn nested(upper: &Path) -> Option<RootError> {
    let file_system = rustix::fs::statfs(upper).ok()?;
    (file_system.f_type == OVERLAY_MAGIC).then(|| RootError::Nested {
        path: upper.display().to_string(),
    })
}

fn open_directory(path: &Path) -> Result<OwnedFd, RootError> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| RootError::Open {
        path: path.display().to_string(),
        source: errno.into(),
    })
}

enum Modern {
    /// The kernel does not know `lowerdir+`.
    Unsupported,
    Failed(io::Error),
}

fn modern_overlay(lower: &[&Path], writable: Writable<'_>) -> Result<OwnedFd, Modern> {
    let fs = Filesystem::open(c"overlay").map_err(Modern::Failed)?;
    // Before 6.5 overlays were not yet part of this interface: it takes any word and complains at the end, when the
    // reason can no longer be told.
    if fs.set(c"no-such-option", Some(c"")).is_ok() {
        return Err(Modern::Unsupported);
    }
    fs.forget();
    // Directories whose paths are too long for the call are named through descriptors, which must live until then.
    let mut held = Vec::new();
    for (index, layer) in lower.iter().enumerate() {
        let value = short_path(layer, &mut held).map_err(Modern::Failed)?;
        match fs.set(c"lowerdir+", Some(&value)) {
            Err(error)
                if index == 0 && error.raw_os_error() == Some(libc::EINVAL) && layer.is_dir() =>
            {
                return Err(Modern::Unsupported);
            }
            other => other.map_err(|error| Modern::Failed(fs.explain(error)))?,
        }
    }
    let directories = writable.map(|(upper, work)| [(c"upperdir", upper), (c"workdir", work)]);
    for (key, path) in directories.into_iter().flatten() {
        let value = short_path(path, &mut held).map_err(Modern::Failed)?;
        fs.set(key, Some(&value))
            .map_err(|error| Modern::Failed(fs.explain(error)))?;
    }
    for (key, value) in FIXED {
        // A kernel built without a feature does not know the word for switching it off.
        let _ = fs.set(key, Some(value));
    }
    fs.forget();
    fs.mount(0).map_err(Modern::Failed)
}

fn short_path(path: &Path, held: &mut Vec<OwnedFd>) -> io::Result<CString> {
    let bytes = path.as_os_str().as_bytes();
    // The kernel takes a backslash for the escape of what follows.
    if bytes.len() < FSCONFIG_MAX && !bytes.contains(&b'\\') {
        return CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    }
    let fd = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// One option string and mount(2), in a mount namespace that lives as long as this call.
fn classic_overlay(lower: &[&Path], writable: Writable<'_>) -> io::Result<OwnedFd> {
    use rustix::mount::{MountFlags, mount};
    let open = |path: &Path| {
        rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    // Any directory would do: nobody else sees what is mounted on it.
    let place = match (writable, lower.first()) {
        (Some((upper, _)), _) => upper,
        (None, Some(layer)) => layer,
        (None, None) => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    tree::in_private_namespace(|| {
        // Opened in here: the kernel takes layers only from the caller's own namespace.
        let layers = lower
            .iter()
            .map(|path| open(path))
            .collect::<Result<Vec<_>, _>>()?;
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let names: Vec<String> = layers.iter().map(name).collect();
        let mut options = format!("lowerdir={}", names.join(":"));
        let upper = match writable {
            Some((upper, work)) => Some((open(upper)?, open(work)?)),
            None => None,
        };
        if let Some((upper, work)) = &upper {
            options += &format!(",upperdir={},workdir={}", name(upper), name(work));
        }
        for (key, value) in FIXED {
            options += &format!(",{}={}", key.to_string_lossy(), value.to_string_lossy());
        }
        if options.len() >= 4096 {
            return Err(io::Error::other(
                "this kernel's overlay takes about 200 layers",
            ));
        }
        let options = CString::new(options)?;
        let flags = MountFlags::empty();
        mount("overlay", place, "overlay", flags, options.as_c_str())?;
        kernel::clone_tree(open(place)?.as_fd(), false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    /// Both ways show the same tree; the classic one is what kernels before 6.7 get.
    #[test]
    fn classic_and_modern_overlays_agree() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "upper", "work", "upper2", "work2"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("a").join("f"), "top").unwrap();
        std::fs::write(path("b").join("f"), "bottom").unwrap();
        std::fs::write(path("b").join("g"), "only").unwrap();
        let lower = vec![path("a"), path("b")];
        let modern = detached(&Rootfs::Overlay {
            lower: lower.clone(),
            upper: path("upper"),
            work: path("work"),
        })
        .unwrap();
        let layers: Vec<&Path> = lower.iter().map(AsRef::as_ref).collect();
        let classic = classic_overlay(&layers, Some((&path("upper2"), &path("work2")))).unwrap();
        for root in [&modern, &classic] {
            for (file, text) in [(c"f", "top"), (c"g", "only")] {
                let fd = kernel::open_in_root(root.as_fd(), file, libc::O_RDONLY).unwrap();
                assert_eq!(io::read_to_string(std::fs::File::from(fd)).unwrap(), text);
            }
        }
        // Without an upper layer: the image alone, by both ways.
        for root in [
            super::layers(&lower).unwrap(),
            classic_overlay(&layers, None).unwrap(),
        ] {
            let fd = kernel::open_in_root(root.as_fd(), c"f", libc::O_RDONLY).unwrap();
            assert_eq!(io::read_to_string(std::fs::File::from(fd)).unwrap(), "top");
        }
        // Nothing of it is visible outside.
        assert_eq!(std::fs::read_dir(path("upper2")).unwrap().count(), 0);
        assert_eq!(
            std::fs::metadata(path("upper2")).unwrap().dev(),
            std::fs::metadata(dir.path()).unwrap().dev()
        );
    }

    #[test]
    fn paths_with_backslashes_are_mounted() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(r"a\b").join(name);
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("lower").join("f"), "text").unwrap();
        let root = writable_layers(&[path("lower")], &path("upper"), &path("work")).unwrap();
        let fd = kernel::open_in_root(root.as_fd(), c"f", libc::O_RDONLY).unwrap();
        assert_eq!(io::read_to_string(std::fs::File::from(fd)).unwrap(), "text");
    }

    #[test]
    fn the_kernels_reason_is_told_and_an_overlay_on_an_overlay_explained() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let outer = writable_layers(&[path("lower")], &path("upper"), &path("work")).unwrap();
        let inside = PathBuf::from(format!("/proc/self/fd/{}", outer.as_raw_fd()));
        for name in ["upper", "work"] {
            std::fs::create_dir(inside.join(name)).unwrap();
        }
        let (upper, work) = (inside.join("upper"), inside.join("work"));
        let error = writable_layers(&[path("lower")], &upper, &work).unwrap_err();
        assert!(!error.to_string().contains("no-such-option"), "{error}");
        let rootfs = Rootfs::Overlay {
            lower: vec![path("lower")],
            upper,
            work,
        };
        let text = detached(&rootfs).unwrap_err().to_string();
        assert!(text.contains("lies on an overlay"), "{text}");
    }

    #[test]
    fn a_missing_layer_is_named() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::Overlay {
            lower: vec![dir.path().join("gone")],
            upper: dir.path().to_owned(),
            work: dir.path().to_owned(),
        };
        let text = detached(&rootfs).unwrap_err().to_string();
        assert!(text.contains("/gone: No such file"), "{text}");
    }
}
