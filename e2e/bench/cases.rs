//! What is measured.

use std::fmt::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, ensure};

use crate::measure::{Table, median, milliseconds, settle};
use crate::peer::{Options, Peer};

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

/// `run --rm busybox true` beside podman.
pub(crate) fn run_one_podman(
    table: &mut Table,
    muster: &Peer,
    podman: &Peer,
    rounds: usize,
) -> anyhow::Result<()> {
    let arguments = ["run", "--rm", "--network", "none", "busybox", "true"];
    if let Err(error) = podman.run(&arguments) {
        eprintln!("bench: podman left out: {error}");
        return Ok(());
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (side, peer) in sides(muster, Some(podman)) {
            let (time, _) = milliseconds(|| peer.run(&arguments))?;
            if round > 0 {
                times[side].push(time);
            }
        }
    }
    let [ours, theirs] = times;
    table.add_against(
        "podman",
        "run --rm --network none busybox true",
        ours,
        theirs,
    );
    Ok(())
}

/// `run` of an OCI bundle, `muster oci` beside another runtime.
pub(crate) fn runtime(table: &mut Table, muster: &Peer, options: &Options) -> anyhow::Result<()> {
    let temporary = std::env::temp_dir();
    let (outside, inside) = options
        .share
        .clone()
        .unwrap_or((temporary.clone(), temporary));
    let (bundle, seen) = (outside.join("bench-bundle"), inside.join("bench-bundle"));
    std::fs::create_dir_all(bundle.join("rootfs"))?;
    tar::Archive::new(std::fs::File::open(e2e::busybox())?).unpack(bundle.join("rootfs"))?;
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]},
    });
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    let ours = || {
        let mut command =
            muster.command(&["oci", "--root", "/run/muster-bench", "run", "--bundle"]);
        command.arg(&bundle).arg("bench");
        command
    };
    let theirs = || {
        let mut command = std::process::Command::new(&options.runtime[0]);
        command
            .args(&options.runtime[1..])
            .args(["run", "--bundle"])
            .arg(&seen)
            .arg("bench");
        command
    };
    let run = |mut command: std::process::Command| -> anyhow::Result<f64> {
        let (time, output) = milliseconds(|| Ok(command.stdin(Stdio::null()).output()?))?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(time)
    };
    let name = options.runtime.join(" ");
    if let Err(error) = run(theirs()) {
        eprintln!("bench: `{name} run` left out: {error:#}");
        return Ok(());
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=options.rounds {
        for (side, time) in [run(ours())?, run(theirs())?].into_iter().enumerate() {
            if round > 0 {
                times[side].push(time);
            }
        }
    }
    let [ours, theirs] = times;
    table.add_against(
        "runtime",
        &format!("oci run of /bin/true (`{name}`)"),
        ours,
        theirs,
    );
    std::fs::remove_dir_all(&bundle).context("remove the bundle")
}
