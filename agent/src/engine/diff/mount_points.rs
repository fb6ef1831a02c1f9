//! The places the runtime itself made in a container's writable layer to mount on: no change of the container's.
//!
//! Docker makes them in a layer of their own below (`-init`), so that neither `diff` nor `commit` sees them. Mount points
//! of the user's own mounts are changes there, and here.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::below::Below;
use super::{differs, is_opaque};

/// What is mounted in every container, or may be.
const OWN: [&str; 7] = [
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/sbin/docker-init",
];

/// Which paths of the upper directory are there only because something was mounted: what was made and is still empty, and
/// directories of the image that were copied up for that alone. Relative to the root; nothing below them is anything else.
pub(super) fn of(upper: &Path, below: &Below) -> io::Result<BTreeSet<PathBuf>> {
    let mut own = BTreeSet::new();
    let mut points = Vec::new();
    for target in OWN {
        let point = below.resolve(Path::new(target))?;
        if is_own(upper, below, &point, &own)? {
            own.insert(point.clone());
        }
        points.push(point);
    }
    for point in &points {
        // Upwards, as long as there is nothing else in the directory.
        for directory in point.ancestors().skip(1) {
            let is_root = directory.as_os_str().is_empty();
            if is_root || !is_own(upper, below, directory, &own)? {
                break;
            }
            own.insert(directory.to_owned());
        }
    }
    Ok(own)
}

fn is_own(upper: &Path, below: &Below, path: &Path, own: &BTreeSet<PathBuf>) -> io::Result<bool> {
    let place = upper.join(path);
    let metadata = match fs::symlink_metadata(&place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_as_made = match below.stat(path)? {
        None => {
            let made = if metadata.is_dir() { 0o755 } else { 0o644 };
            // The daemon's umask may have taken some away.
            metadata.mode() & 0o7777 & !made == 0 && (metadata.uid(), metadata.gid()) == (0, 0)
        }
        // Copied up: for a mount point, if there is one in it.
        Some(stat) => {
            let has_one = own.iter().any(|point| point.parent() == Some(path));
            has_one && metadata.is_dir() && !differs(&metadata, &stat) && !is_opaque(&place)
        }
    };
    Ok(is_as_made && holds_only(&place, path, &metadata, own)? && !has_attributes(&place))
}

/// Whether a file is empty, or a directory holds nothing but `own` paths.
fn holds_only(
    place: &Path,
    path: &Path,
    metadata: &Metadata,
    own: &BTreeSet<PathBuf>,
) -> io::Result<bool> {
    if metadata.is_file() {
        return Ok(metadata.len() == 0);
    }
    if !metadata.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(place)? {
        if !own.contains(&path.join(entry?.file_name())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there are attributes of a user's making, which an image may keep. What cannot be read counts as some.
fn has_attributes(place: &Path) -> bool {
    let mut list = [0; 4096];
    match rustix::fs::llistxattr(place, &mut list) {
        Ok(length) => list[..length]
            .split(|byte| *byte == 0)
            .any(|name| name.starts_with(b"user.") || name == b"security.capability"),
        Err(rustix::io::Errno::OPNOTSUPP) => false,
        Err(_) => true,
    }
}
