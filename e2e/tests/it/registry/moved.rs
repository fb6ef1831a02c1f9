//! Images that go from client to client over a registry, and stay what they are.

use e2e::Host;
use serde_json::Value;

use super::depot::Depot;
use super::{id, program, run, text};

#[test]
fn skopeo_reads_what_was_pushed() {
    let Some(skopeo) = program("SKOPEO", "skopeo") else {
        return;
    };
    let (host, other) = (Host::start(), Host::start());
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        other.finish();
        return host.finish();
    };
    let skopeo = |arguments: &[&str]| {
        let arguments = [&["--insecure-policy"], arguments].concat();
        run(&host, &skopeo, &arguments)
    };
    let name = "127.0.0.1:5000/a/box:1";
    host.muster(&["tag", "busybox", name]).ok();
    let told = host.muster(&["push", name]).ok();
    let digest = told.lines().last().unwrap().split(' ').nth(2).unwrap();
    let remote = format!("docker://{name}");
    let seen = skopeo(&["inspect", "--tls-verify=false", &remote]).ok();
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["Digest"], digest);

    // Over an archive that skopeo writes into another daemon.
    let archive = host.path("copy.tar");
    let to = format!("docker-archive:{}:copy:1", text(&archive));
    skopeo(&["copy", "--src-tls-verify=false", &remote, &to]).ok();
    other.muster(&["load", "-i", text(&archive)]).ok();
    assert_eq!(id(&other, "copy:1"), id(&host, "busybox"));
    let layout = host.path("layout");
    let to = format!("oci:{}:copy", text(&layout));
    skopeo(&["copy", "--src-tls-verify=false", &remote, &to]).ok();
    assert!(layout.join("index.json").exists());
    drop(depot);
    other.finish();
    host.finish();
}

#[test]
fn what_skopeo_pushes_is_pulled_in_every_form_and_pushed_on_as_it_came() {
    let Some(skopeo) = program("SKOPEO", "skopeo") else {
        return;
    };
    let host = Host::start();
    // One for each form: skopeo takes a layer over that a registry has already, in whatever form.
    let addresses = ["127.0.0.1:5000", "127.0.0.1:5001", "127.0.0.1:5002"];
    let depots: Vec<Depot> = addresses
        .iter()
        .filter_map(|address| Depot::start(&host, address, |_| {}))
        .collect();
    if depots.len() < addresses.len() {
        return host.finish();
    }
    let skopeo = |arguments: &[&str]| {
        let arguments = [&["--insecure-policy"], arguments].concat();
        run(&host, &skopeo, &arguments)
    };
    let archive = host.path("box.tar");
    host.muster(&["save", "-o", text(&archive), "busybox"]).ok();
    let from = format!("docker-archive:{}", text(&archive));
    let known = id(&host, "busybox");
    let forms = [
        ("oci-gzip", "oci", "gzip"),
        ("oci-zstd", "oci", "zstd"),
        ("docker-gzip", "v2s2", "gzip"),
    ];
    for ((tag, format, compression), address) in forms.into_iter().zip(addresses) {
        let name = format!("{address}/in/box:{tag}");
        let to = format!("docker://{name}");
        skopeo(&[
            "copy",
            "--dest-tls-verify=false",
            "--format",
            format,
            "--dest-compress-format",
            compression,
            "--dest-compress",
            &from,
            &to,
        ])
        .ok();
        let inspect = |name: &str| {
            let remote = format!("docker://{name}");
            let seen = skopeo(&["inspect", "--raw", "--tls-verify=false", &remote]).ok();
            serde_json::from_str::<Value>(&seen).unwrap()
        };
        let manifest = inspect(&name);
        let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
        assert!(kind.ends_with(compression), "{tag}: {manifest}");
        // Layers that are here would not be fetched.
        host.muster(&["rmi", "-f", "busybox"]);
        host.muster(&["pull", &name]).ok();
        let pulled = id(&host, &name);
        if format == "v2s2" {
            assert_eq!(pulled, known);
        }
        let moved = format!("{address}/out/box:{tag}");
        host.muster(&["tag", &name, &moved]).ok();
        let told = host.muster(&["push", &moved]).ok();
        assert!(told.contains("Mounted from in/box"), "{told}");
        assert_eq!(inspect(&moved), manifest, "{tag}");
        host.muster(&["rmi", &moved, &name]).ok();
    }
    drop(depots);
    host.finish();
}

#[test]
fn another_registry_gets_the_image_under_the_same_id() {
    let host = Host::start();
    let one = Depot::start(&host, "127.0.0.1:5000", |_| {});
    let two = Depot::start(&host, "127.0.0.1:5001", |_| {});
    let (Some(one), Some(two)) = (one, two) else {
        return host.finish();
    };
    host.muster(&["tag", "busybox", "127.0.0.1:5000/a/box"])
        .ok();
    host.muster(&["push", "-q", "127.0.0.1:5000/a/box"]).ok();
    host.muster(&["rmi", "busybox", "127.0.0.1:5000/a/box"])
        .ok();
    host.muster(&["pull", "-q", "127.0.0.1:5000/a/box"]).ok();
    let known = id(&host, "127.0.0.1:5000/a/box");
    host.muster(&["tag", "127.0.0.1:5000/a/box", "127.0.0.1:5001/b/box"])
        .ok();
    let told = host.muster(&["push", "127.0.0.1:5001/b/box"]).ok();
    assert!(told.contains(": Pushed"), "{told}");
    host.muster(&["rmi", "127.0.0.1:5000/a/box", "127.0.0.1:5001/b/box"])
        .ok();
    host.muster(&["pull", "127.0.0.1:5001/b/box"]).ok();
    assert_eq!(id(&host, "127.0.0.1:5001/b/box"), known);
    drop((one, two));
    host.finish();
}
