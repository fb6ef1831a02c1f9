//! Containers outlive the daemon: killed at any moment and started again, nothing is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::Host;

use crate::web;

/// Waits until a file that a container writes satisfies a condition.
fn until(file: &Path, what: &str, holds: impl Fn(&str) -> bool) {
    let started = Instant::now();
    loop {
        if holds(&std::fs::read_to_string(file).unwrap_or_default()) {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{what} did not happen in 30 s"
        );
        std::thread::yield_now();
    }
}

fn lines(text: &str) -> usize {
    text.lines().count()
}

#[test]
fn a_killed_daemon_finds_everything_again() {
    let mut host = Host::start();
    let shared = host.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let bind = format!("{}:/shared", shared.display());
    // Counts on stdout without pause; ends with 3 when told to; serves a page.
    let count = "i=0; while true; do i=$((i+1)); echo line $i; echo $i > /shared/count; done";
    let wait =
        "echo up > /shared/waiting; until [ -e /shared/go ]; do :; done; echo last words; exit 3";
    let page = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www";
    host.muster(&[
        "run", "-d", "--name", "counter", "-v", &bind, "busybox", "sh", "-c", count,
    ])
    .ok();
    host.muster(&[
        "run", "-d", "--name", "ender", "-v", &bind, "busybox", "sh", "-c", wait,
    ])
    .ok();
    host.muster(&[
        "run", "-d", "--name", "page", "-p", "8080:80", "busybox", "sh", "-c", page,
    ])
    .ok();
    host.muster(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    until(&shared.join("waiting"), "the container's start", |text| {
        text == "up\n"
    });
    assert!(web::get_soon(&host, "127.0.0.1:8080").contains("hello"));
    let pids = |host: &Host| {
        host.muster(&[
            "inspect",
            "--format",
            "{{.State.Pid}} {{.State.StartedAt}}",
            "counter",
            "page",
            "again",
        ])
        .ok()
    };
    let before = pids(&host);

    host.kill_daemon();
    let counted = std::fs::read_to_string(shared.join("count")).unwrap();
    until(&shared.join("count"), "counting on", |text| {
        text.trim() != counted.trim() && !text.is_empty()
    });
    std::fs::write(shared.join("go"), "").unwrap();
    assert!(
        web::get(&host, "127.0.0.1:8080").unwrap().contains("hello"),
        "served without a daemon"
    );
    host.start_daemon(&[]);

    assert_eq!(pids(&host), before, "the same processes");
    assert_eq!(host.muster(&["wait", "ender"]).ok(), "3");
    assert_eq!(host.muster(&["logs", "ender"]).ok(), "last words");
    assert!(web::get(&host, "127.0.0.1:8080").unwrap().contains("hello"));
    assert_eq!(
        host.muster(&["exec", "page", "cat", "/www/index.html"])
            .ok(),
        "hello"
    );
    host.muster(&["stop", "-t", "0", "counter"]).ok();
    let log = host.muster(&["logs", "counter"]).ok();
    let wrong = log
        .lines()
        .enumerate()
        .find(|(at, line)| *line != format!("line {}", at + 1));
    assert_eq!(
        wrong,
        None,
        "no line is lost or doubled in {} lines",
        lines(&log)
    );
    assert!(lines(&log) > 100);
    // The restart policy is still watched over.
    let pid: i32 = host
        .muster(&["inspect", "--format", "{{.State.Pid}}", "again"])
        .ok()
        .parse()
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let started = Instant::now();
    loop {
        let now = host
            .muster(&[
                "inspect",
                "--format",
                "{{.RestartCount}} {{.State.Running}}",
                "again",
            ])
            .ok();
        if now == "1 true" {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "not restarted: {now}"
        );
    }
    host.finish();
}

#[test]
fn a_daemon_killed_while_containers_come_and_go_leaves_no_half_ones() {
    let mut host = Host::start();
    for round in 0..3 {
        let names: Vec<String> = (0..6).map(|number| format!("c{round}-{number}")).collect();
        let children: Vec<_> = names
            .iter()
            .map(|name| {
                let mut command =
                    host.muster_command(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
                command
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null());
                host.spawn(command)
            })
            .collect();
        // Some are created, some are starting, some run.
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(15 + 25 * round) {
            std::thread::yield_now();
        }
        host.kill_daemon();
        for mut child in children {
            child.wait().unwrap();
        }
        host.start_daemon(&[]);
        for line in host
            .muster(&["ps", "-a", "--format", "{{.Names}} {{.State}}"])
            .ok()
            .lines()
        {
            let (name, state) = line.split_once(' ').unwrap();
            assert!(["created", "running", "exited"].contains(&state), "{line}");
            if state == "running" {
                host.muster(&["exec", name, "true"]).ok();
            } else {
                host.muster(&["start", name]).ok();
            }
            host.muster(&["rm", "-f", name]).ok();
        }
    }
    host.finish();
}

#[test]
fn a_stopped_daemon_leaves_containers_running() {
    let mut host = Host::start();
    host.muster(&["run", "-d", "--name", "stays", "busybox", "sleep", "1000"])
        .ok();
    let pid = host
        .muster(&["inspect", "--format", "{{.State.Pid}}", "stays"])
        .ok();
    assert_eq!(host.stop_daemon(), 0);
    assert!(Path::new("/proc").join(&pid).exists());
    host.start_daemon(&[]);
    assert_eq!(
        host.muster(&["inspect", "--format", "{{.State.Pid}}", "stays"])
            .ok(),
        pid
    );
    host.finish();
}

#[test]
fn a_container_whose_record_is_lost_keeps_its_files() {
    let mut host = Host::start();
    let write = "echo precious > /data";
    host.muster(&["run", "--name", "box", "busybox", "sh", "-c", write])
        .ok();
    let id = host.muster(&["inspect", "--format", "{{.Id}}", "box"]).ok();
    assert_eq!(host.stop_daemon(), 0);
    // As some file systems leave it after a power failure.
    let directory = host.path("data/containers").join(&id);
    let record = directory.join("config.json");
    let written = std::fs::read(&record).unwrap();
    std::fs::write(&record, "").unwrap();
    host.start_daemon(&[]);
    assert_eq!(host.muster(&["ps", "--all", "--quiet"]).ok(), "");
    assert!(host.daemon_log().contains(record.to_str().unwrap()));
    assert_eq!(host.stop_daemon(), 0);
    std::fs::write(&record, written).unwrap();
    host.start_daemon(&[]);
    let copied = host.path("copied");
    host.muster(&["cp", "box:/data", copied.to_str().unwrap()])
        .ok();
    assert_eq!(std::fs::read_to_string(copied).unwrap(), "precious\n");
    host.finish();
}

#[test]
fn two_daemons_live_side_by_side_and_one_root_has_one_daemon() {
    let (one, mut two) = (Host::start(), Host::start());
    one.muster(&["run", "-d", "--name", "same", "busybox", "sleep", "1000"])
        .ok();
    two.muster(&["run", "-d", "--name", "same", "busybox", "sleep", "1000"])
        .ok();
    let second = two.muster_command(&[
        "daemon",
        "--data-root",
        two.path("data").to_str().unwrap(),
        "--exec-root",
        two.path("run2").to_str().unwrap(),
        "--host",
        &format!("unix://{}", two.path("sock2").display()),
    ]);
    let output = two.run(second);
    assert_ne!(output.code, 0, "{output}");
    assert!(
        output.stderr.contains(&two.daemon().pid().to_string()),
        "says who has the root: {output}"
    );
    two.kill_daemon();
    two.start_daemon(&[]);
    two.finish();
    one.finish();
}
