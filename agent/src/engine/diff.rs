//! What a container changed in its file system, read from its overlay upper directory. Blocks.
//!
//! A character device 0:0 in the upper directory is a deletion; `trusted.overlay.opaque` hides a whole directory below.
//! Source: kernel `Documentation/filesystems/overlayfs.rst`, moby `pkg/archive/changes*.go` for the answer's shape.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Most changes that are reported.
const CHANGES_MAX: usize = 1_000_000;

/// One path and what happened to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Absolute in the container.
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to a path; serialised as Docker's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// 0
    Modified,
    /// 1
    Added,
    /// 2
    Deleted,
}

impl Serialize for ChangeKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// Compares the upper directory with the layers, top first. `mounted` are the places where something is mounted: what
/// was made there to mount on is no change of the container's.
pub(crate) fn changes(
    upper: &Path,
    layers: &[PathBuf],
    mounted: &HashSet<PathBuf>,
) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut touched = HashSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(upper.join(&directory))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            if mounted.contains(&relative) {
                continue;
            }
            let metadata = entry.metadata()?;
            let below = exists_below(layers, &relative);
            let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
            let kind = match (whiteout, below) {
                (true, true) => Some(ChangeKind::Deleted),
                (true, false) => None,
                (false, true) => Some(ChangeKind::Modified),
                (false, false) => Some(ChangeKind::Added),
            };
            if let Some(kind) = kind {
                if kind != ChangeKind::Modified
                    || !metadata.is_dir()
                    || differs(&metadata, layers, &relative)
                {
                    touched.extend(relative.ancestors().map(Path::to_owned));
                }
                changes.push(Change {
                    path: format!("/{}", relative.display()),
                    kind,
                });
            }
            if metadata.is_dir() {
                waiting.push(relative);
            }
            if changes.len() > CHANGES_MAX {
                return Err(io::Error::other(format!("more than {CHANGES_MAX} changes")));
            }
        }
    }
    // A directory that was only opened on the way to a mount point has not changed.
    changes.retain(|change| touched.contains(Path::new(change.path.trim_start_matches('/'))));
    changes.sort();
    Ok(changes)
}

/// Whether a directory has another owner or mode than in the layers.
fn differs(metadata: &fs::Metadata, layers: &[PathBuf], relative: &Path) -> bool {
    let below = layers
        .iter()
        .find_map(|layer| fs::symlink_metadata(layer.join(relative)).ok());
    below.is_none_or(|below| {
        (below.mode(), below.uid(), below.gid())
            != (metadata.mode(), metadata.uid(), metadata.gid())
    })
}

/// Whether a path exists in the merged layers: a whiteout or an opaque parent in a higher one hides lower ones.
fn exists_below(layers: &[PathBuf], relative: &Path) -> bool {
    for layer in layers {
        match fs::symlink_metadata(layer.join(relative)) {
            Ok(metadata) => {
                return !(metadata.file_type().is_char_device() && metadata.rdev() == 0);
            }
            Err(_) => {
                let hidden = relative.ancestors().skip(1).any(|parent| {
                    let parent = layer.join(parent);
                    is_opaque(&parent)
                        || fs::symlink_metadata(&parent).is_ok_and(|metadata| !metadata.is_dir())
                });
                if hidden {
                    return false;
                }
            }
        }
    }
    false
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::lgetxattr(directory, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|length| value[..length] == *b"y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_modified_and_deleted_paths_are_told_apart() {
        let (layer, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["etc/hosts", "etc/gone", "bin/sh"] {
            let path = layer.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for path in ["etc/hosts", "etc/new", "data/file"] {
            let path = upper.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let whiteout = rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.path().join("etc/gone"),
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        );
        for path in ["run/mounted", "bin/only-opened/mounted"] {
            fs::create_dir_all(upper.path().join(path)).unwrap();
        }
        fs::create_dir_all(layer.path().join("bin/only-opened")).unwrap();
        let mounted = ["run/mounted", "bin/only-opened/mounted"]
            .map(PathBuf::from)
            .into();
        let found = changes(upper.path(), &[layer.path().to_owned()], &mounted).unwrap();
        let mut expected = vec![
            ("/data", ChangeKind::Added),
            ("/data/file", ChangeKind::Added),
            ("/etc", ChangeKind::Modified),
        ];
        if whiteout.is_ok() {
            expected.push(("/etc/gone", ChangeKind::Deleted));
        }
        expected.extend([
            ("/etc/hosts", ChangeKind::Modified),
            ("/etc/new", ChangeKind::Added),
            ("/run", ChangeKind::Added),
        ]);
        let found: Vec<_> = found
            .iter()
            .map(|change| (change.path.as_str(), change.kind))
            .collect();
        assert_eq!(found, expected);
    }
}
