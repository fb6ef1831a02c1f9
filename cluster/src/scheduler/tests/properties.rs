//! Whatever happens in whatever order: no filter is violated, nothing waits that could run, and what is kept commit by
//! commit is what a new leader would make of the store.

use std::sync::Arc;

use agent_api::swarm::{NodeAvailability, Placement, PortConfig, ResourceRequirements, Resources};
use cluster_api::{DesiredState, Service, Task, TaskState};
use proptest::prelude::*;

use crate::control_loop::ControlLoop as _;
use crate::scheduler::Scheduler;
use crate::scheduler::filter::Demand;
use crate::scheduler::usage::{Load, Usage, is_held};
use crate::stage::{Stage, node, pending, service};
use crate::store::StoreEvent;

const SERVICES: [&str; 3] = ["a", "b", "c"];
const NODES: u8 = 4;

#[derive(Debug, Clone)]
enum Move {
    Add {
        service: u8,
    },
    End {
        task: u8,
        failed: bool,
    },
    Unwant {
        task: u8,
    },
    Availability {
        node: u8,
        availability: u8,
    },
    Toggle {
        node: u8,
    },
    Forget {
        task: u8,
    },
    NewLeader,
    /// The first transaction after the next move is refused.
    Conflict,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0..3u8).prop_map(|service| Move::Add { service }),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(task, failed)| Move::End { task, failed }),
        2 => any::<u8>().prop_map(|task| Move::Unwant { task }),
        2 => (0..NODES, 0..3u8).prop_map(|(node, availability)| Move::Availability { node, availability }),
        1 => (0..NODES).prop_map(|node| Move::Toggle { node }),
        1 => any::<u8>().prop_map(|task| Move::Forget { task }),
        1 => Just(Move::NewLeader),
        1 => Just(Move::Conflict),
    ];
    proptest::collection::vec(one, 1..60)
}

/// `a` reserves CPUs, `b` has a host port, `c` at most two replicas on a node.
fn template(number: u8) -> Service {
    let mut service = service(SERVICES[usize::from(number)], &[], &[]);
    let spec = &mut Arc::make_mut(&mut service.spec).task_template;
    match number {
        0 => {
            spec.resources = Some(ResourceRequirements {
                limits: None,
                reservations: Some(Resources {
                    nano_cpus: 1_500_000_000,
                    ..Resources::default()
                }),
            });
        }
        1 => {}
        _ => {
            spec.placement = Some(Placement {
                max_replicas: 2,
                ..Placement::default()
            });
        }
    }
    service
}

fn waiting(number: u8, slot: u64) -> Task {
    let mut task = pending(&template(number), slot);
    if number == 1 {
        task.endpoint.ports = vec![PortConfig {
            target_port: 80,
            published_port: 80,
            publish_mode: "host".to_owned(),
            ..PortConfig::default()
        }];
    }
    task
}

fn pick(stage: &Stage, number: u8, suitable: impl Fn(&Task) -> bool) -> Option<Arc<Task>> {
    let tasks: Vec<_> = stage.store.tasks().filter(|task| suitable(task)).collect();
    let count = tasks.len();
    (count > 0).then(|| tasks[usize::from(number) % count].clone())
}

fn perform(stage: &mut Stage, step: &Move, slot: u64) -> Vec<StoreEvent> {
    let placed = |task: &Task| task.status.state == TaskState::Assigned;
    match step {
        Move::Add { service } => stage.create(waiting(*service, slot)),
        Move::End { task, failed } => match pick(stage, *task, placed) {
            Some(task) if *failed => stage.report(&task.id, TaskState::Failed),
            Some(task) => stage.report(&task.id, TaskState::Shutdown),
            None => Vec::new(),
        },
        Move::Unwant { task } => {
            match pick(stage, *task, |task| task.desired < DesiredState::Shutdown) {
                Some(task) => stage.want(&task.id, DesiredState::Shutdown),
                None => Vec::new(),
            }
        }
        Move::Availability { node, availability } => {
            let wanted = [
                NodeAvailability::Active,
                NodeAvailability::Pause,
                NodeAvailability::Drain,
            ][usize::from(*availability)];
            let id = format!("n{node}");
            if stage
                .store
                .node(&id)
                .is_some_and(|n| n.spec.availability != wanted)
            {
                stage.change_node(&id, |node| node.spec.availability = wanted)
            } else {
                Vec::new()
            }
        }
        Move::Toggle { node: number } => {
            let id = format!("n{number}");
            match stage.store.node(&id).cloned() {
                Some(known) if stage.store.tasks_of_node(&id).count() == 0 => {
                    stage.remove(known.into())
                }
                Some(_) => Vec::new(),
                None => stage.create(node(&id)),
            }
        }
        Move::Forget { task } => match pick(stage, *task, |_| true) {
            Some(task) => stage.remove(task.into()),
            None => Vec::new(),
        },
        Move::NewLeader | Move::Conflict => Vec::new(),
    }
}

/// What each node has by the store alone.
fn usages(stage: &Stage) -> Vec<Usage> {
    let usage = |node: &Arc<cluster_api::Node>| {
        let mut usage = Usage::new(node.clone());
        for task in stage.store.tasks_of_node(&node.id).filter(|t| is_held(t)) {
            usage.hold(&task.id, Load::of(task));
        }
        usage
    };
    stage.store.nodes().map(usage).collect()
}

fn check(stage: &Stage) -> Result<(), TestCaseError> {
    let usages = usages(stage);
    for usage in &usages {
        let tasks: Vec<_> = stage
            .store
            .tasks_of_node(&usage.node.id)
            .filter(|t| is_held(t))
            .collect();
        prop_assert!(usage.free_nano_cpus >= 0, "{} has too much", usage.node.id);
        let ports = tasks.iter().filter(|t| t.service_id == "b").count();
        prop_assert!(ports <= 1, "{} has the port {ports} times", usage.node.id);
        let wanted = |t: &&&Arc<Task>| t.service_id == "c" && t.desired < DesiredState::Shutdown;
        let replicas = tasks.iter().filter(wanted).count();
        prop_assert!(replicas <= 2, "{} has {replicas} replicas", usage.node.id);
    }
    for task in stage.store.tasks() {
        let waits =
            task.status.state == TaskState::Pending && task.desired < DesiredState::Shutdown;
        if !waits {
            continue;
        }
        let demand = Demand::of(task, &stage.store);
        let free = usages
            .iter()
            .find(|usage| demand.first_failure(usage).is_none());
        prop_assert!(
            free.is_none(),
            "{} waits though it fits {:?}",
            task.id,
            free.map(|u| &u.node.id)
        );
        prop_assert!(
            task.status.error.starts_with("no suitable node"),
            "{}",
            task.status.error
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_filter_is_violated_and_nothing_waits_that_fits(moves in moves()) {
        let mut stage = Stage::new();
        for number in 0..3 {
            stage.create(template(number));
        }
        for number in 0..NODES - 1 {
            stage.create(node(&format!("n{number}")));
        }
        let mut scheduler = Scheduler::new();
        stage.start(&mut scheduler);
        let mut conflict = false;
        for (slot, step) in (1..).zip(&moves) {
            for event in perform(&mut stage, step, slot) {
                scheduler.observe(&event);
            }
            if matches!(step, Move::NewLeader) {
                scheduler = Scheduler::new();
                stage.start(&mut scheduler);
            }
            if std::mem::replace(&mut conflict, matches!(step, Move::Conflict)) {
                // Decided, and never applied.
                let _ = scheduler.step(&mut stage.context());
            }
            stage.settle(&mut scheduler);
            check(&stage)?;
        }
    }
}
