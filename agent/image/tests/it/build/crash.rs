//! Killed at any moment, snapshots are whole or not there, and nothing is left over.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agent_image::build::{Entry, Snapshots};
use agent_image::{Limits, Store};

use super::{Yard, stack};

const ROOT: &str = "SNAPSHOTS_CRASH_ROOT";
const ROUNDS: u64 = 30;

/// Files of a snapshot that is recognised by its content.
fn fill(diff: &Path, number: u64) {
    for file in 0..20_u64 {
        let content = vec![number as u8; usize::try_from(number % 5 * 100 + file).unwrap()];
        std::fs::write(diff.join(format!("{number}-{file}")), content).unwrap();
    }
}

/// The process that is killed: makes, adopts, holds and removes snapshots for ever.
#[test]
#[ignore = "started and killed by the test below"]
fn victim() {
    let root = std::env::var_os(ROOT).expect("only runs as a child of the crash test");
    let root = Path::new(&root);
    let store = Arc::new(Store::open(root, Limits::default()).unwrap());
    let snapshots = Snapshots::open(Arc::clone(&store), &root.join("build")).unwrap();
    for number in 0.. {
        let make = || {
            let work = snapshots.begin().unwrap();
            fill(work.diff(), number % 7);
            Entry::Loose(snapshots.finish(work).unwrap().id)
        };
        let entries = [make(), make(), make()];
        let held = snapshots.hold(&stack(entries.clone())).unwrap();
        snapshots.adopt(&entries[..2]).unwrap();
        drop(held);
        if number % 3 == 2 {
            snapshots.remove(&entries, &HashSet::new()).unwrap();
        }
        if number % 5 == 4 {
            // Tells the parent that there is something.
            std::io::stdout().write_all(b"!").unwrap();
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn killed_builders_leave_whole_snapshots_or_none() {
    let mut yard = Yard::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut seen = 0;
    for round in 0..ROUNDS {
        let Yard {
            directory,
            store,
            snapshots,
        } = yard;
        drop(snapshots);
        drop(store);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "build::crash::victim", "--ignored"])
            .env(ROOT, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut byte = [0];
        while round % 2 == 0 && byte != *b"!" {
            output
                .read_exact(&mut byte)
                .expect("the victim says when it has begun");
        }
        // The moment is what is being tested: any will do.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(3_000 + seed % 50_000));
        assert!(
            child.try_wait().unwrap().is_none(),
            "round {round}: the victim ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        yard = Yard::at(directory);
        let there = yard.snapshots.list().unwrap();
        let mut named = HashSet::new();
        for snapshot in there {
            let entry = Entry::Loose(snapshot.id);
            // One whose layer went with another is a miss.
            if !yard.snapshots.contains(&stack([entry.clone()])) {
                continue;
            }
            let held = yard.hold(&stack([entry.clone()]));
            let names = std::fs::read_dir(&held.lowers()[0]).unwrap();
            let names: Vec<String> = names
                .map(|name| name.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(names.len(), 20, "round {round}: {names:?}");
            for name in names {
                let (number, file) = name.split_once('-').unwrap();
                let (number, file): (u64, u64) = (number.parse().unwrap(), file.parse().unwrap());
                let content = held.view().read(&name, 10_000).unwrap().unwrap();
                let length = usize::try_from(number % 5 * 100 + file).unwrap();
                assert_eq!(content, vec![number as u8; length], "round {round}: {name}");
            }
            seen += 1;
            // Every other record is lost, too.
            if named.len() < 3 {
                named.insert(entry);
            }
        }
        yard.snapshots.sweep(&named).unwrap();
        // The layers that are left are those that something names, and each writes its tar again.
        let named: Vec<Entry> = named.into_iter().collect();
        yard.snapshots.adopt(&named).unwrap();
        yard.snapshots.sweep(&HashSet::new()).unwrap();
        let root = yard.directory.path();
        drop(yard.snapshots);
        assert_eq!(left(&root.join("layers")), 0, "round {round}");
        assert_eq!(left(&root.join("build/snapshots")), 0, "round {round}");
        drop(yard.store);
        yard = Yard::at(yard.directory);
    }
    assert!(seen > 0, "no round was killed with a snapshot there");
}

fn left(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
