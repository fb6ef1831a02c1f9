//! Digests of what steps read: equal exactly when what would be copied is.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use agent_build::plan::{CopyOp, CopySource, InputIndex};
use agent_image::Digest;
use agent_image::build::{FilesError, Reading, StatCache, View, content_digest, copy, path_digest};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Yard, context, lines, make, stack};

fn paths(path: &str) -> CopyOp {
    CopyOp {
        root: None,
        link: false,
        sources: vec![CopySource::Paths {
            input: InputIndex(0),
            path: path.to_owned(),
            parents: None,
            required: Vec::new(),
            unpack: false,
        }],
        destination: "/dest/".to_owned(),
        chown: None,
        chmod: None,
        excludes: Vec::new(),
    }
}

fn digest_with(op: &CopyOp, view: &View, stats: Option<&StatCache>) -> Result<Digest, FilesError> {
    read(op, view, stats).map(|reading| reading.digest)
}

fn read(op: &CopyOp, view: &View, stats: Option<&StatCache>) -> Result<Reading, FilesError> {
    content_digest(op, InputIndex(0), view, stats, &CancellationToken::new())
}

fn digest(op: &CopyOp, view: &View) -> Digest {
    digest_with(op, view, None).unwrap()
}

fn fill(root: &Path, lines: &[&str]) {
    lines.iter().for_each(|line| make(root, line, false));
}

const TREE: &[&str] = &[
    "d d 0755",
    "f d/a 0644 one",
    "f d/b 0755 two",
    "d d/sub 0700",
    "l d/sub/link -> ../a",
    "f x.txt 0644 x",
];

/// What is changed, and how.
type Change<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn every_property_that_is_copied_counts_and_no_other() {
    let base = tempfile::tempdir().unwrap();
    fill(base.path(), TREE);
    let all = paths("/");
    let wanted = digest(&all, &context(base.path(), &[]));
    let changed = |name: &str, change: &dyn Fn(&Path)| {
        let root = tempfile::tempdir().unwrap();
        fill(root.path(), TREE);
        change(root.path());
        (name.to_owned(), digest(&all, &context(root.path(), &[])))
    };
    let mode = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let same: [Change<'_>; 5] = [
        ("nothing", &|_| {}),
        ("times", &|root| {
            let file = File::options().write(true).open(root.join("d/a")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(5))
                .unwrap();
            File::open(root.join("d"))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
        ("owner in a context", &|root| {
            std::os::unix::fs::chown(root.join("d/a"), Some(7), Some(8)).unwrap();
        }),
        ("mode of the context itself", &|root| mode(root, 0o777)),
        ("order of making", &|root| {
            fs::rename(root.join("d/a"), root.join("d/c")).unwrap();
            fs::rename(root.join("d/c"), root.join("d/a")).unwrap();
        }),
    ];
    for (name, change) in same {
        let (name, found) = changed(name, change);
        assert_eq!(found, wanted, "{name}");
    }
    let other: [Change<'_>; 11] = [
        ("content", &|root| {
            fs::write(root.join("d/a"), "onf").unwrap()
        }),
        ("length", &|root| {
            fs::write(root.join("d/a"), "ones").unwrap()
        }),
        ("mode", &|root| mode(&root.join("d/a"), 0o600)),
        ("mode of a directory", &|root| {
            mode(&root.join("d/sub"), 0o755)
        }),
        ("name", &|root| {
            fs::rename(root.join("d/a"), root.join("d/c")).unwrap()
        }),
        ("place", &|root| {
            fs::rename(root.join("x.txt"), root.join("d/x.txt")).unwrap()
        }),
        ("link target", &|root| {
            fs::remove_file(root.join("d/sub/link")).unwrap();
            std::os::unix::fs::symlink("../b", root.join("d/sub/link")).unwrap();
        }),
        ("kind", &|root| {
            fs::remove_file(root.join("x.txt")).unwrap();
            fs::create_dir(root.join("x.txt")).unwrap();
        }),
        ("one more", &|root| {
            fs::write(root.join("d/sub/more"), "").unwrap()
        }),
        ("one less", &|root| {
            fs::remove_file(root.join("d/b")).unwrap()
        }),
        ("attribute", &|root| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("d/a"), "user.k", b"v", flags).unwrap();
        }),
    ];
    let mut seen = vec![wanted];
    for (name, change) in other {
        let (name, found) = changed(name, change);
        assert!(!seen.contains(&found), "{name}");
        seen.push(found);
    }
}

