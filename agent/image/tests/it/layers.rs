//! What a layer becomes on disk, and what overlayfs makes of several.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use agent_image::{ImportOptions, silent};
use tar::EntryType;

use crate::Bed;
use crate::archive::{Tar, docker_archive};

/// Imports one layer and returns its directory.
fn unpack(bed: &Bed, layer: &[u8]) -> PathBuf {
    let mut input = layer;
    let id = bed
        .store
        .import(&mut input, &ImportOptions::default(), &silent)
        .unwrap();
    // Whatever the layer is, its tar comes out again as it went in.
    let mut saved = Vec::new();
    bed.store.save(&[&id.hex()], &mut saved).unwrap();
    assert!(
        saved.windows(layer.len()).any(|window| window == layer),
        "the tar is not restored"
    );
    bed.store.layers(&id).unwrap().remove(0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// Loads an image of `layers` and lists what a container would see.
fn merged(layers: &[&[u8]]) -> BTreeMap<String, String> {
    let bed = Bed::new();
    let id = bed.load(&docker_archive(&[(layers, &["x:1"])])).unwrap()[0].id;
    let scratch = tempfile::tempdir().unwrap();
    mounted(&bed.store.layers(&id).unwrap(), scratch.path(), tree)
}

/// Relative path → what is there.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in crate::files(root) {
        let path = root.join(&name);
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        let what = if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", std::fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            std::fs::read_to_string(&path).unwrap()
        } else if kind.is_char_device() {
            "device".to_owned()
        } else {
            "other".to_owned()
        };
        found.insert(name, what);
    }
    found
}

/// Mounts `lower` below `scratch/upper` in a mount namespace of a thread of its own and runs `act` on the result.
pub(crate) fn mounted<T: Send>(
    lower: &[PathBuf],
    scratch: &Path,
    act: impl FnOnce(&Path) -> T + Send,
) -> T {
    use nix::mount::{MsFlags, mount, umount};
    let path = |name: &str| {
        let path = scratch.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let (upper, work, root) = (path("upper"), path("work"), path("root"));
    let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let kind = Some("overlay");
            mount(kind, &root, kind, MsFlags::empty(), Some(&*options)).unwrap();
            let result = act(&root);
            umount(&root).unwrap();
            result
        });
        thread.join().unwrap()
    })
}

fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries
        .iter()
        .map(|(name, what)| ((*name).to_owned(), (*what).to_owned()))
        .collect()
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let base = Tar::new()
        .dir("d/")
        .file("d/one", "1")
        .file("d/two", "2")
        .dir("e/")
        .file("e/old", "old")
        .dir("f/")
        .file("f/old", "old")
        .dir("g/")
        .file("g/old", "old")
        .file("h", "file")
        .dir("i/")
        .file("i/old", "old")
        .end();
    let top = Tar::new()
        .file("d/.wh.one", "")
        // Opaque, marked behind its siblings.
        .file("e/new", "new")
        .file("e/.wh..wh..opq", "")
        // Removed and made anew, in either order.
        .file(".wh.f", "")
        .dir("f/")
        .file("f/new", "new")
        .dir("g/")
        .file("g/new", "new")
        .file(".wh.g", "")
        // A directory instead of a file, a file instead of a directory.
        .file(".wh.h", "")
        .file("h/below", "x")
        .file(".wh.i", "")
        .file("i", "file")
        .file(".wh.absent", "")
        .end();
    assert_eq!(
        merged(&[&base, &top]),
        expected(&[
            ("d", "directory"),
            ("d/two", "2"),
            ("e", "directory"),
            ("e/new", "new"),
            ("f", "directory"),
            ("f/new", "new"),
            ("g", "directory"),
            ("g/new", "new"),
            ("h", "directory"),
            ("h/below", "x"),
            ("i", "file"),
        ])
    );
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let base = Tar::new().file("a", "a").end();
    let middle = Tar::new().file(".wh..wh..opq", "").file("b", "b").end();
    let top = Tar::new().file("c", "c").end();
    assert_eq!(
        merged(&[&base, &middle, &top]),
        expected(&[("b", "b"), ("c", "c")])
    );
}

