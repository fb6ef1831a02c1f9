//! The stock docker command pointed at the socket. Skipped, aloud, where it is not installed.

use std::process::Command;

use e2e::{Host, Output};

struct Docker(Host);

impl Docker {
    /// A host with the command; `None` when there is no such command on this machine.
    fn start() -> Option<Self> {
        if Command::new("docker").arg("--version").output().is_err() {
            eprintln!("skipped: there is no docker command in PATH");
            return None;
        }
        Some(Self(Host::start()))
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", self.0.socket())
            .env("HOME", self.0.path(""));
        self.0.run(command)
    }
}

#[test]
fn containers() {
    let Some(docker) = Docker::start() else {
        return;
    };
    assert!(
        docker
            .run(&["version", "--format", "{{.Server.APIVersion}}"])
            .ok()
            .starts_with("1.")
    );
    assert!(
        docker
            .run(&["info", "--format", "{{.Driver}} {{.OSType}}"])
            .ok()
            .contains("linux")
    );
    assert_eq!(
        docker.run(&["run", "--rm", "busybox", "echo", "hi"]).ok(),
        "hi"
    );
    docker
        .run(&["run", "--rm", "busybox", "sh", "-c", "exit 3"])
        .fails(3, "");
    docker
        .run(&["run", "--rm", "busybox", "no-such-program"])
        .fails(127, "");
    assert_eq!(
        docker.run(&["run", "--rm", "-t", "busybox", "tty"]).ok(),
        "/dev/pts/0"
    );
    let id = docker
        .run(&[
            "run",
            "-d",
            "--name",
            "one",
            "busybox",
            "sh",
            "-c",
            "echo begin; read x; echo end",
        ])
        .ok();
    assert_eq!(
        docker.run(&["logs", "-f", "one"]).ok(),
        "begin\nend",
        "stdin is /dev/null"
    );
    assert_eq!(docker.run(&["wait", "one"]).ok(), "0");
    docker.run(&["start", "one"]).ok();
    docker.run(&["rm", "-f", "one"]).ok();
    docker
        .run(&["run", "-d", "--name", "two", "busybox", "sleep", "1000"])
        .ok();
    assert_eq!(
        docker.run(&["exec", "two", "echo", "inside"]).ok(),
        "inside"
    );
    assert!(
        docker
            .run(&["exec", "-t", "two", "tty"])
            .ok()
            .starts_with("/dev/pts/")
    );
    assert!(docker.run(&["ps"]).ok().contains("two"));
    assert_eq!(
        docker
            .run(&[
                "inspect",
                "--format",
                "{{.State.Status}} {{.Config.Image}}",
                "two"
            ])
            .ok(),
        "running busybox"
    );
    assert!(docker.run(&["top", "two"]).ok().contains("sleep"));
    docker.run(&["stop", "-t", "0", "two"]).ok();
    docker.run(&["rm", "two"]).ok();
    docker.run(&["inspect", &id]).fails(1, "");
    docker.0.finish();
}

#[test]
fn images_networks_and_volumes() {
    let Some(docker) = Docker::start() else {
        return;
    };
    assert!(docker.run(&["images"]).ok().contains("busybox"));
    let file = docker.0.path("saved.tar");
    let file = file.to_str().unwrap();
    docker.run(&["save", "-o", file, "busybox"]).ok();
    docker.run(&["rmi", "busybox"]).ok();
    assert!(
        docker
            .run(&["load", "-i", file])
            .ok()
            .contains("Loaded image: busybox:latest")
    );
    assert!(docker.run(&["history", "busybox"]).ok().lines().count() >= 2);
    docker.run(&["tag", "busybox", "other:1"]).ok();
    docker
        .run(&["import", e2e::busybox().to_str().unwrap(), "imported"])
        .ok();
    assert_eq!(
        docker.run(&["run", "--rm", "imported", "echo", "yes"]).ok(),
        "yes"
    );

    docker
        .run(&["network", "create", "--subnet", "10.77.0.0/24", "net"])
        .ok();
    assert!(docker.run(&["network", "ls"]).ok().contains("net"));
    assert_eq!(
        docker
            .run(&[
                "network",
                "inspect",
                "--format",
                "{{(index .IPAM.Config 0).Subnet}}",
                "net"
            ])
            .ok(),
        "10.77.0.0/24"
    );
    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "aa",
            "--network",
            "net",
            "--ip",
            "10.77.0.9",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    docker
        .run(&[
            "run",
            "--rm",
            "--network",
            "net",
            "busybox",
            "ping",
            "-c",
            "1",
            "-W",
            "2",
            "aa",
        ])
        .ok();
    docker.run(&["rm", "-f", "aa"]).ok();
    docker.run(&["network", "rm", "net"]).ok();

    docker.run(&["volume", "create", "vol"]).ok();
    assert!(docker.run(&["volume", "ls", "-q"]).ok().contains("vol"));
    assert_eq!(
        docker
            .run(&["volume", "inspect", "--format", "{{.Driver}}", "vol"])
            .ok(),
        "local"
    );
    docker.run(&["volume", "rm", "vol"]).ok();
    docker.0.finish();
}

