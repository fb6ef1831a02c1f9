//! What is measured of a swarm: real daemons, each in namespaces of its own on one switch; their ends are SIGKILL.
//!
//! Docker's swarm mode stands beside it where one host is enough; several of its daemons on one machine need machines.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::swarm::{address, eventually};
use e2e::{Host, Swarm};

use crate::measure::{Table, milliseconds, settle};
use crate::peer::Peer;

/// Beyond this something is broken, not slow.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at what changes.
const GLANCE: Duration = Duration::from_millis(20);
/// Tasks on the worker that crashes.
const TASKS: usize = 4;
/// What the scaled service gets.
const REPLICAS: usize = 50;

/// From SIGKILL of the leader's daemon to the first write that another manager acknowledges.
pub(crate) fn failover(table: &mut Table, rounds: usize) -> anyhow::Result<()> {
    let mut swarm = Swarm::of(3, 0);
    await_managers(&swarm, 1);
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = swarm.leader(1).context("no leader is listed")?;
        let other = leader % 3 + 1;
        swarm.host_mut(leader).kill_daemon();
        let (time, ()) = milliseconds(|| {
            let begun = Instant::now();
            for attempt in 0.. {
                match write(swarm.host(other), &format!("after-{round}-{attempt}")) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        ensure!(begun.elapsed() < LIMIT, "no write is accepted: {error:#}");
                    }
                }
                std::thread::sleep(GLANCE);
            }
            unreachable!("attempts have no end")
        })?;
        times.push(time);
        swarm.host_mut(leader).start_daemon(&[]);
        await_managers(&swarm, other);
    }
    table.add_alone("leader killed, until a write succeeds", "ms", times);
    swarm.finish();
    Ok(())
}

/// From SIGKILL of a worker's daemon until all its tasks run on another one; and what a short silence moves.
pub(crate) fn crashed_worker(table: &mut Table, rounds: usize) -> anyhow::Result<()> {
    const SILENCE: Duration = Duration::from_secs(5);
    let mut swarm = Swarm::of(1, 2);
    let tasks = TASKS.to_string();
    let create = [
        "service",
        "create",
        "--name",
        "bench",
        "--replicas",
        &tasks,
        "--constraint",
        "node.role==worker",
        "--stop-grace-period",
        "0s",
        "busybox",
        "sleep",
        "infinity",
    ];
    swarm.host(1).muster(&create).ok();
    let settled = |swarm: &Swarm| {
        eventually(LIMIT, "all tasks run, once each", || {
            containers(swarm).len() == TASKS
                && replicas(swarm.host(1)) == format!("{TASKS}/{TASKS}")
        });
    };
    settled(&swarm);

    let before = containers(&swarm);
    swarm.freeze(3);
    std::thread::sleep(SILENCE);
    swarm.thaw(3);
    std::thread::sleep(Duration::from_secs(3));
    let after = containers(&swarm);
    let moved = f64::from(u32::try_from(before.symmetric_difference(&after).count())?);
    let what = "containers that changed, worker stopped 5 s";
    table.add_alone(what, "", vec![moved]);

    // The first crash empties host 3; from then on the one that crashes has them all.
    let mut times = Vec::new();
    for round in 0..=rounds {
        let (victim, heir) = if round % 2 == 0 { (3, 2) } else { (2, 3) };
        swarm.host_mut(victim).kill_daemon();
        let (time, ()) = milliseconds(|| {
            let begun = Instant::now();
            while swarm.containers(heir).len() < TASKS {
                ensure!(begun.elapsed() < LIMIT, "the tasks are not replaced");
                std::thread::sleep(GLANCE);
            }
            Ok(())
        })?;
        if round > 0 {
            times.push(time);
        }
        swarm.host_mut(victim).start_daemon(&[]);
        settled(&swarm);
    }
    let what = format!("worker killed, until its {TASKS} tasks run");
    table.add_alone(what, "ms", times);
    swarm.finish();
    Ok(())
}

