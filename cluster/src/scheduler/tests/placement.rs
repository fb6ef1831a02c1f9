//! Where tasks go when there is a choice.

use std::sync::Arc;

use agent_api::swarm::{Placement, PlacementPreference, SpreadOver};
use cluster_api::{Service, TaskState};

use super::{counts, place, stage, web};
use crate::scheduler::Scheduler;
use crate::stage::{Stage, node, service};

fn spread_over(labels: &[&str]) -> Service {
    let mut service = web();
    let preference = |label: &&str| PlacementPreference {
        spread: Some(SpreadOver {
            spread_descriptor: (*label).to_owned(),
        }),
    };
    Arc::make_mut(&mut service.spec).task_template.placement = Some(Placement {
        preferences: labels.iter().map(preference).collect(),
        ..Placement::default()
    });
    service
}

/// Nodes `n1`, `n2`, … with these labels, each `key=value key=value`.
fn labelled(labels: &[&str]) -> (Stage, Scheduler) {
    let mut stage = Stage::new();
    for (number, labels) in (1..).zip(labels) {
        let mut node = node(&format!("n{number}"));
        for (key, value) in labels.split_whitespace().filter_map(|l| l.split_once('=')) {
            node.spec
                .annotations
                .labels
                .insert(key.to_owned(), value.to_owned());
        }
        stage.create(node);
    }
    let mut scheduler = Scheduler::new();
    stage.start(&mut scheduler);
    (stage, scheduler)
}

#[test]
fn replicas_are_spread_evenly() {
    let (mut stage, mut scheduler) = stage(3);
    place(&mut stage, &mut scheduler, &web(), 1..=10);
    assert_eq!(counts(&stage), [4, 3, 3]);
}

#[test]
fn replicas_of_the_service_count_before_tasks_at_all() {
    let (mut stage, mut scheduler) = stage(3);
    let mut events = stage.create(service("old", &[], &[]));
    for slot in 1..=4 {
        let mut task = crate::stage::pending(&service("old", &[], &[]), slot);
        task.node_id = "n1".to_owned();
        events.extend(stage.create(task));
    }
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &web(), 1..=6);
    assert_eq!(counts(&stage), [6, 2, 2]);
    place(&mut stage, &mut scheduler, &service("api", &[], &[]), 1..=2);
    assert_eq!(counts(&stage), [6, 3, 3]);
}

#[test]
fn scaling_up_fills_the_gaps() {
    let (mut stage, mut scheduler) = stage(3);
    place(&mut stage, &mut scheduler, &web(), 1..=3);
    let events = stage.create(node("n4"));
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &web(), 4..=8);
    assert_eq!(counts(&stage), [2, 2, 2, 2]);
}

#[test]
fn a_preference_counts_values_not_nodes() {
    let (mut stage, mut scheduler) = labelled(&["az=a", "az=a", "az=a", "az=b"]);
    place(
        &mut stage,
        &mut scheduler,
        &spread_over(&["node.labels.az"]),
        1..=6,
    );
    assert_eq!(counts(&stage), [1, 1, 1, 3]);
}

#[test]
fn preferences_nest() {
    let (mut stage, mut scheduler) = labelled(&[
        "az=a rack=1",
        "az=a rack=1",
        "az=a rack=2",
        "az=b rack=1",
        "az=b rack=2",
    ]);
    let service = spread_over(&["node.labels.az", "NODE.labels.rack"]);
    place(&mut stage, &mut scheduler, &service, 1..=8);
    assert_eq!(counts(&stage), [1, 1, 2, 2, 2]);
}

#[test]
fn nodes_without_the_label_are_a_value_of_their_own() {
    let (mut stage, mut scheduler) = labelled(&["az=a", "", ""]);
    place(
        &mut stage,
        &mut scheduler,
        &spread_over(&["node.labels.az"]),
        1..=4,
    );
    assert_eq!(counts(&stage), [2, 1, 1]);
}

