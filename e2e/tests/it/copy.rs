//! Files in and out of containers: `cp`, `export`, `commit`, and the configs and secrets that Compose puts in.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::{Command, Stdio};

use e2e::{Host, Output};

fn sh(host: &Host, container: &str, script: &str) -> String {
    host.muster(&["exec", container, "sh", "-c", script]).ok()
}

fn cp(host: &Host, from: &str, to: &str) -> Output {
    host.muster(&["cp", from, to])
}

/// A running container `up` and one `down` that was never started, both with the volume `data` at /data.
fn two_containers(host: &Host) {
    for (verb, name) in [("create", "down"), ("run", "up")] {
        let mut arguments = vec![verb];
        if verb == "run" {
            arguments.push("-d");
        }
        arguments.extend([
            "--name",
            name,
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "600",
        ]);
        host.muster(&arguments).ok();
    }
}

#[test]
fn files_and_directories_go_in_and_come_out() {
    let host = Host::start();
    two_containers(&host);
    host.write("in/d/sub/file", "hello");
    host.write("in/f", "one");
    symlink("sub/file", host.path("in/d/link")).unwrap();
    for name in ["up", "down"] {
        let inside = |path: &str| format!("{name}:{path}");
        cp(&host, "in/f", &inside("/tmp/renamed")).ok();
        cp(&host, "in/d", &inside("/tmp")).ok();
        cp(&host, "in/d", &inside("/tmp/new")).ok();
        cp(&host, "in/d/.", &inside("/opt/")).ok();
        cp(&host, "in/d/.", &inside("/data")).ok();
        cp(&host, "in/f", &inside("nowhere/")).fails(1, "no such directory");
        cp(&host, "in/f", &inside("/nowhere/x")).fails(
            1,
            &format!("Could not find the file /nowhere in container {name}"),
        );
        cp(&host, "in/d", &inside("/tmp/renamed")).fails(1, "cannot copy directory");
        cp(&host, &inside("/nope"), ".").fails(
            1,
            &format!("Could not find the file /nope in container {name}"),
        );
        let out = format!("out-{name}");
        fs::create_dir(host.path(&out)).unwrap();
        cp(&host, &inside("/tmp/d"), &out).ok();
        cp(&host, &inside("/tmp/new/."), &format!("{out}/contents")).ok();
        cp(&host, &inside("/tmp/renamed"), &format!("{out}/other")).ok();
        cp(&host, &inside("/data/link"), &out).ok();
        host.muster(&[
            "cp",
            "-L",
            &inside("/data/link"),
            &format!("{out}/followed"),
        ])
        .ok();
        let read = |path: &str| fs::read_to_string(host.path(&out).join(path)).unwrap();
        assert_eq!(read("d/sub/file"), "hello", "{name}");
        assert_eq!(read("contents/link"), "hello");
        assert_eq!(read("other"), "one");
        assert_eq!(read("followed"), "hello");
        let link = fs::read_link(host.path(&out).join("link")).unwrap();
        assert_eq!(link.to_str(), Some("sub/file"));
        cp(&host, &inside("/tmp/d"), &format!("{out}/other")).fails(1, "cannot copy directory");
        cp(&host, &inside("/tmp/renamed"), "no/such/x").fails(1, "does not exist");
    }
    // Through the volume that both have.
    assert_eq!(
        sh(&host, "up", "cat /data/link /tmp/new/link"),
        "hellohello"
    );
    host.muster(&["start", "down"]).ok();
    assert_eq!(
        sh(&host, "down", "cat /tmp/renamed /tmp/d/sub/file"),
        "onehello"
    );
    cp(&host, "up:/a", "down:/b").fails(1, "copying between containers is not supported");
    cp(&host, "a", "b").fails(1, "must specify at least one container source");
    cp(&host, "in/none", "up:/").fails(1, "no such file or directory");
    cp(&host, "none:/x", ".").fails(1, "No such container: none");
    host.finish();
}

#[test]
fn a_running_container_is_seen_as_its_processes_see_it() {
    let host = Host::start();
    host.muster(&[
        "run", "-d", "--name", "box", "--tmpfs", "/mem", "busybox", "sleep", "600",
    ])
    .ok();
    host.write("f", "x");
    cp(&host, "f", "box:/mem/f").ok();
    assert_eq!(sh(&host, "box", "cat /mem/f"), "x");
    // What a link means is decided inside.
    sh(
        &host,
        "box",
        "ln -s / /self; ln -s ../../../../../../mem /up",
    );
    cp(&host, "f", "box:/self/mem/g").ok();
    cp(&host, "f", "box:/up").ok();
    assert_eq!(sh(&host, "box", "ls /mem"), "f\ng");
    cp(&host, "box:/self/proc/1/root/etc/passwd", "stolen").fails(1, "");
    cp(&host, "f", "box:/dev/null").fails(1, "must be a directory or a regular file");
    // What is mounted over it is not part of its own file system.
    host.muster(&["export", "-o", "c.tar", "box"]).ok();
    let mut names = Vec::new();
    let mut tar = tar::Archive::new(fs::File::open(host.path("c.tar")).unwrap());
    for entry in tar.entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert!(
        names
            .iter()
            .any(|name| name == "bin/sh" || name == "bin/busybox")
    );
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("proc/1") || name == "mem/f")
    );
    host.finish();
}