#[test]
fn what_is_not_selected_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), TREE);
    let view = |ignore: &[&str]| context(root.path(), ignore);
    let excluding = CopyOp {
        excludes: vec!["**/b".to_owned()],
        ..paths("/d")
    };
    let before = [
        digest(&paths("/d/a"), &view(&[])),
        digest(&paths("/*.txt"), &view(&[])),
        digest(&paths("/"), &view(&["**/b"])),
        digest(&excluding, &view(&[])),
    ];
    fs::write(root.path().join("d/b"), "changed").unwrap();
    let after = [
        digest(&paths("/d/a"), &view(&[])),
        digest(&paths("/*.txt"), &view(&[])),
        digest(&paths("/"), &view(&["**/b"])),
        digest(&excluding, &view(&[])),
    ];
    assert_eq!(before, after);
    assert_eq!(
        digest(&paths("/none*"), &view(&[])),
        digest(&paths("/nothing*"), &view(&[])),
        "selecting nothing"
    );
    let missing = digest_with(&paths("/none"), &view(&[]), None).unwrap_err();
    assert_eq!(missing.to_string(), "\"/none\": not found");
}

#[test]
fn owners_count_in_stacks_and_layers_do_not() {
    let yard = Yard::new();
    let split = |files: &[&[&str]]| {
        let entries: Vec<_> = files
            .iter()
            .map(|lines| yard.snapshot(|diff| lines.iter().for_each(|line| make(diff, line, true))))
            .collect();
        digest(&paths("/"), &yard.hold(&stack(entries)).view())
    };
    let whole = split(&[&["d d 0755 1:2", "f d/a 0644 3:4 a", "f d/b 0644 3:4 b"]]);
    let layered = split(&[
        &["d d 0711 9:9", "f d/a 0600 3:4 old", "f d/gone 0644 0:0 x"],
        &["d d 0755 1:2", "f d/b 0644 3:4 b", "c d/gone 0000 0:0 0 0"],
        &["d d 0755 1:2", "f d/a 0644 3:4 a"],
    ]);
    assert_eq!(whole, layered);
    let other = split(&[&["d d 0755 1:2", "f d/a 0644 3:5 a", "f d/b 0644 3:4 b"]]);
    assert_ne!(whole, other);
}

#[test]
fn a_path_and_what_is_below_it_has_a_digest() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), TREE);
    let view = context(root.path(), &[]);
    let cancel = CancellationToken::new();
    let of = |path: &str| path_digest(&view, path, None, &cancel).unwrap().digest;
    assert_eq!(of("/d/sub/link"), of("d/a"), "links are followed");
    assert_ne!(of("/d"), of("/"));
    cancel.cancel();
    assert!(matches!(
        path_digest(&view, "/", None, &cancel),
        Err(FilesError::Cancelled)
    ));
}

#[test]
fn the_stat_cache_changes_no_digest() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), TREE);
    let big = vec![3; 3_000_000];
    fs::write(root.path().join("big"), &big).unwrap();
    let stats = yard.snapshots.stat_cache();
    let view = context(root.path(), &[]);
    let plain = digest(&paths("/"), &view);
    for _ in 0..3 {
        assert_eq!(
            digest_with(&paths("/"), &view, Some(&stats)).unwrap(),
            plain
        );
    }
    // Changed at once, with the same size and the same mtime: what was just written is never believed.
    for byte in 4..20 {
        let path = root.path().join("big");
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, vec![byte; big.len()]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(before)
            .unwrap();
        let found = digest_with(&paths("/"), &view, Some(&stats)).unwrap();
        assert_eq!(found, digest(&paths("/"), &view), "round {byte}");
    }
}

#[derive(Debug, Clone)]
enum Thing {
    File(u8, bool),
    Directory(bool),
    Link(u8),
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        (any::<u8>(), any::<bool>()).prop_map(|(content, x)| Thing::File(content % 3, x)),
        any::<bool>().prop_map(Thing::Directory),
        (0..3_u8).prop_map(Thing::Link),
    ]
}