#[test]
fn scaling_up_with_a_preference_counts_what_is_there_already() {
    let (mut stage, mut scheduler) = labelled(&["az=a", "az=b"]);
    let service = spread_over(&["node.labels.az"]);
    place(&mut stage, &mut scheduler, &service, 1..=2);
    let mut events = Vec::new();
    for id in ["n3", "n4"] {
        let mut node = node(id);
        node.spec
            .annotations
            .labels
            .insert("az".to_owned(), "c".to_owned());
        events.extend(stage.create(node));
    }
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &service, 3..=6);
    assert_eq!(counts(&stage), [2, 2, 1, 1]);
}

#[test]
fn a_full_branch_is_left_for_the_others() {
    let (mut stage, mut scheduler) = labelled(&["az=a", "az=b"]);
    let mut service = spread_over(&["node.labels.az"]);
    let spec = &mut Arc::make_mut(&mut service.spec).task_template;
    spec.placement.as_mut().unwrap().max_replicas = 3;
    let events = stage.change_node("n1", |n| {
        n.spec.availability = agent_api::swarm::NodeAvailability::Pause;
    });
    stage.settle_after(events, &mut scheduler);
    place(&mut stage, &mut scheduler, &service, 1..=4);
    assert_eq!(counts(&stage), [0, 3]);
    assert_eq!(
        stage.store.task("web.4").unwrap().status.error,
        "no suitable node (1 node not available for new tasks; max replicas per node limit exceed)"
    );
}

/// Five failures of `web` on `n1`, which has most room otherwise.
fn fail_on_n1(stage: &mut Stage, scheduler: &mut Scheduler) {
    for slot in 1..=5 {
        let mut task = crate::stage::pending(&web(), slot);
        task.id = format!("failed{slot}");
        task.node_id = "n1".to_owned();
        let mut events = stage.create(task);
        stage.settle_after(std::mem::take(&mut events), scheduler);
        let events = stage.report(&format!("failed{slot}"), TaskState::Failed);
        stage.settle_after(events, scheduler);
    }
}

fn node_of(stage: &Stage, task_id: &str) -> String {
    stage.store.task(task_id).unwrap().node_id.clone()
}

#[test]
fn a_node_where_the_version_fails_is_the_last_choice() {
    let (mut stage, mut scheduler) = stage(2);
    stage.create(web());
    fail_on_n1(&mut stage, &mut scheduler);
    place(&mut stage, &mut scheduler, &web(), 11..=13);
    for task in ["web.11", "web.12", "web.13"] {
        assert_eq!(node_of(&stage, task), "n2", "{task}");
    }
    // Another service, and another version of this one, do not mind.
    place(&mut stage, &mut scheduler, &service("api", &[], &[]), 1..=1);
    assert_eq!(node_of(&stage, "api.1"), "n1");
    let mut next = web();
    next.spec_version = 2;
    place(&mut stage, &mut scheduler, &next, 21..=21);
    assert_eq!(node_of(&stage, "web.21"), "n1");
}

#[test]
fn failures_are_known_to_the_next_leader_and_forgotten_in_time() {
    let (mut stage, mut scheduler) = stage(2);
    stage.create(web());
    fail_on_n1(&mut stage, &mut scheduler);
    let mut next_leader = Scheduler::new();
    stage.start(&mut next_leader);
    place(&mut stage, &mut next_leader, &web(), 11..=12);
    assert_eq!(node_of(&stage, "web.11"), "n2");
    assert_eq!(node_of(&stage, "web.12"), "n2");
    stage.pass(5 * 60 * 1_000);
    place(&mut stage, &mut next_leader, &web(), 13..=13);
    assert_eq!(node_of(&stage, "web.13"), "n1");
}

#[test]
fn the_last_choice_is_still_a_choice() {
    let (mut stage, mut scheduler) = stage(1);
    stage.create(web());
    fail_on_n1(&mut stage, &mut scheduler);
    place(&mut stage, &mut scheduler, &web(), 11..=11);
    assert_eq!(node_of(&stage, "web.11"), "n1");
}
