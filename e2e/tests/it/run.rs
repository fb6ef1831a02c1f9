//! `muster run` and what is around it: the container a person gets.

use std::time::Duration;

use e2e::Host;

#[test]
fn exit_codes_are_dockers() {
    let host = Host::start();
    host.muster(&["run", "--rm", "busybox", "true"]).ok();
    host.muster(&["run", "--rm", "busybox", "sh", "-c", "exit 7"])
        .fails(7, "");
    host.muster(&["run", "--rm", "busybox", "no-such-program"])
        .fails(127, "no-such-program");
    host.muster(&["run", "--rm", "busybox", "/etc"])
        .fails(126, "/etc");
    host.muster(&["run", "--rm", "no-such-image", "true"])
        .fails(125, "no-such-image");
    host.muster(&["run", "--no-such-flag", "busybox"])
        .fails(125, "--no-such-flag");
    assert_eq!(
        host.muster(&["ps", "--all", "--quiet"]).ok(),
        "",
        "--rm also removes what could not start"
    );
    host.finish();
}

#[test]
fn output_streams_stay_apart_and_input_arrives() {
    let host = Host::start();
    let output = host.muster(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n"),
        "{output}"
    );
    let file = host.write("input", &"some input\n".repeat(20_000));
    let command = format!("exec \"$0\" run --rm -i busybox wc -c < {}", file.display());
    let mut shell = host.muster_command(&[]);
    shell = {
        let mut wrapped = std::process::Command::new("sh");
        wrapped.args(["-c", &command]).arg(shell.get_program());
        wrapped.envs(
            shell
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        wrapped
    };
    let child = {
        shell.stdout(std::process::Stdio::piped());
        host.spawn(shell)
    };
    let counted = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "220000");
    host.finish();
}

#[test]
fn a_container_is_confined_as_docker_confines() {
    let host = Host::start();
    let inside = |command: &str| {
        host.muster(&["run", "--rm", "busybox", "sh", "-c", command])
            .ok()
    };
    assert_eq!(inside("echo $$"), "1", "a pid namespace of its own");
    let status = inside("grep -E '^(CapEff|CapBnd|CapInh|Seccomp|NoNewPrivs):' /proc/self/status");
    let value = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(value("CapEff"), "00000000a80425fb");
    assert_eq!(value("CapBnd"), "00000000a80425fb");
    assert_eq!(value("CapInh"), "0000000000000000");
    assert_eq!(value("Seccomp"), "2");
    assert_eq!(inside("wc -c < /proc/interrupts"), "0", "masked");
    for refused in [
        "touch /sys/x",
        "touch /proc/sys/kernel/x",
        "mount -t tmpfs none /tmp",
        "unshare -U true",
    ] {
        let output = host.muster(&["run", "--rm", "busybox", "sh", "-c", refused]);
        assert_ne!(output.code, 0, "{output}");
    }
    let devices = inside("ls /dev | tr '\\n' ' '");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd", "stdin",
    ] {
        assert!(
            devices.split(' ').any(|found| found == device),
            "{device} in {devices}"
        );
    }
    assert!(
        !devices.contains("vda") && !devices.contains("sda"),
        "{devices}"
    );
    assert_eq!(inside("hostname | wc -c"), "13", "the short id");
    assert_eq!(
        inside("ls /proc/self/fd | wc -l"),
        "4",
        "no descriptor is handed in (ls has its own)"
    );
    host.finish();
}

#[test]
fn privileged_is_privileged() {
    let host = Host::start();
    host.muster(&[
        "run",
        "--rm",
        "--privileged",
        "busybox",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/tmp",
    ])
    .ok();
    let mode = host
        .muster(&[
            "run",
            "--rm",
            "--privileged",
            "busybox",
            "grep",
            "^Seccomp:",
            "/proc/self/status",
        ])
        .ok();
    assert!(mode.ends_with('0'), "{mode}");
    host.finish();
}