impl Docker {
    /// Runs a shell line in which `docker` is the command, for input and pipes.
    #[track_caller]
    fn shell(&self, line: &str) -> Output {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .env("DOCKER_HOST", self.0.socket())
            .env("HOME", self.0.path(""))
            .env("BUSYBOX", e2e::busybox())
            .current_dir(self.0.path(""));
        self.0.run(command)
    }

    /// The first events that pass the filters, past ones and coming ones; returns when they are there.
    #[track_caller]
    fn first_events(&self, count: usize, filters: &[&str]) -> String {
        let filters: String = filters
            .iter()
            .map(|filter| format!(" --filter '{filter}'"))
            .collect();
        // The command itself has no end, and would learn of head's only with a further event.
        let line = format!(
            "{{ docker events --since 1h --format '{{{{.Action}}}}' {filters} & echo $! >pid; wait; }} \
             | {{ head -{count}; kill $(cat pid); }}"
        );
        self.shell(&line).ok()
    }

    /// What an object's field is.
    #[track_caller]
    fn look(&self, format: &str, name: &str) -> String {
        self.run(&["inspect", "--format", format, name]).ok()
    }
}

#[test]
fn logs_are_followed_and_cut() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let script = "echo one; echo two >&2; read x; echo three";
    docker
        .run(&[
            "run", "-d", "-i", "--name", "web", "busybox", "sh", "-c", script,
        ])
        .ok();
    // Follows while the container waits for its input; ends with the container.
    let all = docker.shell(
        "docker logs -f web >out 2>err & \
         docker logs -f web 2>/dev/null | (read first; echo x | docker attach web >/dev/null; cat) && wait && cat out err",
    );
    assert_eq!(all.ok(), "three\none\nthree\ntwo");
    assert_eq!(docker.run(&["logs", "--tail", "1", "web"]).ok(), "three");
    assert_eq!(docker.run(&["logs", "-n", "0", "web"]).ok(), "");
    let stamped = docker
        .run(&["logs", "--timestamps", "--tail", "1", "web"])
        .ok();
    let (time, line) = stamped.split_once(' ').expect("a time and a line");
    assert_eq!(
        (line, time.len()),
        ("three", "2006-01-02T15:04:05.000000000Z".len())
    );
    assert_eq!(docker.run(&["logs", "--since", time, "web"]).ok(), "three");
    let before = docker.run(&["logs", "--until", "2001-01-01T00:00:00Z", "web"]);
    assert_eq!(before.ok(), "");
    docker
        .run(&["logs", "none"])
        .fails(1, "No such container: none");
    docker.0.finish();
}

