//! What the commands of a build are given through the real daemon: files, secrets, agents, networks; and what is left.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Host, Output};

#[track_caller]
fn build(host: &Host, arguments: &[&str]) -> Output {
    let all = [&["build", "--progress", "plain"], arguments].concat();
    host.muster(&all)
}

/// What a build that goes well says: its progress is on standard error.
#[track_caller]
fn built(host: &Host, arguments: &[&str]) -> String {
    let output = build(host, arguments);
    assert_eq!(output.code, 0, "{output}");
    output.stderr
}

/// Asks until there is an answer, at most 30 s.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{what} did not happen in 30 s"
        );
        std::thread::yield_now();
    }
}

/// The root of the process of the step that runs, as it sees it.
pub(crate) fn process_root(host: &Host) -> Option<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").ok()?.flatten();
    let steps = hierarchies
        .filter_map(|hierarchy| std::fs::read_dir(hierarchy.path().join(host.name())).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("build-"));
    let members = steps.filter_map(|step| {
        let members = std::fs::read_to_string(step.path().join("cgroup.procs")).ok()?;
        Some(members.lines().next()?.to_owned())
    });
    let first = members.into_iter().next()?;
    Some(PathBuf::from(format!("/proc/{first}/root")))
}

/// Files below a directory in which a text occurs.
fn with_text(directory: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_file() => {
                    let content = std::fs::read(&path).unwrap_or_default();
                    if content
                        .windows(text.len())
                        .any(|window| window == text.as_bytes())
                    {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_secret_reaches_the_step_and_nothing_else() {
    const SECRET: &str = "open-sesame-41f7";
    let host = Host::start();
    // Outside of what the daemon owns.
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    host.write(
        "c/Dockerfile",
        "FROM busybox\n\
         RUN --mount=type=secret,id=token,required [ \"$(cat /run/secrets/token)\" = open-sesame\"-\"41f7 ]\n\
         RUN --mount=type=secret,id=token,env=TOKEN,target=/t,mode=0440,uid=7 \
             [ \"$TOKEN\" = \"$(cat /t)\" ] && stat -c 'stat %u %a' /t && [ ! -e /run/secrets ]\n\
         RUN --mount=type=secret,id=absent,target=/none [ ! -e /none ] && env | grep -c TOKEN || true\n",
    );
    let offer = format!("id=token,src={}", file.display());
    let said = built(&host, &["--secret", &offer, "-t", "quiet", "c"]);
    assert!(said.contains("stat 7 440"), "{said}");
    assert!(!said.contains(SECRET), "the progress tells it: {said}");
    let shown = host.muster(&["inspect", "quiet"]).ok();
    let history = host.muster(&["history", "--no-trunc", "quiet"]).ok();
    assert!(!shown.contains(SECRET) && !history.contains(SECRET));
    assert_eq!(with_text(&host.path("data"), SECRET), [] as [PathBuf; 0]);
    assert_eq!(with_text(&host.path("run"), SECRET), [] as [PathBuf; 0]);
    assert!(!host.daemon_log().contains(SECRET));
    // Mount points are no part of the image.
    let listed = host.muster(&["run", "--rm", "quiet", "ls", "-d", "/run/secrets", "/t"]);
    assert!(listed.stdout.is_empty(), "{listed}");
    let without = build(&host, &["--no-cache", "c"]);
    assert!(
        without.stderr.contains("secret token: not found"),
        "{without}"
    );
    host.finish();
}

/// An agent that knows two requests: for identities, of which it has none, and to sign, which it answers with as many bytes.
fn serve_agent(listener: UnixListener) {
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut length = [0; 4];
                while client.read_exact(&mut length).is_ok() {
                    let mut request = vec![0; u32::from_be_bytes(length) as usize];
                    client.read_exact(&mut request).unwrap();
                    match request[0] {
                        11 => client.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap(),
                        13 => {
                            request[0] = 14;
                            client.write_all(&length).unwrap();
                            client.write_all(&request).unwrap();
                        }
                        other => panic!("the agent is asked for {other}"),
                    }
                }
            });
        }
    });
}

