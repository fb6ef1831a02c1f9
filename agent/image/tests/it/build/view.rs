//! Reading stacks without mounting them: what is seen is what overlayfs shows.

use std::fs;
use std::path::{Path, PathBuf};

use agent_build::plan::{CopyOp, CopySource, InputIndex};
use agent_image::build::{Entry, FilesError, Stack, copy};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Yard, context, lines, stack};
use crate::layers::mounted;

/// One change that a step makes to a file system.
#[derive(Debug, Clone)]
enum Change {
    File(PathBuf, u8),
    Directory(PathBuf),
    Link(PathBuf, PathBuf),
    Remove(PathBuf),
    Mode(PathBuf, u32),
}

fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(0..3_u8, 1..4).prop_map(|parts| {
        parts
            .into_iter()
            .map(|part| ["a", "b", "c"][usize::from(part)])
            .collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (path(), any::<u8>()).prop_map(|(path, content)| Change::File(path, content)),
        3 => path().prop_map(Change::Directory),
        1 => (path(), path()).prop_map(|(path, target)| Change::Link(path, target)),
        3 => path().prop_map(Change::Remove),
        1 => (path(), 0..0o1000_u32).prop_map(|(path, mode)| Change::Mode(path, mode)),
    ]
}

/// Does what is possible.
fn apply(root: &Path, change: &Change) {
    use std::os::unix::fs::PermissionsExt;
    match change {
        Change::File(path, content) => {
            let path = root.join(path);
            if !path.is_symlink() {
                let _ = fs::write(path, [*content]);
            }
        }
        Change::Directory(path) => drop(fs::create_dir(root.join(path))),
        Change::Link(path, target) => {
            drop(std::os::unix::fs::symlink(target, root.join(path)));
        }
        Change::Remove(path) => {
            let path = root.join(path);
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => drop(fs::remove_dir_all(path)),
                _ => drop(fs::remove_file(path)),
            }
        }
        Change::Mode(path, mode) => {
            let path = root.join(path);
            if !path.is_symlink() {
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(*mode));
            }
        }
    }
}

fn everything() -> CopyOp {
    CopyOp {
        root: None,
        link: false,
        sources: vec![CopySource::Paths {
            input: InputIndex(0),
            path: "/".to_owned(),
            parents: None,
            required: Vec::new(),
            unpack: false,
        }],
        destination: "/".to_owned(),
        chown: None,
        chmod: None,
        excludes: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Layers are made by real mounts; then everything is copied out of the stack, and what was copied is what a mount shows.
    #[test]
    fn a_copy_of_a_stack_is_what_overlayfs_shows(
        steps in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..5)
    ) {
        let yard = Yard::new();
        let mut entries: Vec<Entry> = vec![yard.snapshot(|_| {})];
        for changes in &steps {
            let scratch = tempfile::tempdir_in(yard.directory.path()).unwrap();
            let held = yard.hold(&stack(entries.clone()));
            mounted(&held.lowers(), scratch.path(), |root| {
                changes.iter().for_each(|change| apply(root, change));
            });
            let snapshot = yard.snapshots.take(&scratch.path().join("upper")).unwrap();
            entries.push(Entry::Loose(snapshot.id));
        }
        let whole = stack(entries);
        let view = yard.hold(&whole).view();
        let work = yard.snapshots.begin().unwrap();
        copy(&everything(), &[view], &work, &CancellationToken::new()).unwrap();
        prop_assert_eq!(lines(work.diff()), yard.seen(&whole));
    }
}

#[test]
fn small_files_are_read_and_bounded() {
    let yard = Yard::new();
    let entry = yard.snapshot(|diff| {
        fs::create_dir(diff.join("d")).unwrap();
        fs::write(diff.join("d/f"), "12345").unwrap();
        std::os::unix::fs::symlink("../d/f", diff.join("d/l")).unwrap();
    });
    let view = yard.hold(&stack([entry])).view();
    assert_eq!(view.read("/d/l", 5).unwrap().unwrap(), b"12345");
    assert_eq!(view.read("d/none", 5).unwrap(), None);
    assert!(matches!(view.read("/d/f", 4), Err(FilesError::Invalid(_))));
    assert!(matches!(view.read("/d", 4), Err(FilesError::Invalid(_))));
}

#[test]
fn a_stack_that_is_lost_or_too_high_is_refused() {
    let yard = Yard::new();
    let entry = yard.snapshot(|_| {});
    let json = serde_json::to_string(&stack([entry.clone()])).unwrap();
    let read: Stack = serde_json::from_str(&json).unwrap();
    assert_eq!(read, stack([entry]));
    // A name from a damaged record leads nowhere.
    let hostile = json.replace(|c: char| c.is_ascii_digit(), "../");
    let hostile: Stack = serde_json::from_str(&hostile).unwrap();
    assert!(matches!(
        yard.snapshots.hold(&hostile),
        Err(FilesError::Lost(_))
    ));
    let many: Vec<Entry> = (0..501).map(|_| yard.snapshot(|_| {})).collect();
    assert!(matches!(
        yard.snapshots.hold(&stack(many)),
        Err(FilesError::Limit { limit: 500, .. })
    ));
}

#[test]
fn a_context_leads_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
    };
    link(outside.path(), "absolute");
    link(&outside.path().join("secret"), "file");
    let up = PathBuf::from("../".repeat(40)).join(outside.path().strip_prefix("/").unwrap());
    link(&up, "up");
    let view = context(root.path(), &[]);
    for path in [
        "absolute/secret",
        "file",
        "up/secret",
        "../../../../etc/passwd",
    ] {
        assert_eq!(view.read(path, 100).unwrap(), None, "{path}");
    }
}
