//! Layers that a build cache keeps, images made of them, and when images were used.

use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use agent_image::{Digest, Limits, Reference, RemoveOptions, Store};

use crate::Bed;
use crate::archive::{Tar, config, docker_archive};

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, vec![b'x'; 1000]).end()
}

#[test]
fn kept_layers_outlive_their_images_and_crashes_until_they_are_released() {
    let bed = Bed::new();
    let (a, b) = (layer("a"), layer("b"));
    let (a_id, b_id) = (Digest::of(&a), Digest::of(&b));
    bed.load(&docker_archive(&[(&[&a, &b], &["one:1"])]))
        .unwrap();
    bed.store.keep(&[a_id]).unwrap();
    assert!(
        bed.store.keep(&[b_id, Digest::of(b"nothing")]).is_err(),
        "all or none"
    );
    assert_eq!(bed.store.kept().unwrap(), [a_id]);
    bed.store
        .remove("one:1", RemoveOptions::default(), Vec::new)
        .unwrap();
    let layers = |files: Vec<String>| -> Vec<String> {
        files
            .into_iter()
            .filter(|file| file.starts_with("layers/") && file.matches('/').count() == 1)
            .collect()
    };
    assert_eq!(layers(bed.files()), [format!("layers/{}", a_id.hex())]);

    // A crash of something else: the next opening looks for what nobody needs.
    let Bed { directory, store } = bed;
    drop(store);
    std::fs::write(directory.path().join("content/unsettled"), "").unwrap();
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let bed = Bed { directory, store };
    assert_eq!(bed.store.kept().unwrap(), [a_id]);

    // An image of the kept layer needs no archive.
    let bytes = config(&[&a], "made");
    let name = Reference::parse("made").unwrap();
    let id = bed
        .store
        .add(&bytes, std::slice::from_ref(&name), None)
        .unwrap();
    assert_eq!(id.digest(), &Digest::of(&bytes));
    assert!(
        bed.store.add(&config(&[&b], "gone"), &[], None).is_err(),
        "its layer is not here"
    );
    bed.store.release(&[a_id, b_id]).unwrap();
    assert_eq!(
        layers(bed.files()).len(),
        1,
        "the image still needs the layer"
    );
    bed.store
        .remove("made", RemoveOptions::default(), Vec::new)
        .unwrap();
    assert_eq!(layers(bed.files()), [""; 0]);
}

#[test]
fn the_last_release_takes_a_layer_that_no_image_needs() {
    let bed = Bed::new();
    let a = layer("a");
    bed.load(&docker_archive(&[(&[&a], &["one:1"])])).unwrap();
    bed.store.keep(&[Digest::of(&a)]).unwrap();
    bed.store
        .remove("one:1", RemoveOptions::default(), Vec::new)
        .unwrap();
    bed.store.release(&[Digest::of(&a)]).unwrap();
    assert_eq!(bed.store.kept().unwrap(), []);
    assert!(!bed.files().iter().any(|file| file.starts_with("layers/")));
}

/// A process that dies between a mark and its layer leaves the next one to look: at each moment in which neither the mark
/// nor that note is there, the layer is gone as well.
#[test]
fn no_moment_of_a_release_leaks_a_layer() {
    let bed = Bed::new();
    let a = layer("a");
    let id = Digest::of(&a);
    let archive = docker_archive(&[(&[&a], &["one:1"])]);
    let directory = bed.directory.path().join("layers").join(id.hex());
    let note = bed.directory.path().join("content/unsettled");
    for _ in 0..50 {
        bed.load(&archive).unwrap();
        bed.store.keep(&[id]).unwrap();
        bed.store
            .remove("one:1", RemoveOptions::default(), Vec::new)
            .unwrap();
        assert!(directory.join("kept").exists());
        let watches = Barrier::new(2);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                watches.wait();
                while directory.join("kept").exists() {
                    std::hint::spin_loop();
                }
                // In this order: the note goes after the layer.
                note.exists() || !directory.exists()
            });
            watches.wait();
            bed.store.release(&[id]).unwrap();
            assert!(watcher.join().unwrap(), "a kill here leaks the layer");
        });
    }
}

#[test]
fn a_use_is_noted_where_a_killed_process_leaves_it() {
    let bed = Bed::new();
    let a = layer("a");
    bed.load(&docker_archive(&[(&[&a], &["one:1"])])).unwrap();
    let id = bed.store.resolve("one:1").unwrap();
    let blob = bed
        .directory
        .path()
        .join("content/blobs/sha256")
        .join(id.hex());
    let old = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&blob)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let before = bed.store.last_used(&id).unwrap();
    bed.store.used(&id);
    let after = bed.store.last_used(&id).unwrap();
    assert!(after.duration_since(before).as_secs() >= 3599);
    bed.store
        .remove("one:1", RemoveOptions::default(), Vec::new)
        .unwrap();
    bed.store.used(&id);
    assert_eq!(bed.store.last_used(&id), None);
}
