//! Who is there, and what is written about it.

use cluster_api::{Cluster, TaskState, TaskStatus};

use super::World;
use crate::dispatcher::{Refused, Registration};

#[test]
fn a_second_registration_ends_the_first_session() {
    let mut world = World::in_session(1);
    let old = world.agents["n1"].session.clone();
    world.join("n1");
    let now = world.stage.now;
    assert_eq!(
        world.dispatcher.heartbeat("n1", &old, now),
        Err(Refused::UnknownSession(old.clone()))
    );
    let new = world.agents["n1"].session.clone();
    assert_eq!(world.dispatcher.heartbeat("n1", &new, now), Ok(1_000));
    // What the old connection still does, or its end, concerns nobody.
    world.dispatcher.disconnected("n1", &old, now);
    world.pass(6_000, &[]);
    assert_eq!(world.node_state("n1"), "Ready ");
}

#[test]
fn a_stranger_gets_no_session() {
    let mut world = World::new(1);
    let refused = world.dispatcher.register(
        "nobody",
        Registration::default(),
        &mut world.stage.context(),
    );
    assert_eq!(refused, Err(Refused::UnknownNode("nobody".to_owned())));
}

#[test]
fn silence_is_suffered_for_seven_seconds() {
    let mut world = World::in_session(2);
    world.pass(6_900, &["n2"]);
    assert_eq!(world.node_state("n1"), "Ready ");
    world.pass(200, &["n2"]);
    assert_eq!(world.node_state("n1"), "Down heartbeat failure");
    assert_eq!(world.node_state("n2"), "Ready ");
    assert!(world.agents["n1"].over);
    assert_eq!(world.writes, 1);

    world.join("n1");
    assert_eq!(world.node_state("n1"), "Ready ");
}

#[test]
fn a_closed_connection_is_suffered_for_three_and_a_half() {
    let mut world = World::in_session(1);
    let session = world.agents["n1"].session.clone();
    world
        .dispatcher
        .disconnected("n1", &session, world.stage.now);
    let now = world.stage.now;
    assert!(world.dispatcher.heartbeat("n1", &session, now).is_err());
    world.pass(3_400, &[]);
    assert_eq!(world.node_state("n1"), "Ready ");
    world.pass(100, &[]);
    assert_eq!(world.node_state("n1"), "Down heartbeat failure");
}

#[test]
fn an_agent_that_is_back_in_time_was_never_away() {
    let mut world = World::in_session(1);
    let session = world.agents["n1"].session.clone();
    world
        .dispatcher
        .disconnected("n1", &session, world.stage.now);
    world.pass(3_000, &[]);
    world.join("n1");
    world.pass(10_000, &["n1"]);
    assert_eq!(world.writes, 0);
}

#[test]
fn a_cluster_with_nothing_to_do_writes_nothing() {
    let mut world = World::in_session(3);
    world.pass(60_000, &["n1", "n2", "n3"]);
    assert_eq!(world.writes, 0);
}

#[test]
fn an_election_marks_nobody_down_and_writes_nothing() {
    let mut world = World::in_session(3);
    world.new_leader();
    world.pass(9_000, &[]);
    for node in ["n1", "n2", "n3"] {
        world.join(node);
    }
    world.pass(10_000, &["n1", "n2", "n3"]);
    assert_eq!(world.writes, 0);

    world.new_leader();
    world.join("n1");
    world.pass(10_100, &["n1"]);
    assert_eq!(world.node_state("n1"), "Ready ");
    assert_eq!(world.node_state("n2"), "Down heartbeat failure");
}

#[test]
fn a_description_is_written_when_it_changed() {
    let mut world = World::in_session(1);
    let node = world.stage.store.node("n1").unwrap();
    let mut registration = Registration {
        description: node.description.clone().unwrap(),
        seen_at: "192.0.2.1".to_owned(),
        ..Registration::default()
    };
    registration.description.resources.memory_bytes += 1;
    registration.data_path_addr = Some("172.16.0.9".parse().unwrap());
    world.register("n1", registration.clone());
    assert_eq!(world.writes, 1);
    let node = world.stage.store.node("n1").unwrap();
    assert_eq!(node.description.as_ref(), Some(&registration.description));
    assert_eq!(node.data_path_addr, registration.data_path_addr);
    world.register("n1", registration);
    assert_eq!(world.writes, 1);
}

