//! What a container changed in its file system, read from its overlay upper directory. Blocks.
//!
//! A character device 0:0 in the upper directory is a deletion; `trusted.overlay.opaque` hides a whole directory below.
//! Source: kernel `Documentation/filesystems/overlayfs.rst`, moby `pkg/archive/changes*.go` for the answer's shape.

mod below;
mod mount_points;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use below::Below;

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

/// Compares the upper directory with the layers, top first. What the runtime made there to mount on is no change of the
/// container's.
pub(crate) fn changes(upper: &Path, layers: &[PathBuf]) -> io::Result<Vec<Change>> {
    let below = Below::open(layers)?;
    let own = mount_points::of(upper, &below)?;
    let mut changes = Vec::new();
    let mut touched = HashSet::new();
    // Directories, each with whether nothing of what is below it shows.
    let mut waiting = vec![(PathBuf::new(), Covers::No)];
    while let Some((directory, covers)) = waiting.pop() {
        let mut add = |relative: PathBuf, kind: ChangeKind, counts: bool| {
            if counts {
                touched.extend(relative.ancestors().map(Path::to_owned));
            }
            changes.push(Change {
                path: format!("/{}", relative.display()),
                kind,
            });
        };
        let mut hidden = match covers {
            Covers::All => below.names(&directory)?,
            Covers::No => BTreeSet::new(),
        };
        for entry in fs::read_dir(upper.join(&directory))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            let metadata = entry.metadata()?;
            let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
            if !whiteout {
                hidden.remove(&entry.file_name());
            }
            if own.contains(&relative) {
                continue;
            }
            let before = below.stat(&relative)?;
            let kind = match (whiteout, &before) {
                (true, Some(_)) => Some(ChangeKind::Deleted),
                (true, None) => None,
                (false, Some(_)) => Some(ChangeKind::Modified),
                (false, None) => Some(ChangeKind::Added),
            };
            if let Some(kind) = kind {
                let only_opened =
                    metadata.is_dir() && before.is_some_and(|before| !differs(&metadata, &before));
                hidden.remove(&entry.file_name());
                add(relative.clone(), kind, !only_opened);
            }
            if metadata.is_dir() {
                let opaque = covers == Covers::All || is_opaque(&entry.path());
                let covers = if opaque { Covers::All } else { Covers::No };
                waiting.push((relative, covers));
            }
        }
        for name in hidden {
            add(directory.join(name), ChangeKind::Deleted, true);
        }
        if changes.len() > CHANGES_MAX {
            return Err(io::Error::other(format!("more than {CHANGES_MAX} changes")));
        }
    }
    // A directory that was only opened, and nothing in it changed, has not changed.
    changes.retain(|change| touched.contains(Path::new(change.path.trim_start_matches('/'))));
    changes.sort();
    Ok(changes)
}

/// The paths of the upper directory that are the runtime's own doing (see [`mount_points`]), relative to the root.
pub(crate) fn own_mount_points(upper: &Path, layers: &[PathBuf]) -> io::Result<BTreeSet<PathBuf>> {
    mount_points::of(upper, &Below::open(layers)?)
}

/// What a directory of the upper one hides of the directory below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covers {
    /// The two are merged.
    No,
    /// It was made anew, or is in one that was.
    All,
}

