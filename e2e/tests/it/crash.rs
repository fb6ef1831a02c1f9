//! What happens when something breaks: the daemon or the keeper dies at any moment, the disk is full, clients do not read,
//! and many containers come at once.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::Host;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Asks until the answer is right, at most 30 s.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{what} did not happen in 30 s"
        );
        std::thread::yield_now();
    }
}

fn state(host: &Host, name: &str) -> String {
    host.muster(&[
        "inspect",
        "--format",
        "{{.State.Status}} {{.State.ExitCode}}",
        name,
    ])
    .ok()
}

/// Whether a process runs; one that only waits for its parent's notice does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| state != b'Z' && state != b'X')
}

/// A cheap source of moments; the seed is printed with a failure.
fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

#[test]
fn a_daemon_killed_at_any_moment_goes_on_where_it_was() {
    let mut host = Host::start();
    let seed = std::process::id().into();
    let mut random = seed;
    let quiet = |host: &Host, arguments: &[&str]| {
        let mut command = host.muster_command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        host.spawn(command)
    };
    for round in 0..10 {
        let mut children = Vec::new();
        for number in 0..4 {
            let name = format!("c{number}");
            // What the container is in the middle of depends on the round; refusals are fine.
            children.push(quiet(
                &host,
                &[
                    "run",
                    "-d",
                    "--name",
                    &name,
                    "-v",
                    "/data",
                    "--restart",
                    "always",
                    "busybox",
                    "sleep",
                    "1000",
                ],
            ));
            for verb in [
                &["stop", "-t", "0"][..],
                &["restart", "-t", "0"],
                &["rm", "-f", "-v"],
                &["start"],
            ] {
                if next(&mut random).is_multiple_of(2) {
                    let mut arguments = verb.to_vec();
                    arguments.push(&name);
                    children.push(quiet(&host, &arguments));
                }
            }
        }
        children.push(quiet(&host, &["run", "--rm", "busybox", "true"]));
        let moment = Duration::from_millis(next(&mut random) % 400);
        let started = Instant::now();
        while started.elapsed() < moment {
            std::thread::yield_now();
        }
        host.kill_daemon();
        for mut child in children {
            child.wait().unwrap();
        }
        host.start_daemon(&[]);
        let listed = host
            .muster(&["ps", "-a", "--format", "{{.Names}} {{.State}}"])
            .ok();
        for line in listed.lines() {
            let (name, status) = line.split_once(' ').unwrap();
            let context = format!("seed {seed}, round {round}: {line}");
            assert!(
                ["created", "running", "exited", "restarting", "removing"].contains(&status),
                "{context}"
            );
            if name.starts_with('c') && next(&mut random).is_multiple_of(2) {
                let removed = host.muster(&["rm", "-f", "-v", name]);
                assert_eq!(removed.code, 0, "{context}: {removed}");
            }
        }
    }
    host.finish();
}

