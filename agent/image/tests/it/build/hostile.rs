//! Contexts that change while they are read, and trees that are made to hurt.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_build::plan::{Chmod, CopyOp, CopySource, InputIndex, MakeDirOp};
use agent_image::build::{FilesError, View, content_digest, copy, make_directory};
use tokio_util::sync::CancellationToken;

use super::{Yard, context, lines, stack};

fn op(path: &str, destination: &str) -> CopyOp {
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
        destination: destination.to_owned(),
        chown: None,
        chmod: None,
        excludes: Vec::new(),
    }
}

fn copied(yard: &Yard, op: &CopyOp, view: &View) -> Result<Vec<String>, FilesError> {
    let work = yard.snapshots.begin().unwrap();
    copy(
        op,
        std::slice::from_ref(view),
        &work,
        &CancellationToken::new(),
    )?;
    Ok(lines(work.diff()))
}

#[test]
fn a_context_that_changes_meanwhile_gives_nothing_else_away() {
    let yard = Yard::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("d")).unwrap();
    fs::write(outside.path().join("d/f"), "secret").unwrap();
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/f"), "harmless").unwrap();
    symlink(outside.path().join("d"), path("evil")).unwrap();
    symlink(outside.path().join("d/f"), path("d/evil")).unwrap();
    let stop = AtomicBool::new(false);
    let swap = |one: &Path, two: &Path| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                swap(&path("d"), &path("evil"));
                swap(&path("d"), &path("evil"));
                swap(&path("d/f"), &path("d/evil"));
                swap(&path("d/f"), &path("d/evil"));
            }
        });
        let view = context(root.path(), &[]);
        let cancel = CancellationToken::new();
        for round in 0..300 {
            // Failing is fine.
            for source in ["/", "/d/f", "/d/*"] {
                let op = op(source, "/x/");
                if let Ok(lines) = copied(&yard, &op, &view) {
                    let all = lines.join("\n");
                    assert!(!all.contains("secret"), "round {round}: {all}");
                }
                let _ = content_digest(&op, InputIndex(0), &view, None, &cancel);
            }
            if let Ok(Some(content)) = view.read("/d/f", 100) {
                assert_eq!(content, b"harmless", "round {round}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_fifo_and_a_device_do_not_block() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    super::make(root.path(), "p fifo 0644", false);
    let view = context(root.path(), &[]);
    assert_eq!(
        copied(&yard, &op("/fifo", "/x"), &view).unwrap(),
        ["p x 0644 0:0"]
    );
    assert!(view.read("/fifo", 10).is_err());
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    let deep = "d/".repeat(300);
    fs::create_dir_all(root.path().join(&deep)).unwrap();
    let view = context(root.path(), &[]);
    let cancel = CancellationToken::new();
    let all = op("/", "/x/");
    assert!(matches!(
        copied(&yard, &all, &view),
        Err(FilesError::Limit { .. })
    ));
    assert!(matches!(
        content_digest(&all, InputIndex(0), &view, None, &cancel),
        Err(FilesError::Limit { .. })
    ));
    let far = op("/", &format!("/{deep}"));
    assert!(matches!(
        copied(&yard, &far, &View::empty()),
        Err(FilesError::NotFound(_)) | Err(FilesError::Limit { .. })
    ));
    let make_far = MakeDirOp {
        root: None,
        path: format!("/{deep}"),
        mode: 0o755,
        owner: None,
        created: None,
    };
    let work = yard.snapshots.begin().unwrap();
    assert!(matches!(
        make_directory(&make_far, &[], &work),
        Err(FilesError::Limit { .. })
    ));
}

#[test]
fn names_that_layers_reserve_are_refused() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".wh.x"), "").unwrap();
    let error = copied(&yard, &op("/", "/x/"), &context(root.path(), &[])).unwrap_err();
    assert!(error.to_string().contains("/x/.wh.x"), "{error}");
}

#[test]
fn holes_times_and_attributes_come_along() {
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    let sparse = File::create(root.path().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 32 << 20).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    sparse.set_modified(time).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.path().join("sparse"), "user.k", b"v", flags).unwrap();
    // cap_net_raw+ep, version 2.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    fs::write(root.path().join("tool"), "x").unwrap();
    rustix::fs::setxattr(
        root.path().join("tool"),
        "security.capability",
        &capability,
        flags,
    )
    .unwrap();
    let view = context(root.path(), &[]);
    let work = yard.snapshots.begin().unwrap();
    let chown = CopyOp {
        chown: Some("7:8".to_owned()),
        chmod: Some(Chmod::Octal(0o755)),
        ..op("/", "/x/")
    };
    copy(&chown, &[view], &work, &CancellationToken::new()).unwrap();
    let copy = work.diff().join("x/sparse");
    let metadata = fs::metadata(&copy).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(
        metadata.blocks() * 512 < 1 << 20,
        "{} blocks",
        metadata.blocks()
    );
    assert_eq!(metadata.modified().unwrap(), time);
    assert_eq!(
        fs::read(&copy).unwrap()[32 << 20..(32 << 20) + 6],
        *b"middle"
    );
    let mut value = [0; 32];
    let length = rustix::fs::getxattr(&copy, "user.k", &mut value[..]).unwrap();
    assert_eq!(value[..length], *b"v");
    let tool = work.diff().join("x/tool");
    let length = rustix::fs::getxattr(tool, "security.capability", &mut value[..]).unwrap();
    assert_eq!(
        value[..length],
        capability,
        "it survives the change of owner"
    );
}

#[test]
fn a_cancelled_copy_stops() {
    let yard = Yard::new();
    let entry = yard.snapshot(|diff| fs::write(diff.join("a"), "a").unwrap());
    let view = yard.hold(&stack([entry])).view();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let work = yard.snapshots.begin().unwrap();
    assert!(matches!(
        copy(&op("/", "/"), &[view], &work, &cancel),
        Err(FilesError::Cancelled)
    ));
}

#[test]
fn nothing_in_a_context_means_a_removed_file() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let yard = Yard::new();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    let device = root.path().join("d/passwd");
    let kind = FileType::CharacterDevice;
    mknodat(CWD, &device, kind, Mode::RUSR, makedev(0, 0)).unwrap();
    let view = context(root.path(), &[]);
    for (source, shown) in [("/d", "/x/passwd"), ("/d/passwd", "/x/passwd")] {
        match copied(&yard, &op(source, "/x/"), &view) {
            Err(FilesError::Invalid(text)) => assert!(text.contains(shown), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn reading_a_huge_file_can_be_given_up() {
    let root = tempfile::tempdir().unwrap();
    // All of it is a hole, which takes hours to read.
    let file = File::create(root.path().join("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    let view = context(root.path(), &[]);
    let (op, cancel) = (op("/huge", "/x"), CancellationToken::new());
    std::thread::scope(|scope| {
        let reading =
            scope.spawn(|| content_digest(&op, InputIndex(0), &view, None, &cancel).unwrap_err());
        while !reading.is_finished() && !cancel.is_cancelled() {
            // Some of it has been read by then.
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            cancel.cancel();
        }
        assert!(matches!(reading.join().unwrap(), FilesError::Cancelled));
    });
    file.set_len((1 << 40) + 1).unwrap();
    assert!(matches!(
        content_digest(&op, InputIndex(0), &view, None, &CancellationToken::new()),
        Err(FilesError::Limit { .. })
    ));
}
