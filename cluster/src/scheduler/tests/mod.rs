//! What the scheduler does with the scenarios of SwarmKit's own tests, and properties that hold for all.

mod filters;
mod placement;
mod properties;
mod rate;

use cluster_api::{Service, Task};

use super::Scheduler;
use crate::stage::{Stage, node, pending, service};

/// A stage with ready nodes `n1`, `n2`, … and a scheduler that knows them.
fn stage(nodes: usize) -> (Stage, Scheduler) {
    let mut stage = Stage::new();
    for number in 1..=nodes {
        stage.create(node(&format!("n{number}")));
    }
    let mut scheduler = Scheduler::new();
    stage.start(&mut scheduler);
    (stage, scheduler)
}

/// `service.slot node` or `service.slot - error`, a line for each task.
fn placements(stage: &Stage) -> String {
    let line = |task: &std::sync::Arc<Task>| {
        if task.node_id.is_empty() || !task.status.error.is_empty() {
            format!("{} - {}\n", task.id, task.status.error)
        } else {
            format!("{} {}\n", task.id, task.node_id)
        }
    };
    stage.store.tasks().map(line).collect()
}

/// How many tasks each node has, by node.
fn counts(stage: &Stage) -> Vec<usize> {
    let of = |node: &std::sync::Arc<cluster_api::Node>| stage.store.tasks_of_node(&node.id).count();
    stage.store.nodes().map(of).collect()
}

/// Makes slots of a service waiting, and lets the scheduler place them.
fn place(
    stage: &mut Stage,
    scheduler: &mut Scheduler,
    service: &Service,
    slots: std::ops::RangeInclusive<u64>,
) {
    let mut events = Vec::new();
    if stage.store.service(&service.id).is_none() {
        events.extend(stage.create(service.clone()));
    }
    for slot in slots {
        events.extend(stage.create(pending(service, slot)));
    }
    stage.settle_after(events, scheduler);
}

/// A plain service.
fn web() -> Service {
    service("web", &[], &[])
}
