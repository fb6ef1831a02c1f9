//! Names, removal, pruning, accounting.

use agent_image::{
    ErrorClass, HeldFor, ImageUse, Limits, ListFilter, LoadOptions, PruneFilter, Reference,
    RemoveOptions, Removed, Store, silent,
};

use crate::Bed;
use crate::archive::{Tar, docker_archive};

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, vec![b'x'; 1000]).end()
}

/// `one` = a+b, `two` = a.
fn bed() -> Bed {
    let bed = Bed::new();
    let (a, b) = (layer("a"), layer("b"));
    bed.load(&docker_archive(&[
        (&[&a, &b], &["one:1"]),
        (&[&a], &["two:1"]),
    ]))
    .unwrap();
    bed
}

fn reply(removed: &[Removed]) -> Vec<String> {
    removed
        .iter()
        .map(|step| match step {
            Removed::Untagged(name, _, _) => format!("untagged {}", name.familiar()),
            Removed::Image(_) => "image".to_owned(),
            Removed::Layer(_) => "layer".to_owned(),
        })
        .collect()
}

fn remove(store: &Store, name: &str) -> Result<Vec<String>, String> {
    store
        .remove(name, RemoveOptions::default(), Vec::new)
        .map(|removed| reply(&removed))
        .map_err(|error| error.to_string())
}

#[test]
fn the_last_name_takes_the_image_and_layers_nobody_else_has() {
    let bed = bed();
    let tag = Reference::parse("again").unwrap();
    bed.store.tag("one:1", &tag).unwrap();
    assert_eq!(remove(&bed.store, "one:1").unwrap(), ["untagged one:1"]);
    assert_eq!(
        remove(&bed.store, "again").unwrap(),
        ["untagged again:latest", "image", "layer"]
    );
    assert_eq!(
        bed.store
            .layers(&bed.store.resolve("two:1").unwrap())
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        remove(&bed.store, "two:1").unwrap(),
        ["untagged two:1", "image", "layer"]
    );
    assert_eq!(
        bed.files(),
        [
            "content",
            "content/blobs",
            "content/blobs/sha256",
            "content/index.json",
            "content/lock",
            "content/oci-layout",
            "content/reserve",
            "layers"
        ]
    );
}

#[test]
fn conflicts_are_told_in_dockers_words() {
    let bed = bed();
    let id = bed.store.resolve("one:1").unwrap();
    let short = id.short();
    let user = |running| {
        [ImageUse {
            image: id,
            container: "0123456789abcdef".into(),
            running,
        }]
    };
    let forced = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    let refuse = |name: &str, options, uses: &[ImageUse]| {
        let error = bed
            .store
            .remove(name, options, || uses.to_vec())
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Conflict);
        error.to_string()
    };
    assert_eq!(
        refuse("one:1", RemoveOptions::default(), &user(false)),
        format!(
            "conflict: unable to remove repository reference \"one:1\" (must force) - container 0123456789ab is using its referenced image {short}"
        )
    );
    assert_eq!(
        refuse(&short, RemoveOptions::default(), &user(false)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    assert_eq!(
        refuse(&short, forced, &user(true)),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
        )
    );
    bed.store
        .tag("one:1", &Reference::parse("other:1").unwrap())
        .unwrap();
    assert_eq!(
        refuse(&short, RemoveOptions::default(), &[]),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    let held = bed.store.resolve("two:1").unwrap();
    for (purpose, reason) in [
        (
            HeldFor::Build,
            "image is being used by a build: wait for it, or stop it",
        ),
        (
            HeldFor::Save,
            "image is being saved: wait for it, or stop it",
        ),
        (
            HeldFor::Pull,
            "image is being pulled: wait for it, or stop it",
        ),
        (
            HeldFor::Push,
            "image is being pushed: wait for it, or stop it",
        ),
        (
            HeldFor::Commit,
            "a container of the image is being committed: wait for it",
        ),
        (
            HeldFor::Container,
            "image is being used by a container that is being created",
        ),
    ] {
        let (_, hold) = bed.store.hold("two:1", purpose).unwrap();
        // What holds it further does not hide the first.
        let (_, other) = bed.store.hold("two:1", HeldFor::Save).unwrap();
        drop(other);
        assert_eq!(
            refuse(&held.short(), forced, &[]),
            format!(
                "conflict: unable to delete {} (cannot be forced) - {reason}",
                held.short()
            )
        );
        drop(hold);
    }
    bed.store
        .remove(&held.short(), RemoveOptions::default(), Vec::new)
        .unwrap();
    // Forced by name while a container runs: the name goes, the image stays.
    bed.store
        .remove("other:1", RemoveOptions::default(), Vec::new)
        .unwrap();
    let removed = bed
        .store
        .remove("one:1", forced, || user(true).to_vec())
        .unwrap();
    assert_eq!(reply(&removed), ["untagged one:1"]);
    assert_eq!(bed.store.resolve(&short).unwrap(), id);
}

#[test]
fn an_image_that_is_being_saved_says_so() {
    let bed = bed();
    let selection = bed.store.select(&["one:1"]).unwrap();
    let refused = bed
        .store
        .remove("one:1", RemoveOptions::default(), Vec::new);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.ends_with("image is being saved: wait for it, or stop it"),
        "{refused}"
    );
    drop(selection);
    bed.store
        .remove("one:1", RemoveOptions::default(), Vec::new)
        .unwrap();
}

