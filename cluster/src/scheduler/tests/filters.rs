//! Each filter lets the right nodes through and says what the others lack.

use std::sync::Arc;

use agent_api::swarm::{
    Driver, NodeAvailability, NodeState, Placement, Platform, PluginDescription, PortConfig,
    ResourceRequirements, Resources, TaskSpec,
};
use agent_api::{Mount, VolumeDriverConfig, VolumeOptions};
use cluster_api::{DesiredState, Service, TaskState};

use super::{place, placements, stage, web};
use crate::stage::pending;

fn with(service: &Service, change: impl FnOnce(&mut TaskSpec)) -> Service {
    let mut service = service.clone();
    change(&mut Arc::make_mut(&mut service.spec).task_template);
    service
}

fn reserving(nano_cpus: i64, memory_bytes: i64) -> Service {
    with(&web(), |spec| {
        spec.resources = Some(ResourceRequirements {
            limits: None,
            reservations: Some(Resources {
                nano_cpus,
                memory_bytes,
                ..Resources::default()
            }),
        });
    })
}

fn placed(change: impl FnOnce(&mut Placement)) -> Service {
    with(&web(), |spec| {
        let mut placement = Placement::default();
        change(&mut placement);
        spec.placement = Some(placement);
    })
}

#[test]
fn without_nodes_there_is_nothing_to_explain() {
    let (mut stage, mut scheduler) = stage(0);
    place(&mut stage, &mut scheduler, &web(), 1..=1);
    insta::assert_snapshot!(placements(&stage), @"web.1 - no suitable node");
}

#[test]
fn nodes_that_are_down_paused_or_drained_get_nothing() {
    let (mut stage, mut scheduler) = stage(4);
    let mut events = stage.change_node("n1", |n| n.status.state = NodeState::Down);
    events.extend(stage.change_node("n2", |n| n.spec.availability = NodeAvailability::Pause));
    events.extend(stage.change_node("n3", |n| n.spec.availability = NodeAvailability::Drain));
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &web(), 1..=2);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n4
    web.2 n4
    ");
}

#[test]
fn a_task_waits_with_the_most_frequent_reason_first_until_a_node_can_take_it() {
    let (mut stage, mut scheduler) = stage(3);
    let events = stage.change_node("n1", |n| n.spec.availability = NodeAvailability::Drain);
    stage.settle_after(events, &mut scheduler);
    place(
        &mut stage,
        &mut scheduler,
        &reserving(5_000_000_000, 0),
        1..=1,
    );
    insta::assert_snapshot!(placements(&stage), @"web.1 - no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)");

    let events = stage.change_node("n3", |n| {
        n.description.as_mut().unwrap().resources.nano_cpus = 6_000_000_000;
    });
    stage.settle_after(events, &mut scheduler);
    insta::assert_snapshot!(placements(&stage), @"web.1 n3");
}

#[test]
fn nothing_is_written_twice_about_a_task_that_waits() {
    let (mut stage, mut scheduler) = stage(1);
    place(
        &mut stage,
        &mut scheduler,
        &reserving(5_000_000_000, 0),
        1..=3,
    );
    let events = stage.change_node("n1", |n| {
        n.spec.annotations.labels.insert("a".into(), "b".into());
    });
    assert_eq!(stage.settle_after(events, &mut scheduler), 0);
}

#[test]
fn reservations_of_tasks_that_ended_are_free_at_once() {
    let (mut stage, mut scheduler) = stage(1);
    let service = reserving(3_000_000_000, 1 << 30);
    place(&mut stage, &mut scheduler, &service, 1..=2);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n1
    web.2 - no suitable node (insufficient resources on 1 node)
    ");
    // Told to stop it still has them.
    let events = stage.want("web.1", DesiredState::Shutdown);
    stage.settle_after(events, &mut scheduler);
    assert!(stage.store.task("web.2").unwrap().node_id.is_empty());

    let events = stage.report("web.1", TaskState::Failed);
    stage.settle_after(events, &mut scheduler);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n1
    web.2 n1
    ");
}

