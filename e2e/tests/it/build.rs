//! Building through the real daemon: what is found again, what runs side by side and once, what is left when it goes wrong,
//! and where results go.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use e2e::{Host, Output, read_until};

/// A step that tells that it has begun and goes on when `go` is in the cache mount `gate`, at most a minute later.
const WAITS: &str = "RUN --mount=type=cache,id=gate,target=/gate \
    echo begun; echo x >> /gate/count; i=0; while [ ! -e /gate/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";

#[track_caller]
fn build(host: &Host, arguments: &[&str]) -> Output {
    let all = [&["build", "--progress", "plain"], arguments].concat();
    host.muster(&all)
}

#[track_caller]
fn image(host: &Host, name: &str) -> String {
    host.muster(&["inspect", "--format", "{{.Id}}", name]).ok()
}

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

/// What builds need for a while.
fn work(host: &Host) -> usize {
    std::fs::read_dir(host.path("data/build/work")).map_or(0, Iterator::count)
}

#[test]
fn docker_without_buildx_builds_all_of_the_language() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: there is no docker command in PATH");
        return;
    }
    let host = Host::start();
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", host.socket())
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", host.path(""));
        host.run(command)
    };
    host.write("c/greeting", "hello\n");
    host.write(
        "c/Dockerfile",
        "FROM busybox AS tools\nCOPY --chmod=755 <<EOF /bin/greet\n#!/bin/sh\ncat /greeting\nEOF\n\
         FROM busybox\nCOPY --from=tools /bin/greet /bin/\nCOPY greeting /\nRUN greet > /said\nCMD [\"cat\", \"/said\"]\n",
    );
    let context = host.path("c");
    let context = context.to_str().unwrap();
    let first = docker(&["build", "-t", "greet", context]).ok();
    assert!(first.contains("Successfully built "), "{first}");
    assert!(
        first.contains("Successfully tagged greet:latest"),
        "{first}"
    );
    assert_eq!(docker(&["run", "--rm", "greet"]).ok(), "hello");
    let id = image(&host, "greet");
    let second = docker(&["build", "-t", "greet", context]).ok();
    let steps = second.matches("Step ").count();
    assert_eq!(second.matches("Using cache").count(), steps, "{second}");
    assert_eq!(image(&host, "greet"), id);
    assert_eq!(docker(&["build", "-q", context]).ok(), id);

    host.write("bad/Dockerfile", "FROM busybox\nRUN echo so; exit 7\n");
    let bad = host.path("bad");
    docker(&["build", bad.to_str().unwrap()]).fails(
        7,
        "The command '/bin/sh -c echo so; exit 7' returned a non-zero code: 7",
    );
    host.write("bad/Dockerfile", "FROM busybox\nFROB x\n");
    docker(&["build", bad.to_str().unwrap()]).fails(
        1,
        "dockerfile parse error on line 2: unknown instruction: FROB",
    );
    host.finish();
}

#[test]
fn a_checkout_with_other_times_is_built_from_the_cache() {
    let host = Host::start();
    for (directory, date) in [("one", "2001-02-03"), ("two", "2011-12-13")] {
        host.write(&format!("{directory}/src/a"), "a\n");
        host.write(&format!("{directory}/src/b"), "b\n");
        host.write(
            &format!("{directory}/Dockerfile"),
            "FROM busybox\nCOPY src /src\nRUN cat /src/* > /all\n",
        );
        let file = host.path(&format!("{directory}/src/a"));
        host.tool("touch", &["-d", date, file.to_str().unwrap()])
            .ok();
    }
    build(&host, &["-t", "one", "one"]).ok();
    let again = build(&host, &["-t", "two", "two"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 3, "{again}");
    assert_eq!(image(&host, "one"), image(&host, "two"));
    // One file changed: what reads it runs again, what is below does not.
    host.write("two/src/a", "other\n");
    let changed = build(&host, &["-t", "two", "two"]);
    assert_eq!(changed.stderr.matches(" CACHED").count(), 1, "{changed}");
    assert_ne!(image(&host, "one"), image(&host, "two"));
    host.finish();
}

#[test]
fn stages_run_side_by_side() {
    let host = Host::start();
    // Each waits for what the other makes.
    let stage = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,target=/meet touch /meet/{own}; i=0; \
             while [ ! -e /meet/{other} ]; do [ $i -lt 600 ] || exit 1; sleep 0.1; i=$((i+1)); done; touch /{own}\n"
        )
    };
    let text = format!(
        "{}{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        stage("a", "b"),
        stage("b", "a")
    );
    host.write("c/Dockerfile", &text);
    build(&host, &["-t", "both", "c"]).ok();
    host.finish();
}