/// What nodes without tasks keep resident.
pub(crate) fn memory(table: &mut Table) -> anyhow::Result<()> {
    let swarm = Swarm::of(3, 1);
    // Certificates, the first snapshot of the state and the image's layers are done with by then.
    std::thread::sleep(Duration::from_secs(10));
    for (what, numbers) in [("manager", 1..=3), ("worker", 4..=4)] {
        let sizes = numbers.map(|number| resident(swarm.host(number)));
        let sizes = sizes.collect::<anyhow::Result<Vec<_>>>()?;
        table.add_alone(format!("resident memory of an idle {what}"), "MiB", sizes);
    }
    swarm.finish();
    Ok(())
}

/// `service scale` from one replica to many on a swarm of one node, until all of them run.
pub(crate) fn scale(
    table: &mut Table,
    muster: &Peer,
    docker: Option<&Peer>,
    rounds: usize,
) -> anyhow::Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    let mut sides = vec![(0, muster)];
    if let Some(docker) = docker {
        let state = docker.run(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?;
        if state.trim() == "inactive" {
            sides.push((1, docker));
        } else {
            table.left_out("docker's service scale", "its daemon is in a swarm already");
        }
    }
    let measured = (|| -> anyhow::Result<()> {
        for (_, peer) in &sides {
            found(peer)?;
        }
        for _ in 0..rounds {
            for (side, peer) in &sides {
                let many = format!("bench={REPLICAS}");
                let (time, ()) = milliseconds(|| {
                    peer.run(&["service", "scale", "--detach", &many])?;
                    await_replicas(peer, REPLICAS)
                })?;
                times[*side].push(time);
                peer.run(&["service", "scale", "--detach", "bench=1"])?;
                await_containers(peer, 1)?;
                settle();
            }
        }
        Ok(())
    })();
    // Whatever came of it, nobody is left in a swarm.
    let left: Vec<_> = sides.iter().map(|(_, peer)| leave(peer)).collect();
    measured?;
    left.into_iter().collect::<anyhow::Result<()>>()?;
    let [ours, theirs] = times;
    let what = format!("service scale 1 → {REPLICAS}, until all run");
    table.add(what, "ms", ours, theirs, Some(0.2));
    Ok(())
}

/// Pages asked for at a published port, each over a connection of its own; beside the same server without a swarm.
pub(crate) fn ingress(table: &mut Table) -> anyhow::Result<()> {
    let swarm = Swarm::of(1, 1);
    let server = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    let service = |name: &str, port: &str, node: &str| {
        let place = format!("node.role=={node}");
        let options = [
            "service",
            "create",
            "--name",
            name,
            "--publish",
            port,
            "--constraint",
            &place,
        ];
        swarm.host(1).muster(&[&options[..], &server].concat()).ok();
    };
    service("near", "8081:80", "manager");
    service("far", "8082:80", "worker");
    let plain = [&["run", "-d", "--publish", "8080:80"][..], &server].concat();
    swarm.host(1).muster(&plain).ok();
    let ways = [
        ("published port of one container", 8080),
        ("ingress, task on the node asked", 8081),
        ("ingress, task on another node", 8082),
    ];
    let at = |port| SocketAddr::new(address(1), port);
    for (_, port) in ways {
        eventually(LIMIT, "the page is there", || {
            requests(&swarm, at(port), 1, Duration::ZERO) > 0
        });
    }
    let mut rates = vec![Vec::new(); ways.len()];
    for _ in 0..3 {
        for ((_, port), rates) in ways.iter().zip(&mut rates) {
            const MEASURED: Duration = Duration::from_secs(2);
            let answered = f64::from(requests(&swarm, at(*port), 8, MEASURED));
            rates.push(answered / MEASURED.as_secs_f64());
        }
    }
    for ((what, _), rates) in ways.into_iter().zip(rates) {
        table.add_alone(what, "/s", rates);
    }
    let ours = swarm
        .host(1)
        .muster(&["ps", "--quiet", "--filter", "publish=8080"]);
    swarm.host(1).muster(&["rm", "-f", ours.ok().trim()]).ok();
    swarm.finish();
    Ok(())
}

