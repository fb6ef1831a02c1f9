//! What images take: the budget is kept and nothing in use goes; `df --explain` accounts for every byte, also after kills.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;

use e2e::{Host, busybox};
use serde_json::Value;

/// Imports busybox with `megabytes` of its own as `name`.
fn import(host: &Host, name: &str, megabytes: usize, changes: &[&str]) {
    let file = host.path(&format!("{}.tar", name.replace([':', '/'], "-")));
    let mut tar = std::fs::read(busybox()).unwrap();
    // Without its end mark, so that a file can follow.
    let end = tar.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    tar.truncate(end.next_multiple_of(512));
    let mut more = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let mut state = name
        .bytes()
        .fold(7_u64, |all, byte| all * 31 + u64::from(byte));
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(megabytes << 20)
    .collect();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    more.append_data(&mut header, "noise", &noise[..]).unwrap();
    tar.extend(more.into_inner().unwrap());
    std::fs::write(&file, tar).unwrap();
    let mut arguments = vec!["import"];
    for change in changes {
        arguments.extend(["-c", change]);
    }
    arguments.extend([file.to_str().unwrap(), name]);
    host.muster(&arguments).ok();
    std::fs::remove_file(&file).unwrap();
}

fn names(host: &Host) -> HashSet<String> {
    let list = host.muster(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    list.ok().lines().map(str::to_owned).collect()
}

/// Bytes below a directory as `du -x` counts them.
pub(super) fn du(root: &Path) -> u64 {
    let device = std::fs::metadata(root).unwrap().dev();
    let mut seen = HashSet::new();
    let mut total = std::fs::metadata(root).unwrap().blocks() * 512;
    let mut waiting = vec![root.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else {
                continue;
            };
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            if metadata.is_dir() || metadata.nlink() == 1 || seen.insert(metadata.ino()) {
                total += metadata.blocks() * 512;
            }
        }
    }
    total
}

fn explained(host: &Host) -> Value {
    let text = host
        .muster(&["system", "df", "--explain", "--format", "json"])
        .ok();
    serde_json::from_str(&text).unwrap()
}

