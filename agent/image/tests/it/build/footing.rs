//! Which roots get the same layer from a copy.

use std::slice;

use agent_build::plan::{CopyOp, CopySource, InputIndex};
use agent_image::build::{Entry, View, copy, footing};
use tokio_util::sync::CancellationToken;

use super::{Yard, context, lines, make, stack};

/// A copy of input 1 over input 0.
fn op(path: &str, destination: &str) -> CopyOp {
    CopyOp {
        root: Some(InputIndex(0)),
        link: false,
        sources: vec![CopySource::Paths {
            input: InputIndex(1),
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

const SOURCES: &[&str] = &["d d 0750", "f d/a 0644 a", "d d/sub 0700", "f f 0600 f"];
const ROOT: &[&str] = &[
    "d app 0751 7:8",
    "f app/old 0644 0:0 old",
    "d usr 0755 0:0",
    "d usr/bin 0700 0:0",
    "l bin -> usr/bin",
];
/// Nothing that a copy to a place that is not there sees.
const OTHER_FILES: &[&str] = &[
    "d app 0751 7:8",
    "f app/old 0600 0:0 other",
    "f app/more 0644 0:0 more",
    "d etc 0755 0:0",
    "d usr 0755 0:0",
    "d usr/bin 0700 0:0",
    "l bin -> usr/bin",
];
const OTHER_WAY: &[&str] = &[
    "d app 0755 7:8",
    "d usr 0755 0:0",
    "d usr/bin 0711 0:0",
    "l bin -> usr/bin",
];

struct Root {
    yard: Yard,
    layers: Vec<Entry>,
}

impl Root {
    fn new(all: &[&[&str]]) -> Self {
        let yard = Yard::new();
        let layer = |lines: &&[&str]| {
            yard.snapshot(|diff| lines.iter().for_each(|line| make(diff, line, true)))
        };
        let layers = all.iter().map(layer).collect();
        Self { yard, layers }
    }

    /// What a copy's layer depends on, and the layer.
    fn copied(&self, op: &CopyOp, from: &View) -> (Option<agent_image::Digest>, Vec<String>) {
        let held = self.yard.hold(&stack(self.layers.clone()));
        let inputs = [held.view(), from.clone()];
        let depends = footing(op, &inputs[0], &inputs).unwrap();
        let work = self.yard.snapshots.begin().unwrap();
        copy(op, &inputs, &work, &CancellationToken::new()).unwrap();
        (depends, lines(work.diff()))
    }
}

#[test]
fn where_nothing_is_the_layer_depends_on_the_way_alone() {
    let sources = tempfile::tempdir().unwrap();
    SOURCES
        .iter()
        .for_each(|line| make(sources.path(), line, false));
    let from = context(sources.path(), &[]);
    let one = Root::new(&[ROOT]);
    let other = Root::new(&[OTHER_FILES]);
    let way = Root::new(&[OTHER_WAY]);
    for (source, destination) in [
        ("/d", "/app/new"),
        ("/d", "/app/new/deeper/"),
        ("/d", "/neither"),
        ("/f", "/app/new"),
        ("/f", "/app/"),
        ("/f", "/usr/bin"),
        ("/f*", "/usr/bin/"),
    ] {
        let op = op(source, destination);
        let (depends, layer) = one.copied(&op, &from);
        let shown = format!("{source} {destination}");
        assert!(depends.is_some(), "{shown}");
        let (same, same_layer) = other.copied(&op, &from);
        assert_eq!((depends, &layer), (same, &same_layer), "{shown}");
        let (elsewhere, other_layer) = way.copied(&op, &from);
        assert_eq!(depends == elsewhere, layer == other_layer, "{shown}");
    }
}

#[test]
fn what_is_merged_or_led_elsewhere_is_not_said() {
    let sources = tempfile::tempdir().unwrap();
    SOURCES
        .iter()
        .for_each(|line| make(sources.path(), line, false));
    let from = context(sources.path(), &[]);
    let root = Root::new(&[ROOT]);
    for (source, destination) in [
        ("/d", "/app"),
        ("/d", "/"),
        ("/", "/app/"),
        ("/f", "/app/old"),
        ("/f", "/bin/"),
        ("/d", "/bin/new"),
    ] {
        let (depends, _) = root.copied(&op(source, destination), &from);
        assert_eq!(depends, None, "{source} {destination}");
    }
    // An archive may lead anywhere in a directory that is there.
    let mut unpacked = op("/f", "/app/");
    let [CopySource::Paths { unpack, .. }] = slice::from_mut(&mut unpacked.sources[0]) else {
        unreachable!("it is a path")
    };
    *unpack = true;
    assert_eq!(root.copied(&unpacked, &from).0, None);
}

#[test]
fn what_was_removed_below_is_not_there() {
    let sources = tempfile::tempdir().unwrap();
    SOURCES
        .iter()
        .for_each(|line| make(sources.path(), line, false));
    let from = context(sources.path(), &[]);
    let removed = Root::new(&[
        &[
            "d app 0751 7:8",
            "d app/new 0755 0:0",
            "f app/new/x 0644 0:0 x",
        ],
        &["d app 0751 7:8", "c app/new 0000 0:0 0 0"],
    ]);
    let never = Root::new(&[&["d app 0751 7:8"]]);
    let op = op("/d", "/app/new");
    assert_eq!(removed.copied(&op, &from), never.copied(&op, &from));
}