#[test]
fn two_builds_that_share_a_step_run_it_once() {
    let host = Host::start();
    host.write("c/Dockerfile", &format!("FROM busybox\n{WAITS}\n"));
    let mut builds: Vec<Child> = Vec::new();
    for name in ["one", "two"] {
        let mut child = host.begin(&format!("build --progress plain -t {name} c"));
        // The second hears from the start what the first one's step has said.
        read_until(&mut child, " begun");
        builds.push(child);
    }
    host.write("go/Dockerfile", "FROM busybox\nRUN --mount=type=cache,id=gate,target=/gate touch /gate/go; echo \"ran $(wc -l < /gate/count)\"\n");
    let count = build(&host, &["go"]);
    assert!(count.stderr.contains("ran 1"), "{count}");
    for mut child in builds {
        std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(image(&host, "one"), image(&host, "two"));
    host.finish();
}

#[test]
fn a_build_whose_client_leaves_is_given_up() {
    let host = Host::start();
    host.write("c/Dockerfile", &format!("FROM busybox\n{WAITS}\n"));
    let mut child = host.begin("build --progress plain -t never c");
    read_until(&mut child, " begun");
    child.kill().unwrap();
    child.wait().unwrap();
    until("the end of the step", || work(&host) == 0);
    host.muster(&["inspect", "never"]).fails(1, "never");
    // Nothing was recorded: the step runs again, and may now go on.
    host.write(
        "go/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=gate,target=/gate touch /gate/go\n",
    );
    build(&host, &["go"]).ok();
    let again = build(&host, &["c"]);
    assert!(again.stderr.contains(" begun"), "{again}");
    host.finish();
}

#[test]
fn a_daemon_killed_in_a_build_leaves_nothing() {
    let mut host = Host::start();
    host.write(
        "c/Dockerfile",
        &format!("FROM busybox\nRUN echo first > /first\n{WAITS}\n"),
    );
    let mut child = host.begin("build --progress plain -t never c");
    read_until(&mut child, " begun");
    host.kill_daemon();
    child.wait().unwrap();
    host.start_daemon(&[]);
    // What was complete is found, what was not runs again.
    host.write(
        "go/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=gate,target=/gate touch /gate/go\n",
    );
    build(&host, &["go"]).ok();
    assert_eq!(work(&host), 0);
    let again = build(&host, &["-t", "again", "c"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{again}");
    assert!(again.stderr.contains(" begun"), "{again}");
    host.muster(&["run", "--rm", "again", "cat", "/first"]).ok();
    host.finish();
}

#[test]
fn a_step_that_fails_is_shown_with_its_lines_and_its_output() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\nRUN echo one && \\\n    echo two >&2 && exit 9\nRUN true\n",
    );
    let failed = build(&host, &["c"]);
    assert_ne!(failed.code, 0);
    for text in [
        "process \"/bin/sh -c echo one &&     echo two >&2 && exit 9\" did not complete successfully: exit code: 9",
        ">>> RUN echo one && \\",
        ">>>     echo two >&2 && exit 9",
        "two",
    ] {
        assert!(failed.stderr.contains(text), "no {text:?} in {failed}");
    }
    host.write("c/Dockerfile", "FROM busybox\nCOPY nothing /\n");
    let failed = build(&host, &["c"]);
    assert!(
        failed.stderr.contains("\"/nothing\": not found"),
        "{failed}"
    );
    assert!(failed.stderr.contains(">>> COPY nothing /"), "{failed}");
    host.finish();
}

#[test]
fn the_ignore_file_hides_files_from_copies_and_mounts() {
    let host = Host::start();
    for (file, text) in [
        ("c/kept", "1"),
        ("c/dropped", "2"),
        ("c/dir/dropped", "3"),
        ("c/dir/kept", "4"),
        ("c/.dockerignore", "**/dropped\n"),
    ] {
        host.write(file, text);
    }
    host.write(
        "c/Dockerfile",
        "FROM busybox\nCOPY . /copied\nRUN --mount=target=/bound find /copied /bound -type f | sort > /list\n",
    );
    build(&host, &["-t", "x", "c"]).ok();
    let list = host.muster(&["run", "--rm", "x", "cat", "/list"]).ok();
    assert!(
        list.contains("/copied/dir/kept") && list.contains("/bound/dir/kept"),
        "{list}"
    );
    assert!(!list.contains("dropped"), "{list}");
    host.finish();
}

#[test]
fn results_go_where_they_are_sent() {
    let host = Host::start();
    host.write("c/Dockerfile", "FROM busybox AS b\nRUN mkdir /out && echo made > /out/file\nFROM scratch\nCOPY --from=b /out /\n");
    build(&host, &["-o", "files", "c"]).ok();
    assert_eq!(
        std::fs::read_to_string(host.path("files/file")).unwrap(),
        "made\n"
    );
    build(&host, &["-o", "type=tar,dest=files.tar", "c"]).ok();
    let archive = host.path("files.tar");
    assert_eq!(
        host.tool("tar", &["-tf", archive.to_str().unwrap()]).ok(),
        "file"
    );
    build(&host, &["-t", "sent", "c"]).ok();
    let id = image(&host, "sent");
    for kind in ["docker", "oci"] {
        let output = format!("type={kind},dest={kind}.tar");
        build(&host, &["-t", "loaded", "-o", &output, "c"]).ok();
        host.muster(&["load", "-i", &format!("{kind}.tar")]).ok();
        assert_eq!(image(&host, "loaded"), id, "{kind}");
        host.muster(&["rmi", "loaded"]).ok();
    }
    build(&host, &["-t", "nowhere", "-o", "type=cacheonly", "c"]).ok();
    host.muster(&["inspect", "nowhere"]).fails(1, "nowhere");
    host.finish();
}

#[test]
fn an_archive_of_several_platforms_is_read_by_others() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY file.$TARGETARCH /file\nLABEL for=$TARGETARCH\n",
    );
    for architecture in ["amd64", "arm64"] {
        host.write(&format!("c/file.{architecture}"), architecture);
    }
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let archive = ["-t", "both:1", "-o", "type=oci,dest=both.tar", "c"];
    build(&host, &[&both[..], &archive].concat()).ok();
    build(&host, &[&both[..], &["-o", "files", "c"]].concat()).ok();
    for architecture in ["amd64", "arm64"] {
        let file = host.path(&format!("files/linux_{architecture}/file"));
        assert_eq!(std::fs::read_to_string(file).unwrap(), architecture);
    }
    build(&host, &[&both[..], &["-t", "both:1", "c"]].concat()).fails(1, "type oci");
    // Our own store takes the one that fits.
    host.muster(&["load", "-i", "both.tar"]).ok();
    let format = "{{.Architecture}} {{.Config.Labels.for}}";
    let loaded = host.muster(&["inspect", "--format", format, "both:1"]).ok();
    assert!(
        ["amd64 amd64", "arm64 arm64"].contains(&&*loaded),
        "{loaded}"
    );
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skipped: skopeo is not installed");
        return host.finish();
    }
    let (from, to) = (host.path("both.tar"), host.path("copy"));
    let from = format!("oci-archive:{}", from.display());
    let raw = host.tool("skopeo", &["inspect", "--raw", &from]).ok();
    let index: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let platforms: Vec<String> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| {
            manifest["platform"]["architecture"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let to = format!("oci:{}:both", to.display());
    host.tool("skopeo", &["copy", "--quiet", "--all", &from, &to])
        .ok();
    for architecture in platforms {
        let choice = ["--override-os", "linux", "--override-arch", &architecture];
        let config = [
            "inspect",
            "--config",
            "--format",
            "{{.Config.Labels.for}}",
            &to,
        ];
        let label = host.tool("skopeo", &[&choice[..], &config].concat()).ok();
        assert_eq!(label, architecture);
    }
    host.finish();
}

#[test]
fn with_an_epoch_the_same_image_comes_out_twice() {
    let host = Host::start();
    host.write("c/file", "x");
    host.write(
        "c/Dockerfile",
        "FROM busybox\nCOPY file /\nRUN date > /dev/null; echo y > /y\nLABEL a=b\n",
    );
    let once = |name: &str| {
        let output = format!("type=image,name={name},rewrite-timestamp=true");
        build(
            &host,
            &[
                "--no-cache",
                "--build-arg",
                "SOURCE_DATE_EPOCH=1000000000",
                "-o",
                &output,
                "c",
            ],
        )
        .ok();
        image(&host, name)
    };
    assert_eq!(once("one"), once("two"));
    let created = host
        .muster(&["inspect", "--format", "{{.Created}}", "one"])
        .ok();
    assert_eq!(created, "2001-09-09T01:46:40Z");
    host.finish();
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\nRUN head -c 1000000 /dev/zero > /million\n",
    );
    build(&host, &["-t", "x", "c"]).ok();
    let listed = host.muster(&["builder", "du", "--verbose"]).ok();
    assert!(listed.contains("/million"), "{listed}");
    // What the image has, too, stays.
    host.muster(&["builder", "prune", "--force"]).ok();
    let again = build(&host, &["c"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{again}");
    // A cached result outlives its image.
    host.muster(&["rmi", "x"]).ok();
    let again = build(&host, &["-t", "x", "c"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{again}");
    host.muster(&["builder", "prune", "--force", "--all"]).ok();
    let records = std::fs::read_dir(host.path("data/build/records"))
        .unwrap()
        .count();
    assert_eq!(records, 0);
    // And an image outlives the cache.
    host.muster(&["run", "--rm", "x", "ls", "/million"]).ok();
    let again = build(&host, &["c"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 0, "{again}");
    host.finish();
}

#[test]
fn buildkits_own_protocol_is_refused_with_the_way_out() {
    use std::io::{Read as _, Write as _};
    let host = Host::start();
    for path in ["/grpc", "/session"] {
        let mut connection = host.connect();
        write!(
            connection,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut reply = String::new();
        connection.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 501 "), "{reply}");
        assert!(reply.contains("cli-plugins/docker-buildx"), "{reply}");
    }
    host.finish();
}