#[test]
fn states_of_a_container() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let script = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
    docker
        .run(&[
            "run", "-d", "--name", "one", "--label", "k=v", "busybox", "sh", "-c", script,
        ])
        .ok();
    docker.run(&["pause", "one"]).ok();
    assert_eq!(
        docker
            .run(&["ps", "-q", "--filter", "status=paused"])
            .ok()
            .len(),
        12
    );
    docker.run(&["exec", "one", "true"]).fails(1, "is paused");
    docker.run(&["unpause", "one"]).ok();
    docker.run(&["rename", "one", "two"]).ok();
    docker
        .run(&[
            "update",
            "--memory",
            "64m",
            "--memory-swap",
            "64m",
            "--restart",
            "no",
            "two",
        ])
        .ok();
    assert_eq!(
        docker.look("{{.Name}} {{.HostConfig.Memory}}", "two"),
        "/two 67108864"
    );
    let usage = docker
        .run(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.MemUsage}}",
            "two",
        ])
        .ok();
    assert!(
        usage.starts_with("two ") && usage.ends_with(" / 64MiB"),
        "{usage}"
    );
    docker.run(&["rm", "two"]).fails(1, "container is running");
    // What wait prints is the code of the exit that it waited for.
    let waited = docker.shell("docker wait two & docker stop two >/dev/null; wait");
    assert_eq!(waited.ok(), "5");
    docker.run(&["kill", "two"]).fails(1, "is not running");
    docker.run(&["restart", "-t", "1", "two"]).ok();
    docker.run(&["kill", "-s", "TERM", "two"]).ok();
    assert_eq!(docker.run(&["wait", "two"]).ok(), "5");
    assert_eq!(
        docker
            .run(&[
                "ps",
                "-a",
                "--filter",
                "exited=5",
                "--filter",
                "label=k=v",
                "--format",
                "{{.Names}}"
            ])
            .ok(),
        "two"
    );
    docker
        .run(&["ps", "--filter", "status=bogus"])
        .fails(1, "invalid filter 'status=bogus'");
    assert!(
        docker
            .run(&["container", "prune", "-f"])
            .ok()
            .contains("Deleted Containers")
    );
    assert_eq!(docker.run(&["ps", "-aq"]).ok(), "");
    docker.0.finish();
}

#[test]
fn restart_policies_and_health() {
    let Some(docker) = Docker::start() else {
        return;
    };
    docker
        .run(&[
            "run",
            "--name",
            "again",
            "--restart",
            "on-failure:2",
            "busybox",
            "false",
        ])
        .fails(1, "");
    let exits = docker.first_events(3, &["container=again", "event=die"]);
    assert_eq!(exits, "die\ndie\ndie");
    assert_eq!(
        docker.look(
            "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}",
            "again"
        ),
        "2 exited 1"
    );

    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "sick",
            "--health-cmd",
            "test -e /well",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let turns = |status: &str| {
        let status = format!("health_status: {status}");
        let event = format!("event={status}");
        assert_eq!(docker.first_events(1, &["container=sick", &event]), status);
    };
    turns("unhealthy");
    assert_eq!(docker.look("{{.State.Health.Status}}", "sick"), "unhealthy");
    assert!(
        docker
            .run(&["ps", "--filter", "health=unhealthy"])
            .ok()
            .contains("(unhealthy)")
    );
    docker.run(&["exec", "sick", "touch", "/well"]).ok();
    turns("healthy");
    assert_eq!(docker.look("{{.State.Health.Status}}", "sick"), "healthy");
    docker.0.finish();
}