#[test]
fn a_layer_may_occur_twice() {
    let a = Tar::new().dir("d/").file("d/x", "x").file("f", "a").end();
    let b = Tar::new()
        .file(".wh.d", "")
        .file("f", "b")
        .file("g", "b")
        .end();
    let empty = Tar::new().end();
    assert_eq!(
        merged(&[&a, &empty, &b, &empty, &a]),
        expected(&[("d", "directory"), ("d/x", "x"), ("f", "a"), ("g", "b")])
    );
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let bed = Bed::new();
    let layer = Tar::new()
        .file("a", "first")
        .file("a", "second")
        .dir("b/")
        .file("b/x", "inside")
        .file("b", "now a file")
        .symlink("c", "a")
        .file("c", "no link any more")
        .file("d", "file")
        .dir("d/")
        .file("d/y", "y")
        .dir("e/")
        .file("e/kept", "kept")
        .dir("e/")
        .symlink("lib", "usr/lib")
        .dir("usr/lib/")
        .file("lib/x", "through the link")
        .file("lib", "replaced")
        .end();
    let root = unpack(&bed, &layer);
    assert_eq!(
        tree(&root),
        expected(&[
            ("a", "second"),
            ("b", "now a file"),
            ("c", "no link any more"),
            ("d", "directory"),
            ("d/y", "y"),
            ("e", "directory"),
            ("e/kept", "kept"),
            ("lib", "replaced"),
            ("usr", "directory"),
            ("usr/lib", "directory"),
            ("usr/lib/x", "through the link"),
        ])
    );
    let size = bed.store.list(&Default::default()).unwrap()[0].size;
    assert_eq!(
        size,
        [
            "second",
            "now a file",
            "no link any more",
            "y",
            "kept",
            "replaced",
            "through the link"
        ]
        .iter()
        .map(|s| s.len() as u64)
        .sum::<u64>()
    );
}

#[test]
fn attributes_are_kept() {
    let bed = Bed::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let layer = Tar::new()
        .add("suid", EntryType::Regular, "", b"x", |h| {
            h.set_mode(0o4755);
            h.set_uid(1000);
            h.set_gid(1001);
        })
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"3000000000"),
            ("gid", b"2097152"),
            ("mtime", b"1600000000.123456789"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"n\0\n"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("short", "long")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .add("dir/", EntryType::Directory, "", b"", |h| {
            h.set_mode(0o1777);
            h.set_mtime(1_500_000_000);
        })
        .file("dir/later", "changes the directory's time")
        .hard_link("dir/again", "suid")
        .symlink("dangling", "../../../../etc/passwd")
        .device("null", EntryType::Char, 1, 3)
        .device("disk", EntryType::Block, 8, 1)
        .add("fifo", EntryType::Fifo, "", b"", |_| {})
        .end();
    let root = unpack(&bed, &layer);
    let stat = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(stat("suid").mode() & 0o7777, 0o4755);
    assert_eq!((stat("suid").uid(), stat("suid").gid()), (1000, 1001));
    assert_eq!(stat("suid").ino(), stat("dir/again").ino());
    assert_eq!(
        (stat(&long).uid(), stat(&long).gid()),
        (3_000_000_000, 2_097_152)
    );
    assert_eq!(
        (stat(&long).mtime(), stat(&long).mtime_nsec()),
        (1_600_000_000, 123_456_789)
    );
    assert_eq!(
        xattr(&root.join(&long), "security.capability").unwrap(),
        capability
    );
    assert_eq!(xattr(&root.join(&long), "user.note").unwrap(), b"n\0\n");
    assert_eq!(xattr(&root.join(&long), "trusted.overlay.opaque"), None);
    assert_eq!(xattr(&root.join("dir"), "trusted.overlay.redirect"), None);
    assert_eq!(
        (stat("dir").mode() & 0o7777, stat("dir").mtime()),
        (0o1777, 1_500_000_000)
    );
    assert_eq!(
        std::fs::read_link(root.join("dangling")).unwrap(),
        Path::new("../../../../etc/passwd")
    );
    assert!(
        stat("null").file_type().is_char_device()
            && stat("null").rdev() == rustix::fs::makedev(1, 3)
    );
    assert!(stat("disk").file_type().is_block_device() && stat("fifo").file_type().is_fifo());
}

