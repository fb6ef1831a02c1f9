//! Layers that may not have been on the disk when the machine stopped.

use std::path::Path;

use agent_image::{
    Digest, ImageError, ImportOptions, Limits, ListFilter, LoadOptions, Store, silent,
};

use crate::Bed;
use crate::archive::{Tar, docker_archive};

fn layer(name: &str) -> Vec<u8> {
    Tar::new().dir("d/").file(&format!("d/{name}"), name).end()
}

fn note(root: &Path) -> std::path::PathBuf {
    root.join("content/unsynced")
}

/// As if a kernel had stopped before the layers were on the disk.
fn write_note(root: &Path, boot: &str, layers: &[&[u8]]) {
    let layers: Vec<String> = layers
        .iter()
        .map(|tar| Digest::of(tar).to_string())
        .collect();
    let json = serde_json::json!({"boot": boot, "layers": layers});
    std::fs::write(note(root), json.to_string()).unwrap();
}

fn this_boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    id.trim().to_owned()
}

fn names(store: &Store) -> Vec<String> {
    let images = store.list(&ListFilter::default()).unwrap();
    let mut names: Vec<String> = images
        .iter()
        .flat_map(|image| image.tags.iter().map(|tag| tag.familiar()))
        .collect();
    names.sort();
    names
}

fn archive() -> (Vec<u8>, [Vec<u8>; 3]) {
    let layers = [layer("base"), layer("one"), layer("two")];
    let [base, one, two] = &layers;
    let archive = docker_archive(&[
        (&[base, one], &["one:1", "one:2"]),
        (&[base, two], &["two:1"]),
    ]);
    (archive, layers)
}

#[test]
fn what_is_on_the_disk_is_on_no_note() {
    let bed = Bed::new();
    let (archive, _) = archive();
    bed.load(&archive).unwrap();
    bed.store.wait_synced();
    assert!(!note(bed.directory.path()).exists());
}

#[test]
fn layers_of_another_boot_go_with_their_images_and_can_be_brought_again() {
    let Bed { directory, store } = Bed::new();
    let (archive, [_, _, two]) = archive();
    let mut input = &archive[..];
    store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    store.keep(&[Digest::of(&two)]).unwrap();
    drop(store);
    write_note(directory.path(), "another", &[&two]);
    // Torn: nobody may look at it before it has gone.
    let hex = Digest::of(&two).hex();
    let torn = directory.path().join("layers").join(hex);
    std::fs::write(torn.join("diff/d/two"), "").unwrap();

    let store = Store::open(directory.path(), Limits::default()).unwrap();
    assert_eq!(names(&store), ["one:1", "one:2"]);
    let gone = store.layers(&store.resolve("one:1").unwrap()).unwrap();
    assert_eq!(gone.len(), 2, "what others need stays");
    assert!(matches!(
        store.resolve("two:1"),
        Err(ImageError::NoSuchImage(_))
    ));
    assert!(!torn.exists());
    assert!(!note(directory.path()).exists());

    let mut input = &archive[..];
    store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    assert_eq!(names(&store), ["one:1", "one:2", "two:1"]);
    store.save(&["two:1"], &mut std::io::sink()).unwrap();
}

#[test]
fn a_shared_base_takes_all_its_images_along() {
    let Bed { directory, store } = Bed::new();
    let (archive, [base, _, _]) = archive();
    let mut input = &archive[..];
    store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    drop(store);
    write_note(directory.path(), "another", &[&base]);
    let bed = Bed {
        store: Store::open(directory.path(), Limits::default()).unwrap(),
        directory,
    };
    assert!(names(&bed.store).is_empty());
    bed.load(&archive).unwrap();
    bed.store
        .save(&["one:2", "two:1"], &mut std::io::sink())
        .unwrap();
}

#[test]
fn a_killed_process_loses_nothing() {
    let Bed { directory, store } = Bed::new();
    let (archive, [base, one, two]) = archive();
    let mut input = &archive[..];
    store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    drop(store);
    write_note(directory.path(), &this_boot(), &[&base, &one, &two]);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    assert_eq!(names(&store), ["one:1", "one:2", "two:1"]);
    store.wait_synced();
    assert!(!note(directory.path()).exists(), "it is on the disk now");
}

#[test]
fn what_was_there_when_something_durable_was_made_is_durable() {
    let Bed { directory, store } = Bed::new();
    let (archive, [base, one, two]) = archive();
    let mut input = &archive[..];
    store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    drop(store);
    write_note(directory.path(), &this_boot(), &[&base, &one, &two]);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    // An import is nobody's to bring again: when it is there, no power failure takes it.
    let own = layer("own");
    store
        .import(&mut &own[..], &ImportOptions::default(), &silent)
        .unwrap();
    assert!(!note(directory.path()).exists());
}

#[test]
fn a_note_that_cannot_be_read_is_no_reason_to_trust() {
    let Bed { directory, store } = Bed::new();
    drop(store);
    std::fs::write(note(directory.path()), "{").unwrap();
    let error = Store::open(directory.path(), Limits::default())
        .err()
        .unwrap();
    assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("content/unsynced"), "{error}");
}
