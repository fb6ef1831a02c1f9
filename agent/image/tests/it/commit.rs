//! A container's changes become a layer that shows the same tree again; `--change` and history; export.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use agent_image::{
    CommitOptions, ErrorClass, ImageId, Reference, RemoveOptions, RunConfig, export,
};

use crate::Bed;
use crate::archive::{Tar, docker_archive};
use crate::layers::{mounted, tree};

fn bed() -> (Bed, ImageId) {
    let bed = Bed::new();
    let base = Tar::new()
        .dir("d/")
        .file("d/one", "1")
        .file("d/two", "2")
        .dir("gone/")
        .file("gone/file", "x")
        .dir("new/")
        .file("new/old", "old")
        .file("file", "file")
        .end();
    let id = bed
        .load(&docker_archive(&[(&[&base], &["base:1"])]))
        .unwrap()[0]
        .id;
    (bed, id)
}

/// What the container does to its root.
fn work(root: &Path) {
    std::fs::remove_file(root.join("d/one")).unwrap();
    std::fs::write(root.join("d/two"), "changed").unwrap();
    std::fs::remove_dir_all(root.join("gone")).unwrap();
    std::fs::remove_dir_all(root.join("new")).unwrap();
    std::fs::create_dir(root.join("new")).unwrap();
    std::fs::write(root.join("new/fresh"), "fresh").unwrap();
    std::fs::remove_file(root.join("file")).unwrap();
    std::fs::create_dir(root.join("file")).unwrap();
    std::fs::write(root.join("file").join("n".repeat(200)), "long name").unwrap();
    symlink("d/two", root.join("link")).unwrap();
    std::fs::write(root.join("suid"), "s").unwrap();
    std::os::unix::fs::chown(root.join("suid"), None, Some(3_000_000)).unwrap();
    std::fs::set_permissions(root.join("suid"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::fs::hard_link(root.join("suid"), root.join("suid2")).unwrap();
    rustix::fs::setxattr(
        root.join("link"),
        "user.k",
        b"v",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
}

#[test]
fn a_committed_container_shows_the_same_tree() {
    let (bed, base) = bed();
    let scratch = tempfile::tempdir().unwrap();
    let lower = bed.store.layers(&base).unwrap();
    let mut before = mounted(&lower, scratch.path(), |root| {
        work(root);
        tree(root)
    });
    before.remove("socket").unwrap();
    let options = CommitOptions {
        parent: Some(base),
        config: RunConfig {
            cmd: Some(vec!["sh".into()]),
            ..RunConfig::default()
        },
        changes: vec!["CMD [\"top\"]".into(), "LABEL by=commit".into()],
        created_by: "/bin/sh".into(),
        author: "somebody".into(),
        message: "why".into(),
        reference: Some(Reference::parse("made").unwrap()),
        ..CommitOptions::default()
    };
    let id = bed
        .store
        .commit(&scratch.path().join("upper"), &options)
        .unwrap();
    assert_eq!(bed.store.resolve("made:latest").unwrap(), id);
    let image = bed.store.inspect("made").unwrap();
    assert_eq!(image.parent, Some(base));
    assert_eq!(
        image.config.config.cmd.as_deref(),
        Some(&["top".to_owned()][..])
    );
    assert_eq!(image.config.config.labels["by"], "commit");
    let steps = bed.store.history("made").unwrap();
    assert_eq!((steps[0].id, steps[1].id), (Some(id), Some(base)));
    assert_eq!(
        (&*steps[0].created_by, &*steps[0].comment),
        ("/bin/sh", "why")
    );
    assert!(steps[0].size > 0);

    let other = tempfile::tempdir().unwrap();
    let after = mounted(&image.layers, other.path(), |root| {
        let suid = std::fs::metadata(root.join("suid")).unwrap();
        assert_eq!(
            (suid.mode() & 0o7777, suid.gid(), suid.nlink()),
            (0o4711, 3_000_000, 2)
        );
        let mut value = [0; 4];
        assert_eq!(
            rustix::fs::getxattr(root.join("d/two"), "user.k", &mut value[..]),
            Ok(1)
        );
        tree(root)
    });
    assert_eq!(before, after);

    // The parent cannot go before the child, and goes with it if it has no name.
    let error = bed
        .store
        .remove(&base.hex(), RemoveOptions::default(), Vec::new)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("(cannot be forced) - image has dependent child images"),
        "{error}"
    );
}

#[test]
fn no_change_makes_no_layer() {
    let (bed, base) = bed();
    let upper = tempfile::tempdir().unwrap();
    // Made to mount on, and left out with what is below.
    std::fs::create_dir_all(upper.path().join("run/made")).unwrap();
    let options = CommitOptions {
        parent: Some(base),
        without: ["run".into()].into(),
        ..CommitOptions::default()
    };
    let id = bed.store.commit(upper.path(), &options).unwrap();
    let image = bed.store.inspect(&id.hex()).unwrap();
    assert_eq!(image.layers, bed.store.layers(&base).unwrap());
    assert!(image.config.history[1].empty_layer);
    let alone = CommitOptions {
        parent: None,
        ..options
    };
    let nothing = bed.store.commit(upper.path(), &alone).unwrap();
    assert!(bed.store.layers(&nothing).unwrap().is_empty());
    let all = CommitOptions::default();
    let something = bed.store.commit(upper.path(), &all).unwrap();
    assert_eq!(bed.store.layers(&something).unwrap().len(), 1);
}

#[test]
fn what_has_no_form_in_a_layer_is_refused() {
    let (bed, base) = bed();
    let options = CommitOptions {
        parent: Some(base),
        ..CommitOptions::default()
    };
    let refused = |prepare: &dyn Fn(&Path), reason: &str| {
        let upper = tempfile::tempdir().unwrap();
        prepare(upper.path());
        let error = bed.store.commit(upper.path(), &options).unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidParameter, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    refused(
        &|upper| std::fs::write(upper.join(".wh.x"), "").unwrap(),
        "reserve names that begin with .wh.",
    );
    refused(
        &|upper| {
            let moved = upper.join("moved");
            std::fs::create_dir(&moved).unwrap();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&moved, "trusted.overlay.redirect", b"/d", flags).unwrap();
        },
        "redirect_dir",
    );
    refused(
        &|upper| std::fs::create_dir_all(upper.join("d/".repeat(300))).unwrap(),
        "nested too deeply",
    );
    assert_eq!(
        bed.files()
            .iter()
            .filter(|name| name.contains("unfinished"))
            .count(),
        0
    );
    let error = bed
        .store
        .commit(Path::new("/nonexistent/upper"), &options)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nonexistent/upper"),
        "{error}"
    );
}

#[test]
fn an_exported_tree_imports_as_it_was() {
    let bed = Bed::new();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::create_dir(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/.wh.odd"), "an ordinary name in a tree").unwrap();
    std::fs::write(root.join("etc/motd"), "hello").unwrap();
    symlink("/etc/motd", root.join("motd")).unwrap();
    let mut tar = Vec::new();
    export(root, &mut tar).unwrap();
    let names: Vec<String> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["etc/", "etc/.wh.odd", "etc/motd", "motd"]);
    std::fs::remove_file(root.join("etc/.wh.odd")).unwrap();
    tar.clear();
    export(root, &mut tar).unwrap();
    let id = bed
        .store
        .import(&mut &tar[..], &Default::default(), &agent_image::silent)
        .unwrap();
    assert_eq!(tree(&bed.store.layers(&id).unwrap()[0]), tree(root));
}
