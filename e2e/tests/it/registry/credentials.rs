//! A registry with TLS by an authority of its own and passwords: who gets in, and what the others are told.

use e2e::Host;

use super::depot::{Depot, PASSWORD, Pair, certificate, trust, with_password, with_tls};
use super::{id, program, run, text};

/// An address that is not loopback, which would count as insecure.
pub(super) const REGISTRY: &str = "192.0.2.1:5000";

/// A host whose daemon trusts the authority of a registry with passwords.
pub(super) fn start() -> (Host, Option<Depot>, Pair) {
    let mut host = Host::bare();
    host.tool("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"])
        .ok();
    host.note_before();
    let pair = certificate(&host, "registry", "IP:192.0.2.1");
    let certificates = host.path("certs.d");
    trust(&certificates, REGISTRY, &pair);
    host.start_daemon(&["--registry-certificates", text(&certificates)]);
    host.muster(&["import", text(&e2e::busybox()), "busybox"])
        .ok();
    let depot = Depot::start(&host, REGISTRY, |settings| {
        with_tls(settings, &pair);
        with_password(&host, settings);
    });
    (host, depot, pair)
}

#[test]
fn whoever_has_the_password_gets_in() {
    let (host, depot, pair) = start();
    let Some(depot) = depot else {
        return host.finish();
    };
    let name = format!("{REGISTRY}/team/box:1");
    host.muster(&["tag", "busybox", &name]).ok();
    host.muster(&["push", &name])
        .fails(1, "no basic auth credentials");
    host.muster(&["login", "-u", "me", "-p", "wrong", REGISTRY])
        .fails(
            1,
            &format!("login attempt to https://{REGISTRY}/v2/ failed with status: 401"),
        );
    assert!(!host.path(".docker").exists());
    host.muster(&["login", REGISTRY]).fails(
        1,
        "Cannot perform an interactive login from a non TTY device",
    );

    let told = host.muster(&["login", "-u", "me", "-p", PASSWORD, REGISTRY]);
    assert!(
        told.stderr
            .contains("WARNING! Using --password via the CLI is insecure."),
        "{told:?}"
    );
    assert!(
        told.stderr
            .contains("WARNING! Your credentials are stored unencrypted in"),
        "{told:?}"
    );
    assert_eq!(told.ok(), "Login Succeeded");
    assert_eq!(
        std::fs::read_to_string(host.path(".docker/config.json")).unwrap(),
        format!(
            "{{\n\t\"auths\": {{\n\t\t\"{REGISTRY}\": {{\n\t\t\t\"auth\": \"bWU6c2VjcmV0\"\n\t\t}}\n\t}}\n}}"
        )
    );
    // Again, with what is known.
    let told = host.muster(&["login", REGISTRY]);
    assert!(
        told.stderr
            .contains("Authenticating with existing credentials... [Username: me]"),
        "{told:?}"
    );
    assert_eq!(told.ok(), "Login Succeeded");

    host.muster(&["push", &name]).ok();
    let known = id(&host, "busybox");
    host.muster(&["rmi", &name]).ok();
    assert_eq!(
        host.muster(&["run", "--rm", &name, "echo", "in"]).ok(),
        "in"
    );
    assert_eq!(id(&host, &name), known);
    host.muster(&["rmi", &name]).ok();
    host.muster(&["logout", REGISTRY]).ok();
    host.muster(&["pull", &name])
        .fails(1, "no basic auth credentials");

    // Another authority is not trusted, and one that comes later is, without a new daemon.
    let other = certificate(&host, "other", "IP:192.0.2.1");
    trust(&host.path("certs.d"), REGISTRY, &other);
    host.muster(&["pull", &name]).fails(1, "certificate");
    trust(&host.path("certs.d"), REGISTRY, &pair);
    host.muster(&["pull", &name])
        .fails(1, "no basic auth credentials");
    drop(depot);
    host.finish();
}

#[test]
fn a_helper_keeps_the_password() {
    let (host, depot, _) = start();
    let Some(depot) = depot else {
        return host.finish();
    };
    let helper = "#!/bin/sh\ncat > \"$HOME/$1.in\"\ncase $1 in\nstore) cp \"$HOME/store.in\" \"$HOME/kept\" ;;\nget) [ -e \"$HOME/kept\" ] && cat \"$HOME/kept\" || { echo credentials not found in native keychain; exit 1; } ;;\nerase) rm -f \"$HOME/kept\" ;;\nesac\n";
    let path = host.write("bin/docker-credential-shelf", helper);
    host.tool("chmod", &["+x", text(&path)]).ok();
    host.write(".docker/config.json", r#"{"credsStore": "shelf"}"#);
    let muster = |arguments: &[&str]| {
        let mut command = host.muster_command(arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", text(&host.path("bin"))));
        host.run(command)
    };
    let name = format!("{REGISTRY}/team/box:1");
    host.muster(&["tag", "busybox", &name]).ok();
    let told = muster(&["login", "-u", "me", "-p", PASSWORD, REGISTRY]);
    assert!(!told.stderr.contains("unencrypted"), "{told:?}");
    told.ok();
    let config = std::fs::read_to_string(host.path(".docker/config.json")).unwrap();
    assert!(!config.contains("bWU6"), "{config}");
    let kept = std::fs::read_to_string(host.path("kept")).unwrap();
    assert_eq!(
        kept,
        format!(r#"{{"ServerURL":"{REGISTRY}","Username":"me","Secret":"{PASSWORD}"}}"#)
    );
    muster(&["push", &name]).ok();
    muster(&["logout", REGISTRY]).ok();
    assert!(!host.path("kept").exists());
    muster(&["push", &name]).fails(1, "no basic auth credentials");
    // A helper that is not there is named.
    host.write(
        ".docker/config.json",
        r#"{"credHelpers": {"192.0.2.1:5000": "gone"}}"#,
    );
    muster(&["push", &name]).fails(1, "docker-credential-gone");
    drop(depot);
    host.finish();
}

#[test]
fn the_docker_command_logs_in_pushes_and_pulls() {
    let Some(docker) = program("DOCKER", "docker") else {
        return;
    };
    let (host, depot, _) = start();
    let Some(depot) = depot else {
        return host.finish();
    };
    let name = format!("{REGISTRY}/team/box:1");
    let docker = |arguments: &[&str]| run(&host, &docker, arguments);
    docker(&["tag", "busybox", &name]).ok();
    docker(&["push", &name]).fails(1, "no basic auth credentials");
    docker(&["login", "-u", "me", "-p", "wrong", REGISTRY]).fails(1, "401 Unauthorized");
    docker(&["login", "-u", "me", "-p", PASSWORD, REGISTRY]).ok();
    let told = docker(&["push", &name]).ok();
    assert!(told.contains(": Pushed"), "{told}");
    let pushed = told
        .lines()
        .last()
        .unwrap()
        .split(' ')
        .nth(2)
        .unwrap()
        .to_owned();
    let known = id(&host, "busybox");
    docker(&["rmi", &name]).ok();
    // What Docker's command stored is good for ours, and the other way round.
    host.muster(&["pull", &name]).ok();
    docker(&["rmi", &name]).ok();
    let told = docker(&["pull", &name]).ok();
    assert!(told.contains(&format!("Digest: {pushed}")), "{told}");
    assert_eq!(id(&host, &name), known);
    docker(&["logout", REGISTRY]).ok();
    docker(&["push", &name]).fails(1, "no basic auth credentials");
    drop(depot);
    host.finish();
}