#[test]
fn options_reach_the_process() {
    let host = Host::start();
    let run = |options: &[&str], command: &str| {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend(["busybox", "sh", "-c", command]);
        host.muster(&arguments).ok()
    };
    assert_eq!(run(&["--user", "www-data"], "id -u; id -g"), "33\n33");
    assert_eq!(
        run(
            &["--user", "1234:100", "--group-add", "wheel"],
            "id -u; id -G"
        ),
        "1234\n100 10"
    );
    assert_eq!(run(&["--workdir", "/made/here"], "pwd"), "/made/here");
    assert_eq!(
        run(&["--env", "GREETING=hello world"], "echo $GREETING"),
        "hello world"
    );
    assert_eq!(
        run(&["--hostname", "box"], "hostname; grep -c box /etc/hosts"),
        "box\n1"
    );
    assert_eq!(
        run(
            &["--read-only", "--tmpfs", "/scratch:size=1m"],
            "touch /x || touch /scratch/x && echo ok"
        ),
        "ok"
    );
    assert_eq!(
        run(&["--ulimit", "nofile=99:100"], "ulimit -n; ulimit -Hn"),
        "99\n100"
    );
    assert_eq!(run(&["--entrypoint", "echo"], "x"), "sh -c x");
    assert_eq!(run(&["--init"], "cat /proc/1/comm"), "docker-init");
    assert_eq!(run(&["--tty"], "tty"), "/dev/pts/0");
    assert_eq!(
        run(
            &["--cap-drop", "ALL", "--cap-add", "CHOWN"],
            "grep CapEff /proc/self/status | cut -f2"
        ),
        "0000000000000001"
    );
    assert_eq!(
        run(
            &["--shm-size", "1m"],
            "df -k /dev/shm | tail -1 | awk '{print $2}'"
        ),
        "1024"
    );
    assert_eq!(
        run(
            &["--add-host", "db:10.1.2.3"],
            "grep -c '10.1.2.3.*db' /etc/hosts"
        ),
        "1"
    );
    assert_eq!(
        run(
            &["--sysctl", "net.ipv4.ip_forward=0"],
            "cat /proc/sys/net/ipv4/ip_forward"
        ),
        "0"
    );
    host.finish();
}

#[test]
fn limits_are_set_and_running_out_of_memory_is_told() {
    let host = Host::start();
    let eat = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    let limits = [
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        "--pids-limit",
        "50",
        "--cpus",
        "0.5",
    ];
    let mut arguments = vec!["run", "--name", "hungry"];
    arguments.extend(limits);
    arguments.extend(["busybox", "sh", "-c", eat]);
    let output = host.muster(&arguments);
    assert_eq!(output.code, 137, "{output}");
    let state = host
        .muster(&[
            "inspect",
            "--format",
            "{{.State.OOMKilled}} {{.State.ExitCode}}",
            "hungry",
        ])
        .ok();
    assert_eq!(state, "true 137");
    let limits = host.muster(&[
        "inspect",
        "--format",
        "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}",
        "hungry",
    ]);
    assert_eq!(limits.ok(), "16777216 50 500000000");
    host.finish();
}

#[test]
fn the_life_of_a_container() {
    let host = Host::start();
    let id = host
        .muster(&[
            "run",
            "-d",
            "--name",
            "web",
            "busybox",
            "sh",
            "-c",
            "echo started; exec sleep 1000",
        ])
        .ok();
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        host.muster(&["ps", "--format", "{{.Names}} {{.State}}"])
            .ok(),
        "web running"
    );
    assert_eq!(host.muster(&["logs", "web"]).ok(), "started");
    assert_eq!(
        host.muster(&["exec", "web", "sh", "-c", "cat /proc/1/comm; exit 5"])
            .fails(5, "")
            .stdout,
        "sleep\n"
    );
    host.muster(&["exec", "web", "no-such-program"])
        .fails(127, "no-such-program");
    host.muster(&["run", "--name", "web", "busybox", "true"])
        .fails(125, "is already in use");
    host.muster(&["rm", "web"]).fails(1, "running");
    host.muster(&["stop", "--time", "0", "web"]).ok();
    assert_eq!(
        host.muster(&[
            "inspect",
            "--format",
            "{{.State.Status}} {{.State.ExitCode}}",
            "web"
        ])
        .ok(),
        "exited 137"
    );
    host.muster(&["start", "web"]).ok();
    assert_eq!(host.muster(&["logs", "web"]).ok(), "started\nstarted");
    host.muster(&["kill", "--signal", "KILL", "web"]).ok();
    assert_eq!(host.muster(&["wait", "web"]).ok(), "137");
    host.muster(&["restart", "--time", "0", "web"]).ok();
    assert_eq!(
        host.muster(&["inspect", "--format", "{{.State.Running}}", &id[..12]])
            .ok(),
        "true"
    );
    host.muster(&["rm", "--force", "web"]).ok();
    host.muster(&["inspect", "web"]).fails(1, "web");
    host.finish();
}

