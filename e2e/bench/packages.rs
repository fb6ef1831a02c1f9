//! Measurements that live beside the code they measure; they are run with cargo and their figures are repeated here.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::measure::Table;

/// A program of a package that prints figures.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// What the table calls it.
    what: &'static str,
    /// Words after `cargo`.
    cargo: &'static [&'static str],
    /// Lines of its output that have one of these are figures.
    figures: &'static [&'static str],
}

/// Durable writes of three managers in one process, with real logs and TLS.
pub(crate) const WRITES: Measurement = Measurement {
    what: "durable writes of three managers",
    cargo: &[
        "run",
        "--profile",
        "fast",
        "--locked",
        "--quiet",
        "-p",
        "cluster",
        "--example",
        "writes",
    ],
    figures: &["writes: ", "failover: ", "idle: "],
};

/// Placement on simulated nodes.
pub(crate) const SCHEDULING: Measurement = Measurement {
    what: "scheduling onto simulated nodes",
    cargo: &[
        "test",
        "--profile",
        "fast",
        "--locked",
        "--quiet",
        "-p",
        "cluster",
        "--lib",
        "--",
        "--ignored",
        "--nocapture",
        "rate_of_placement",
    ],
    figures: &["tasks/s"],
};

/// Overlays and published ports of two hosts, beside a plain cable.
pub(crate) const NETWORKS: Measurement = Measurement {
    what: "networks between two hosts",
    cargo: &[
        "test",
        "--profile",
        "fast",
        "--locked",
        "--quiet",
        "-p",
        "netdriver",
        "--test",
        "it",
        "--",
        "--ignored",
        "--nocapture",
        "ways_between_two_hosts",
    ],
    figures: &[
        "Gbit/s",
        "plain veth",
        "overlay, ",
        "same host, ",
        "published, ",
    ],
};

impl Measurement {
    /// Runs it to its end and adds its figures.
    pub(crate) fn run(&self, table: &mut Table) -> anyhow::Result<()> {
        // `cargo run` says where it is.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(self.cargo)
            .stdin(Stdio::null())
            .output()
            .context("start cargo")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(
            output.status.success(),
            "cargo {}: {said}",
            self.cargo.join(" ")
        );
        let is_figure = |line: &&str| self.figures.iter().any(|part| line.contains(part));
        let figures: Vec<_> = said.lines().filter(is_figure).collect();
        ensure!(!figures.is_empty(), "no figures in: {said}");
        table.repeat(self.what, &figures);
        Ok(())
    }
}
