//! Pulling from a real registry: Debian's `docker-registry`, with TLS, on the scenario's own host. Where it is not
//! installed, the scenario says so and passes; `DOCKER_REGISTRY` names another place of the program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use e2e::Host;
use serde_json::json;

fn program() -> Option<String> {
    let given = std::env::var("DOCKER_REGISTRY").ok();
    let found = given.unwrap_or_else(|| "docker-registry".to_owned());
    Command::new(&found)
        .arg("--version")
        .output()
        .is_ok()
        .then_some(found)
}

/// The registry on port 5000 of the host, ready.
fn start(host: &Host, program: &str) -> Child {
    let key = host.path("registry.key");
    let certificate = host.path("registry.crt");
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    host.tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
    )
    .ok();
    let storage = host.path("registry");
    let settings = json!({
        "version": "0.1",
        "storage": { "filesystem": { "rootdirectory": storage } },
        "http": { "addr": "127.0.0.1:5000", "tls": { "certificate": certificate, "key": key } },
    });
    let settings = host.write("registry.yml", &settings.to_string());
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg(settings)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = host.spawn(command);
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
    }
    // Nobody else reads it, and the registry must not wait for a reader.
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    child
}

/// Puts `text` as the blob of a repository; as `curl` does, whose two requests the protocol takes.
fn put(host: &Host, path: &str, kind: &str, file: &str) {
    let url = format!("https://localhost:5000{path}");
    host.tool(
        "curl",
        &[
            "-kfsS",
            "-X",
            "PUT",
            "-H",
            &format!("Content-Type: {kind}"),
            "--data-binary",
            &format!("@{file}"),
            &url,
        ],
    )
    .ok();
}

#[test]
fn an_image_comes_out_of_a_real_registry() {
    let Some(program) = program() else {
        eprintln!("skipped: docker-registry is not installed");
        return;
    };
    let host = Host::start();
    let mut registry = start(&host, &program);
    // The image as an OCI layout is what the registry wants, blob by blob.
    let archive = host.path("busybox.tar");
    let archive = archive.to_str().unwrap();
    host.muster(&["save", "-o", archive, "busybox"]).ok();
    let id = host.muster(&["images", "-q", "--no-trunc", "busybox"]).ok();
    let layout = host.path("layout");
    std::fs::create_dir(&layout).unwrap();
    let layout = layout.to_str().unwrap();
    host.tool("tar", &["xf", archive, "-C", layout]).ok();
    let index = std::fs::read(format!("{layout}/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let manifest = text(&index["manifests"][0]["digest"]);
    let file = |digest: &str| format!("{layout}/blobs/{}", digest.replace(':', "/"));
    let parsed: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file(&manifest)).unwrap()).unwrap();
    let layers = parsed["layers"].as_array().unwrap();
    for blob in layers.iter().chain([&parsed["config"]]) {
        let digest = text(&blob["digest"]);
        let begun = host
            .tool(
                "curl",
                &[
                    "-kfsS",
                    "-X",
                    "POST",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%header{location}",
                    "https://localhost:5000/v2/me/busybox/blobs/uploads/",
                ],
            )
            .ok();
        let path = begun.trim().strip_prefix("https://localhost:5000").unwrap();
        let path = format!("{path}&digest={digest}");
        put(&host, &path, "application/octet-stream", &file(&digest));
    }
    let kind = text(&parsed["mediaType"]);
    put(&host, "/v2/me/busybox/manifests/1", &kind, &file(&manifest));

    host.muster(&["rmi", "busybox"]).ok();
    let name = "localhost:5000/me/busybox:1";
    let told = host.muster(&["pull", name]).ok();
    assert!(told.contains(name), "{told}");
    assert_eq!(host.muster(&["images", "-q", "--no-trunc", name]).ok(), id);
    let pinned = format!("localhost:5000/me/busybox@{manifest}");
    assert_eq!(
        host.muster(&["images", "-q", "--no-trunc", &pinned]).ok(),
        id
    );
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
    registry.kill().unwrap();
    registry.wait().unwrap();
    host.finish();
}