#[test]
fn the_users_period_is_kept_to() {
    let mut world = World::in_session(1);
    let mut cluster = Cluster::clone(world.stage.store.cluster().unwrap());
    cluster.spec.dispatcher.heartbeat_period = 5_000_000_000;
    let events = world.stage.update(cluster);
    world.happened(&events);
    world.pass(1_100, &["n1"]);
    let state = world.agents["n1"].state.as_ref().unwrap();
    assert_eq!(state.heartbeat_period_ms, 5_000);
    world.pass(17_000, &[]);
    assert_eq!(world.node_state("n1"), "Ready ");
    world.pass(1_000, &[]);
    assert_eq!(world.node_state("n1"), "Down heartbeat failure");
}

#[test]
fn sessions_are_told_who_else_is_there() {
    let mut world = World::in_session(3);
    world.pass(1_100, &["n1", "n2", "n3"]);
    let state = world.agents["n2"].state.as_ref().unwrap();
    let peers: Vec<_> = state.peers.iter().map(|p| p.address.as_str()).collect();
    assert_eq!(peers, ["n3:2377", "n1:2377"]);
    assert_eq!(state.node.id, "n2");
    assert_eq!(state.term, 7);

    let node = world.stage.store.node("n3").unwrap().clone();
    let events = world.stage.remove(node.into());
    world.happened(&events);
    assert!(world.agents["n3"].over);
    world.pass(1_100, &["n1", "n2"]);
    assert_eq!(world.agents["n2"].state.as_ref().unwrap().peers.len(), 1);
}

#[test]
fn a_nodes_own_object_is_told_at_once() {
    let mut world = World::in_session(1);
    let events = world.stage.change_node("n1", |node| {
        node.role = agent_api::swarm::NodeRole::Manager;
    });
    world.happened(&events);
    let state = world.agents["n1"].state.as_ref().unwrap();
    assert_eq!(state.node.role, agent_api::swarm::NodeRole::Manager);
}

#[test]
fn tasks_of_a_node_that_is_down_for_a_day_are_orphaned_whoever_leads() {
    const HOUR: u64 = 60 * 60 * 1_000;
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.put(&web, 2, "n1", TaskState::Complete);
    world.pass(7_100, &[]);
    world.stage.pass(20 * HOUR);
    world.run();
    world.new_leader();
    world.stage.pass(3 * HOUR);
    world.run();
    assert_eq!(world.task("web.1").status.state, TaskState::Running);
    world.stage.pass(HOUR);
    world.run();
    assert_eq!(world.task("web.1").status.state, TaskState::Orphaned);
    assert_eq!(world.task("web.2").status.state, TaskState::Complete);
}

fn status(state: TaskState, message: &str) -> TaskStatus {
    TaskStatus {
        state,
        message: message.to_owned(),
        ..TaskStatus::default()
    }
}

fn update(
    world: &mut World,
    node_id: &str,
    updates: Vec<(&str, TaskStatus)>,
) -> Result<(), Refused> {
    let session = world.agents[node_id].session.clone();
    let updates = updates
        .into_iter()
        .map(|(id, status)| (id.to_owned(), status))
        .collect();
    let result = world
        .dispatcher
        .update_status(node_id, &session, updates, &world.stage.context());
    world.run();
    result
}

#[test]
fn reports_are_written_once_and_never_backwards() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Assigned);
    world.put(&web, 2, "n1", TaskState::Assigned);
    world.writes = 0;
    let running = status(TaskState::Running, "started");
    let both = vec![("web.1", running.clone()), ("web.2", running.clone())];
    assert_eq!(update(&mut world, "n1", both.clone()), Ok(()));
    assert_eq!(world.writes, 1, "in one transaction");
    assert_eq!(world.task("web.1").status, running);

    // Everything again, as on a new session, and something older.
    assert_eq!(update(&mut world, "n1", both), Ok(()));
    let older = vec![("web.1", status(TaskState::Preparing, ""))];
    assert_eq!(update(&mut world, "n1", older), Ok(()));
    assert_eq!(world.writes, 1);

    let detail = status(TaskState::Running, "healthy again");
    assert_eq!(
        update(&mut world, "n1", vec![("web.1", detail.clone())]),
        Ok(())
    );
    assert_eq!(world.task("web.1").status, detail);
}

