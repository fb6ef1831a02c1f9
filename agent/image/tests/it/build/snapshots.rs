//! Snapshots: made, held, adopted, removed, lost and swept.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use agent_image::build::{Entry, FilesError, Rewrite, Stack, write_tar};
use agent_image::{Digest, ImageConfig, Reference};
use tokio_util::sync::CancellationToken;

use super::{Yard, make, stack};
use crate::archive::{Tar, docker_archive};
use crate::files;

fn fill(diff: &Path) {
    for line in [
        "d d 0750 5:6",
        "f d/file 4711 5:3000000 content",
        "f empty 0600 0:0 ",
        "l d/link -> file",
        "h hard -> d/file",
        "p fifo 0600 1:1",
        "c null 0666 0:0 1 3",
        "c gone 0000 0:0 0 0",
        "d opaque 0755 0:0",
        "f opaque/new 0644 0:0 new",
    ] {
        make(diff, line, true);
    }
    let name = "n".repeat(200);
    fs::write(diff.join("d").join(&name), vec![7; 300_000]).unwrap();
    symlink("t".repeat(300), diff.join("d/long")).unwrap();
    let sparse = fs::File::create(diff.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    let set = |path: &str, key: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(diff.join(path), key, value, flags).unwrap();
    };
    set("d/file", "user.k", b"v");
    set("opaque", "trusted.overlay.opaque", b"y");
}

