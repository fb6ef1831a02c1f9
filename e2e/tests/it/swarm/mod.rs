//! Several hosts as one swarm: forming it, losing parts of it, changing services under load.

mod docker_cli;
mod faults;
mod images;
mod membership;
mod networks;
mod rollout;
mod stack;

use std::net::SocketAddr;
use std::time::Duration;

use e2e::Swarm;
use e2e::swarm::{address, address6, eventually};

/// What every wait for a change of the swarm is bounded by; a loaded machine is slow.
const SOON: Duration = Duration::from_secs(60);

/// Creates the config `page` and the service `web`: httpd with that page, on port 8080 of every node. Its log tells who
/// asked.
fn create_web(swarm: &Swarm, replicas: usize, more: &[&str]) {
    let host = swarm.host(1);
    let page = host.write("page", "here\n");
    let page = page.to_str().unwrap();
    host.muster(&["config", "create", "page", page]).ok();
    let replicas = replicas.to_string();
    let mut command = vec![
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        &replicas,
        "--publish",
        "8080:80",
        "--config",
        "source=page,target=/www/index.html",
        "--init",
        "--stop-grace-period",
        "3s",
        "--restart-delay",
        "100ms",
    ];
    command.extend(more);
    command.extend(["busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/www"]);
    host.muster(&command).ok();
}

/// Port 8080 of a host.
fn published(number: usize) -> SocketAddr {
    SocketAddr::new(address(number), 8080)
}

/// The same over IPv6.
fn published6(number: usize) -> SocketAddr {
    SocketAddr::new(address6(number), 8080)
}

/// Asks from where clients are.
fn ask(swarm: &Swarm, target: SocketAddr) -> Result<String, String> {
    swarm.switch.on_host(move || e2e::swarm::get(target, "/"))
}

/// Containers of `web`, of all hosts with a daemon.
fn running(swarm: &Swarm) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for number in 1..=swarm.hosts.len() {
        if swarm.host(number).has_daemon() {
            let names = swarm.containers(number).into_iter();
            all.extend(names.map(|name| (number, name)));
        }
    }
    all
}

/// Waits until host `asked` says that `service` has all its replicas.
#[track_caller]
fn converged(swarm: &Swarm, asked: usize, service: &str, replicas: &str) {
    let filter = format!("name={service}");
    eventually(SOON, &format!("{service} has {replicas}"), || {
        let listed = swarm.host(asked).muster(&[
            "service",
            "ls",
            "--filter",
            &filter,
            "--format",
            "{{.Replicas}}",
        ]);
        listed.stdout.trim() == replicas
    });
}