/// The parts add up, equal what `du` says within a hundredth, and are all known but those named.
pub(super) fn adds_up(host: &Host, strangers: &[&str]) {
    let explained = explained(host);
    let total = explained["Bytes"].as_u64().unwrap();
    let parts = explained["Parts"].as_array().unwrap();
    let sum: u64 = parts
        .iter()
        .map(|part| part["Bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, total, "the parts are the whole");
    let walked = du(&host.path("data"));
    assert!(
        total.abs_diff(walked) * 100 <= walked,
        "explained {total}, du {walked}"
    );
    let unknown: Vec<&str> = parts
        .iter()
        .filter(|part| part["Kind"] == "unknown")
        .map(|part| part["Name"].as_str().unwrap())
        .collect();
    assert_eq!(unknown, strangers);
}

#[test]
fn the_least_recently_used_go_and_nothing_in_use() {
    let mut host = Host::bare();
    // Four images of 5 MB fit (the tool box counts once for each), a fifth does not.
    host.start_daemon(&[
        "--image-gc-budget=23MB",
        "--image-gc-grace=0s",
        "--image-gc-keep=label=keep",
    ]);
    import(&host, "used:1", 3, &[]);
    host.muster(&["create", "--name", "holder", "used:1", "true"])
        .ok();
    import(&host, "kept:1", 3, &["LABEL keep=yes"]);
    import(&host, "old:1", 3, &[]);
    import(&host, "older:1", 3, &[]);
    // Used again, so that the other one is the oldest.
    host.muster(&["tag", "old:1", "old:2"]).ok();
    let mut events = host.muster_command(&[
        "events",
        "--filter",
        "event=delete",
        "--format",
        "{{.Action}} {{.Actor.ID}}",
    ]);
    events.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut events = host.spawn(events);
    let id = host.muster(&["inspect", "-f", "{{.Id}}", "older:1"]).ok();
    import(&host, "new:1", 3, &[]);
    e2e::read_until(&mut events, &format!("delete {id}"));
    events.kill().unwrap();
    events.wait().unwrap();
    let left = names(&host);
    for name in ["used:1", "kept:1", "old:1", "old:2", "new:1"] {
        assert!(left.contains(name), "{name} of {left:?}");
    }
    assert!(!left.contains("older:1"), "{left:?}");
    assert_eq!(host.muster(&["start", "-a", "holder"]).ok(), "");
    adds_up(&host, &[]);
    host.finish();
}

#[test]
fn a_killed_collection_loses_and_leaks_nothing() {
    let mut host = Host::bare();
    let flags = ["--image-gc-budget=12MB", "--image-gc-grace=0s"];
    host.start_daemon(&flags);
    import(&host, "base:1", 1, &[]);
    host.muster(&["create", "--name", "holder", "base:1", "echo", "here"])
        .ok();
    for round in 0..12 {
        // Each brings the store over its budget; the daemon dies while it collects, or a little before or after.
        for number in 0..2 {
            import(&host, &format!("image{number}:{round}"), 2, &[]);
        }
        host.kill_daemon();
        host.start_daemon(&flags);
        assert!(names(&host).contains("base:1"), "round {round}");
    }
    assert_eq!(host.muster(&["start", "-a", "holder"]).ok(), "here");
    // The collection that the start began ends with an event or has nothing to do: a clean stop waits for it.
    assert_eq!(host.stop_daemon(), 0);
    host.start_daemon(&[]);
    for name in names(&host) {
        host.muster(&["save", "-o", host.path("saved").to_str().unwrap(), &name])
            .ok();
    }
    adds_up(&host, &[]);
    let layers = std::fs::read_dir(host.path("data/layers")).unwrap();
    assert_eq!(layers.count(), names(&host).len(), "a layer for each image");
    host.finish();
}

#[test]
fn every_byte_has_an_owner_and_strangers_are_named() {
    let host = Host::start();
    import(&host, "two:1", 2, &[]);
    host.muster(&["volume", "create", "data"]).ok();
    let fill = "echo hello; dd if=/dev/zero of=/data/f bs=1M count=2 2>/dev/null; ln /data/f /data/g; dd if=/dev/zero of=/own bs=1M count=1 2>/dev/null";
    host.muster(&[
        "run",
        "--name",
        "writer",
        "-v",
        "data:/data",
        "two:1",
        "sh",
        "-c",
        fill,
    ])
    .ok();
    host.muster(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"])
        .ok();
    let stranger = host.path("data/layers/core.4711");
    std::fs::write(&stranger, vec![1; 50_000]).unwrap();
    adds_up(&host, &["layers/core.4711"]);
    let explained = explained(&host);
    let part = |kind: &str, user: &str| -> u64 {
        let parts = explained["Parts"].as_array().unwrap().iter();
        parts
            .filter(|part| {
                let users = part["Users"].as_array().unwrap();
                part["Kind"] == kind && users.iter().any(|own| own.as_str().unwrap().contains(user))
            })
            .map(|part| part["Bytes"].as_u64().unwrap())
            .sum()
    };
    assert!((1 << 20..2 << 20).contains(&part("container files", "writer")));
    assert!(part("container log", "writer") > 0);
    let volume: Vec<&Value> = explained["Parts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|part| part["Kind"] == "volume")
        .collect();
    assert_eq!(volume.len(), 1);
    // Two names of one file count once.
    assert!((2 << 20..3 << 20).contains(&volume[0]["Bytes"].as_u64().unwrap()));
    let text = host.muster(&["system", "df", "--explain"]).ok();
    assert!(text.contains("layers of one image"), "{text}");
    assert!(
        text.contains("unknown: ") && text.contains("core.4711"),
        "{text}"
    );
    std::fs::remove_file(stranger).unwrap();
    let verbose = host.muster(&["system", "df", "-v"]).ok();
    for title in [
        "Images space usage:",
        "Containers space usage:",
        "Local Volumes space usage:",
        "Build cache usage: 0B",
    ] {
        assert!(verbose.contains(title), "{verbose}");
    }
    host.muster(&["rm", "-f", "writer", "runs"]).ok();
    host.finish();
}
