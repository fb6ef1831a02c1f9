//! The stock docker command on a swarm's socket. Skipped, aloud, where it is not installed.

use std::process::Command;

use e2e::swarm::eventually;
use e2e::{Host, Output, Swarm};

use super::SOON;

struct Docker(Swarm);

impl Docker {
    /// One manager and one worker; `None` when there is no such command on this machine.
    fn start() -> Option<Self> {
        if Command::new("docker").arg("--version").output().is_err() {
            eprintln!("skipped: there is no docker command in PATH");
            return None;
        }
        Some(Self(Swarm::of(1, 1)))
    }

    fn host(&self) -> &Host {
        self.0.host(1)
    }

    /// Runs it against the manager; `line` has no quoted spaces.
    #[track_caller]
    fn run(&self, line: &str) -> Output {
        let mut command = Command::new("docker");
        command
            .args(line.split_whitespace())
            .env("DOCKER_HOST", self.host().socket())
            .env("HOME", self.host().path(""));
        self.host().run(command)
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// Must be refused with a text that has `words` in it.
    #[track_caller]
    fn refused(&self, line: &str, words: &str) {
        self.run(line).fails(1, words);
    }

    #[track_caller]
    fn eventually(&self, line: &str, expected: &str) {
        eventually(SOON, &format!("{line}: {expected}"), || {
            self.run(line).stdout.trim() == expected
        });
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.host().write(name, text);
        path.to_str().expect("test paths are UTF-8").to_owned()
    }
}

#[test]
fn services_from_creation_to_removal() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let file = docker.write("file", "content");
    docker.ok(&format!("secret create --label a=b key {file}"));
    docker.ok(&format!("config create page {file}"));
    docker.ok("network create --driver overlay --attachable back");
    // Not detached: the command watches the tasks and the update itself.
    docker.ok(
        "service create --quiet --no-resolve-image --name web --replicas 2 --init --network back \
         --publish 8080:80 --secret key --config source=page,target=/page --label tier=front \
         --update-monitor 100ms --rollback-monitor 100ms --restart-delay 100ms --stop-grace-period 2s \
         busybox sleep 1000",
    );
    docker.eventually(
        "service ls --filter label=tier --format {{.Name}}:{{.Replicas}}",
        "web:2/2",
    );
    assert!(
        docker
            .ok("service inspect --pretty web")
            .contains("PublishedPort = 8080")
    );
    docker.refused("secret rm key", "in use by the following service: web");
    docker.refused("config rm page", "in use by the following service: web");
    docker.refused("network rm back", "is in use by service");
    docker.refused(
        "service create --detach --name other --publish 8080:80 busybox",
        "port '8080' is already in use by service 'web'",
    );
    docker.refused(
        "service create --detach --name web busybox",
        "service web already exists",
    );

    docker.ok(
        "service update --quiet --no-resolve-image --update-order start-first --update-parallelism 2 \
         --env-add COLOUR=blue web",
    );
    let state = "service inspect --format {{.UpdateStatus.State}} web";
    docker.eventually(state, "completed");
    let env = "service inspect --format {{.Spec.TaskTemplate.ContainerSpec.Env}} web";
    assert_eq!(docker.ok(env), "[COLOUR=blue]");
    docker.ok("service rollback --quiet web");
    docker.eventually(state, "rollback_completed");
    assert_eq!(docker.ok(env), "[]");
    docker.ok("service scale web=3");
    docker.eventually("service ls --format {{.Replicas}}", "3/3");
    let running = "service ps --filter desired-state=running --format {{.CurrentState}} web";
    assert_eq!(docker.ok(running).matches("Running").count(), 3);

    let told = docker.ok("events --since 1h --until 0s --filter type=service --format {{.Action}}");
    assert!(told.starts_with("create\nupdate"), "{told}");
    docker.ok("service rm web");
    docker.ok("secret rm key");
    docker.ok("config rm page");
    docker.ok("network rm back");
    docker.refused("service inspect web", "no such service");
    eventually(SOON, "no container is left", || {
        docker.0.containers(1).is_empty() && docker.0.containers(2).is_empty()
    });
    docker.0.finish();
}