fn pipe_in(host: &Host, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = host.muster_command(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let line = format!("{command:?}");
    let mut child = host.spawn(command);
    // A refusal may come before everything is read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Output {
        command: line,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_uid(1234);
        header.set_gid(77);
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        header.set_size(if link { 0 } else { content.len() as u64 });
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        let data = if link { &b""[..] } else { content.as_bytes() };
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn archives_go_through_standard_input_and_output() {
    use tar::EntryType::Regular;
    let host = Host::start();
    two_containers(&host);
    for name in ["up", "down"] {
        let good = tar_of(&[("a/b", Regular, "text")]);
        let inside = format!("{name}:/tmp");
        pipe_in(&host, &["cp", "-", &inside], &good).ok();
        let mut command = host.muster_command(&["cp", &format!("{name}:/tmp/a"), "-"]);
        command.stdout(Stdio::piped());
        let output = host.spawn(command).wait_with_output().unwrap();
        let mut tar = tar::Archive::new(&output.stdout[..]);
        let mut entries = tar.entries().unwrap().map(Result::unwrap);
        assert_eq!(entries.next().unwrap().path().unwrap().to_str(), Some("a/"));
        let file = entries.next().unwrap();
        assert_eq!(file.path().unwrap().to_str(), Some("a/b"));
        let header = file.header();
        assert_eq!(
            (
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mode().unwrap()
            ),
            (1234, 77, 0o640)
        );
        pipe_in(&host, &["cp", "-", &format!("{name}:/tmp/a/b")], &good)
            .fails(1, "must be a directory");
    }
    host.finish();
}

#[test]
fn hostile_archives_reach_nothing_outside_of_the_container() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let host = Host::start();
    two_containers(&host);
    let victim = host.path("victim");
    fs::write(&victim, "untouched").unwrap();
    let outside = host.path("").to_str().unwrap().to_owned();
    let up = "../../../../../../../../../../victim";
    let good = tar_of(&[("f", Regular, &"x".repeat(5000))]);
    for name in ["up", "down"] {
        let into = format!("{name}:/tmp");
        for (case, bytes) in [
            ("dot-dot", tar_of(&[(up, Regular, "owned")])),
            (
                "hard link",
                tar_of(&[("h", Link, up), ("h", Regular, "owned")]),
            ),
            ("truncated", good[..3000].to_vec()),
            ("junk", b"this is not a tar archive".repeat(50)),
        ] {
            let output = pipe_in(&host, &["cp", "-", &into], &bytes);
            assert_eq!(output.code, 1, "{case}: {output}");
            assert!(output.stderr.len() > 20, "{case}: {output}");
        }
        let through = tar_of(&[("l", Symlink, &outside), ("l/victim", Regular, "owned")]);
        pipe_in(&host, &["cp", "-", &into], &through);
        let kinds = tar_of(&[("etc", Regular, "")]);
        pipe_in(&host, &["cp", "-", &format!("{name}:/")], &kinds)
            .fails(1, "cannot overwrite directory");
        let kinds = tar_of(&[("passwd", Directory, "")]);
        pipe_in(&host, &["cp", "-", &format!("{name}:/etc")], &kinds)
            .fails(1, "cannot overwrite non-directory");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched", "{name}");
    }
    host.finish();
}

#[test]
fn what_is_read_only_stays_so() {
    let host = Host::start();
    host.write("f", "x");
    for verb in [&["create"][..], &["run", "-d"]] {
        let name = verb[0];
        let mut arguments = verb.to_vec();
        arguments.extend([
            "--name",
            name,
            "--read-only",
            "-v",
            "rw:/rw",
            "-v",
            "ro:/ro:ro",
        ]);
        arguments.extend(["busybox", "sleep", "600"]);
        host.muster(&arguments).ok();
        cp(&host, "f", &format!("{name}:/x")).fails(1, "container rootfs is marked read-only");
        cp(&host, "f", &format!("{name}:/ro")).fails(1, "mounted volume is marked read-only");
        cp(&host, "f", &format!("{name}:/rw")).ok();
    }
    host.finish();
}

#[test]
fn an_export_imports_and_a_commit_runs() {
    let host = Host::start();
    host.muster(&[
        "run",
        "--name",
        "box",
        "-e",
        "A=1",
        "busybox",
        "sh",
        "-c",
        "echo made > /made; rm /etc/group",
    ])
    .ok();
    host.muster(&["export", "-o", "c.tar", "box"]).ok();
    host.muster(&["import", "c.tar", "again"]).ok();
    let script = "cat /made; test -e /etc/group || echo gone";
    assert_eq!(
        host.muster(&["run", "--rm", "again", "sh", "-c", script])
            .ok(),
        "made\ngone"
    );
    let id = host
        .muster(&[
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            r#"CMD ["cat", "/made"]"#,
            "-c",
            "ENV B=2",
            "box",
            "made:1",
        ])
        .ok();
    assert_eq!(host.muster(&["run", "--rm", "made:1"]).ok(), "made");
    let shown = host
        .muster(&[
            "inspect",
            "--format",
            "{{.Id}} {{.Author}} {{.Comment}} {{.Config.Env}}",
            "made:1",
        ])
        .ok();
    assert!(shown.starts_with(&format!("{id} me why ")), "{shown}");
    assert!(shown.contains("A=1") && shown.contains("B=2"), "{shown}");
    assert_eq!(
        host.muster(&["run", "--rm", "made:1", "sh", "-c", script])
            .ok(),
        "made\ngone"
    );
    host.muster(&["run", "-d", "--name", "busy", "busybox", "sleep", "600"])
        .ok();
    host.muster(&["commit", "busy"]).ok();
    let state = host
        .muster(&["inspect", "--format", "{{.State.Status}}", "busy"])
        .ok();
    assert_eq!(state, "running", "thawed again");
    host.muster(&["commit", "-c", "RUN x", "box"])
        .fails(1, "RUN");
    host.muster(&["commit", "box", "Upper"])
        .fails(1, "lowercase");
    host.muster(&["commit", "none"])
        .fails(1, "No such container: none");
    host.finish();
}

#[test]
fn the_stock_client_copies_commits_and_exports() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: there is no docker command in PATH");
        return;
    }
    let host = Host::start();
    two_containers(&host);
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", host.socket())
            .env("HOME", host.path(""))
            .current_dir(host.path(""));
        host.run(command)
    };
    host.write("d/sub/file", "hello");
    for name in ["up", "down"] {
        docker(&["cp", "d", &format!("{name}:/tmp/new")]).ok();
        docker(&["cp", &format!("{name}:/tmp/new"), &format!("out-{name}")]).ok();
        let copied = host.path(&format!("out-{name}/sub/file"));
        assert_eq!(fs::read_to_string(&copied).unwrap(), "hello");
        docker(&["cp", "d", &format!("{name}:/nowhere/x")]).fails(1, "Could not find the file");
        docker(&["cp", &format!("{name}:/nope"), "."]).fails(1, "Could not find the file");
    }
    fs::write(host.path("owned"), "").unwrap();
    std::os::unix::fs::chown(host.path("owned"), Some(1234), Some(77)).unwrap();
    docker(&["cp", "owned", "up:/tmp/"]).ok();
    docker(&["cp", "up:/tmp/owned", "back"]).ok();
    assert_eq!(sh(&host, "up", "stat -c %u:%g /tmp/owned"), "1234:77");
    assert_eq!(fs::metadata(host.path("back")).unwrap().uid(), 0);
    docker(&["commit", "-m", "why", "up", "made"]).ok();
    docker(&["export", "-o", "up.tar", "up"]).ok();
    assert_eq!(
        docker(&["run", "--rm", "made", "cat", "/tmp/new/sub/file"]).ok(),
        "hello"
    );
    host.finish();
}