/// Makes a tree of things, the parents of each as plain directories; what cannot be is left out.
fn grow(root: &Path, things: &[(Vec<u8>, Thing)]) {
    use std::os::unix::fs::PermissionsExt;
    for (path, thing) in things {
        let path: std::path::PathBuf = path.iter().map(|part| format!("n{part}")).collect();
        let path = root.join(path);
        let _ = fs::create_dir_all(path.parent().unwrap());
        let set = |mode| drop(fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        match thing {
            _ if path.symlink_metadata().is_ok() => {}
            Thing::File(content, x) => {
                if fs::write(&path, [*content]).is_ok() {
                    set(if *x { 0o755 } else { 0o644 });
                }
            }
            Thing::Directory(narrow) => {
                if fs::create_dir(&path).is_ok() {
                    set(if *narrow { 0o700 } else { 0o755 });
                }
            }
            Thing::Link(target) => drop(std::os::unix::fs::symlink(format!("n{target}"), &path)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Of two trees with one digest the same is copied; and trees of which the same is copied have one digest, unless a pattern
    /// takes a file twice (a directory, and a link to it), which the digest tells from taking it once.
    #[test]
    fn digests_are_equal_when_copies_are(
        one in prop::collection::vec((prop::collection::vec(0..2_u8, 1..4), thing()), 0..5),
        two in prop::collection::vec((prop::collection::vec(0..2_u8, 1..4), thing()), 0..5),
        shuffled in any::<bool>(),
        pattern in prop::sample::select(vec!["/", "/n0", "/n*", "/n*/n1", "/n0/n0/"]),
        exclude in prop::sample::select(vec!["none", "n1", "**/n0"]),
    ) {
        let yard = Yard::new();
        let op = CopyOp { excludes: vec![exclude.to_owned()], ..paths(pattern) };
        let two = if shuffled { one.iter().rev().cloned().collect() } else { two };
        let of = |things: &[(Vec<u8>, Thing)]| {
            let root = tempfile::tempdir().unwrap();
            grow(root.path(), things);
            let view = context(root.path(), &[]);
            let work = yard.snapshots.begin().unwrap();
            let copied = copy(&op, std::slice::from_ref(&view), &work, &CancellationToken::new());
            let digest = digest_with(&op, &view, None);
            match (copied, digest) {
                (Ok(()), Ok(digest)) => Some((lines(work.diff()), digest)),
                // What cannot be hashed cannot be copied.
                (Err(_), _) => None,
                (Ok(()), Err(error)) => panic!("copied, but: {error}"),
            }
        };
        if let (Some((first, digest_one)), Some((second, digest_two))) = (of(&one), of(&two)) {
            if pattern.contains('*') {
                prop_assert!(first == second || digest_one != digest_two, "{:?} {:?}", first, second);
            } else {
                prop_assert_eq!(first == second, digest_one == digest_two, "{:?} {:?}", first, second);
            }
        }
    }
}

/// Writes a file anew until the file system's clock tells the difference.
fn rewrite(path: &Path, content: &[u8]) {
    let before = fs::metadata(path).unwrap();
    loop {
        fs::write(path, content).unwrap();
        let now = fs::metadata(path).unwrap();
        if (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
            return;
        }
    }
}

#[test]
fn a_change_to_and_fro_is_no_part_of_the_digest_and_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), TREE);
    let (view, op) = (context(root.path(), &[]), paths("/d"));
    let first = read(&op, &view, None).unwrap();
    assert_eq!(read(&op, &view, None).unwrap(), first);
    rewrite(&root.path().join("d/a"), b"else");
    assert_ne!(read(&op, &view, None).unwrap().digest, first.digest);
    rewrite(&root.path().join("d/a"), b"one");
    let back = read(&op, &view, None).unwrap();
    assert_eq!(back.digest, first.digest);
    assert_ne!(back, first);
    // What the step does not read may change as it likes.
    rewrite(&root.path().join("x.txt"), b"y");
    fs::write(root.path().join("new"), "").unwrap();
    assert_eq!(read(&op, &view, None).unwrap(), back);
}

#[test]
fn between_two_equal_readings_nothing_else_is_copied() {
    let yard = Yard::new();
    let stats = yard.snapshots.stat_cache();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    let versions = [vec![b'a'; 300_000], vec![b'b'; 300_000]];
    fs::write(&path, &versions[0]).unwrap();
    let (view, op) = (context(root.path(), &[]), paths("/file"));
    let digests: Vec<Digest> = versions
        .iter()
        .map(|version| {
            fs::write(&path, version).unwrap();
            digest(&op, &view)
        })
        .collect();
    let stop = AtomicBool::new(false);
    let (mut steady, mut changed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in versions.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let new = root.path().join("new");
                fs::write(&new, version).unwrap();
                fs::rename(&new, &path).unwrap();
                // Sometimes there is time for a copy in between.
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        while steady < 20 || changed < 20 {
            let before = read(&op, &view, Some(&stats)).unwrap();
            let work = yard.snapshots.begin().unwrap();
            copy(
                &op,
                slice::from_ref(&view),
                &work,
                &CancellationToken::new(),
            )
            .unwrap();
            if read(&op, &view, Some(&stats)).unwrap() != before {
                changed += 1;
                continue;
            }
            steady += 1;
            let copied = fs::read(work.diff().join("dest/file")).unwrap();
            let version = versions.iter().position(|version| *version == copied);
            let version = version.expect("a file that is replaced is copied whole");
            assert_eq!(before.digest, digests[version]);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_removed_while_it_is_read_was_not_there() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    let (view, op) = (context(root.path(), &[]), paths("/"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for number in 0..20 {
                    fs::create_dir(root.path().join(format!("d{number}"))).unwrap();
                    fs::write(root.path().join(format!("d{number}/f")), "x").unwrap();
                    fs::write(root.path().join(format!("f{number}")), "x").unwrap();
                }
                for number in 0..20 {
                    fs::remove_file(root.path().join(format!("f{number}"))).unwrap();
                    fs::remove_dir_all(root.path().join(format!("d{number}"))).unwrap();
                }
            }
        });
        for _ in 0..40 {
            read(&op, &view, None).unwrap();
            let work = yard.snapshots.begin().unwrap();
            copy(
                &op,
                slice::from_ref(&view),
                &work,
                &CancellationToken::new(),
            )
            .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