#[test]
fn a_killed_keeper_is_replaced_and_the_truth_is_told() {
    let host = Host::start();
    for (name, policy) in [("plain", "no"), ("again", "always")] {
        host.muster(&[
            "run",
            "-d",
            "--name",
            name,
            "--restart",
            policy,
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    }
    let attached = |arguments: &[&str]| {
        let mut command = host.muster_command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = host.spawn(command);
        e2e::read_until(&mut child, "up");
        child
    };
    let script = "echo up; exec sleep 1000";
    let run = attached(&["run", "--name", "front", "busybox", "sh", "-c", script]);
    let exec = attached(&["exec", "plain", "sh", "-c", script]);
    let pid = host
        .muster(&["inspect", "--format", "{{.State.Pid}}", "plain"])
        .ok();
    let keeper = host.keeper().unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();

    for child in [run, exec] {
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{output:?}");
    }
    until("the exit", || state(&host, "plain") == "exited 255");
    assert!(!runs(&pid), "no process runs that nobody knows of");
    assert_eq!(host.muster(&["wait", "front"]).ok(), "255");
    until("the restart", || {
        host.muster(&["exec", "again", "true"]).code == 0
    });
    host.muster(&["start", "plain"]).ok();
    assert_eq!(
        host.muster(&["run", "--rm", "busybox", "echo", "works"])
            .ok(),
        "works"
    );
    assert_ne!(host.keeper().unwrap(), keeper);
    host.finish();
}

#[test]
fn a_keeper_and_a_daemon_killed_together_leave_nothing_behind() {
    let mut host = Host::start();
    host.muster(&["run", "-d", "--name", "lost", "busybox", "sleep", "1000"])
        .ok();
    let pid = host
        .muster(&["inspect", "--format", "{{.State.Pid}}", "lost"])
        .ok();
    let keeper = host.keeper().unwrap();
    host.kill_daemon();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    until("the keeper's end", || host.keeper().is_none());
    host.start_daemon(&[]);
    assert_eq!(state(&host, "lost"), "exited 255");
    assert!(!runs(&pid));
    host.finish();
}

#[test]
fn a_full_disk_stops_no_container_and_loses_no_exit() {
    let mut host = Host::bare();
    let data = host.path("data");
    std::fs::create_dir(&data).unwrap();
    let target = data.clone();
    host.on_host(move || {
        let size = Some("size=32m");
        mount(
            Some("tmpfs"),
            &target,
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
    })
    .unwrap();
    host.start_daemon(&[]);
    host.muster(&["import", e2e::busybox().to_str().unwrap(), "busybox"])
        .ok();
    let shared = host.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let bind = format!("{}:/shared", shared.display());
    let write = "i=0; until [ -e /shared/stop ]; do i=$((i+1)); echo line $i of output; \
                 echo $i > /shared/count; done; echo the end; exit 5";
    host.muster(&[
        "run", "-d", "--name", "writer", "-v", &bind, "busybox", "sh", "-c", write,
    ])
    .ok();
    let filler = host.path("data/filler");
    let on_host = {
        let filler = filler.clone();
        move || {
            let mut file = std::fs::File::create(&filler).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        }
    };
    host.on_host(on_host);
    let count = || -> u64 {
        let text = std::fs::read_to_string(shared.join("count")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    // Far more than a pipe and a page of the log hold.
    let full = count();
    until("writing on", || count() > full + 20_000);
    host.muster(&["exec", "writer", "true"]).ok();
    std::fs::write(shared.join("stop"), "").unwrap();
    assert_eq!(host.muster(&["wait", "writer"]).ok(), "5");

    // The exit could not be recorded, and is not lost.
    host.kill_daemon();
    host.on_host(move || std::fs::remove_file(filler)).unwrap();
    host.start_daemon(&[]);
    assert_eq!(state(&host, "writer"), "exited 5");
    let lines = host.muster(&["logs", "writer"]).ok();
    for line in lines.lines() {
        let whole = line == "the end" || line.starts_with("line ") && line.ends_with(" of output");
        assert!(whole, "{line:?}");
    }
    let complaints = std::fs::read_to_string(host.path("run/keeper.log")).unwrap();
    assert!(
        complaints.lines().count() < 10,
        "a full disk is told once:\n{complaints}"
    );
    std::fs::remove_file(shared.join("stop")).unwrap();
    host.muster(&["start", "writer"]).ok();
    host.muster(&["rm", "-f", "writer"]).ok();
    assert_eq!(host.stop_daemon(), 0);
    host.on_host(move || umount2(&data, MntFlags::MNT_DETACH))
        .unwrap();
    host.finish();
}

#[test]
fn a_client_that_never_reads_is_no_obstacle() {
    let host = Host::start();
    host.muster(&["run", "-d", "--name", "noisy", "busybox", "yes"])
        .ok();
    let streams: Vec<_> = [
        "POST /containers/noisy/attach?stream=1&stdout=1&logs=1",
        "GET /containers/noisy/logs?stdout=1&follow=1",
        "GET /events?since=1",
        "GET /containers/noisy/stats?stream=1",
    ]
    .iter()
    .map(|request| {
        let mut stream = host.connect();
        write!(stream, "{request} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        stream
    })
    .collect();
    // The log grows until the attached client holds the process up.
    until("the stall", || {
        let before = std::fs::read_to_string(format!("/proc/{}/io", host.keeper().unwrap()));
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(100) {
            std::thread::yield_now();
        }
        let after = std::fs::read_to_string(format!("/proc/{}/io", host.keeper().unwrap()));
        before.unwrap() == after.unwrap()
    });
    assert_eq!(
        host.muster(&["run", "--rm", "busybox", "echo", "fine"])
            .ok(),
        "fine"
    );
    host.muster(&["stop", "-t", "0", "noisy"]).ok();
    assert_eq!(state(&host, "noisy"), "exited 137");
    host.muster(&["rm", "noisy"]).ok();
    drop(streams);
    host.finish();
}

#[test]
fn many_at_once_and_a_daemon_that_finds_them_all() {
    const MANY: usize = 30;
    let mut host = Host::start();
    let start = |arguments: &[&str]| {
        let mut command = host.muster_command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        host.spawn(command)
    };
    let runs: Vec<_> = (0..MANY)
        .map(|number| start(&["run", "--rm", "busybox", "echo", &number.to_string()]))
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{number}\n")
        );
    }
    assert_eq!(host.muster(&["ps", "-aq"]).ok(), "", "--rm removed them");
    let idle: Vec<_> = (0..MANY)
        .map(|number| {
            let name = format!("idle{number}");
            start(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])
        })
        .collect();
    for run in idle {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    host.kill_daemon();
    let started = Instant::now();
    host.start_daemon(&[]);
    assert_eq!(host.muster(&["ps", "-q"]).ok().lines().count(), MANY);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    host.finish();
}