#[test]
fn configs_and_secrets_need_no_file_on_the_host() {
    let host = Host::start();
    let compose = |content: &str, more: &str| {
        host.write(
            "p/compose.yaml",
            &format!(
                r#"
services:
  web:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    {more}
    configs:
      - inline
      - {{source: inline, target: /etc/app/app.conf, uid: "70", gid: "71", mode: 0440}}
    secrets: [token]
configs:
  inline: {{content: "{content}"}}
secrets:
  token: {{environment: TOKEN}}
"#
            ),
        );
    };
    let up = |token: &str| {
        let mut command = host.muster_command(&["compose", "up", "-d"]);
        command.current_dir(host.path("p")).env("TOKEN", token);
        host.run(command)
    };
    let id = || host.muster_in("p", &["compose", "ps", "-q"]).ok();
    compose("x=1", "");
    up("hush").ok();
    let first = id();
    let shown = sh(
        &host,
        &first,
        "cat /inline /etc/app/app.conf /run/secrets/token; stat -c ' %a %u %g' /etc/app/app.conf /run/secrets/token",
    );
    assert_eq!(shown, "x=1x=1hush 440 70 71\n 444 0 0");
    up("hush").ok();
    assert_eq!(id(), first, "nothing has changed");
    up("other").ok();
    let second = id();
    assert_ne!(second, first, "another secret is another container");
    assert_eq!(sh(&host, &second, "cat /run/secrets/token"), "other");
    compose("x=2", "");
    up("other").ok();
    assert_eq!(sh(&host, &id(), "cat /inline"), "x=2");
    host.muster_in("p", &["compose", "cp", "web:/inline", "copied"])
        .ok();
    assert_eq!(fs::read_to_string(host.path("p/copied")).unwrap(), "x=2");
    host.muster_in("p", &["compose", "cp", "copied", "web:/back"])
        .ok();
    assert_eq!(sh(&host, &id(), "cat /back"), "x=2");
    compose("x=2", "read_only: true");
    up("other").fails(1, "in a read_only service");
    compose("x=2", "");
    host.muster_in("p", &["compose", "up", "-d", "--force-recreate"])
        .fails(
            1,
            "environment variable \"TOKEN\" required by secret token is not set",
        );
    host.finish();
}
