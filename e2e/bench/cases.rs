//! What is measured.

use std::fmt::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use crate::measure::{Table, median, milliseconds, settle};
use crate::peer::Peer;

/// Both sides, muster first, the peer where there is one.
fn sides<'a>(
    muster: &'a Peer,
    docker: Option<&'a Peer>,
) -> impl Iterator<Item = (usize, &'a Peer)> {
    [Some(muster), docker]
        .into_iter()
        .enumerate()
        .filter_map(|(side, peer)| Some((side, peer?)))
}

/// `run --rm busybox true`.
pub(crate) fn run_one(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (side, peer) in sides(muster, docker) {
            let (time, _) = milliseconds(|| peer.run(&["run", "--rm", "busybox", "true"]))?;
            if round > 0 {
                times[side].push(time);
            }
        }
    }
    let [ours, theirs] = times;
    table.add("run --rm busybox true", "ms", ours, theirs, Some(0.15));
    Ok(())
}

/// Many containers started at the same time, each by a command of its own.
pub(crate) fn run_many(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    count: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (side, peer) in sides(muster, docker) {
            let (time, ()) = milliseconds(|| {
                let children: Vec<_> = (0..count)
                    .map(|_| {
                        let mut command = peer.command(&["run", "--rm", "busybox", "true"]);
                        command
                            .stdin(Stdio::null())
                            .stdout(Stdio::null())
                            .spawn()
                            .context("start a command")
                    })
                    .collect::<anyhow::Result<_>>()?;
                for mut child in children {
                    ensure!(
                        child.wait()?.success(),
                        "{}: one of {count} at once failed",
                        peer.describe()
                    );
                }
                Ok(())
            })?;
            times[side].push(time);
            settle();
        }
    }
    let [ours, theirs] = times;
    table.add(
        format!("{count} × run --rm at once"),
        "ms",
        ours,
        theirs,
        Some(0.15),
    );
    Ok(())
}

/// `up`, a second `up`, and `down` of a project whose services depend on one another in rows of ten.
pub(crate) fn project(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    services: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let text = compose_file(services);
    let mut times = [
        [Vec::new(), Vec::new(), Vec::new()],
        [Vec::new(), Vec::new(), Vec::new()],
    ];
    for _ in 0..rounds {
        for (side, peer) in sides(muster, docker) {
            let file = peer.file(&format!("bench-{services}/compose.yaml"), &text)?;
            let name = format!("bench{services}");
            let compose = ["compose", "-f", file.as_str(), "-p", name.as_str()];
            let with = |rest: &[&'static str]| [&compose[..], rest].concat();
            let steps = [
                with(&["up", "-d"]),
                with(&["up", "-d"]),
                with(&["down", "-t", "0"]),
            ];
            for (step, arguments) in steps.iter().enumerate() {
                times[side][step].push(milliseconds(|| peer.run(arguments))?.0);
            }
            settle();
        }
    }
    let [ours, theirs] = times;
    let names = ["up", "up, nothing changed", "down"];
    for (step, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        table.add(
            format!("{services} services: {}", names[step]),
            "ms",
            ours,
            theirs,
            Some(0.2),
        );
    }
    Ok(())
}

fn compose_file(services: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..services {
        let _ = write!(
            text,
            "  s{number}:\n    image: busybox\n    command: [sleep, infinity]\n    stop_grace_period: 0s\n"
        );
        if number >= 10 {
            let _ = writeln!(text, "    depends_on: [s{}]", number - 10);
        }
    }
    text
}

/// Memory of the idle engine, and what each idle container adds to it.
pub(crate) fn memory(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
) -> anyhow::Result<()> {
    const CONTAINERS: usize = 20;
    let mut idle = [Vec::new(), Vec::new()];
    let mut each = [Vec::new(), Vec::new()];
    for (side, peer) in sides(muster, docker) {
        settle();
        let before = engine_memory(peer)?;
        let mut ids = Vec::new();
        for _ in 0..CONTAINERS {
            ids.push(
                peer.run(&["run", "-d", "busybox", "sleep", "infinity"])?
                    .trim()
                    .to_owned(),
            );
        }
        settle();
        let after = engine_memory(peer)?;
        idle[side].push(before / 1024.0);
        each[side].push((after - before) / f64::from(u32::try_from(CONTAINERS)?));
        let mut arguments = vec!["rm", "-f"];
        arguments.extend(ids.iter().map(String::as_str));
        peer.run(&arguments)?;
    }
    let [ours, theirs] = idle;
    table.add(
        "memory of the idle engine (PSS)",
        "MiB",
        ours,
        theirs,
        Some(0.25),
    );
    let [ours, theirs] = each;
    ensure!(!median(&ours).is_nan(), "nothing measured");
    table.add(
        "memory per idle container (PSS)",
        "KiB",
        ours,
        theirs,
        Some(0.1),
    );
    Ok(())
}

/// Proportional set size of the engine's processes, KiB.
fn engine_memory(peer: &Peer) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for pid in peer.engine_processes()? {
        let rollup =
            std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find(|line| line.starts_with("Pss:"));
        let size = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|size| size.parse::<f64>().ok());
        total += size.unwrap_or(0.0);
    }
    Ok(total)
}