/// Whole answers that clients at the switch get within a time; each asks once at least.
fn requests(swarm: &Swarm, target: SocketAddr, clients: usize, time: Duration) -> u32 {
    let stop = Arc::new(AtomicBool::new(false));
    let client = |stop: Arc<AtomicBool>| {
        move || {
            let mut answered = 0;
            loop {
                answered += u32::from(e2e::swarm::get(target, "/hostname").is_ok());
                if stop.load(Ordering::Relaxed) {
                    return answered;
                }
            }
        }
    };
    // A thread has the namespaces of the one that starts it.
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let client = client(Arc::clone(&stop));
            swarm.switch.on_host(move || std::thread::spawn(client))
        })
        .collect();
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let answers = clients.into_iter().map(|client| client.join());
    answers
        .map(|answered| answered.expect("a client does not panic"))
        .sum()
}

/// One write through the API of a manager, acknowledged.
fn write(host: &Host, name: &str) -> anyhow::Result<()> {
    let body = format!("{{\"Name\":\"{name}\",\"Data\":\"eA==\"}}");
    let mut stream = host.connect();
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "POST /configs/create HTTP/1.1\r\nHost: muster\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    Ok(())
}

/// Waits until three managers take part, as host `asked` sees it.
fn await_managers(swarm: &Swarm, asked: usize) {
    eventually(LIMIT, "three managers take part", || {
        let listed = swarm
            .host(asked)
            .muster(&["node", "ls", "--format", "{{.ManagerStatus}}"]);
        let part = |line: &&str| matches!(*line, "Leader" | "Reachable");
        listed.code == 0 && listed.stdout.lines().filter(part).count() == 3
    });
    // Its log has caught up when it serves what was written last.
    eventually(LIMIT, "a leader is known to all", || {
        (1..=3).all(|number| swarm.leader(number).is_some())
    });
}

/// Names of the running containers of all hosts.
fn containers(swarm: &Swarm) -> BTreeSet<String> {
    (1..=swarm.hosts.len())
        .flat_map(|number| swarm.containers(number))
        .collect()
}

/// `RUNNING/WANTED` of the service `bench`.
fn replicas(host: &Host) -> String {
    let listed = host.muster(&["service", "ls", "--format", "{{.Replicas}}"]);
    listed.stdout.trim().to_owned()
}

/// `VmRSS` of the daemon and its keeper, MiB.
fn resident(host: &Host) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for pid in [Some(host.daemon().pid()), host.keeper()]
        .into_iter()
        .flatten()
    {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.split_whitespace().next());
        let size: f64 = size.context("a process has no VmRSS")?.parse()?;
        total += size / 1024.0;
    }
    Ok(total)
}

/// A swarm of one node with one service of one task.
fn found(peer: &Peer) -> anyhow::Result<()> {
    peer.run(&["swarm", "init", "--advertise-addr", "127.0.0.1"])?;
    // By its id: Docker asks a registry about a name for each task, which is not what is measured.
    let id = peer.run(&["image", "inspect", "--format", "{{.Id}}", "busybox"])?;
    peer.run(&[
        "service",
        "create",
        "--detach",
        "--name",
        "bench",
        "--stop-grace-period",
        "0s",
        id.trim(),
        "sleep",
        "infinity",
    ])?;
    await_replicas(peer, 1)
}

fn leave(peer: &Peer) -> anyhow::Result<()> {
    let _ = peer.run(&["service", "rm", "bench"]);
    await_containers(peer, 0)?;
    peer.run(&["swarm", "leave", "--force"]).map(drop)
}

fn await_replicas(peer: &Peer, count: usize) -> anyhow::Result<()> {
    let wanted = format!("{count}/{count}");
    await_said(
        peer,
        &["service", "ls", "--format", "{{.Replicas}}"],
        |said| said.trim() == wanted,
    )
}

/// Counts the containers of the service that are there, running or not.
fn await_containers(peer: &Peer, count: usize) -> anyhow::Result<()> {
    let list = ["ps", "--all", "--quiet", "--filter", "name=bench"];
    await_said(peer, &list, |said| said.lines().count() == count)
}

fn await_said(peer: &Peer, arguments: &[&str], holds: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let said = peer.run(arguments)?;
        if holds(&said) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "{}: {arguments:?} still says {said:?}",
            peer.describe()
        );
        std::thread::sleep(GLANCE);
    }
}
