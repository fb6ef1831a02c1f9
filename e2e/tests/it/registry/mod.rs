//! Images and real registries: Debian's `docker-registry` on the scenario's own host, `skopeo` as a second client and the
//! stock `docker` command as a third. What is not installed is said, and the scenario passes; `DOCKER_REGISTRY` and
//! `SKOPEO` name other places of the programs.

mod broken;
mod build;
mod cache;
mod credentials;
mod depot;
mod moved;
mod tokens;

use std::path::Path;
use std::process::Command;

use e2e::{Host, Output};

use depot::Depot;

/// A program, unless it is not there.
fn program(variable: &str, name: &str) -> Option<String> {
    let found = std::env::var(variable).unwrap_or_else(|_| name.to_owned());
    let there = Command::new(&found).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {name} is not installed");
    }
    there.then_some(found)
}

/// `program`, as `me` would run it on the host.
fn run(host: &Host, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("DOCKER_HOST", host.socket())
        .env("HOME", host.path(""))
        .env_remove("DOCKER_CONFIG");
    host.run(command)
}

/// Id of an image.
#[track_caller]
fn id(host: &Host, name: &str) -> String {
    host.muster(&["images", "-q", "--no-trunc", name]).ok()
}

/// An image of one layer of `megabytes` that cannot be compressed, called `name`.
fn import_noise(host: &Host, name: &str, megabytes: usize) {
    let mut state = 88_172_645_463_325_252_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(megabytes << 17)
    .flatten()
    .collect();
    let path = host.path("noise.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "noise", &noise[..]).unwrap();
    tar.finish().unwrap();
    host.muster(&["import", path.to_str().unwrap(), name]).ok();
}

/// Whether anything below the daemon's image store is unfinished.
fn unfinished(host: &Host) -> Vec<String> {
    let layers = host.path("data/layers");
    std::fs::read_dir(layers)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("unfinished"))
        .collect()
}

/// Bytes of interrupted pulls.
fn partial_bytes(host: &Host) -> u64 {
    let files = std::fs::read_dir(host.path("data/content/partial"));
    let files = files.into_iter().flatten().flatten();
    files.map(|file| file.metadata().unwrap().len()).sum()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

#[test]
fn an_image_comes_out_of_a_real_registry() {
    let host = Host::start();
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        return host.finish();
    };
    let name = "localhost:5000/me/busybox:1";
    host.muster(&["tag", "busybox", name]).ok();
    let told = host.muster(&["push", name]).ok();
    assert!(
        told.starts_with("The push refers to repository [localhost:5000/me/busybox]"),
        "{told}"
    );
    assert!(told.contains(": Pushed"), "{told}");
    let last = told.lines().last().unwrap();
    let manifest = last.split(' ').nth(2).unwrap();
    assert!(last.starts_with("1: digest: sha256:"), "{last}");
    let known = id(&host, "busybox");
    host.muster(&["rmi", "busybox", name]).ok();

    let told = host.muster(&["pull", name]).ok();
    assert!(told.contains(&format!("Digest: {manifest}")), "{told}");
    assert!(told.ends_with(name), "{told}");
    assert_eq!(id(&host, name), known);
    let pinned = format!("localhost:5000/me/busybox@{manifest}");
    assert_eq!(id(&host, &pinned), known);
    host.muster(&["rmi", name]).ok();

    // `run` fetches what is missing.
    let said = host.muster(&["run", "--rm", name, "echo", "pulled"]).ok();
    assert_eq!(said.trim(), "pulled");
    host.muster(&["rmi", name]).ok();
    let file = format!(
        "services:\n  a:\n    image: {name}\n    command: [sleep, \"1000\"]\n    init: true\n"
    );
    host.write("project/compose.yaml", &file);
    host.muster_in("project", &["up", "-d"]).ok();
    host.muster_in("project", &["down"]).ok();
    host.muster(&["pull", "localhost:5000/me/busybox:2"])
        .fails(1, "manifest for localhost:5000/me/busybox:2 not found");
    host.muster(&["push", "localhost:5000/me/busybox:2"])
        .fails(1, "tag does not exist: localhost:5000/me/busybox:2");
    host.muster(&["search", "localhost:5000/box"])
        .fails(1, "Unexpected status code 404");
    drop(depot);
    host.finish();
}

#[test]
fn all_tags_go_and_come_and_layers_are_mounted_between_repositories() {
    let host = Host::start();
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        return host.finish();
    };
    for tag in ["1", "2"] {
        let name = format!("127.0.0.1:5000/a/b:{tag}");
        host.muster(&["tag", "busybox", &name]).ok();
    }
    let told = host.muster(&["push", "-a", "127.0.0.1:5000/a/b"]).ok();
    assert!(told.contains("\n1: digest: sha256:"), "{told}");
    assert!(told.contains("Layer already exists"), "{told}");
    assert!(told.contains("\n2: digest: sha256:"), "{told}");
    host.muster(&["push", "-a", "127.0.0.1:5000/a/b:1"])
        .fails(1, "tag can't be used with --all-tags/-a");

    host.muster(&["tag", "busybox", "127.0.0.1:5000/c/d"]).ok();
    let told = host.muster(&["push", "127.0.0.1:5000/c/d"]).ok();
    assert!(told.starts_with("Using default tag: latest"), "{told}");
    assert!(told.contains(": Mounted from a/b"), "{told}");
    assert!(depot.log().contains("from=a%2Fb"), "{}", depot.log());
    assert!(!depot.log().contains("PATCH /v2/c/d/"), "{}", depot.log());

    host.muster(&["rmi", "127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:2"])
        .ok();
    let told = host.muster(&["pull", "-a", "127.0.0.1:5000/a/b"]).ok();
    assert_eq!(told.matches("Pulling from a/b").count(), 2, "{told}");
    let known = id(&host, "busybox");
    assert_eq!(id(&host, "127.0.0.1:5000/a/b:1"), known);
    assert_eq!(id(&host, "127.0.0.1:5000/a/b:2"), known);
    let listed = run(
        &host,
        "curl",
        &[
            "-s",
            "--unix-socket",
            text(&host.path("sock")),
            "http://d/v1.50/distribution/127.0.0.1:5000/a/b:1/json",
        ],
    )
    .ok();
    assert!(
        listed.contains(r#""Platforms":[{"architecture":"#),
        "{listed}"
    );
    drop(depot);
    host.finish();
}

#[test]
fn a_mirror_serves_docker_hub() {
    let mut host = Host::bare();
    host.start_daemon(&["--registry-mirror", "http://127.0.0.1:5000"]);
    host.muster(&[
        "import",
        text(&e2e::busybox()),
        "127.0.0.1:5000/library/thing:1",
    ])
    .ok();
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        return host.finish();
    };
    host.muster(&["push", "127.0.0.1:5000/library/thing:1"])
        .ok();
    let known = id(&host, "127.0.0.1:5000/library/thing:1");
    host.muster(&["pull", "thing:1"]).ok();
    assert_eq!(id(&host, "thing:1"), known);
    drop(depot);
    host.finish();
}
