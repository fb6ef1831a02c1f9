//! Builds that are given up in each of their phases, by Ctrl-C and by the API: soon nothing of them is left.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use e2e::swarm::eventually;
use e2e::{Host, read_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::compat::ask;

/// Longest time until something that was given up is gone.
const SOON: Duration = Duration::from_secs(20);

/// Presses Ctrl-C; gives the rest of what is said.
fn interrupt(client: Child) -> String {
    let (ended, said) = press(client);
    assert!(!ended.success(), "{ended}: {said}");
    said
}

/// Presses Ctrl-C; gives how it ended, and the rest of what is said.
fn press(mut client: Child) -> (ExitStatus, String) {
    let pid = Pid::from_raw(i32::try_from(client.id()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let mut said = String::new();
    let output = client.stdout.as_mut().unwrap();
    output.read_to_string(&mut said).unwrap();
    (client.wait().unwrap(), said)
}

fn entries(host: &Host, directory: &str) -> usize {
    std::fs::read_dir(host.path(directory)).map_or(0, Iterator::count)
}

/// What builds have while they run: directories, mounts, control groups.
fn held(host: &Host) -> Vec<String> {
    let own = host.path("").display().to_string();
    let mounts = host.on_host(|| std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap());
    let mounts = mounts.lines().filter(|line| line.contains(&own));
    let mut held: Vec<String> = mounts.map(str::to_owned).collect();
    for directory in ["data/build/work", "run/build"] {
        if entries(host, directory) > 0 {
            held.push(format!("{} in {directory}", entries(host, directory)));
        }
    }
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = hierarchies
        .filter_map(|hierarchy| std::fs::read_dir(hierarchy.path().join(host.name())).ok())
        .flatten()
        .flatten();
    let steps = groups.filter(|group| group.file_name().to_string_lossy().starts_with("build-"));
    held.extend(steps.map(|step| step.path().display().to_string()));
    held
}

/// Bytes of memory that the running step may have.
fn limit(host: &Host) -> Option<String> {
    let groups = held(host).into_iter();
    let files = groups
        .filter(|held| held.starts_with("/sys/"))
        .flat_map(|group| {
            ["memory.max", "memory.limit_in_bytes"].map(|file| format!("{group}/{file}"))
        });
    let read = files.filter_map(|file| std::fs::read_to_string(file).ok());
    read.map(|text| text.trim().to_owned()).next()
}

#[track_caller]
fn soon_nothing(host: &Host, phase: &str) {
    eventually(SOON, &format!("{phase}: nothing held"), || {
        held(host).is_empty()
    });
    host.muster(&["inspect", "never"]).fails(1, "never");
}

/// An image that takes a while to export, cached.
fn heavy(host: &Host) {
    host.write(
        "heavy/Dockerfile",
        "FROM busybox\nRUN head -c 150000000 /dev/urandom > /noise\n",
    );
    let cached = ["build", "-q", "-o", "type=cacheonly", "heavy"];
    host.muster(&cached).ok();
}

#[test]
fn ctrl_c_ends_a_build_in_every_phase() {
    let host = Host::start();
    // While the context comes: a tar that does not end.
    let mut client = host.begin("build --progress plain -t never -");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_path("big").unwrap();
    header.set_cksum();
    tar.get_mut().extend(header.as_bytes());
    tar.get_mut().extend(vec![7; 3 << 20]);
    let mut input = client.stdin.take().unwrap();
    input.write_all(tar.get_ref()).unwrap();
    eventually(SOON, "the context comes", || {
        entries(&host, "data/build/work") > 0
    });
    interrupt(client);
    soon_nothing(&host, "upload");
    drop(input);

    // While an image is pulled: from a registry that does not answer.
    let registry = host.on_host(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = registry.local_addr().unwrap();
    let text = format!("FROM {address}/far\nRUN true\n");
    host.write("far/Dockerfile", &text);
    let client = host.begin("build --progress plain -t never far");
    let connection = registry.accept().unwrap();
    interrupt(client);
    soon_nothing(&host, "pull");
    drop((connection, registry));

    // While a step runs: in the foreground and beside it, with files of all kinds mounted.
    host.write(
        "step/Dockerfile",
        "FROM busybox AS kit\nRUN mkdir /kit\nFROM busybox\nRUN --mount=from=kit,source=/kit,target=/kit,rw \
         --mount=type=cache,target=/c --mount=type=tmpfs,target=/t echo began; sleep 1000 & sleep 1000\n",
    );
    let mut client = host.begin("build --progress plain -t never step");
    read_until(&mut client, " began");
    assert!(!held(&host).is_empty());
    let said = interrupt(client);
    assert!(said.contains("context canceled"), "{said}");
    soon_nothing(&host, "step");

    // While files are copied: more than could be read within the test.
    host.write("copy/Dockerfile", "FROM busybox\nCOPY big /\n");
    let big = std::fs::File::create(host.path("copy/big")).unwrap();
    big.set_len(60 << 30).unwrap();
    let mut client = host.begin("build --progress plain -t never copy");
    read_until(&mut client, "load build context");
    interrupt(client);
    soon_nothing(&host, "copy");
    host.finish();
}

#[test]
fn ctrl_c_ends_an_export() {
    let host = Host::start();
    heavy(&host);
    let snapshots = entries(&host, "data/build/snapshots");
    let mut interrupted = 0;
    for (output, moment) in [
        ("type=image", "exporting layers"),
        ("type=oci,dest=archive", "sending tarball"),
        ("type=docker,dest=archive", "sending tarball"),
        ("files", "exporting to client directory"),
    ] {
        let mut client = host.begin(&format!(
            "build --progress plain -t never -o {output} heavy"
        ));
        read_until(&mut client, moment);
        let (ended, said) = press(client);
        // Everything may have been there when the key was pressed; then it is whole.
        let archive = host.path("archive");
        let is_done = match output {
            "type=image" => host.muster(&["rmi", "never"]).code == 0,
            "files" => ended.success(),
            _ => archive.exists(),
        };
        if archive.exists() {
            host.tool("tar", &["-tf", archive.to_str().unwrap()]).ok();
            std::fs::remove_file(&archive).unwrap();
        }
        if is_done {
            continue;
        }
        assert!(!ended.success(), "{said}");
        interrupted += 1;
        soon_nothing(&host, output);
    }
    assert!(interrupted > 0, "not one was slower than the key");
    let left: Vec<_> = std::fs::read_dir(host.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("archive"))
        .collect();
    assert_eq!(left, [""; 0], "parts of archives");
    // It is still cached, and comes out whole.
    assert!(entries(&host, "data/build/snapshots") <= snapshots);
    let again = host.muster(&["build", "--progress", "plain", "-t", "whole", "heavy"]);
    assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{again}");
    let size = host.muster(&["run", "--rm", "whole", "stat", "-c", "%s", "/noise"]);
    assert_eq!(size.ok(), "150000000");
    host.finish();
}

#[test]
fn a_build_is_cancelled_by_its_name() {
    let host = Host::start();
    let text = "FROM busybox\nRUN echo began; sleep 1000\n";
    host.write("c/Dockerfile", text);
    let archive = host.path("c.tar");
    let directory = host.path("c");
    let (archive, directory) = (archive.to_str().unwrap(), directory.to_str().unwrap());
    host.tool("tar", &["-cf", archive, "-C", directory, "."])
        .ok();
    let mut command = Command::new("curl");
    let socket = host.path("sock");
    command
        .args(["-sSN", "--unix-socket", socket.to_str().unwrap()])
        .args(["--data-binary", &format!("@{archive}")])
        .args(["-H", "Content-Type: application/x-tar"])
        .arg("http://d/v1.50/build?t=never&buildid=this-one&memory=50331648")
        .stdout(Stdio::piped());
    let mut client = host.spawn(command);
    read_until(&mut client, "\"stream\":\"began");
    assert_eq!(limit(&host).as_deref(), Some("50331648"));
    // Another's name is no error, and changes nothing; none is one.
    let cancel = |id: &str| {
        let path = format!("/v1.50/build/cancel{id}");
        ask(&host, "POST", &path, None).status
    };
    assert_eq!(cancel(""), 400);
    assert_eq!(cancel("?id=another"), 200);
    assert!(!held(&host).is_empty());
    assert_eq!(cancel("?id=this-one"), 200);
    let mut said = String::new();
    let output = client.stdout.as_mut().unwrap();
    output.read_to_string(&mut said).unwrap();
    client.wait().unwrap();
    assert!(
        said.contains("\"errorDetail\"") && said.contains("context canceled"),
        "{said}"
    );
    soon_nothing(&host, "cancelled by its name");
    assert_eq!(cancel("?id=this-one"), 200);
    host.finish();
}