#[test]
fn gnu_and_pax_sparse_files_get_their_holes() {
    let bed = Bed::new();
    // Four times the same file: "head" at 0, "tail" at 1 MiB, 2 MiB long.
    let (offset, size) = (1u64 << 20, 2u64 << 20);
    let gnu = |mut tar: Tar| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(8);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..3].copy_from_slice(b"gnu");
        let octal = |field: &mut [u8; 12], n: u64| {
            field[..11].copy_from_slice(format!("{n:011o}").as_bytes())
        };
        octal(&mut fields.sparse[0].offset, 0);
        octal(&mut fields.sparse[0].numbytes, 4);
        octal(&mut fields.sparse[1].offset, offset);
        octal(&mut fields.sparse[1].numbytes, 4);
        octal(&mut fields.realsize, size);
        header.set_cksum();
        tar.0.extend_from_slice(header.as_bytes());
        tar.payload(b"headtail")
    };
    let number = size.to_string();
    let map = format!("0,4,{offset},4");
    let mut payload = format!("2\n0\n4\n{offset}\n4\n").into_bytes();
    payload.resize(512, 0);
    payload.extend_from_slice(b"headtail");
    let layer = gnu(Tar::new())
        .pax(&[
            ("GNU.sparse.size", number.as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", offset.to_string().as_bytes()),
            ("GNU.sparse.numbytes", b"4"),
        ])
        .file("pax00", "headtail")
        .pax(&[
            ("GNU.sparse.size", number.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.name", b"pax01"),
        ])
        .file("GNUSparseFile.0/pax01", "headtail")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax10"),
            ("GNU.sparse.realsize", number.as_bytes()),
        ])
        .file("GNUSparseFile.0/pax10", payload)
        .end();
    let root = unpack(&bed, &layer);
    for name in ["gnu", "pax00", "pax01", "pax10"] {
        let bytes = std::fs::read(root.join(name)).unwrap();
        assert_eq!(bytes.len() as u64, size, "{name}");
        assert_eq!(&bytes[..5], b"head\0", "{name}");
        assert_eq!(&bytes[offset as usize - 1..][..6], b"\0tail\0", "{name}");
        assert!(
            std::fs::metadata(root.join(name)).unwrap().blocks() < 64,
            "{name} has no hole"
        );
    }
}

#[test]
fn gnu_long_names_and_missing_parents_work() {
    let bed = Bed::new();
    let (name, link) = (format!("a/{}", "n".repeat(150)), "l".repeat(300));
    let long = |name: &str| [name.as_bytes(), b"\0"].concat();
    let layer = Tar::new()
        .add(
            "././@LongLink",
            EntryType::GNULongName,
            "",
            &long(&name),
            |_| {},
        )
        .add(
            "././@LongLink",
            EntryType::GNULongLink,
            "",
            &long(&link),
            |_| {},
        )
        .symlink("short", "short")
        .file("/absolute/./and//odd/../name", "x")
        .file("made/up/parents", "x")
        .end();
    let root = unpack(&bed, &layer);
    assert_eq!(
        std::fs::read_link(root.join(name)).unwrap(),
        Path::new(&link)
    );
    assert!(root.join("absolute/and/name").exists());
    assert_eq!(
        std::fs::metadata(root.join("made/up")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn a_link_in_the_layer_is_followed_within_the_layer() {
    let bed = Bed::new();
    let layer = Tar::new()
        .dir("real/")
        .symlink("absolute", "/real")
        .symlink("climbing", "../../../real")
        .file("absolute/a", "a")
        .file("climbing/b", "b")
        .end();
    let root = unpack(&bed, &layer);
    assert_eq!(std::fs::read_to_string(root.join("real/a")).unwrap(), "a");
    assert_eq!(std::fs::read_to_string(root.join("real/b")).unwrap(), "b");
}

#[test]
fn aufs_bookkeeping_is_left_out() {
    let bed = Bed::new();
    let layer = Tar::new()
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/1.2", "x")
        .file(".wh..wh.aufs", "")
        .file("kept", "k")
        .end();
    assert_eq!(tree(&unpack(&bed, &layer)), expected(&[("kept", "k")]));
}