fn layers(yard: &Yard) -> Vec<String> {
    let entries = fs::read_dir(yard.directory.path().join("layers")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn snapshots(yard: &Yard) -> Vec<String> {
    let entries = fs::read_dir(yard.directory.path().join("build/snapshots")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn image(yard: &Yard, diff_ids: &[Digest], name: &str) -> agent_image::ImageId {
    let mut config = ImageConfig {
        os: "linux".to_owned(),
        architecture: ImageConfig::machine().split_once('/').unwrap().1.to_owned(),
        ..ImageConfig::default()
    };
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = diff_ids.to_vec();
    let config = serde_json::to_vec(&config).unwrap();
    let name: Reference = name.parse().unwrap();
    yard.store.add(&config, &[name], None).unwrap()
}

fn tar_of(yard: &Yard, stack: &Stack) -> Vec<u8> {
    let mut tar = Vec::new();
    let view = yard.hold(stack).view();
    let cancel = CancellationToken::new();
    write_tar(&view, "", Rewrite::Keep, &mut tar, &cancel).unwrap();
    tar
}

#[test]
fn an_adopted_snapshot_is_the_layer_that_loading_its_tar_makes() {
    let yard = Yard::new();
    let base = yard.snapshot(|diff| {
        fs::create_dir(diff.join("opaque")).unwrap();
        fs::write(diff.join("opaque/old"), "old").unwrap();
        fs::write(diff.join("gone"), "old").unwrap();
    });
    let top = yard.snapshot(fill);
    let both = stack([base.clone(), top.clone()]);
    let before = yard.seen(&both);
    let tar = tar_of(&yard, &both);
    assert!(
        before
            .iter()
            .all(|line| !line.contains("gone") && !line.contains("old"))
    );
    let diff_ids = yard.snapshots.adopt(&both.entries).unwrap();
    assert_eq!(
        yard.seen(&both),
        before,
        "stacks of snapshots go on working"
    );
    assert_eq!(tar_of(&yard, &both), tar);
    assert_eq!(yard.snapshots.layer_of(&top), Some(diff_ids[1]));
    assert_eq!(
        yard.snapshots.adopt(&both.entries).unwrap(),
        diff_ids,
        "once more changes nothing"
    );
    // The store writes the same layers, and another store makes the same of them.
    image(&yard, &diff_ids, "built:1");
    let mut archive = Vec::new();
    yard.store.save(&["built:1"], &mut archive).unwrap();
    let other = crate::Bed::new();
    let loaded = other.load(&archive).unwrap();
    let again = other.store.layers(&loaded[0].id).unwrap();
    assert_eq!(again.len(), 2);
    let scratch = tempfile::tempdir().unwrap();
    assert_eq!(
        crate::layers::mounted(&again, scratch.path(), super::lines),
        before
    );
    let of_layers = Stack::of_layers(diff_ids);
    let names: Vec<_> = yard.store.layers(&loaded[0].id).unwrap();
    assert_eq!(yard.hold(&of_layers).lowers(), names);
    assert!(
        names
            .iter()
            .all(|path| !path.with_file_name("snapshot.json").exists()),
        "nothing of the builder's comes along"
    );
}

#[test]
fn a_snapshot_of_nothing_is_the_empty_layer() {
    let yard = Yard::new();
    let empty = yard.snapshot(|_| {});
    assert_eq!(
        yard.snapshots.adopt(&[empty]).unwrap()[0].to_string(),
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn equal_snapshots_become_one_layer() {
    let yard = Yard::new();
    let fill = |diff: &Path| {
        fs::write(diff.join("a"), "same").unwrap();
        let file = fs::File::open(diff.join("a")).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: 1_600_000_000,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).unwrap();
    };
    let (one, two) = (yard.snapshot(fill), yard.snapshot(fill));
    // Mounted while its directory goes.
    let held = yard.hold(&stack([two.clone()]));
    let path = held.lowers()[0].clone();
    let first = yard.snapshots.adopt(std::slice::from_ref(&one)).unwrap();
    let second = yard.snapshots.adopt(std::slice::from_ref(&two)).unwrap();
    assert_eq!(first, second);
    assert_eq!(layers(&yard), [first[0].hex()]);
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "same");
    assert_eq!(held.view().read("/a", 10).unwrap().unwrap(), b"same");
    assert_eq!(snapshots(&yard).len(), 3, "held until it is let go");
    drop(held);
    assert_eq!(snapshots(&yard).len(), 2);
    let both = stack([one, two]);
    assert_eq!(
        yard.hold(&both).lowers().len(),
        1,
        "overlayfs takes a directory once"
    );
}

#[test]
fn times_are_clamped_in_copies() {
    let yard = Yard::new();
    let entry = yard.snapshot(fill);
    let seen = yard.seen(&stack([entry.clone()]));
    let plain = yard.snapshots.adopt(std::slice::from_ref(&entry)).unwrap();
    let clamped = |latest| {
        yard.snapshots
            .adopt_clamped(std::slice::from_ref(&entry), latest)
            .unwrap()
    };
    let long_ago = clamped(1_000_000_000);
    assert_ne!(plain, long_ago.diff_ids());
    assert_eq!(
        clamped(1_000_000_000).diff_ids(),
        long_ago.diff_ids(),
        "made twice, and held while one of the two is"
    );
    assert_eq!(
        clamped(i64::from(u32::MAX)).diff_ids(),
        plain,
        "nothing is later than 2106"
    );
    let stack = Stack::of_layers(long_ago.diff_ids().to_vec());
    assert_eq!(yard.seen(&stack), seen);
    let file = yard.hold(&stack).lowers()[0].join("d/file");
    let modified = fs::metadata(file).unwrap().modified().unwrap();
    let seconds = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(seconds, 1_000_000_000);
    // Nobody made an image of them.
    let layer = long_ago.diff_ids()[0];
    assert!(yard.store.blob_size(&layer).is_some());
    drop(long_ago);
    assert!(yard.store.blob_size(&layer).is_none());
    assert!(yard.store.blob_size(&plain[0]).is_some());
}

#[test]
fn clamped_layers_of_an_export_that_a_crash_ended_are_gone() {
    let yard = Yard::new();
    let entry = yard.snapshot(fill);
    let clamped = yard.snapshots.adopt_clamped(&[entry], 1_000_000_000);
    let clamped = clamped.unwrap();
    let layer = clamped.diff_ids()[0];
    assert!(yard.store.blob_size(&layer).is_some());
    // What is on the disk now is what a crash leaves.
    let left = tempfile::tempdir().unwrap();
    let mut copy = std::process::Command::new("cp");
    let from = yard.directory.path().join(".");
    assert!(
        copy.arg("-a")
            .arg(from)
            .arg(left.path())
            .status()
            .unwrap()
            .success()
    );
    let reopened = Yard::at(left);
    assert!(reopened.store.blob_size(&layer).is_none());
    assert!(yard.store.blob_size(&layer).is_some());
}

#[test]
fn layers_live_as_long_as_something_names_them() {
    let yard = Yard::new();
    let base = Tar::new().file("base", "b").end();
    let id = yard_load(&yard, &docker_archive(&[(&[&base], &["base:1"])]));
    let base = yard.store.inspect("base:1").unwrap().config.rootfs.diff_ids[0];
    let entry = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    let diff_id = yard.snapshots.adopt(std::slice::from_ref(&entry)).unwrap()[0];
    yard.store.keep(&[base]).unwrap();
    let force = agent_image::RemoveOptions {
        force: true,
        ..agent_image::RemoveOptions::default()
    };
    yard.store.remove(&id.hex(), force, Vec::new).unwrap();
    let mut both = [base.hex(), diff_id.hex()];
    both.sort();
    assert_eq!(layers(&yard), both, "the cache needs them");
    let yard = yard.reopened();
    assert_eq!(layers(&yard), both);
    let named: HashSet<Entry> = [entry.clone(), Entry::Layer(base)].into();
    yard.snapshots.sweep(&named).unwrap();
    assert_eq!(layers(&yard), both);
    // An image needs the one, nothing the other.
    image(&yard, &[diff_id], "built:1");
    let gone = [entry.clone(), Entry::Layer(base)];
    yard.snapshots.remove(&gone, &HashSet::new()).unwrap();
    assert_eq!(layers(&yard), [diff_id.hex()]);
    assert!(snapshots(&yard).is_empty());
    assert!(!yard.snapshots.contains(&stack([entry])));
    yard.store.remove("built:1", force, Vec::new).unwrap();
    assert!(layers(&yard).is_empty());
}

fn yard_load(yard: &Yard, mut archive: &[u8]) -> agent_image::ImageId {
    let options = agent_image::LoadOptions::default();
    let loaded = yard
        .store
        .load(&mut archive, &options, &agent_image::silent);
    loaded.unwrap()[0].id
}

#[test]
fn a_layer_that_two_snapshots_became_goes_with_the_last() {
    let yard = Yard::new();
    let (one, two) = (yard.snapshot(|_| {}), yard.snapshot(|_| {}));
    let both = [one.clone(), two.clone()];
    let diff_ids = yard.snapshots.adopt(&both).unwrap();
    assert_eq!(diff_ids[0], diff_ids[1]);
    let named = HashSet::from([two.clone()]);
    yard.snapshots.remove(&[one], &named).unwrap();
    assert!(yard.snapshots.contains(&stack([two.clone()])));
    assert_eq!(layers(&yard).len(), 1);
    yard.snapshots.remove(&[two], &HashSet::new()).unwrap();
    assert!(layers(&yard).is_empty());
}

#[test]
fn what_is_held_stays() {
    let yard = Yard::new();
    let entry = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    let held = yard.hold(&stack([entry.clone()]));
    let path = held.lowers()[0].clone();
    yard.snapshots
        .remove(std::slice::from_ref(&entry), &HashSet::new())
        .unwrap();
    assert!(matches!(
        yard.snapshots.hold(&stack([entry])),
        Err(FilesError::Lost(_))
    ));
    assert!(path.join("a").exists());
    let view = held.view();
    drop(held);
    assert!(path.join("a").exists(), "a view holds, too");
    drop(view);
    assert!(!path.exists());
    assert!(snapshots(&yard).is_empty());
}

#[test]
fn a_held_snapshot_stays_although_its_layer_is_released() {
    let yard = Yard::new();
    let entry = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    let held = yard.hold(&stack([entry.clone()]));
    let path = held.lowers()[0].join("a");
    yard.snapshots.adopt(std::slice::from_ref(&entry)).unwrap();
    yard.snapshots.remove(&[entry], &HashSet::new()).unwrap();
    assert_eq!(layers(&yard).len(), 1);
    assert_eq!(held.view().read("a", 1).unwrap().unwrap(), b"a");
    assert!(path.exists(), "by the path, too");
    drop(held);
    assert!(layers(&yard).is_empty());
    assert!(!path.exists());
}

#[test]
fn what_nobody_finished_or_names_is_swept() {
    let yard = Yard::new();
    let named = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    let unnamed = yard.snapshot(|diff| fs::write(diff.join("b"), "b").unwrap());
    std::mem::forget(yard.snapshots.begin().unwrap());
    fs::create_dir(yard.directory.path().join("build/snapshots/doomed-7")).unwrap();
    let yard = yard.reopened();
    let fresh = yard.snapshot(|_| {});
    let freed = yard
        .snapshots
        .sweep(&HashSet::from([named.clone()]))
        .unwrap();
    assert!(freed > 0);
    let entry = |name: &str| format!("{name:?}");
    let there: Vec<String> = yard
        .snapshots
        .list()
        .unwrap()
        .iter()
        .map(|snapshot| entry(&snapshot.id.to_string()))
        .collect();
    assert_eq!(there.len(), 2);
    for (wanted, is) in [(&named, true), (&unnamed, false), (&fresh, true)] {
        assert_eq!(yard.snapshots.contains(&stack([wanted.clone()])), is);
    }
    // The thread that deletes is joined.
    let yard = yard.reopened();
    drop(yard.snapshots);
    let left = files(&yard.directory.path().join("build/snapshots"));
    assert!(left.iter().all(|path| !path.contains('-')), "{left:?}");
}

#[test]
fn after_a_crash_of_the_machine_only_what_was_synced_counts() {
    let yard = Yard::new();
    let synced = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    yard.snapshots.sync().unwrap();
    let unsynced = yard.snapshot(|diff| fs::write(diff.join("b"), "b").unwrap());
    // The same boot: both are whole.
    let yard = yard.reopened();
    assert!(
        yard.snapshots
            .contains(&stack([synced.clone(), unsynced.clone()]))
    );
    // As if it had been another.
    for name in snapshots(&yard) {
        let path = yard
            .directory
            .path()
            .join("build/snapshots")
            .join(name)
            .join("snapshot.json");
        let text = fs::read_to_string(&path).unwrap();
        let (head, _) = text.split_once("\"boot\":").unwrap();
        fs::write(path, format!("{head}\"boot\":\"other\"}}")).unwrap();
    }
    let yard = yard.reopened();
    assert!(yard.snapshots.contains(&stack([synced.clone()])));
    assert!(!yard.snapshots.contains(&stack([unsynced.clone()])));
    assert!(matches!(
        yard.snapshots.adopt(&[unsynced]),
        Err(FilesError::Lost(_))
    ));
    assert_eq!(yard.snapshots.adopt(&[synced]).unwrap().len(), 1);
}

#[test]
fn an_upper_directory_is_taken_over() {
    let yard = Yard::new();
    let upper = yard.directory.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::set_permissions(&upper, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(upper.join("a"), vec![1; 100_000]).unwrap();
    let snapshot = yard.snapshots.take(&upper).unwrap();
    assert!(!upper.exists());
    assert!(snapshot.disk_bytes >= 100_000 || snapshot.disk_bytes > 0);
    assert_eq!(yard.seen(&stack([Entry::Loose(snapshot.id)])).len(), 1);
}

#[test]
fn what_has_no_place_in_a_layer_is_refused_and_the_snapshot_stays() {
    let yard = Yard::new();
    let entry = yard.snapshot(|diff| fs::write(diff.join(".wh.a"), "").unwrap());
    let error = yard
        .snapshots
        .adopt(std::slice::from_ref(&entry))
        .unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
    assert!(yard.snapshots.contains(&stack([entry])));
    assert!(layers(&yard).is_empty());
}
