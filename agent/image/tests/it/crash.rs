//! Killed at any moment, the store opens again with whole images only and nothing left over.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_image::{ImportOptions, Limits, ListFilter, LoadOptions, RemoveOptions, Store, silent};

use crate::archive::{Tar, docker_archive, gzip};

const ROOT: &str = "IMAGE_CRASH_ROOT";
const ROUNDS: u64 = 40;

fn layer(number: usize) -> Vec<u8> {
    (0..60)
        .fold(Tar::new().dir("d/"), |tar, file| {
            tar.file(
                &format!("d/{number}-{file}"),
                vec![number as u8; 700 * (file % 7)],
            )
        })
        .end()
}

/// The process that is killed: loads, imports and removes for ever.
#[test]
#[ignore = "started and killed by the test below"]
fn victim() {
    let root = std::env::var_os(ROOT).expect("only runs as a child of the crash test");
    let store = Store::open(Path::new(&root), Limits::default()).unwrap();
    let (a, b, c) = (layer(1), layer(2), layer(3));
    let archive = gzip(&docker_archive(&[
        (&[&a, &b], &["one:1", "one:2"]),
        (&[&a, &c], &["two:1"]),
    ]));
    loop {
        store
            .load(&mut &archive[..], &LoadOptions::default(), &silent)
            .unwrap();
        store
            .import(&mut &c[..], &ImportOptions::default(), &silent)
            .unwrap();
        // Tells the parent that one round of loading is through.
        std::io::stdout().write_all(b"!").unwrap();
        std::io::stdout().flush().unwrap();
        for image in store.list(&ListFilter::default()).unwrap().iter().skip(1) {
            let options = RemoveOptions {
                force: true,
                ..RemoveOptions::default()
            };
            store.remove(&image.id.hex(), options, Vec::new).unwrap();
        }
    }
}

#[test]
fn a_killed_store_is_whole_when_it_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut seen_images = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--ignored"])
            .env(ROOT, root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Kept open until the child is dead: it would notice a closed pipe.
        let mut output = child.stdout.take().unwrap();
        let mut byte = [0];
        while round % 2 == 0 && byte != *b"!" {
            output
                .read_exact(&mut byte)
                .expect("the victim says when it has loaded");
        }
        // The moment is what is being tested: any will do.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(5_000 + seed % 60_000));
        assert!(
            child.try_wait().unwrap().is_none(),
            "round {round}: the victim ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(root, Limits::default())
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        for image in store.list(&ListFilter::default()).unwrap() {
            // Writes every layer and compares digests.
            store
                .save(&[&image.id.hex()], &mut std::io::sink())
                .unwrap_or_else(|error| panic!("round {round}: {error}"));
            layers.extend(image.config.rootfs.diff_ids.iter().map(|id| id.hex()));
            blobs.extend([image.id.hex(), image.manifest.hex()]);
            seen_images += 1;
        }
        // Dropping waits for what is cleaned up in the background.
        drop(store);
        let names = |path: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(root.join(path)).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        assert_eq!(names("layers"), layers, "round {round}");
        assert_eq!(names("content/blobs/sha256"), blobs, "round {round}");
        assert!(!names("content").contains("unsettled"), "round {round}");
    }
    assert!(
        seen_images > 0,
        "no round was killed with an image in the store"
    );
}

/// A configuration that cannot be read today may be tomorrow: until then no layer can be said not to be needed.
#[test]
fn what_cannot_be_settled_is_settled_later() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), Limits::default()).unwrap();
    let tar = layer(1);
    let archive = docker_archive(&[(&[&tar], &["one:1"])]);
    let store = open();
    let loaded = store
        .load(&mut &archive[..], &LoadOptions::default(), &silent)
        .unwrap();
    drop(store);
    let mark = directory.path().join("content/unsettled");
    std::fs::write(&mark, "").unwrap();
    let orphan = directory.path().join("layers").join("5".repeat(64));
    std::fs::create_dir(&orphan).unwrap();
    let config = directory
        .path()
        .join("content/blobs/sha256")
        .join(loaded[0].id.hex());
    let bytes = std::fs::read(&config).unwrap();
    std::fs::write(&config, "{").unwrap();
    drop(open());
    assert!(mark.exists() && orphan.exists());

    std::fs::write(&config, bytes).unwrap();
    drop(open());
    assert!(!mark.exists() && !orphan.exists());
    open().save(&["one:1"], &mut std::io::sink()).unwrap();
}