/// Whether a directory has another owner or mode than in the layers.
fn differs(metadata: &fs::Metadata, below: &rustix::fs::Stat) -> bool {
    (below.st_mode, below.st_uid, below.st_gid) != (metadata.mode(), metadata.uid(), metadata.gid())
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
        fs::create_dir_all(upper.path().join("bin/only-opened")).unwrap();
        fs::create_dir_all(layer.path().join("bin/only-opened")).unwrap();
        let found = changes(upper.path(), &[layer.path().to_owned()]).unwrap();
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
        ]);
        let found: Vec<_> = found
            .iter()
            .map(|change| (change.path.as_str(), change.kind))
            .collect();
        assert_eq!(found, expected);
    }
    /// Overlay upper and work directories beside layers.
    struct Tree {
        dir: tempfile::TempDir,
    }

    impl Tree {
        fn new(layer: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["base", "layer", "upper", "work"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            layer(&dir.path().join("layer"));
            Self { dir }
        }

        fn layers(&self) -> Vec<PathBuf> {
            ["layer", "base"]
                .map(|name| self.dir.path().join(name))
                .into()
        }

        /// Changes the tree through a mount of it.
        fn change(&self, change: impl FnOnce(&Path)) {
            use std::os::fd::AsRawFd as _;
            let (upper, work) = (self.dir.path().join("upper"), self.dir.path().join("work"));
            let mount =
                agent_runtime::root::writable_layers(&self.layers(), &upper, &work).unwrap();
            change(&PathBuf::from(format!(
                "/proc/self/fd/{}",
                mount.as_raw_fd()
            )));
        }

        fn found(&self) -> Vec<String> {
            let found = changes(&self.dir.path().join("upper"), &self.layers()).unwrap();
            let letter = |kind| match kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            let line = |change: &Change| format!("{} {}", letter(change.kind), change.path);
            found.iter().map(line).collect()
        }
    }

    fn is_root() -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            eprintln!("SKIPPED: mounting needs root");
        }
        is_root
    }

    #[test]
    fn what_a_directory_made_again_hides_is_deleted() {
        if !is_root() {
            return;
        }
        let tree = Tree::new(|layer| {
            for path in ["base/d/x", "base/d/e", "base/d/sub/gone", "base/d/sub/kept"] {
                let path = layer.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        });
        tree.change(|root| {
            fs::remove_dir_all(root.join("base/d")).unwrap();
            fs::create_dir_all(root.join("base/d/sub")).unwrap();
            fs::write(root.join("base/d/q"), "").unwrap();
            fs::write(root.join("base/d/sub/kept"), "").unwrap();
        });
        assert_eq!(
            tree.found(),
            [
                "C /base",
                "C /base/d",
                "D /base/d/e",
                "A /base/d/q",
                "C /base/d/sub",
                "D /base/d/sub/gone",
                "C /base/d/sub/kept",
                "D /base/d/x",
            ]
        );
    }

    /// What a start makes: mount points of its own, through a link as well, and one of the user's.
    fn start(root: &Path) {
        for directory in ["dev", "proc", "sys", "run/systemd", "vol"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["etc/hosts", "etc/hostname", "run/systemd/stub.conf"] {
            fs::write(root.join(file), "").unwrap();
        }
    }

    #[test]
    fn own_mount_points_are_no_change_and_those_of_users_are() {
        if !is_root() {
            return;
        }
        let image = |layer: &Path| {
            fs::create_dir(layer.join("etc")).unwrap();
            let link = layer.join("etc/resolv.conf");
            std::os::unix::fs::symlink("../run/systemd/stub.conf", link).unwrap();
        };
        let tree = Tree::new(image);
        tree.change(start);
        assert_eq!(tree.found(), ["A /vol"]);
        let own = own_mount_points(&tree.dir.path().join("upper"), &tree.layers()).unwrap();
        let own: Vec<_> = own.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            own,
            [
                "dev",
                "etc",
                "etc/hostname",
                "etc/hosts",
                "proc",
                "run",
                "run/systemd",
                "run/systemd/stub.conf",
                "sys"
            ]
        );

        let tree = Tree::new(image);
        tree.change(|root| {
            start(root);
            fs::write(root.join("etc/mine"), "").unwrap();
            fs::write(root.join("run/systemd/stub.conf"), "content").unwrap();
            fs::write(root.join("dev/below"), "").unwrap();
        });
        assert_eq!(
            tree.found(),
            [
                "A /dev",
                "A /dev/below",
                "C /etc",
                "A /etc/mine",
                "A /run",
                "A /run/systemd",
                "A /run/systemd/stub.conf",
                "A /vol",
            ]
        );
    }
}
