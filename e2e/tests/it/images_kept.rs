//! What containers and listeners see of images that go: outcomes and events are those of dockerd 28.5.2 for the same calls
//! of the stock docker command. Skipped, aloud, where that is not installed.

use std::io::{Read as _, Write as _};

use e2e::Host;
use serde_json::Value;

use crate::images_docker::{docker, installed};

fn import(host: &Host, name: &str) -> String {
    let busybox = e2e::busybox();
    let busybox = busybox.to_str().unwrap();
    docker(host, &["import", "-c", "LABEL a=b", busybox, name]).ok()
}

/// A reply of the daemon.
fn get(host: &Host, path: &str) -> String {
    let mut connection = host.connect();
    let request = format!("GET {path} HTTP/1.0\r\nHost: d\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    connection.read_to_string(&mut reply).unwrap();
    reply
}

/// Layers in the store.
fn layers(host: &Host) -> usize {
    std::fs::read_dir(host.path("data/layers")).unwrap().count()
}

#[test]
fn a_stopped_container_outlives_its_image() {
    if !installed("docker") {
        return;
    }
    let mut host = Host::start();
    docker(&host, &["image", "prune", "-af"]).ok();
    let id = import(&host, "kept/a:1");
    for name in ["one", "two"] {
        docker(&host, &["create", "--name", name, "kept/a:1", "echo", "hi"]).ok();
    }
    let gone = docker(&host, &["rmi", "-f", "kept/a:1"]).ok();
    assert_eq!(gone, format!("Untagged: kept/a:1\nDeleted: {id}"));
    assert_eq!(docker(&host, &["images", "-aq"]).ok(), "");
    for arguments in [&["rmi", &*id][..], &["inspect", "--type", "image", &id]] {
        docker(&host, arguments).fails(1, "No such image");
    }
    docker(&host, &["create", &id]).fails(1, "No such image");
    docker(&host, &["image", "prune", "-af"]).ok();
    host.stop_daemon();
    host.start_daemon(&[]);

    assert_eq!(docker(&host, &["start", "-a", "one"]).ok(), "hi");
    docker(&host, &["diff", "one"]).ok();
    let copied = host.path("copied");
    docker(&host, &["cp", "one:/bin/busybox", copied.to_str().unwrap()]).ok();
    docker(
        &host,
        &[
            "export",
            "-o",
            host.path("tree.tar").to_str().unwrap(),
            "two",
        ],
    )
    .ok();
    let shown = ["ps", "-a", "--no-trunc", "--format", "{{.Image}}"];
    assert_eq!(docker(&host, &shown).ok(), format!("{id}\n{id}"));
    let size = ["inspect", "-s", "-f", "{{.SizeRootFs}}", "two"];
    assert_ne!(docker(&host, &size).ok(), "0");

    docker(&host, &["rm", "one"]).ok();
    assert_eq!(docker(&host, &["start", "-a", "two"]).ok(), "hi");
    assert_eq!(layers(&host), 1);
    docker(&host, &["rm", "two"]).ok();
    assert_eq!(layers(&host), 0, "the last container takes them along");
    host.finish();
}

#[test]
fn events_of_images_are_dockers() {
    if !installed("docker") {
        return;
    }
    let host = Host::start();
    docker(&host, &["image", "prune", "-af"]).ok();
    let id = import(&host, "ev/a:1");
    docker(&host, &["tag", "ev/a:1", "ev/b:1"]).ok();
    docker(&host, &["rmi", "ev/b:1"]).ok();
    docker(&host, &["create", "--name", "made", "ev/a:1", "true"]).ok();
    let made = docker(&host, &["commit", "-c", "LABEL q=r", "made", "ev/com:1"]).ok();
    let archive = host.path("a.tar");
    let archive = archive.to_str().unwrap();
    docker(&host, &["save", "-o", archive, "ev/a:1"]).ok();
    docker(&host, &["load", "-i", archive]).ok();
    // The commit has none, the image it was made from has the container.
    let listed = get(&host, "/v1.51/images/json");
    let counts = ["\"Containers\":0", "\"Containers\":1"];
    assert_eq!(
        counts.map(|count| listed.matches(count).count()),
        [1, 1],
        "{listed}"
    );
    docker(&host, &["rm", "made"]).ok();
    docker(&host, &["rmi", "ev/com:1"]).ok();
    docker(&host, &["image", "prune", "-f"]).ok();

    // The command sends whole seconds: the next one has not begun when the last event comes.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let until = (now + 1).to_string();
    let events = |filter: &str| -> Vec<(String, String, String)> {
        let arguments = [
            "events",
            "--since",
            "1h",
            "--until",
            &until,
            "--filter",
            "type=image",
            "--filter",
            filter,
            "--format",
            "json",
        ];
        let told = docker(&host, &arguments).ok();
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let mut attributes = event["Actor"]["Attributes"].clone();
            let name = attributes.as_object_mut().unwrap().remove("name");
            let name = name.unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&event["Action"]), text(&name), attributes.to_string())
        };
        // What came before is none of this.
        let events = told.lines().map(event);
        events
            .skip_while(|(_, name, _)| !name.starts_with("ev/"))
            .collect()
    };
    let (a, ab, none) = (r#"{"a":"b"}"#, r#"{"a":"b","q":"r"}"#, "{}");
    let expected = [
        ("tag", "ev/a:1", a),
        ("import", &id, a),
        ("tag", "ev/b:1", a),
        ("untag", &id, a),
        ("create", &made, ab),
        ("tag", "ev/com:1", ab),
        ("save", &id, a),
        ("load", &id, a),
        ("untag", &made, ab),
        ("delete", &made, none),
        ("prune", "", r#"{"reclaimed":"0"}"#),
    ];
    let expected = expected
        .map(|(action, name, labels)| (action.to_owned(), name.to_owned(), labels.to_owned()));
    assert_eq!(events("scope=local"), expected);
    assert_eq!(events("label=q=r").len(), 2);
    host.finish();
}
