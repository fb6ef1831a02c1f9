//! Builds that end in a registry: whichever way they are asked to, what arrives there is what was built.

use std::os::unix::fs::symlink;

use e2e::{Host, muster_executable};
use serde_json::Value;

use super::credentials::{REGISTRY, start};
use super::depot::{Depot, PASSWORD};
use super::{id, program, run, text};

const DOCKERFILE: &str = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY file /\nCMD [\"cat\", \"/stamp\"]\n";

fn context(host: &Host) {
    host.write("c/Dockerfile", DOCKERFILE);
    host.write("c/file", "hello\n");
}

/// What a build wrote with `--metadata-file meta`.
fn metadata(host: &Host) -> Value {
    serde_json::from_slice(&std::fs::read(host.path("meta")).unwrap()).unwrap()
}

#[test]
fn a_build_is_pushed_when_it_is_done() {
    let host = Host::start();
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        return host.finish();
    };
    context(&host);
    let plain = ["build", "--progress", "plain", "--metadata-file", "meta"];
    let build = |more: &[&str]| {
        let output = host.muster(&[&plain[..], more, &["c"]].concat());
        assert_eq!(output.code, 0, "{output}");
        output.stderr
    };
    let cache = "type=registry,ref=127.0.0.1:5000/cache:1";
    let everything = format!("{cache},mode=max");
    let said = build(&[
        "--push",
        "-t",
        "127.0.0.1:5000/a/x:1",
        "-t",
        "127.0.0.1:5000/b/x:2",
        "--cache-to",
        &everything,
    ]);
    assert!(said.contains(" pushing 127.0.0.1:5000/b/x:2 "), "{said}");
    let built = id(&host, "127.0.0.1:5000/a/x:1");
    let made = metadata(&host);
    assert_eq!(made["containerimage.config.digest"], built.as_str());
    let pushed = made["containerimage.digest"].as_str().unwrap().to_owned();
    assert_ne!(pushed, built, "the digest is the manifest's");
    build(&["-o", "type=image,push=true,name=127.0.0.1:5000/c/x:1"]);
    assert_eq!(metadata(&host)["containerimage.digest"], pushed.as_str());
    build(&["-o", "type=registry,name=127.0.0.1:5000/d/x:1"]);
    if let Some(skopeo) = program("SKOPEO", "skopeo") {
        for name in ["a/x:1", "b/x:2", "c/x:1", "d/x:1"] {
            let remote = format!("docker://127.0.0.1:5000/{name}");
            let arguments = [
                "inspect",
                "--tls-verify=false",
                "--format",
                "{{.Digest}}",
                &remote,
            ];
            assert_eq!(host.tool(&skopeo, &arguments).ok(), pushed, "{name}");
        }
    }
    // Nothing is left here; what comes back is what was built, and the cache of the registry has it as well.
    let stamp = host.muster(&["run", "--rm", "127.0.0.1:5000/a/x:1"]).ok();
    for name in ["a/x:1", "b/x:2", "c/x:1", "d/x:1"] {
        host.muster(&["rmi", &format!("127.0.0.1:5000/{name}")])
            .ok();
    }
    host.muster(&["builder", "prune", "-af"]).ok();
    let pulled = format!("127.0.0.1:5000/c/x@{pushed}");
    assert_eq!(host.muster(&["run", "--rm", &pulled]).ok(), stamp);
    assert_eq!(id(&host, &pulled), built);
    let said = build(&["--push", "-t", "127.0.0.1:5000/e/x", "--cache-from", cache]);
    assert_eq!(
        host.muster(&["run", "--rm", "127.0.0.1:5000/e/x"]).ok(),
        stamp,
        "{said}"
    );

    // What cannot be pushed is told, and stays here.
    host.muster(&["build", "--push", "c"])
        .fails(1, "tag is needed when pushing to registry");
    host.muster(&["build", "--push", "-t", "127.0.0.1:1/x", "c"])
        .fails(1, "127.0.0.1:1");
    id(&host, "127.0.0.1:1/x");
    drop(depot);
    host.finish();
}

#[test]
fn a_build_is_pushed_with_the_clients_password() {
    let (host, depot, _) = start();
    let Some(depot) = depot else {
        return host.finish();
    };
    context(&host);
    let name = format!("{REGISTRY}/me/x:1");
    host.muster(&["build", "--push", "-t", &name, "c"])
        .fails(1, "no basic auth credentials");
    host.muster(&["login", "-u", "me", "-p", PASSWORD, REGISTRY])
        .ok();
    host.muster(&["build", "--push", "-t", &name, "c"]).ok();
    // A base image comes with it, too; and the docker command with the plugin does the same.
    let known = id(&host, &name);
    host.muster(&["rmi", &name]).ok();
    host.write("d/Dockerfile", &format!("FROM {name}\nLABEL more=1\n"));
    host.muster(&["build", "-t", "more", "d"]).ok();
    assert_eq!(id(&host, &name), known);
    if let Some(docker) = program("DOCKER", "docker") {
        std::fs::create_dir_all(host.path(".docker/cli-plugins")).unwrap();
        symlink(
            muster_executable(),
            host.path(".docker/cli-plugins/docker-buildx"),
        )
        .unwrap();
        let second = format!("{REGISTRY}/me/y:1");
        let context = host.path("d");
        let build = ["buildx", "build", "--push", "-t", &second, text(&context)];
        run(&host, &docker, &build).ok();
        host.muster(&["rmi", &second]).ok();
        host.muster(&["pull", &second]).ok();
    }
    drop(depot);
    host.finish();
}