#[test]
fn removing_a_task_frees_what_it_had() {
    let (mut stage, mut scheduler) = stage(1);
    place(
        &mut stage,
        &mut scheduler,
        &reserving(3_000_000_000, 0),
        1..=2,
    );
    let task = stage.store.task("web.1").unwrap().clone();
    let events = stage.remove(task.into());
    stage.settle_after(events, &mut scheduler);
    insta::assert_snapshot!(placements(&stage), @"web.2 n1");
}

#[test]
fn memory_counts_as_well() {
    let (mut stage, mut scheduler) = stage(2);
    place(&mut stage, &mut scheduler, &reserving(0, 5 << 30), 1..=3);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n1
    web.2 n2
    web.3 - no suitable node (insufficient resources on 2 nodes)
    ");
}

#[test]
fn generic_resources_are_nowhere() {
    let (mut stage, mut scheduler) = stage(1);
    let service = with(&web(), |spec| {
        spec.resources = Some(ResourceRequirements {
            limits: None,
            reservations: Some(Resources {
                generic_resources: vec![
                    serde_json::json!({"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}),
                ],
                ..Resources::default()
            }),
        });
    });
    place(&mut stage, &mut scheduler, &service, 1..=1);
    insta::assert_snapshot!(placements(&stage), @"web.1 - no suitable node (insufficient resources on 1 node)");
}

#[test]
fn plugins_of_volumes_and_logs_must_be_there() {
    let (mut stage, mut scheduler) = stage(2);
    let plugins = |names: &[(&str, &str)]| -> Vec<PluginDescription> {
        let plugin = |(kind, name): &(&str, &str)| PluginDescription {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
        };
        names.iter().map(plugin).collect()
    };
    let mut events = stage.change_node("n1", |n| {
        n.description.as_mut().unwrap().engine.plugins = plugins(&[
            ("Volume", "local"),
            ("Volume", "nfs:latest"),
            ("Log", "json-file"),
        ]);
    });
    events.extend(stage.change_node("n2", |n| {
        n.description.as_mut().unwrap().engine.plugins =
            plugins(&[("Volume", "local"), ("Log", "syslog")]);
    }));
    stage.settle_after(events, &mut scheduler);
    let volume = with(&web(), |spec| {
        let driver = VolumeDriverConfig {
            name: "nfs".to_owned(),
            ..VolumeDriverConfig::default()
        };
        let mount = Mount {
            volume_options: Some(VolumeOptions {
                driver_config: Some(driver),
                ..VolumeOptions::default()
            }),
            ..Mount::default()
        };
        spec.container_spec.get_or_insert_default().mounts = vec![mount];
    });
    place(&mut stage, &mut scheduler, &volume, 1..=2);
    let mut log = with(&web(), |spec| {
        spec.log_driver = Some(Driver {
            name: "fluentd".to_owned(),
            ..Driver::default()
        });
    });
    log.id = "log".to_owned();
    Arc::make_mut(&mut log.spec).annotations.name = "log".to_owned();
    place(&mut stage, &mut scheduler, &log, 1..=1);
    insta::assert_snapshot!(placements(&stage), @r"
    log.1 - no suitable node (missing plugin on 2 nodes)
    web.1 n1
    web.2 n1
    ");
}

#[test]
fn constraints_are_kept_and_a_label_that_is_set_later_is_enough() {
    let (mut stage, mut scheduler) = stage(2);
    let service = placed(|p| p.constraints = vec!["node.labels.disk==ssd".to_owned()]);
    place(&mut stage, &mut scheduler, &service, 1..=2);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 - no suitable node (scheduling constraints not satisfied on 2 nodes)
    web.2 - no suitable node (scheduling constraints not satisfied on 2 nodes)
    ");
    let events = stage.change_node("n2", |n| {
        n.spec
            .annotations
            .labels
            .insert("disk".to_owned(), "ssd".to_owned());
    });
    stage.settle_after(events, &mut scheduler);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n2
    web.2 n2
    ");
}

#[test]
fn platforms_are_compared_by_either_name() {
    let (mut stage, mut scheduler) = stage(2);
    let events = stage.change_node("n2", |n| {
        n.description.as_mut().unwrap().platform.architecture = "aarch64".to_owned();
    });
    stage.settle_after(events, &mut scheduler);
    let arm = placed(|p| {
        p.platforms = vec![Platform {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
        }];
    });
    place(&mut stage, &mut scheduler, &arm, 1..=2);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n2
    web.2 n2
    ");
    let events = stage.change_node("n2", |n| n.spec.availability = NodeAvailability::Drain);
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &arm, 3..=3);
    assert_eq!(
        stage.store.task("web.3").unwrap().status.error,
        "no suitable node (1 node not available for new tasks; unsupported platform on 1 node)"
    );
}

#[test]
fn a_host_port_is_taken_once_per_node_and_free_again() {
    let (mut stage, mut scheduler) = stage(2);
    let service = web();
    let mut events = stage.create(service.clone());
    for slot in 1..=3 {
        let mut task = pending(&service, slot);
        task.endpoint.ports = vec![PortConfig {
            target_port: 80,
            published_port: 8080,
            publish_mode: "host".to_owned(),
            ..PortConfig::default()
        }];
        events.extend(stage.create(task));
    }
    stage.settle_after(events, &mut scheduler);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n1
    web.2 n2
    web.3 - no suitable node (host-mode port already in use on 2 nodes)
    ");
    let events = stage.report("web.2", TaskState::Complete);
    stage.settle_after(events, &mut scheduler);
    assert_eq!(stage.store.task("web.3").unwrap().node_id, "n2");
}

#[test]
fn max_replicas_per_node_counts_wanted_tasks_only() {
    let (mut stage, mut scheduler) = stage(2);
    let service = placed(|p| p.max_replicas = 1);
    place(&mut stage, &mut scheduler, &service, 1..=3);
    insta::assert_snapshot!(placements(&stage), @r"
    web.1 n1
    web.2 n2
    web.3 - no suitable node (max replicas per node limit exceed)
    ");
    let events = stage.want("web.1", DesiredState::Shutdown);
    stage.settle_after(events, &mut scheduler);
    assert_eq!(stage.store.task("web.3").unwrap().node_id, "n1");
}

#[test]
fn a_task_bound_to_its_node_is_checked_there() {
    let (mut stage, mut scheduler) = stage(2);
    let service = reserving(3_000_000_000, 0);
    let mut events = stage.create(service.clone());
    for (slot, node_id) in [(1, "n1"), (2, "n1"), (3, "n2")] {
        let mut task = pending(&service, slot);
        task.node_id = node_id.to_owned();
        events.extend(stage.create(task));
    }
    stage.settle_after(events, &mut scheduler);
    let second = stage.store.task("web.2").unwrap();
    assert_eq!(second.status.state, TaskState::Pending);
    assert_eq!(second.status.error, "insufficient resources on 1 node");
    let third = stage.store.task("web.3").unwrap();
    assert_eq!(
        third.status.message,
        "scheduler confirmed task can run on preassigned node"
    );

    let events = stage.report("web.1", TaskState::Shutdown);
    stage.settle_after(events, &mut scheduler);
    assert_eq!(
        stage.store.task("web.2").unwrap().status.state,
        TaskState::Assigned
    );
}

#[test]
fn a_task_nobody_wants_any_more_ends_without_a_node() {
    let (mut stage, mut scheduler) = stage(1);
    let service = web();
    let mut events = stage.create(service.clone());
    events.extend(stage.create(pending(&service, 1)));
    events.extend(stage.want("web.1", DesiredState::Shutdown));
    stage.settle_after(events, &mut scheduler);
    let task = stage.store.task("web.1").unwrap();
    assert_eq!(task.status.state, TaskState::Shutdown);
    assert_eq!(task.node_id, "");
    let mut next_leader = crate::scheduler::Scheduler::new();
    stage.start(&mut next_leader);
    assert_eq!(stage.settle(&mut next_leader), 0);
}
