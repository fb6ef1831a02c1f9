//! A stack as one tar, and what is unpacked of it.

use std::fs::File;
use std::os::fd::AsFd;

use agent_image::build::{Rewrite, write_tar};
use agent_image::{Destination, ExtractOptions, Limits, Overwrite, Owner, extract};
use tokio_util::sync::CancellationToken;

use super::{Yard, lines, make, stack};

#[test]
fn what_is_unpacked_is_what_a_mount_shows() {
    let yard = Yard::new();
    let entries = [
        &[
            "d d 0711 1:2",
            "f d/a 0644 3:4 old",
            "f d/gone 0644 0:0 x",
            "d e 0755 0:0",
        ][..],
        &[
            "d d 0750 1:2",
            "c d/gone 0000 0:0 0 0",
            "f d/b 4755 5:6 b",
            "h hard -> d/b",
        ],
        &[
            "f d/a 0600 7:8 new",
            "l link -> d/a",
            "p fifo 0600 1:1",
            "c null 0666 0:0 1 3",
        ],
    ];
    let entries = entries.map(|lines| {
        yard.snapshot(|diff| {
            if lines[0].starts_with('f') {
                make(diff, "d d 0750 1:2", true);
            }
            lines.iter().for_each(|line| make(diff, line, true));
        })
    });
    let whole = stack(entries);
    let view = yard.hold(&whole).view();
    let unpacked = |prefix: &str, rewrite| {
        let mut tar = Vec::new();
        let cancel = CancellationToken::new();
        write_tar(&view, prefix, rewrite, &mut tar, &cancel).unwrap();
        tar.extend([0; 1024]);
        let directory = tempfile::tempdir().unwrap();
        let root = File::open(directory.path()).unwrap();
        let destination = Destination {
            root: root.as_fd(),
            directory: b"",
        };
        let options = ExtractOptions {
            overwrite: Overwrite::Anything,
            owner: Owner::Archive,
            rename: None,
            limits: Limits::default(),
        };
        extract(&tar[..], destination, &options).unwrap();
        directory
    };
    let seen = yard.seen(&whole);
    assert_eq!(lines(unpacked("", Rewrite::Keep).path()), seen);
    let prefixed = unpacked("linux_amd64", Rewrite::Clamp(1_000_000_000));
    let below = prefixed.path().join("linux_amd64");
    assert_eq!(lines(&below), seen);
    let modified = std::fs::metadata(below.join("d/a"))
        .unwrap()
        .modified()
        .unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 1_000_000_000);
    let cancel = CancellationToken::new();
    cancel.cancel();
    write_tar(&view, "", Rewrite::Keep, &mut Vec::new(), &cancel).unwrap_err();
}
