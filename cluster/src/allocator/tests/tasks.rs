//! Addresses of tasks: when they are given, and when they are free again.

use agent_api::swarm::NodeState;
use cluster_api::{DesiredState, Subnet, TaskState};

use super::{stage, tasks};
use crate::allocator::Allocator;
use crate::stage::{Stage, network, service, task};

/// Tasks of `web` on a network of six usable addresses, one of which is the gateway's and one the service's.
fn small(slots: u64) -> (Stage, Allocator) {
    let (mut stage, mut allocator) = stage();
    let mut small = network("small", "small");
    small.spec.subnets = vec![Subnet {
        subnet: "192.168.7.0/29".parse().unwrap(),
        gateway: None,
        range: None,
    }];
    let mut events = stage.create(small);
    let web = service("web", &["small"], &[]);
    for slot in 1..=slots {
        events.extend(stage.create(task(&web, slot)));
    }
    events.extend(stage.create(web));
    stage.settle_after(events, &mut allocator);
    (stage, allocator)
}

#[test]
fn tasks_get_addresses_on_their_networks_and_on_ingress_when_the_service_publishes() {
    let (mut stage, mut allocator) = stage();
    let web = service("web", &["net"], &[(8080, 80)]);
    let mut events = stage.create(task(&web, 1));
    events.extend(stage.create(web));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(tasks(&stage), @"web.1 pending 10.0.0.4/20 10.0.16.3/20");
    let task = stage.store.task("web.1").unwrap();
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!(task.endpoint, stage.store.service("web").unwrap().endpoint);
}

#[test]
fn a_full_network_is_said_in_the_task_and_used_again_when_one_has_ended() {
    let (mut stage, mut allocator) = small(5);
    insta::assert_snapshot!(tasks(&stage), @r"
    web.1 pending 192.168.7.3/29 
    web.2 pending 192.168.7.4/29 
    web.3 pending 192.168.7.5/29 
    web.4 pending 192.168.7.6/29 
    web.5 new  network small: no available IPv4 addresses in 192.168.7.0/29 of this network's address pools: all 6 are in use
    ");
    // Neither the wish nor a node that does not answer frees anything.
    let mut events = stage.want("web.2", DesiredState::Shutdown);
    events.extend(stage.change_node("n1", |node| node.status.state = NodeState::Down));
    assert_eq!(stage.settle_after(events, &mut allocator), 0);

    let events = stage.report("web.2", TaskState::Shutdown);
    stage.settle_after(events, &mut allocator);
    let fifth = stage.store.task("web.5").unwrap();
    assert_eq!(fifth.status.state, TaskState::Pending);
    assert_eq!(fifth.networks[0].addresses[0].to_string(), "192.168.7.4/29");
    assert_eq!(fifth.status.error, "");
}

#[test]
fn orphaned_and_removed_tasks_free_their_addresses() {
    let (mut stage, mut allocator) = small(6);
    let events = stage.report("web.1", TaskState::Orphaned);
    stage.settle_after(events, &mut allocator);
    assert_eq!(
        stage.store.task("web.5").unwrap().status.state,
        TaskState::Pending
    );
    let gone = stage.store.task("web.3").unwrap().clone();
    let events = stage.remove(gone.into());
    stage.settle_after(events, &mut allocator);
    assert_eq!(
        stage.store.task("web.6").unwrap().status.state,
        TaskState::Pending
    );
}

#[test]
fn the_next_leader_gives_nothing_that_is_taken() {
    let (mut stage, _) = small(3);
    let web = stage.store.service("web").unwrap().clone();
    stage.create(task(&web, 4));
    let mut next_leader = Allocator::new();
    stage.start(&mut next_leader);
    stage.settle(&mut next_leader);
    insta::assert_snapshot!(tasks(&stage), @r"
    web.1 pending 192.168.7.3/29 
    web.2 pending 192.168.7.4/29 
    web.3 pending 192.168.7.5/29 
    web.4 pending 192.168.7.6/29
    ");
}

#[test]
fn what_a_lost_transaction_took_is_free() {
    use crate::control_loop::ControlLoop as _;
    let (mut stage, mut allocator) = small(0);
    let web = stage.store.service("web").unwrap().clone();
    for event in stage.create(task(&web, 1)) {
        allocator.observe(&event);
    }
    for _ in 0..10 {
        let step = allocator.step(&mut stage.context());
        assert_eq!(step.transaction.unwrap().actions.len(), 1);
    }
    stage.settle(&mut allocator);
    assert_eq!(
        stage.store.task("web.1").unwrap().status.state,
        TaskState::Pending
    );
}

#[test]
fn a_task_says_why_its_service_cannot_be_reached() {
    let (mut stage, mut allocator) = stage();
    let mut events = stage.create(service("web", &[], &[(80, 80)]));
    let late = service("xyz", &["nowhere"], &[]);
    events.extend(stage.create(task(&late, 1)));
    events.extend(stage.create(late));
    let taken = service("zzz", &[], &[(80, 80)]);
    events.extend(stage.create(task(&taken, 1)));
    events.extend(stage.create(taken));
    stage.settle_after(events, &mut allocator);
    insta::assert_snapshot!(tasks(&stage), @r"
    xyz.1 new  network nowhere not found
    zzz.1 new  port 80/tcp is already in use by service web
    ");
}

#[test]
fn a_task_nobody_wants_any_more_gets_nothing() {
    let (mut stage, mut allocator) = small(0);
    let web = stage.store.service("web").unwrap().clone();
    let mut events = stage.create(task(&web, 1));
    events.extend(stage.want("web.1", DesiredState::Shutdown));
    assert_eq!(stage.settle_after(events, &mut allocator), 0);
}

#[test]
fn thousands_of_tasks_fit_on_a_network_by_default() {
    let (mut stage, mut allocator) = stage();
    let web = service("web", &["net"], &[]);
    let mut events = stage.create(web.clone());
    for slot in 1..=1_000 {
        events.extend(stage.create(task(&web, slot)));
    }
    stage.settle_after(events, &mut allocator);
    assert!(
        stage
            .store
            .tasks()
            .all(|task| task.status.state == TaskState::Pending)
    );
}