/// Asks the agent whose socket a step has.
fn ask_agent(socket: &Path) {
    let mut agent = UnixStream::connect(socket).unwrap();
    agent.write_all(&[0, 0, 0, 1, 11]).unwrap();
    let mut answer = [0; 9];
    agent.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0, 0, 0, 5, 12, 0, 0, 0, 0]);
    // More than any buffer on the way holds.
    let mut long = vec![7; 200_000];
    long[0] = 13;
    let length = u32::try_from(long.len()).unwrap().to_be_bytes();
    let mut writing = agent.try_clone().unwrap();
    let sent = long.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&length).unwrap();
        writing.write_all(&sent).unwrap();
    });
    let mut answer = vec![0; 4 + long.len()];
    agent.read_exact(&mut answer).unwrap();
    writer.join().unwrap();
    assert_eq!(answer[4], 14);
    assert!(answer[5..] == long[1..], "the answer is another one");
}

#[test]
fn an_agent_answers_in_the_sandbox() {
    let host = Host::start();
    let socket = host.path("agent");
    serve_agent(UnixListener::bind(&socket).unwrap());
    host.write(
        "c/Dockerfile",
        "FROM busybox\n\
         RUN --mount=type=ssh echo socket $SSH_AUTH_SOCK; i=0; \
             while [ ! -e /tmp/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done; rm /tmp/go\n",
    );
    let named = format!("default={}", socket.display());
    // By its path, and as the one of the session.
    for (offer, session) in [(named.as_str(), None), ("default", Some(&socket))] {
        let arguments = ["build", "--no-cache", "--progress", "plain", "--ssh", offer];
        let mut command = host.muster_command(&arguments);
        command.arg("c").env_remove("SSH_AUTH_SOCK").envs(
            session
                .into_iter()
                .map(|socket| ("SSH_AUTH_SOCK", socket.as_os_str())),
        );
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let building = host.spawn(command);
        let inside = until("the agent's socket", || {
            let root = process_root(&host)?;
            let socket = root.join("run/buildkit/ssh_agent.0");
            socket.exists().then_some((root, socket))
        });
        for _ in 0..3 {
            ask_agent(&inside.1);
        }
        // No container: nothing of it is listed.
        assert_eq!(host.muster(&["ps", "--all", "--quiet"]).ok(), "");
        std::fs::write(inside.0.join("tmp/go"), "").unwrap();
        let output = building.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("socket /run/buildkit/ssh_agent.0"), "{said}");
    }
    let mut without = host.muster_command(&["build", "--ssh", "default", "c"]);
    without.env_remove("SSH_AUTH_SOCK");
    host.run(without).fails(1, "SSH_AUTH_SOCK");
    // An agent that nobody offers is no hindrance, unless it is required.
    for (required, code) in [("", 0), (",required", 1)] {
        host.write(
            "d/Dockerfile",
            &format!("FROM busybox\nRUN --mount=type=ssh{required} [ ! -e $SSH_AUTH_SOCK ]\n"),
        );
        let without = build(&host, &["d"]);
        assert_eq!(without.code, code, "{without}");
    }
    host.finish();
}

