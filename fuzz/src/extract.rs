//! Archives unpacked into a tree that is in use (`cp`).

use std::os::fd::AsFd;

use agent_image::{Destination, ExtractOptions, Overwrite, Owner, extract as unpack};

use crate::scratch::{directory, limits, names};

/// Nothing is written beside the destination.
pub fn extract(data: &[u8]) {
    let around = directory();
    let root = around.path().join("root");
    std::fs::create_dir_all(root.join("into")).expect("a directory");
    std::fs::write(around.path().join("beside"), "untouched").expect("a file");
    std::os::unix::fs::symlink("../..", root.join("into/out")).expect("a link");
    let opened = rustix::fs::open(
        &root,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .expect("the directory");
    let options = ExtractOptions {
        overwrite: Overwrite::Anything,
        owner: Owner::Caller,
        rename: None,
        limits: limits(),
    };
    let destination = Destination {
        root: opened.as_fd(),
        directory: b"into",
    };
    let _ = unpack(data, destination, &options);
    assert_eq!(names(around.path()), ["beside", "root"]);
    let beside = std::fs::read(around.path().join("beside")).expect("readable");
    assert_eq!(beside, b"untouched");
}
