//! `make bench`: muster beside its peers, measured in one interleaved run (A B A B …), reported as ratios of medians.
//!
//! Peers are whatever it is pointed at; each is a command prefix, so that one in namespaces of its own works too:
//!
//! ```text
//!   bench                                        docker (with DOCKER_HOST), podman and crun from PATH, where they are
//!   bench --docker 'enter docker' --podman 'enter podman' --runtime 'enter runc' --share /srv/x=/shared
//! ```
//! `--only failover,scale` measures some cases alone; `--share OUTSIDE=INSIDE` names a directory that the peer sees under another path; projects are written there.
//! Nothing here fails because something is slow: it prints, people read.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a table"
)]

mod builds;
mod cases;
mod cost;
mod images;
mod measure;
mod packages;
mod peer;
mod swarm;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Context as _;
use measure::Table;
use peer::{Options, Peer};

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let muster = Peer::muster()?;
    let docker = Peer::docker(&options).context("look for docker")?;
    match &docker {
        Some(docker) => eprintln!("bench: against {}", docker.describe()),
        None => eprintln!(
            "bench: no docker daemon answers (set DOCKER_HOST or --docker): muster's figures alone"
        ),
    }
    let mut table = Table::default();
    one_host(&mut table, &muster, docker.as_ref(), &options)?;
    several_hosts(&mut table, &muster, docker.as_ref(), &options);
    println!("{table}");
    Ok(())
}

/// The engine of one host.
fn one_host(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    options: &Options,
) -> anyhow::Result<()> {
    // First, while the daemons are fresh.
    if options.wants("memory") {
        cases::memory(table, muster, docker)?;
    }
    if options.wants("run") {
        cases::run_one(table, muster, docker, options.rounds)?;
        cases::run_many(table, muster, docker, 50, options.rounds.div_ceil(5))?;
    }
    if options.wants("compose") {
        for services in [10, 40] {
            cases::project(table, muster, docker, services, options.rounds.div_ceil(4))?;
        }
    }
    if options.wants("podman")
        && let Some(podman) = Peer::podman(options).context("look for podman")?
    {
        cases::run_one_podman(table, muster, &podman, options.rounds)?;
    }
    if options.wants("oci") {
        cases::runtime(table, muster, options)?;
    }
    if options.wants("build") || options.wants("images") {
        beside_all(table, muster, docker, options)?;
    }
    Ok(())
}

/// Building and moving images, beside every peer that can.
fn beside_all(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    options: &Options,
) -> anyhow::Result<()> {
    let podman = Peer::podman(options).context("look for podman")?;
    let skopeo = Peer::skopeo(options);
    let found = [
        ("docker", docker),
        ("podman", podman.as_ref()),
        ("skopeo", skopeo.as_ref()),
    ];
    let mut peers = Vec::new();
    for (name, peer) in found {
        let Some(peer) = peer else {
            table.left_out(name, "its command does not answer");
            continue;
        };
        let entrance = peer
            .entrance()
            .map(|command| cost::cost(peer, command))
            .transpose()?;
        let entrance = entrance.map(|cost| {
            format!(
                "; {:.0} ms of each of its times are the way in",
                cost.milliseconds
            )
        });
        table.note(format!(
            "{name} is {}{}",
            peer.describe(),
            entrance.unwrap_or_default()
        ));
        peers.push(peer);
    }
    if options.wants("build") {
        // Skopeo builds nothing.
        let builders: Vec<&Peer> = peers
            .iter()
            .copied()
            .filter(|peer| peer.name() != "skopeo")
            .collect();
        builds::run(table, muster, &builders, options.rounds.div_ceil(4));
    }
    if options.wants("images")
        && let Err(error) = images::run(table, muster, &peers, options)
    {
        table.left_out("images", &format!("{error:#}"));
    }
    Ok(())
}

/// The swarm; a case that fails leaves the others their turn.
fn several_hosts(table: &mut Table, muster: &Peer, docker: Option<&Peer>, options: &Options) {
    let rounds = options.rounds;
    let mut case = |name: &str, work: &dyn Fn(&mut Table) -> anyhow::Result<()>| {
        if !options.wants(name) {
            return;
        }
        // The harness of the hosts panics where a scenario would fail.
        match catch_unwind(AssertUnwindSafe(|| work(table))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => table.left_out(name, &format!("{error:#}")),
            Err(_) => table.left_out(name, "the swarm did not do as expected, see above"),
        }
    };
    case("failover", &|table| {
        swarm::failover(table, rounds.div_ceil(2))
    });
    case("crash", &|table| {
        swarm::crashed_worker(table, rounds.div_ceil(2))
    });
    case("idle", &swarm::memory);
    case("scale", &|table| {
        swarm::scale(table, muster, docker, rounds.div_ceil(5))
    });
    case("ingress", &swarm::ingress);
    case("writes", &|table| packages::WRITES.run(table));
    case("scheduling", &|table| packages::SCHEDULING.run(table));
    case("networks", &|table| packages::NETWORKS.run(table));
}