#[test]
fn mounts_are_there_for_one_step() {
    let host = Host::start();
    host.write("c/src/main.c", "int main;\n");
    host.write(
        "c/Dockerfile",
        "FROM busybox AS tools\nRUN mkdir /kit && echo sharp > /kit/saw\n\
         FROM busybox\n\
         RUN --mount=target=/src,source=src cat /src/main.c; ! touch /src/x\n\
         RUN --mount=from=tools,source=/kit,target=/kit,rw cat /kit/saw && echo dull > /kit/saw\n\
         RUN --mount=from=tools,source=/kit/saw,target=/saw cat /saw && [ \"$(cat /saw)\" = sharp ]\n\
         RUN --mount=type=tmpfs,target=/var/scratch,size=1m df -k /var/scratch | tail -n 1 && touch /var/scratch/x\n\
         RUN --mount=type=cache,target=/var/cache/x,id=x,mode=0700,uid=3 stat -c 'cache %u %a' /var/cache/x && echo kept > /var/cache/x/y\n\
         RUN --mount=type=cache,target=/elsewhere,id=x,mode=0700,uid=3,readonly cat /elsewhere/y && ! touch /elsewhere/z\n\
         RUN <<EOF\n#!/bin/sh\necho from a script $0\nEOF\n",
    );
    let said = built(&host, &["-t", "mounted", "c"]);
    for line in [
        "int main;",
        "sharp",
        "cache 3 700",
        "kept",
        "from a script /dev/pipes/EOF",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let left = host.muster(&[
        "run",
        "--rm",
        "mounted",
        "find",
        "/src",
        "/kit",
        "/saw",
        "/var/scratch",
        "/var/cache",
        "/elsewhere",
    ]);
    assert!(left.stdout.trim().is_empty(), "{left}");
    host.finish();
}

#[test]
fn steps_are_on_the_network_of_their_choice() {
    let host = Host::start();
    host.write(
        "c/Dockerfile",
        "FROM busybox\n\
         RUN echo bridge $(ip -o link | wc -l) $(ip route | grep -c default) $(hostname)\n\
         RUN --network=none echo none $(ip -o link | wc -l)\n\
         RUN --network=host echo host $(readlink /proc/self/ns/net)\n\
         RUN grep -c 10.9.8.7 /etc/hosts\n",
    );
    let arguments = [
        "--allow",
        "network.host",
        "--add-host",
        "db:10.9.8.7",
        "-t",
        "net",
        "c",
    ];
    let said = built(&host, &arguments);
    let own = host.on_host(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let host_line = format!("host {}", own.display());
    for line in ["bridge 2 1 buildkitsandbox", "none 1", &host_line] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // The file is not part of the image.
    let hosts = host
        .muster(&["run", "--rm", "net", "cat", "/etc/hosts"])
        .ok();
    assert!(!hosts.contains("10.9.8.7"), "{hosts}");
    let denied = build(&host, &["--no-cache", "c"]);
    assert!(denied.stderr.contains("network.host"), "{denied}");
    host.finish();
}

#[test]
fn a_daemon_killed_while_a_step_runs_leaves_no_process_and_no_mount() {
    let mut host = Host::start();
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("secret");
    std::fs::write(&file, "x").unwrap();
    host.write(
        "c/Dockerfile",
        "FROM busybox AS kit\nRUN mkdir /kit\nFROM busybox\n\
         RUN --mount=type=secret,id=s --mount=from=kit,source=/kit,target=/kit,rw --mount=type=cache,target=/c \
             sleep 1000 & sleep 1000\n",
    );
    let offer = format!("id=s,src={}", file.display());
    let mut command = host.muster_command(&["build", "--secret", &offer, "c"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut building = host.spawn(command);
    let root = until("the step's mounts", || {
        process_root(&host).filter(|root| root.join("run/secrets/s").exists())
    });
    host.kill_daemon();
    assert!(!building.wait().unwrap().success());
    host.start_daemon(&[]);
    until("the end of the step", || {
        (!root.join("run").exists()).then_some(())
    });
    // The next build finds nothing in its way.
    host.write(
        "d/Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked ls /c\n",
    );
    build(&host, &["d"]).ok();
    let left = std::fs::read_dir(host.path("run/build")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "places of steps");
    host.finish();
}

/// A server that ends with the test, however that ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_repository_is_built_and_added() {
    let exec_path = Command::new("git").arg("--exec-path").output();
    let daemon = exec_path.ok().and_then(|output| {
        let path = String::from_utf8(output.stdout).ok()?;
        Some(Path::new(path.trim()).join("git-daemon")).filter(|path| path.exists())
    });
    let Some(daemon) = daemon else {
        eprintln!("SKIPPED: git is not installed, or has no daemon");
        return;
    };
    let host = Host::start();
    let git = |arguments: &[&str]| {
        let fixed = ["-c", "user.email=a@b", "-c", "user.name=n", "-C"];
        let repository = host.path("repositories/app");
        let all = [&fixed[..], &[repository.to_str().unwrap()], arguments].concat();
        host.tool("git", &all).ok()
    };
    host.write(
        "repositories/app/sub/Dockerfile",
        "FROM busybox\nCOPY file /\nRUN cat /file\n",
    );
    host.write("repositories/app/sub/file", "from the repository\n");
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let mut serve = Command::new(daemon);
    serve
        .args([
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
            "--port=9418",
        ])
        .arg(format!(
            "--base-path={}",
            host.path("repositories").display()
        ))
        .stderr(Stdio::null());
    // On this host's own loopback, so that the port is free.
    let server = Served(host.spawn(serve));
    until("the git daemon", || {
        host.on_host(|| std::net::TcpStream::connect("127.0.0.1:9418").ok())
    });
    let address = "git://127.0.0.1/app/.git";
    let said = built(&host, &[&format!("{address}#main:sub")]);
    assert!(said.contains("from the repository"), "{said}");
    host.write(
        "c/Dockerfile",
        &format!("FROM busybox\nADD --keep-git-dir=true {address}#{commit} /app\nRUN cat /app/.git/HEAD /app/sub/file\n"),
    );
    let said = built(&host, &["c"]);
    assert!(said.contains(&commit), "{said}");
    drop(server);
    // What was fetched is there without the server.
    let said = built(&host, &["c"]);
    assert!(said.contains("CACHED"), "{said}");
    host.finish();
}