#[test]
fn a_stack_and_the_nodes_it_runs_on() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let nodes = docker.ok("node ls --format {{.Status}}/{{.Availability}}/{{.ManagerStatus}}");
    let mut nodes: Vec<_> = nodes.lines().collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["Ready/Active/", "Ready/Active/Leader"]);
    assert_eq!(
        docker.ok("info --format {{.Swarm.LocalNodeState}}/{{.Swarm.ControlAvailable}}/{{.Swarm.Nodes}}/{{.Swarm.Managers}}"),
        "active/true/2/1"
    );
    let compose = docker.write(
        "compose.yaml",
        "services:\n  app:\n    image: busybox\n    command: sleep 1000\n    init: true\n    networks: [net]\n    \
         stop_grace_period: 2s\n    deploy: {replicas: 4}\n  each:\n    image: busybox\n    command: sleep 1000\n    \
         init: true\n    stop_grace_period: 2s\n    deploy: {mode: global}\nnetworks:\n  net: {}\n",
    );
    let deploy = format!("stack deploy --detach=false --resolve-image never -c {compose} one");
    docker.ok(&deploy);
    let services = "stack services --format {{.Name}}:{{.Mode}}:{{.Replicas}} one";
    let both = "one_app:replicated:4/4\none_each:global:2/2";
    docker.eventually(services, both);

    let worker = docker.0.node_id(2);
    docker.ok(&format!("node update --availability drain {worker}"));
    docker.eventually(services, "one_app:replicated:4/4\none_each:global:1/1");
    eventually(SOON, "the worker is empty", || {
        docker.0.containers(2).is_empty()
    });
    docker.refused(
        &format!("node rm {worker}"),
        "is not down and can't be removed",
    );
    docker.ok(&format!(
        "node update --availability active --label-add zone=b {worker}"
    ));
    docker.eventually(services, "one_app:replicated:4/4\none_each:global:2/2");
    assert_eq!(
        docker.ok("node ls --quiet --filter node.label=zone=b"),
        worker
    );
    let manager = docker.0.node_id(1);
    docker.refused(
        &format!("node demote {manager}"),
        "attempting to demote the last manager of the swarm",
    );

    docker.ok("stack rm one");
    // Again at once, while the old tasks stop.
    docker.ok(&deploy);
    docker.eventually(services, both);
    docker.ok("stack rm one");
    eventually(SOON, "no container is left", || {
        docker.0.containers(1).is_empty() && docker.0.containers(2).is_empty()
    });
    docker.0.finish();
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let Some(docker) = Docker::start() else {
        return;
    };
    for (line, words) in [
        ("swarm update --autolock=true", "autolock is not supported"),
        ("swarm update --max-snapshots 3", "keeping old snapshots"),
        (
            "swarm update --cert-expiry 1m",
            "minimum certificate expiry time is: 1h0m0s",
        ),
        (
            "swarm ca --rotate",
            "rotation of the root CA is not supported",
        ),
        (
            "service create --detach --mode replicated-job busybox",
            "service mode replicated-job is not supported",
        ),
        (
            "service create --detach --generic-resource GPU=1 busybox",
            "generic resources is not supported",
        ),
        (
            "service create --detach --network host busybox",
            "services need a network of the swarm",
        ),
        (
            "service create --detach --constraint node.colour==red busybox",
            "node.colour",
        ),
        (
            "network create -d overlay --opt encrypted n",
            "option encrypted",
        ),
        (
            "secret create --driver vault s",
            "secret driver \"vault\" is not supported",
        ),
        ("swarm leave", "participating as a manager"),
    ] {
        docker.refused(line, words);
    }
    let worker = Command::new("docker")
        .args(["node", "ls"])
        .env("DOCKER_HOST", docker.0.host(2).socket())
        .output()
        .expect("docker runs");
    assert!(
        String::from_utf8_lossy(&worker.stderr)
            .contains("This node is not a swarm manager. Worker nodes can't be used"),
        "{worker:?}"
    );
    docker.0.finish();
}

#[test]
fn logs_come_from_every_node_and_say_where_from() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let script = docker.write("say", "echo out $1; echo err >&2; exec sleep 1000\n");
    docker.ok(&format!("config create say {script}"));
    docker.ok(
        "service create --quiet --no-resolve-image --name talk --mode global --init --stop-grace-period 2s \
         --config source=say,target=/say busybox sh /say {{.Node.Hostname}}",
    );
    // One word of output and one of error from each of the two.
    let said = |line: &str| {
        let output = docker.run(line);
        let (mut out, mut err): (Vec<_>, Vec<_>) = (
            output.stdout.lines().collect(),
            output.stderr.lines().collect(),
        );
        out.sort_unstable();
        err.sort_unstable();
        (out.join(","), err.join(","))
    };
    eventually(SOON, "all four lines are there", || {
        let (out, err) = said("service logs --raw talk");
        out.matches("out ").count() == 2 && err == "err,err"
    });
    for number in [1, 2] {
        let node = docker.0.node_id(number);
        let (out, _) = said("service logs --raw --details talk");
        let place = format!("com.docker.swarm.node.id={node}");
        assert_eq!(out.matches(&place).count(), 1, "{out}");
    }
    let task = docker.ok("service ps --quiet --filter desired-state=running talk");
    let task = task.lines().next().expect("there are two");
    let lines = |more: &str| {
        let (out, err) = said(&format!("service logs --raw {more} {task}"));
        out.lines().count() + err.lines().count()
    };
    assert_eq!((lines(""), lines("--tail 1")), (2, 1));
    docker.refused("service logs nothing", "no such task or service");
    docker.0.finish();
}
