//! Collecting images one by one: killed at any moment, what is in use is there and nothing is left over.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_image::{
    Digest, HeldFor, ImageId, ImageUse, Limits, ListFilter, LoadOptions, Store, silent,
};

use crate::Bed;
use crate::archive::{Tar, docker_archive};

const ROOT: &str = "IMAGE_COLLECT_ROOT";
const ROUNDS: u64 = 60;

fn layer(number: usize) -> Vec<u8> {
    (0..30)
        .fold(Tar::new().dir("d/"), |tar, file| {
            tar.file(
                &format!("d/{number}-{file}"),
                vec![number as u8; 900 * (file % 5)],
            )
        })
        .end()
}

/// The container that needs `used:1`.
fn uses(store: &Store) -> Vec<ImageUse> {
    store
        .resolve("used:1")
        .into_iter()
        .map(|image| ImageUse {
            image,
            container: "c".repeat(64),
            running: false,
        })
        .collect()
}

/// The process that is killed: brings images in, keeps and releases a layer, and collects whatever may go.
#[test]
#[ignore = "started and killed by the test below"]
fn victim() {
    let root = std::env::var_os(ROOT).expect("only runs as a child of the test");
    let store = Store::open(Path::new(&root), Limits::default()).unwrap();
    let (base, a, b) = (layer(1), layer(2), layer(3));
    let archive = docker_archive(&[
        (&[&base], &["used:1"]),
        (&[&base, &a], &["one:1"]),
        (&[&base, &b], &["two:1", "two:2"]),
    ]);
    loop {
        let loaded = store
            .load(&mut &archive[..], &LoadOptions::default(), &silent)
            .unwrap();
        store.keep(&[Digest::of(&a)]).unwrap();
        std::io::stdout().write_all(b"!").unwrap();
        std::io::stdout().flush().unwrap();
        for image in loaded {
            let seen = store.last_used(&image.id);
            store
                .collect_image(&image.id, seen, || uses(&store))
                .unwrap();
        }
        store.release(&[Digest::of(&a)]).unwrap();
    }
}

#[test]
fn a_killed_collection_leaves_whole_images_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "collect::victim", "--ignored"])
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut byte = [0];
        while byte != *b"!" {
            output
                .read_exact(&mut byte)
                .expect("the victim says when it has loaded");
        }
        // The moment is what is being tested: any will do.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(seed % 20_000));
        assert!(
            child.try_wait().unwrap().is_none(),
            "round {round}: it ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(root, Limits::default())
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(
            store.resolve("used:1").is_ok(),
            "round {round}: lost what is in use"
        );
        let mut layers: BTreeSet<String> = store.kept().unwrap().iter().map(Digest::hex).collect();
        for image in store.list(&ListFilter::default()).unwrap() {
            // Writes every layer and compares digests.
            store
                .save(&[&image.id.hex()], &mut std::io::sink())
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            layers.extend(image.config.rootfs.diff_ids.iter().map(Digest::hex));
        }
        drop(store);
        let names: BTreeSet<String> = std::fs::read_dir(root.join("layers"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, layers, "round {round}");
    }
}

#[test]
fn only_what_nobody_needs_is_collected() {
    let bed = Bed::new();
    let (base, a) = (layer(1), layer(2));
    bed.load(&docker_archive(&[
        (&[&base], &["used:1"]),
        (&[&base, &a], &["one:1", "one:2", "other:1"]),
    ]))
    .unwrap();
    let (used, one) = (
        bed.store.resolve("used:1").unwrap(),
        bed.store.resolve("one:1").unwrap(),
    );
    let seen = |id: &ImageId| bed.store.last_used(id);
    let nothing = bed
        .store
        .collect_image(&used, seen(&used), || uses(&bed.store))
        .unwrap();
    assert!(nothing.removed.is_empty());
    let (_, hold) = bed.store.hold("one:1", HeldFor::Build).unwrap();
    assert!(
        bed.store
            .collect_image(&one, seen(&one), Vec::new)
            .unwrap()
            .removed
            .is_empty(),
        "it is held"
    );
    drop(hold);
    // It was chosen by what it was used before, and is used again meanwhile.
    let before = seen(&one).unwrap() - std::time::Duration::from_secs(1);
    let nothing = bed
        .store
        .collect_image(&one, Some(before), Vec::new)
        .unwrap();
    assert!(nothing.removed.is_empty(), "it was used since");
    let gone = bed.store.collect_image(&one, seen(&one), Vec::new).unwrap();
    // Three names, the image, its own layer.
    assert_eq!(gone.removed.len(), 5);
    assert_eq!(gone.space_reclaimed, 900 * (1 + 2 + 3 + 4) * 6);
    assert!(
        bed.store
            .collect_image(&one, seen(&one), Vec::new)
            .unwrap()
            .removed
            .is_empty(),
        "twice is once"
    );
    assert!(bed.store.resolve("used:1").is_ok());
}
