//! What one command costs: its time, and the most memory that the engine and the command together have had.
//!
//! An engine's processes live on, so their peaks (`VmHWM`) are started anew before and read after. The command's own
//! processes end: they are looked at every [`GLANCE`] while they run, and the largest sum of the peaks of those alive
//! at the same time counts. What the command's prefix starts to enter another network, and containers, which have
//! networks of their own, do not count. Page cache is nobody's memory here, which is why no cgroup is asked.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::peer::{Peer, network_of, peak_of};

/// Between two looks at the processes of a command.
const GLANCE: Duration = Duration::from_millis(20);
/// What takes longer is ended and counts as failed, so that one peer's trouble is not the end of the others' turn.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The last bytes of what a failed command said.
const SAID_MAX: usize = 600;

/// Of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) milliseconds: f64,
    pub(crate) peak_mib: f64,
}

/// Of several commands of the same kind.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) milliseconds: Vec<f64>,
    pub(crate) peak_mib: Vec<f64>,
}

impl Costs {
    pub(crate) fn push(&mut self, cost: Cost) {
        self.milliseconds.push(cost.milliseconds);
        self.peak_mib.push(cost.peak_mib);
    }
}

/// Runs a command of a side to its end. What it writes is read and thrown away, as by a pipe to somebody fast.
pub(crate) fn cost(peer: &Peer, mut command: Command) -> anyhow::Result<Cost> {
    let shown = format!("{command:?}");
    let mut said = tempfile::tempfile().context("make a file for messages")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said.try_clone()?);
    let network = peer.network_name()?;
    peer.forget_peaks()?;
    // What the one before left to be written is not this one's time.
    nix::unistd::sync();
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
    let ended = AtomicBool::new(false);
    let (status, peak) = std::thread::scope(|scope| {
        let watch = scope.spawn({
            let (ended, root) = (&ended, pid(&child));
            move || watch(root, &network, ended)
        });
        let mut output = child.stdout.take().context("stdout is piped")?;
        let read = std::io::copy(&mut output, &mut std::io::sink());
        let status = child.wait();
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        ended.store(true, Ordering::Relaxed);
        watch.thread().unpark();
        let peak = watch.join().expect("watching does not panic");
        read?;
        anyhow::Ok(((status?, milliseconds), peak))
    })?;
    let (status, milliseconds) = status;
    ensure!(status.success(), "{shown}: {status}: {}", last(&mut said)?);
    Ok(Cost {
        milliseconds,
        peak_mib: peer.peak_memory()? + peak / 1024.0,
    })
}

/// The largest sum of the peaks of a command's processes, KiB; ends them at the limit.
fn watch(root: i32, network: &str, ended: &AtomicBool) -> f64 {
    let started = Instant::now();
    let mut largest = 0.0_f64;
    while !ended.load(Ordering::Relaxed) {
        let mut tree = vec![root];
        let mut at = 0;
        while let Some(parent) = tree.get(at) {
            tree.extend(children(*parent));
            at += 1;
        }
        let counts = |pid: &&i32| network_of(**pid).as_deref() == Some(network);
        let now = tree.iter().filter(counts).map(|pid| peak_of(*pid)).sum();
        largest = largest.max(now);
        if started.elapsed() > LIMIT {
            for pid in tree.into_iter().rev() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        std::thread::park_timeout(GLANCE);
    }
    largest
}

/// Of all threads of a process.
fn children(parent: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let listed =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    listed
        .flat_map(|pids| {
            let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<_>>()
        })
        .collect()
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("pids are positive")
}

fn last(said: &mut File) -> anyhow::Result<String> {
    said.rewind()?;
    let mut bytes = Vec::new();
    said.read_to_end(&mut bytes)?;
    let from = bytes.len().saturating_sub(SAID_MAX);
    Ok(String::from_utf8_lossy(&bytes[from..]).trim().to_owned())
}
