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