#[test]
fn what_a_container_was_made_from_outlasts_its_image() {
    let bed = bed();
    let id = bed.store.resolve("one:1").unwrap();
    let layers = bed.store.layers(&id).unwrap();
    let user = || {
        vec![ImageUse {
            image: id,
            container: "0123456789abcdef".into(),
            running: false,
        }]
    };
    let forced = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    let removed = bed.store.remove("one:1", forced, user).unwrap();
    assert_eq!(reply(&removed), ["untagged one:1", "image"]);
    for name in ["one:1", &id.hex(), &id.short()] {
        assert!(bed.store.resolve(name).is_err(), "{name}");
        assert!(bed.store.inspect(name).is_err(), "{name}");
        assert!(bed.store.hold(name, HeldFor::Container).is_err(), "{name}");
    }
    assert_eq!(bed.store.list(&ListFilter::default()).unwrap().len(), 1);
    // Nothing that happens to other images takes its layers, and neither does opening the store again.
    let gone = bed.store.prune(&PruneFilter::default(), user).unwrap();
    assert_eq!(reply(&gone.removed), ["untagged two:1", "image"]);
    assert_eq!(bed.store.disk_usage().layers_size, 2000);
    assert_eq!(bed.store.image_size(&id), 2000);
    let Bed { directory, store } = bed;
    std::fs::write(directory.path().join("content/unsettled"), "").unwrap();
    drop(store);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let bed = Bed { directory, store };
    bed.store.collect_departed(user).unwrap();
    assert_eq!(bed.store.layers(&id).unwrap(), layers);
    assert!(
        layers
            .iter()
            .all(|layer| layer.join("..").join("layer.json").exists())
    );

    // It comes back with all its layers, and is an image as any other.
    let (a, b) = (layer("a"), layer("b"));
    bed.load(&docker_archive(&[(&[&a, &b], &["back:1"])]))
        .unwrap();
    assert_eq!(bed.store.resolve("back:1").unwrap(), id);
    bed.store.collect_departed(Vec::new).unwrap();
    assert_eq!(bed.store.layers(&id).unwrap(), layers);

    // The last container takes everything along.
    bed.store.remove("back:1", forced, user).unwrap();
    assert!(bed.store.layers(&id).is_ok());
    bed.store.collect_departed(Vec::new).unwrap();
    assert!(bed.store.layers(&id).is_err());
    assert_eq!(
        bed.files(),
        [
            "content",
            "content/blobs",
            "content/blobs/sha256",
            "content/index.json",
            "content/lock",
            "content/oci-layout",
            "content/reserve",
            "layers"
        ]
    );
}

#[test]
fn a_container_made_while_a_removal_waits_counts() {
    let bed = bed();
    let (id, hold) = bed.store.hold("one:1", HeldFor::Container).unwrap();
    let container = parking_lot::Mutex::new(Some(hold));
    // The container becomes visible and lets go of the image just before the removal asks for containers.
    let uses = || {
        drop(container.lock().take());
        vec![ImageUse {
            image: id,
            container: "c".into(),
            running: true,
        }]
    };
    let options = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    let error = bed.store.remove(&id.hex(), options, uses).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
}