#[test]
fn networks_are_joined_and_left_while_a_container_runs() {
    let Some(docker) = Docker::start() else {
        return;
    };
    docker
        .run(&["network", "create", "--label", "a=b", "front"])
        .ok();
    docker
        .run(&["network", "create", "--subnet", "10.78.0.0/24", "back"])
        .ok();
    docker
        .run(&[
            "run",
            "-d",
            "--name",
            "one",
            "--network",
            "front",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    docker
        .run(&[
            "network",
            "connect",
            "--ip",
            "10.78.0.9",
            "--alias",
            "db",
            "back",
            "one",
        ])
        .ok();
    assert_eq!(
        docker
            .run(&[
                "run",
                "--rm",
                "--network",
                "back",
                "busybox",
                "ping",
                "-c1",
                "-W2",
                "-q",
                "db"
            ])
            .ok()
            .lines()
            .next(),
        Some("PING db (10.78.0.9): 56 data bytes")
    );
    docker
        .run(&["network", "rm", "back"])
        .fails(1, "has active endpoints");
    docker.run(&["network", "disconnect", "back", "one"]).ok();
    assert_eq!(
        docker.look(
            "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
            "one"
        ),
        "front"
    );
    assert!(
        docker
            .run(&["network", "prune", "-f"])
            .ok()
            .contains("back")
    );
    assert_eq!(
        docker
            .run(&["network", "ls", "-q", "-f", "label=a=b"])
            .ok()
            .len(),
        12
    );
    docker.0.finish();
}

#[test]
fn images_come_and_go_through_pipes() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let made = docker
        .shell("docker import -c 'CMD [\"echo\", \"default\"]' -m note - piped:1 <\"$BUSYBOX\"");
    assert!(made.ok().starts_with("sha256:"));
    assert_eq!(docker.run(&["run", "--rm", "piped:1"]).ok(), "default");
    let loaded = docker.shell(
        "docker save piped:1 >saved.tar; docker rmi piped:1 >/dev/null; docker load <saved.tar",
    );
    assert_eq!(loaded.ok(), "Loaded image: piped:1");
    docker
        .shell("echo rubbish | docker load")
        .fails(1, "invalid archive");
    docker
        .shell("docker import -c 'BOGUS x' - other <\"$BUSYBOX\"")
        .fails(1, "is not a valid change command");
    docker
        .run(&["run", "-d", "--name", "user", "piped:1", "sleep", "1000"])
        .ok();
    docker
        .run(&["rmi", "piped:1"])
        .fails(1, "conflict: unable to");
    let usage = [
        "system",
        "df",
        "--format",
        "{{.Type}} {{.TotalCount}} {{.Active}}",
    ];
    assert!(
        docker
            .run(&usage)
            .ok()
            .starts_with("Images 2 1\nContainers 1 1\n")
    );
    docker.run(&["rm", "-f", "user"]).ok();
    docker.run(&["rmi", "piped:1"]).ok();
    docker
        .run(&["run", "--pull", "never", "piped:1"])
        .fails(125, "No such image: piped:1");
    docker.0.finish();
}

/// What is not there yet says so, and an upload for it is not broken off.
#[test]
fn what_is_missing_is_refused_by_name() {
    let Some(docker) = Docker::start() else {
        return;
    };
    // A refusal of a build comes while the client still sends its context.
    docker
        .shell("mkdir -p context && head -c 20000000 /dev/zero >context/big && echo 'FROM busybox' >context/Dockerfile \
                && DOCKER_BUILDKIT=0 docker build --isolation hyperv context")
        .fails(1, "unsupported isolation");
    docker
        .run(&["run", "--rm", "--gpus", "all", "busybox", "true"])
        .fails(125, "--gpus");
    docker.run(&["node", "ls"]).fails(1, "not a swarm manager");
    docker.0.finish();
}

/// Docker Compose sees our projects and we see its own; either takes the other's down. Skipped, aloud, without it.
#[test]
fn projects_are_shared_with_docker_compose() {
    let found = Command::new("docker").args(["compose", "version"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no docker compose in PATH");
        return;
    }
    let host = Host::start();
    let service =
        "services:\n  web:\n    image: busybox\n    command: [sleep, \"1000\"]\n    init: true\n";
    host.write("project/compose.yaml", service);
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command
            .arg("compose")
            .args(arguments)
            .env("DOCKER_HOST", host.socket())
            .current_dir(host.path("project"));
        host.run(command)
    };
    let muster =
        |arguments: &[&str]| host.muster_in("project", &[&["compose"], arguments].concat());

    docker(&["up", "-d"]).ok();
    let id = host.muster(&["ps", "-q"]).ok();
    docker(&["up", "-d"]).ok();
    assert_eq!(host.muster(&["ps", "-q"]).ok(), id, "nothing was changed");
    assert_eq!(
        docker(&["exec", "-T", "web", "echo", "inside"]).ok(),
        "inside"
    );
    assert_eq!(muster(&["ls", "-q"]).ok(), "project");
    assert_eq!(muster(&["ps", "--services"]).ok(), "web");
    muster(&["down"]).ok();
    assert_eq!(docker(&["ls", "-aq"]).ok(), "");

    muster(&["up", "-d"]).ok();
    assert_eq!(docker(&["ls", "-q"]).ok(), "project");
    assert_eq!(docker(&["ps", "--services"]).ok(), "web");
    docker(&["down"]).ok();
    assert_eq!(muster(&["ls", "-aq"]).ok(), "");
    host.finish();
}