#[test]
fn files_written_to_a_volume_outlive_the_container() {
    let host = Host::start();
    host.muster(&["volume", "create", "data"]).ok();
    host.muster(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo kept > /data/file",
    ])
    .ok();
    assert_eq!(
        host.muster(&[
            "run",
            "--rm",
            "-v",
            "data:/data:ro",
            "busybox",
            "cat",
            "/data/file"
        ])
        .ok(),
        "kept"
    );
    let refused = host.muster(&[
        "run",
        "--rm",
        "-v",
        "data:/data:ro",
        "busybox",
        "touch",
        "/data/x",
    ]);
    assert_ne!(refused.code, 0, "{refused}");
    host.muster(&[
        "run",
        "-d",
        "--name",
        "user",
        "-v",
        "data:/data",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host.muster(&["volume", "rm", "data"]).fails(1, "in use");
    host.muster(&["rm", "-f", "user"]).ok();
    host.muster(&["volume", "rm", "data"]).ok();
    let source = host.path("shared");
    std::fs::create_dir(&source).unwrap();
    let bind = format!("{}:/mnt", source.display());
    host.muster(&[
        "run",
        "--rm",
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "echo hi > /mnt/from-inside",
    ])
    .ok();
    assert_eq!(
        std::fs::read_to_string(source.join("from-inside")).unwrap(),
        "hi\n"
    );
    host.finish();
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let host = Host::start();
    for (flags, named) in [
        (&["--userns", "remap"][..], "userns"),
        (&["--gpus", "all"], "gpus"),
        (&["--log-driver", "syslog"], "syslog"),
        (&["--runtime", "other"], "other"),
        (&["--storage-opt", "size=1G"], "storage"),
        (
            &["--security-opt", "seccomp=/no/such/file"],
            "/no/such/file",
        ),
    ] {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(flags);
        arguments.extend(["busybox", "true"]);
        let output = host.muster(&arguments);
        assert_eq!(output.code, 125, "{output}");
        assert!(
            output.stderr.contains(named),
            "{named} is not named: {output}"
        );
    }
    host.finish();
}

#[test]
fn namespaces_of_the_host_bring_nothing_else_along() {
    let host = Host::start();
    let mounts = "awk '$2 ~ \"^/sys\" {print $3}' /proc/mounts";
    for network in ["host", "bridge"] {
        let kinds = host
            .muster(&[
                "run",
                "--rm",
                "--network",
                network,
                "busybox",
                "sh",
                "-c",
                mounts,
            ])
            .ok();
        let own = ["sysfs", "tmpfs", "cgroup", "cgroup2"];
        assert!(
            kinds.lines().all(|kind| own.contains(&kind)),
            "{network}: {kinds}"
        );
        let news = kinds.lines().filter(|kind| *kind == "sysfs").count();
        assert_eq!(news, 1, "{network}: {kinds}");
    }
    // The host of this test has no queues mounted.
    let queues = host
        .muster(&[
            "run",
            "--rm",
            "--ipc",
            "host",
            "busybox",
            "ls",
            "/dev/mqueue",
        ])
        .ok();
    assert_eq!(queues, "");
    host.finish();
}

#[test]
fn a_read_only_root_is_read_only() {
    let host = Host::start();
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/new"] {
        let write = format!("echo x >> {file}");
        host.muster(&["run", "--rm", "--read-only", "busybox", "sh", "-c", &write])
            .fails(1, "Read-only file system");
    }
    host.finish();
}

#[test]
fn an_exec_makes_no_directory_and_keeps_the_filter() {
    let host = Host::start();
    host.muster(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"])
        .ok();
    host.muster(&["exec", "-w", "/missing", "box", "pwd"])
        .fails(127, "/missing");
    host.muster(&["exec", "box", "test", "!", "-e", "/missing"])
        .ok();
    let filter = ["grep", "Seccomp:", "/proc/self/status"];
    let arguments = [&["exec", "--privileged", "box"][..], &filter].concat();
    assert_eq!(host.muster(&arguments).ok(), "Seccomp:\t2");
    host.finish();
}

#[test]
fn mount_points_are_no_part_of_a_committed_image() {
    let host = Host::start();
    host.muster(&["run", "--name", "same", "busybox", "true"])
        .ok();
    assert_eq!(host.muster(&["diff", "same"]).ok(), "");
    host.muster(&["commit", "same", "same"]).ok();
    let layers = |image: &str| {
        host.muster(&[
            "image",
            "inspect",
            "--format",
            "{{json .RootFS.Layers}}",
            image,
        ])
        .ok()
    };
    assert_eq!(layers("same"), layers("busybox"));
    // A volume's is the user's, as with Docker.
    host.muster(&[
        "run",
        "--name",
        "volume",
        "-v",
        "data:/vol",
        "busybox",
        "true",
    ])
    .ok();
    assert_eq!(host.muster(&["diff", "volume"]).ok(), "A /vol");
    host.finish();
}

#[test]
fn a_probe_that_runs_out_of_time_leaves_no_process() {
    let host = Host::start();
    host.muster(&[
        "run",
        "-d",
        "--name",
        "box",
        "--health-cmd",
        "echo probing; sleep 987 || exit 1",
        "--health-timeout",
        "1s",
        "--health-interval",
        "1s",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let log = || {
        host.muster(&["inspect", "--format", "{{json .State.Health.Log}}", "box"])
            .ok()
    };
    let told = "Health check exceeded timeout (1s): probing";
    e2e::swarm::eventually(Duration::from_secs(60), "three probes", || {
        log().matches(told).count() >= 3
    });
    let top = host.muster(&["top", "box"]).ok();
    // The one that runs: a shell and its child.
    let left = top.lines().filter(|line| line.contains("sleep 987"));
    assert!(left.count() <= 2, "{top}");
    // Pausing ends a probe, too.
    host.muster(&["pause", "box"]).ok();
    host.muster(&["unpause", "box"]).ok();
    host.finish();
}
