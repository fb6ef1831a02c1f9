//! Containers that share namespaces with each other.

use e2e::Host;

/// `muster run` of busybox with these options and this shell line.
fn run(host: &Host, options: &[&str], line: &str) -> e2e::Output {
    let mut words = vec!["run"];
    words.extend(options);
    words.extend(["busybox", "sh", "-c", line]);
    host.muster(&words)
}

#[test]
fn containers_share_memory_when_the_donor_lets_them() {
    let mut host = Host::start();
    let donor = [
        "-d",
        "--name",
        "donor",
        "--ipc",
        "shareable",
        "--shm-size",
        "8m",
    ];
    run(&host, &donor, "echo shared > /dev/shm/note; sleep 1000").ok();
    run(&host, &["-d", "--name", "alone"], "sleep 1000").ok();
    run(
        &host,
        &["-d", "--name", "next", "--ipc", "container:donor"],
        "sleep 1000",
    )
    .ok();

    let read = "until cat /dev/shm/note; do :; done; readlink /proc/self/ns/ipc";
    let namespace = host
        .muster(&["exec", "donor", "readlink", "/proc/self/ns/ipc"])
        .ok();
    let expected = format!("shared\n{namespace}");
    assert_eq!(
        run(&host, &["--rm", "--ipc", "container:donor"], read).ok(),
        expected
    );
    // Handed on by one that joined, and after the daemon was killed.
    host.kill_daemon();
    host.start_daemon(&[]);
    assert_eq!(
        run(&host, &["--rm", "--ipc", "container:next"], read).ok(),
        expected
    );

    run(&host, &["--rm", "--ipc", "container:alone"], "true").fails(125, "non-shareable IPC");
    host.muster(&["stop", "-t", "0", "donor"]).ok();
    run(&host, &["--rm", "--ipc", "container:donor"], "true").fails(125, "non running container");
    assert_eq!(
        host.muster(&["exec", "next", "cat", "/dev/shm/note"]).ok(),
        "shared"
    );
    host.muster(&["rm", "-f", "donor", "next", "alone"]).ok();
    host.finish();
}

#[test]
fn services_share_memory_and_processes() {
    let host = Host::start();
    host.write(
        "pair/compose.yaml",
        "services:
  store:
    image: busybox
    ipc: shareable
    init: true
    command: sh -c 'echo here > /dev/shm/note; exec sleep 1000'
  reader:
    image: busybox
    ipc: service:store
    pid: service:store
    command: sh -c 'until cat /dev/shm/note; do :; done; exec sleep 1000'
",
    );
    host.muster_in("pair", &["compose", "up", "-d"]).ok();
    let note = ["compose", "exec", "-T", "reader", "sh", "-c"];
    let seen = |line: &str| {
        let mut words = note.to_vec();
        words.push(line);
        host.muster_in("pair", &words).ok()
    };
    assert_eq!(
        seen("until cat /dev/shm/note 2>/dev/null; do :; done"),
        "here"
    );
    assert!(seen("cat /proc/1/comm").contains("docker-init"));
    host.muster_in("pair", &["compose", "down", "-t", "0"]).ok();
    host.finish();
}