#[test]
fn a_layer_that_is_in_use_when_its_image_goes_and_the_process_dies_is_not_left() {
    struct Dying<'a> {
        archive: &'a [u8],
        bed: &'a Bed,
        root: &'a std::path::Path,
    }
    impl std::io::Read for Dying<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // The layers have been found by now, the documents have not.
            if self.archive.len() <= 8192 && !self.root.join("content").exists() {
                remove(&self.bed.store, "one:1").unwrap();
                copy_tree(self.bed.directory.path(), self.root);
            }
            let len = buffer.len().min(512);
            self.archive.read(&mut buffer[..len])
        }
    }
    let bed = bed();
    remove(&bed.store, "two:1").unwrap();
    let (a, b) = (layer("a"), layer("b"));
    let archive = docker_archive(&[(&[&a, &b], &["again:1"])]);
    let dead = tempfile::tempdir().unwrap();
    let mut input = Dying {
        archive: &archive,
        bed: &bed,
        root: dead.path(),
    };
    bed.store
        .load(&mut input, &LoadOptions::default(), &silent)
        .unwrap();
    bed.store.inspect("again:1").unwrap();
    let layers = |root: &std::path::Path| std::fs::read_dir(root.join("layers")).unwrap().count();
    assert_ne!(layers(dead.path()), 0, "what was in use stayed");
    drop(Store::open(dead.path(), Limits::default()).unwrap());
    assert_eq!(layers(dead.path()), 0);
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_moved_tag_leaves_a_dangling_image_that_prune_takes() {
    let bed = bed();
    bed.store
        .tag("two:1", &Reference::parse("one:1").unwrap())
        .unwrap();
    let dangling = |dangling| ListFilter {
        dangling: Some(dangling),
        ..ListFilter::default()
    };
    assert_eq!(bed.store.list(&dangling(true)).unwrap().len(), 1);
    assert_eq!(bed.store.list(&dangling(false)).unwrap().len(), 1);
    let filter = PruneFilter {
        dangling_only: true,
        ..PruneFilter::default()
    };
    let pruned = bed.store.prune(&filter, Vec::new).unwrap();
    assert_eq!(reply(&pruned.removed), ["image", "layer"]);
    assert_eq!(pruned.space_reclaimed, 1000);
    let in_use = [ImageUse {
        image: bed.store.resolve("one:1").unwrap(),
        container: "c".into(),
        running: false,
    }];
    let all = PruneFilter::default();
    assert_eq!(
        bed.store.prune(&all, || in_use.to_vec()).unwrap().removed,
        []
    );
    let pruned = bed.store.prune(&all, Vec::new).unwrap();
    assert_eq!(
        reply(&pruned.removed),
        ["untagged one:1", "untagged two:1", "image", "layer"]
    );
}

#[test]
fn lists_filter_as_docker_does() {
    let bed = bed();
    let names = |filter: ListFilter| -> Vec<String> {
        let images = bed.store.list(&filter).unwrap();
        let mut names: Vec<_> = images
            .iter()
            .flat_map(|i| &i.tags)
            .map(Reference::familiar)
            .collect();
        names.sort();
        names
    };
    let reference = |pattern: &str| ListFilter {
        references: vec![pattern.into()],
        ..ListFilter::default()
    };
    assert_eq!(names(ListFilter::default()), ["one:1", "two:1"]);
    assert_eq!(names(reference("one")), ["one:1"]);
    assert_eq!(names(reference("*:1")), ["one:1", "two:1"]);
    assert_eq!(names(reference("docker.io/library/t*")), ["two:1"]);
    assert_eq!(names(reference("one:2")), [""; 0]);
    let label = |label: &str| ListFilter {
        labels: vec![label.into()],
        ..ListFilter::default()
    };
    assert_eq!(names(label("which=1")), ["two:1"]);
    assert_eq!(names(label("which")), ["one:1", "two:1"]);
    assert_eq!(names(label("absent")), [""; 0]);
    let before = ListFilter {
        before: vec!["one:1".into()],
        ..ListFilter::default()
    };
    assert_eq!(names(before), [""; 0]);
}

#[test]
fn disk_usage_counts_shared_layers_once() {
    let bed = bed();
    let usage = bed.store.disk_usage();
    assert_eq!(usage.layers_size, 2000);
    let mut sizes: Vec<_> = usage
        .images
        .iter()
        .map(|image| (image.size, image.shared_size))
        .collect();
    sizes.sort();
    assert_eq!(sizes, [(1000, 1000), (2000, 1000)]);
}

#[test]
fn a_store_reopens_as_it_was_and_only_once_at_a_time() {
    let bed = bed();
    let before = bed.store.inspect("one:1").unwrap();
    assert!(Store::open(bed.directory.path(), Default::default()).is_err());
    let Bed { directory, store } = bed;
    drop(store);
    let store = Store::open(directory.path(), Default::default()).unwrap();
    let after = store.inspect("one:1").unwrap();
    assert_eq!(
        (before.id, before.tags, before.layers),
        (after.id, after.tags, after.layers)
    );
    assert_eq!(
        store
            .history("one:1")
            .unwrap()
            .iter()
            .map(|h| h.size)
            .collect::<Vec<_>>(),
        [1000, 1000]
    );
}

