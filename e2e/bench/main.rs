//! `make bench`: muster beside its peers, measured in one interleaved run (A B A B …), reported as ratios of medians.
//!
//! Peers are whatever it is pointed at; each is a command prefix, so that one in namespaces of its own works too:
//!
//! ```text
//!   bench                                        docker (with DOCKER_HOST), podman and crun from PATH, where they are
//!   bench --docker 'enter docker' --podman 'enter podman' --runtime 'enter runc' --share /srv/x=/shared
//! ```
//! `--share OUTSIDE=INSIDE` names a directory that the peer sees under another path; projects are written there.
//! Nothing here fails because something is slow: it prints, people read.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a table"
)]

mod cases;
mod measure;
mod peer;

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
    // First, while the daemons are fresh.
    cases::memory(&mut table, &muster, docker.as_ref())?;
    cases::run_one(&mut table, &muster, docker.as_ref(), options.rounds)?;
    cases::run_many(
        &mut table,
        &muster,
        docker.as_ref(),
        50,
        options.rounds.div_ceil(5),
    )?;
    for services in [10, 40] {
        cases::project(
            &mut table,
            &muster,
            docker.as_ref(),
            services,
            options.rounds.div_ceil(4),
        )?;
    }
    if let Some(podman) = Peer::podman(&options).context("look for podman")? {
        cases::run_one_podman(&mut table, &muster, &podman, options.rounds)?;
    }
    cases::runtime(&mut table, &muster, &options)?;
    println!("{table}");
    Ok(())
}
