//! A disk without any room: what is there can still be removed.

use std::io::Write as _;
use std::path::Path;

use agent_image::{Limits, ListFilter, LoadOptions, PruneFilter, RemoveOptions, Store, silent};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::archive::{Tar, docker_archive};

/// Runs `act` with a file system of a few megabytes, in a mount namespace of a thread of its own.
fn on_a_small_disk(act: impl FnOnce(&Path) + Send) {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let (kind, size) = (Some("tmpfs"), Some("size=8m"));
            mount(kind, directory.path(), kind, MsFlags::empty(), size).unwrap();
            act(directory.path());
            umount2(directory.path(), MntFlags::MNT_DETACH).unwrap();
        });
        thread.join().unwrap();
    });
}

/// Leaves not a byte.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for length in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![7; length]).is_ok() {}
    }
}

fn free(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).unwrap().blocks_available()
}

#[test]
fn images_are_removed_from_a_full_disk() {
    on_a_small_disk(|root| {
        let store = Store::open(&root.join("store"), Limits::default()).unwrap();
        let layers = ["one", "two"].map(|name| Tar::new().file(name, vec![1; 1 << 20]).end());
        let archive = docker_archive(&[(&[&layers[0]], &["one:1"]), (&[&layers[1]], &["two:1"])]);
        let options = LoadOptions::default();
        store.load(&mut &archive[..], &options, &silent).unwrap();
        fill(&root.join("filler"));
        assert_eq!(free(root), 0);
        store
            .remove("one:1", RemoveOptions::default(), Vec::new)
            .unwrap();
        assert!(free(root) > 0, "its layer is gone");
        // Again, now that the room that was kept back had been used.
        fill(&root.join("more"));
        let all = PruneFilter {
            dangling_only: false,
            ..PruneFilter::default()
        };
        store.prune(&all, Vec::new).unwrap();
        assert!(store.list(&ListFilter::default()).unwrap().is_empty());
    });
}
