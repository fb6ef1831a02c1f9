//! Managers as they run: threads, disks, sockets and TLS, in one process.

mod swarm;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_api::swarm::NodeRole;
use cluster::control::{Reply, Request};
use cluster::core::Command;
use cluster::manager::End;
use cluster::rpc::Refusal;
use cluster_api::proto::{self, forward_response::Outcome};
use swarm::{PATIENCE, Swarm, ask, names, write, write_data};

fn sizes(directory: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, (metadata.len(), metadata.modified().unwrap()))
    });
    files.collect()
}

fn snapshots(directory: &Path) -> Vec<String> {
    let files = sizes(directory).into_keys();
    files.filter(|name| name.starts_with("snapshot-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_takes_requests_and_every_one_reads_what_was_acknowledged() {
    let mut swarm = Swarm::new(3).await;
    let mut expected = Vec::new();
    for node_id in ["m1", "m2", "m3"] {
        let name = format!("by-{node_id}");
        ask(swarm.manager(node_id), &name).await.unwrap();
        expected.push(name);
        for reader in ["m1", "m2", "m3"] {
            assert_eq!(names(swarm.manager(reader)).await, expected, "{reader}");
        }
    }
    let again = ask(swarm.manager("m2"), "by-m1").await.unwrap_err();
    assert!(again.to_string().contains("by-m1"), "{again}");
    swarm.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_soon_after_the_leader_is_killed_and_it_catches_up_when_it_is_back() {
    let mut swarm = Swarm::new(3).await;
    ask(swarm.manager("m1"), "before").await.unwrap();
    for round in 0..3 {
        let killed = swarm.leader().await;
        swarm.kill(&killed).await;
        let since = Instant::now();
        let other = swarm
            .hosts
            .iter()
            .find(|(_, host)| host.manager.is_some())
            .unwrap()
            .0
            .clone();
        let name = format!("during-{round}");
        // It may answer that it does not know: the next leader does.
        while let Err(refusal) = ask(swarm.manager(&other), &name).await {
            assert!(since.elapsed() < PATIENCE, "{refusal}");
            if names(swarm.manager(&other)).await.contains(&name) {
                break;
            }
        }
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "writes resumed after {:?}",
            since.elapsed()
        );
        swarm.resume(&killed).await;
        let all = names(swarm.manager(&other)).await;
        assert_eq!(names(swarm.manager(&killed)).await, all);
    }
    swarm.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_and_comes_back_as_a_follower() {
    let mut swarm = Swarm::new(3).await;
    let first = swarm.leader().await;
    swarm.stop(&first).await;
    let successor = swarm.leader().await;
    assert_ne!(first, successor);
    ask(swarm.manager(&successor), "after").await.unwrap();
    // At once, in the same process: its log is free.
    swarm.resume(&first).await;
    assert_eq!(names(swarm.manager(&first)).await, ["after"]);
    assert_eq!(swarm.leader().await, successor);
    swarm.stop_all().await;
}

/// The answer and the news of the hand-over come to the asker by two ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hands_over_leaves_nobody_without_an_answer() {
    let mut swarm = Swarm::new(3).await;
    for round in 0..40u64 {
        let leader = swarm.leader().await;
        let asker = if leader == "m1" { "m2" } else { "m1" };
        let names = ["by-itself", "forwarded"].map(|by| format!("{by}-{round:02}"));
        let hands_over = async {
            tokio::time::sleep(Duration::from_micros(500 * (round % 10))).await;
            swarm.manager(&leader).command(Command::StepDown).await
        };
        let (itself, forwarded, handed_over) = tokio::join!(
            ask(swarm.manager(&leader), &names[0]),
            ask(swarm.manager(asker), &names[1]),
            hands_over
        );
        handed_over.unwrap();
        itself.unwrap_or_else(|refusal| panic!("{round}: {refusal}"));
        forwarded.unwrap_or_else(|refusal| panic!("{round}: {refusal}"));
        let mut standing = swarm.manager(&leader).standing();
        standing.wait_for(|now| !now.leads).await.unwrap();
    }
    assert_eq!(names(swarm.manager("m1")).await.len(), 80);
    swarm.stop_all().await;
}

/// As when the hosts are upgraded one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_notice_that_leaders_are_restarted() {
    let mut swarm = Swarm::new(3).await;
    for round in 0..4 {
        let leader = swarm.leader().await;
        let others = ["m1", "m2", "m3"].into_iter().filter(|id| *id != leader);
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = others
            .flat_map(|id| [(id, 0), (id, 1)])
            .map(|(id, number)| {
                let (manager, over) = (swarm.manager(id).clone(), over.clone());
                let name = format!("{round}-{id}-{number}");
                tokio::spawn(async move {
                    let mut written = 0;
                    while !over.load(Ordering::Relaxed) {
                        let answer = ask(&manager, &format!("{name}-{written}")).await;
                        answer.unwrap_or_else(|refusal| panic!("{name}-{written}: {refusal}"));
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        swarm.stop(&leader).await;
        swarm.resume(&leader).await;
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            assert!(writer.await.unwrap() > 0);
        }
    }
    swarm.stop_all().await;
}

/// As on a disk that is full for a while: what was acknowledged is there when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_cannot_write_says_so_and_goes_on_where_it_was() {
    let mut swarm = Swarm::new(1).await;
    let large = "eHh4".repeat(300_000);
    let directory = swarm.log_directory("m1");
    let elsewhere = directory.with_extension("away");
    std::fs::rename(&directory, &elsewhere).unwrap();
    // The next segment of the log cannot be made.
    let mut acknowledged = Vec::new();
    let refusal = loop {
        let name = format!("c{:02}", acknowledged.len());
        match swarm.manager("m1").request(write_data(&name, &large)).await {
            Ok(_) => acknowledged.push(name),
            Err(refusal) => break refusal.to_string(),
        }
        assert!(acknowledged.len() < 50, "it goes on writing");
    };
    assert!(refusal.contains("look whether it was made"), "{refusal}");
    let mut standing = swarm.manager("m1").standing();
    let stopped = standing.wait_for(|now| now.stopped.is_some()).await;
    let why = stopped.unwrap().stopped.clone().unwrap();
    assert!(matches!(why, End::Failed(_)), "{why:?}");

    swarm.kill("m1").await;
    std::fs::rename(&elsewhere, &directory).unwrap();
    swarm.resume("m1").await;
    swarm.leader().await;
    let there = names(swarm.manager("m1")).await;
    assert!(acknowledged.iter().all(|name| there.contains(name)));
    ask(swarm.manager("m1"), "after").await.unwrap();
    swarm.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_come_back_with_everything() {
    let mut swarm = Swarm::new(3).await;
    for number in 0..20 {
        ask(swarm.manager("m1"), &format!("c{number:02}"))
            .await
            .unwrap();
    }
    let before = names(swarm.manager("m1")).await;
    for node_id in ["m1", "m2", "m3"] {
        swarm.kill(node_id).await;
    }
    for node_id in ["m3", "m1", "m2"] {
        swarm.resume(node_id).await;
    }
    swarm.leader().await;
    for node_id in ["m1", "m2", "m3"] {
        assert_eq!(names(swarm.manager(node_id)).await, before);
    }
    swarm.stop_all().await;
}

/// The certificate is valid for months; what is known of its node must outlive every restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_removed_is_heard_no_more_after_a_restart_from_a_snapshot() {
    let mut swarm = Swarm::new(2).await;
    let (old, m1) = (swarm.peers("m2"), swarm.address("m1"));
    let forward = async |name: &str| {
        let message = proto::ForwardRequest {
            request: write(name).encode().into(),
        };
        let response = old.forward(&m1, message).await?;
        assert!(matches!(response.outcome, Some(Outcome::Answer(_))));
        Ok::<_, Refusal>(())
    };
    while swarm.leader().await != "m1" {
        let leader = swarm.leader().await;
        swarm
            .manager(&leader)
            .command(Command::StepDown)
            .await
            .unwrap();
    }
    forward("as-a-manager").await.unwrap();

    // The loops write the node as well.
    while swarm.demote("m1", "m2").await.is_err() {}
    swarm
        .eventually("m1", "m2 is a worker", |core| {
            let node = core.store().node("m2").unwrap();
            node.role == NodeRole::Worker && node.member.is_none()
        })
        .await;
    swarm.kill("m2").await;
    let refused = forward("as-a-worker").await.unwrap_err();
    assert!(matches!(refused, Refusal::Forbidden(_)), "{refused}");
    let removed = Request::NodeRemove {
        node: "m2".into(),
        force: true,
    };
    swarm.manager("m1").request(removed).await.unwrap();
    let refused = forward("removed").await.unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");

    // A snapshot, so that the removal is in the log no more.
    let before = snapshots(&swarm.log_directory("m1"));
    for number in 0.. {
        let name = format!("c{number}");
        let created = swarm.manager("m1").request(write(&name)).await.unwrap();
        let Reply::Created(id) = created else {
            panic!("{created:?}");
        };
        let removed = Request::ConfigRemove { config: id };
        swarm.manager("m1").request(removed).await.unwrap();
        if snapshots(&swarm.log_directory("m1")) != before {
            break;
        }
        assert!(number < 2_000, "no snapshot is made");
    }
    swarm.kill("m1").await;
    swarm.resume("m1").await;
    let refused = forward("while-it-starts").await.unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
    swarm.leader().await;
    let refused = forward("planted").await.unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
    assert_eq!(names(swarm.manager("m1")).await, ["as-a-manager"]);
    swarm.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_read_or_written() {
    let mut swarm = Swarm::new(3).await;
    ask(swarm.manager("m1"), "before").await.unwrap();
    swarm.kill("m2").await;
    swarm.kill("m3").await;
    let read = swarm.manager("m1").read(|_, _| ());
    assert!(read.await.is_err());
    let written = ask(swarm.manager("m1"), "during").await.unwrap_err();
    assert!(!written.to_string().is_empty());
    swarm.resume("m2").await;
    swarm.leader().await;
    ask(swarm.manager("m2"), "after").await.unwrap();
    let names = names(swarm.manager("m1")).await;
    assert!(names.contains(&"before".to_owned()) && names.contains(&"after".to_owned()));
    swarm.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_nobody_uses_writes_nothing() {
    let mut swarm = Swarm::new(3).await;
    ask(swarm.manager("m1"), "one").await.unwrap();
    let look =
        |swarm: &Swarm| ["m1", "m2", "m3"].map(|node_id| sizes(&swarm.log_directory(node_id)));
    // The nodes have no agents: that they are down is written, once.
    let quiet = Duration::from_secs(3);
    let deadline = Instant::now() + PATIENCE + quiet;
    let mut before = look(&swarm);
    loop {
        tokio::time::sleep(quiet).await;
        let now = look(&swarm);
        if now == before {
            break;
        }
        assert!(Instant::now() < deadline, "it writes and writes: {now:?}");
        before = now;
    }
    swarm.stop_all().await;
}
