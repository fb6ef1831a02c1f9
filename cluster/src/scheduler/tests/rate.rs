//! How many tasks a second are placed. Run by hand: `cargo test --release -p cluster -- --ignored --nocapture rate`.

use std::time::Instant;

use cluster_api::TaskState;

use crate::scheduler::Scheduler;
use crate::stage::{Stage, node, pending, service};

fn rate(nodes: usize, services: usize, tasks: u64) -> f64 {
    let mut stage = Stage::new();
    for number in 0..nodes {
        stage.create(node(&format!("node{number:05}")));
    }
    let each = tasks / services as u64;
    for number in 0..services {
        let service = service(&format!("service{number:05}"), &[], &[]);
        for slot in 1..=each {
            stage.create(pending(&service, slot));
        }
        stage.create(service);
    }
    let mut scheduler = Scheduler::new();
    stage.start(&mut scheduler);
    let begin = Instant::now();
    stage.settle(&mut scheduler);
    let seconds = begin.elapsed().as_secs_f64();
    let waiting = stage
        .store
        .tasks()
        .filter(|task| task.status.state != TaskState::Assigned)
        .count();
    assert_eq!(waiting, 0);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (each * services as u64) as f64 / seconds;
    rate
}

#[test]
#[ignore = "a measurement"]
fn rate_of_placement() {
    for (nodes, services, tasks) in [
        (1_000, 50, 50_000),
        (10_000, 50, 50_000),
        (1_000, 2_000, 2_000),
    ] {
        let rate = rate(nodes, services, tasks);
        println!("{tasks} tasks of {services} services onto {nodes} nodes: {rate:.0} tasks/s");
    }
}