#[test]
fn a_node_reports_on_its_own_tasks_only() {
    let mut world = World::in_session(2);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Assigned);
    world.put(&web, 2, "n2", TaskState::Assigned);
    let running = status(TaskState::Running, "");
    let mixed = vec![("web.2", running.clone()), ("web.1", running.clone())];
    assert_eq!(
        update(&mut world, "n2", mixed),
        Err(Refused::NotYours {
            task_id: "web.1".to_owned(),
            node_id: "n2".to_owned()
        })
    );
    assert_eq!(world.task("web.2").status.state, TaskState::Assigned);
    assert_eq!(update(&mut world, "n2", vec![("gone", running)]), Ok(()));
    for state in [TaskState::Assigned, TaskState::Orphaned] {
        let refused = update(&mut world, "n2", vec![("web.2", status(state, ""))]);
        assert!(
            matches!(refused, Err(Refused::NotReportable { .. })),
            "{state}"
        );
    }
}

#[test]
fn what_nodes_say_is_bounded() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Assigned);
    let long = TaskStatus {
        error: "é".repeat(100_000),
        ..status(TaskState::Failed, "x")
    };
    assert_eq!(update(&mut world, "n1", vec![("web.1", long)]), Ok(()));
    assert_eq!(world.task("web.1").status.error.len(), 4096);

    let mut registration = Registration::default();
    registration.description.hostname = "x".repeat(100_000);
    let refused = world
        .dispatcher
        .register("n1", registration, &mut world.stage.context());
    assert!(
        matches!(refused, Err(Refused::TooLarge { .. })),
        "{refused:?}"
    );
}

/// A transaction that is too large for the log would be tried again and again, and nothing else be written.
#[test]
fn whatever_agents_say_of_themselves_and_their_tasks_is_written() {
    let mut world = World::new(60);
    let service = world.serve("a");
    for slot in 1..=240 {
        world.put(&service, slot, "n1", TaskState::Running);
    }
    for number in 1..=60 {
        let mut registration = Registration::default();
        registration.description.hostname = "x".repeat(60 << 10);
        world.register(&format!("n{number}"), registration);
    }
    let tasks: Vec<_> = world.stage.store.tasks().cloned().collect();
    let port = agent_api::swarm::PortConfig {
        name: "p".repeat(64),
        ..Default::default()
    };
    let mut ports = vec![port; 300];
    ports[0].name = "p".repeat(10 << 10);
    let updates = tasks.iter().map(|task| {
        let status = TaskStatus {
            state: TaskState::Running,
            message: "\u{1b}[31m\"".repeat(8 << 10),
            error: "\u{7}\n".repeat(8 << 10),
            ports: ports.clone(),
            ..TaskStatus::default()
        };
        (task.id.clone(), status)
    });
    let session = world.agents["n1"].session.clone();
    world
        .dispatcher
        .update_status("n1", &session, updates.collect(), &world.stage.context())
        .unwrap();
    world.run();
    for task in tasks {
        let status = &world.task(&task.id).status;
        assert!(status.message.starts_with("[31m\"[31m"), "{status:?}");
        assert_eq!(status.error, "\n".repeat(4 << 10));
        assert_eq!((status.ports.len(), status.ports[0].name.len()), (256, 64));
    }

    // All of them are gone for a day.
    world.pass(8_000, &[]);
    world.stage.pass(24 * 3_600_000);
    world.run();
    let states = world.stage.store.tasks().map(|task| task.status.state);
    assert!(states.eq([TaskState::Orphaned; 240]));
}

/// A leader without a battery for its clock starts in 1970, and a minute later it is today.
#[test]
fn a_clock_that_is_set_takes_no_tasks_away() {
    let mut world = World::in_session(1);
    let service = world.serve("a");
    let id = world.put(&service, 1, "n1", TaskState::Running);
    world.pass(8_000, &[]);
    assert_eq!(world.node_state("n1"), "Down heartbeat failure");
    world.stage.now.wall.0 += 40 * 365 * 24 * 3_600_000_000_000;
    world.run();
    assert_eq!(world.task(&id).status.state, TaskState::Running);
    world.stage.pass(3_600_000);
    world.run();
    assert_eq!(world.task(&id).status.state, TaskState::Orphaned);
}
