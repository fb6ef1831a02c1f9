//! Figures of three managers in one process, with real logs and real TLS between them: durable writes per second, how long
//! writes stop when the leader is killed, what an idle group costs.
//!
//! `cargo run --profile fast -p cluster --example writes`; the logs are in temporary directories (`TMPDIR`).

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a measurement"
)]

#[path = "../tests/it/managers/swarm.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod swarm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use swarm::{Swarm, ask};

const MEASURED: Duration = Duration::from_secs(5);
const KILLS: usize = 10;

#[tokio::main]
async fn main() {
    let mut swarm = Swarm::new(3).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    idle(&swarm).await;
    for clients in [1, 16, 256] {
        writes(&swarm, clients, "leader").await;
    }
    writes(&swarm, 256, "follower").await;
    failover(&mut swarm).await;
    swarm.stop_all().await;
}

/// What a process costs that does nothing.
async fn idle(swarm: &Swarm) {
    let written = |swarm: &Swarm| -> u64 {
        let logs = swarm.hosts.keys().map(|id| swarm.log_directory(id));
        let files = logs.flat_map(|log| std::fs::read_dir(log).unwrap());
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let (bytes, cpu) = (written(swarm), cpu_ticks());
    tokio::time::sleep(MEASURED).await;
    println!(
        "idle: {} bytes written and {:.1} % of a core used in {MEASURED:?} by three managers; resident {} KiB",
        written(swarm) - bytes,
        (cpu_ticks() - cpu) as f64 / MEASURED.as_secs_f64(),
        resident_kib(),
    );
}

async fn writes(swarm: &Swarm, clients: usize, at: &str) {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let leader = swarm.leader().await;
    let asked = match at {
        "leader" => leader,
        _ => swarm
            .hosts
            .keys()
            .find(|id| **id != leader)
            .unwrap()
            .clone(),
    };
    let end = Instant::now() + MEASURED;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let manager = swarm.manager(&asked).clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let name = format!("w{}", NAMES.fetch_add(1, Ordering::Relaxed));
                    let since = Instant::now();
                    ask(&manager, &name).await.unwrap();
                    took.push(since.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort();
    println!(
        "writes: {clients} clients at the {at}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        took.len() as f64 / MEASURED.as_secs_f64(),
        at_share(&took, 0.5),
        at_share(&took, 0.99),
    );
}

/// The leader is killed; how long until a write is acknowledged.
async fn failover(swarm: &mut Swarm) {
    let mut took = Vec::new();
    for kill in 0..KILLS {
        let killed = swarm.leader().await;
        let other = swarm
            .hosts
            .keys()
            .find(|id| **id != killed)
            .unwrap()
            .clone();
        let manager = Arc::new(swarm.manager(&other).clone());
        let since = Instant::now();
        swarm.kill(&killed).await;
        let mut attempt = 0;
        while ask(&manager, &format!("kill-{kill}-{attempt}"))
            .await
            .is_err()
        {
            attempt += 1;
        }
        took.push(since.elapsed());
        swarm.resume(&killed).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    took.sort();
    println!(
        "failover: writes resume after p50 {:.0} ms, at most {:.0} ms ({KILLS} kills)",
        at_share(&took, 0.5),
        at_share(&took, 1.0),
    );
}

fn at_share(sorted: &[Duration], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    sorted[place].as_secs_f64() * 1000.0
}

/// Hundredths of a second this process has computed.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