#[test]
fn a_damaged_image_harms_no_other_and_can_be_removed() {
    let bed = bed();
    let id = bed.store.resolve("one:1").unwrap();
    let path = bed
        .directory
        .path()
        .join("content/blobs/sha256")
        .join(id.hex());
    std::fs::write(path, "{}").unwrap();
    let Bed { directory, store } = bed;
    drop(store);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let error = store.inspect("one:1").unwrap_err();
    assert_eq!(error.class(), ErrorClass::System);
    assert!(
        error
            .to_string()
            .contains("is damaged: its content has the digest"),
        "{error}"
    );
    assert_eq!(store.list(&ListFilter::default()).unwrap().len(), 1);
    // While it is there, no layer is taken for unneeded.
    assert_eq!(
        remove(&store, "two:1").unwrap(),
        ["untagged two:1", "image"]
    );
    assert_eq!(
        remove(&store, "one:1").unwrap(),
        ["untagged one:1", "image"]
    );
    drop(store);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    drop(store);
    assert_eq!(
        std::fs::read_dir(directory.path().join("layers"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_lost_layer_harms_no_other_image() {
    let bed = bed();
    let lost = bed
        .store
        .layers(&bed.store.resolve("one:1").unwrap())
        .unwrap();
    std::fs::remove_file(lost[0].with_file_name("layer.json")).unwrap();
    let Bed { directory, store } = bed;
    drop(store);
    let store = Store::open(directory.path(), Limits::default()).unwrap();
    let sizes: Vec<(String, u64)> = store
        .list(&ListFilter::default())
        .unwrap()
        .iter()
        .map(|image| (image.tags[0].familiar(), image.size))
        .collect();
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert!(sizes.iter().all(|(_, size)| *size == 1000), "{sizes:?}");
    assert_eq!(store.disk_usage().layers_size, 1000);
    assert!(store.inspect("one:1").is_err());
    assert_eq!(
        remove(&store, "one:1").unwrap()[..2],
        ["untagged one:1", "image"]
    );
    store.inspect("two:1").unwrap();
}

#[test]
fn lists_are_whole_while_images_come_and_go() {
    let bed = Bed::new();
    let layers: Vec<Vec<u8>> = (0..12).map(|n| layer(&n.to_string())).collect();
    let names: Vec<String> = (0..12).map(|n| format!("image:{n}")).collect();
    let archives: Vec<Vec<u8>> = layers
        .iter()
        .zip(&names)
        .map(|(layer, name)| docker_archive(&[(&[layer], &[name])]))
        .collect();
    bed.load(&docker_archive(&[(&[&layer("stays")], &["stays:1"])]))
        .unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..4 {
                for archive in &archives {
                    bed.load(archive).unwrap();
                }
                for name in &names {
                    remove(&bed.store, name).unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let list = bed.store.list(&ListFilter::default()).unwrap();
            assert!(
                list.iter()
                    .any(|image| image.tags[0].familiar() == "stays:1")
            );
            assert!(bed.store.disk_usage().layers_size >= 1000);
            let preview = bed.store.preview_prune(&PruneFilter::default(), Vec::new);
            assert!(preview.unwrap().space_reclaimed >= 1000);
        }
    });
}

#[test]
fn loads_removals_and_holds_at_once_leave_whole_images() {
    let bed = Bed::new();
    let layers: Vec<Vec<u8>> = (0..4).map(|n| layer(&n.to_string())).collect();
    std::thread::scope(|scope| {
        for worker in 0..4usize {
            let (bed, layers) = (&bed, &layers);
            scope.spawn(move || {
                let name = format!("image:{worker}");
                // Neighbours share a layer.
                let own = [&layers[worker][..], &layers[(worker + 1) % 4]];
                let archive = docker_archive(&[(&own, &[&name])]);
                for _ in 0..8 {
                    bed.load(&archive).unwrap();
                    // A neighbour may have been quicker.
                    let Ok((id, hold)) = bed.store.hold(&name, HeldFor::Container) else {
                        continue;
                    };
                    let stack = bed.store.layers(&id).unwrap();
                    assert!(stack.iter().all(|layer| layer.is_dir()));
                    let _ = bed.store.remove(
                        &format!("image:{}", (worker + 1) % 4),
                        RemoveOptions::default(),
                        Vec::new,
                    );
                    assert!(
                        stack.iter().all(|layer| layer.is_dir()),
                        "layers of a held image went"
                    );
                    drop(hold);
                }
            });
        }
    });
    for image in bed.store.list(&ListFilter::default()).unwrap() {
        bed.store
            .save(&[&image.id.hex()], &mut std::io::sink())
            .unwrap();
    }
    bed.store.prune(&PruneFilter::default(), Vec::new).unwrap();
    assert_eq!(
        std::fs::read_dir(bed.directory.path().join("layers"))
            .unwrap()
            .count(),
        0
    );
}
