//! A task is told that nothing is sent to it any more when that is so.

use agent_api::swarm::PortConfig;
use cluster_api::{Attachment, DesiredState, TaskState, VirtualIp};

use super::World;
use crate::stage::{network, service, task};

/// `web` with a task on each of two nodes, all of it programmed; `n3` has nothing to do with it.
fn rolling() -> World {
    let mut world = World::in_session(3);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.put(&web, 2, "n2", TaskState::Running);
    world.pass(100, &["n1", "n2", "n3"]);
    for node in ["n1", "n2", "n3"] {
        world.acknowledge(node);
        world.told(node);
    }
    world
}

#[test]
fn the_stop_signal_waits_for_all_nodes_that_balance_to_the_task() {
    let mut world = rolling();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1", "n2", "n3"]);
    assert_eq!(world.backends("n1", "web"), "web.1 draining, web.2 ready");
    world.acknowledge("n1");
    assert!(!world.told("n1").contains("unbound"));
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
    assert!(!world.told("n2").contains("unbound"));

    world.report("web.1", TaskState::Shutdown);
    world.pass(100, &["n1", "n2", "n3"]);
    assert_eq!(
        world.told("n1"),
        " -unbound web.1 -endpoints net -network net"
    );
    assert_eq!(world.backends("n2", "web"), "web.2 ready");
}

#[test]
fn an_old_acknowledgement_proves_nothing() {
    let mut world = rolling();
    let before = world.agents["n2"].at.clone();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1", "n2", "n3"]);
    world.acknowledge("n1");
    let session = world.agents["n2"].session.clone();
    for at in [before.as_str(), "999", "nonsense"] {
        world
            .dispatcher
            .acknowledge("n2", &session, at, world.stage.now)
            .unwrap();
        world.run();
    }
    assert!(!world.told("n1").contains("unbound"));
}

#[test]
fn a_task_that_never_ran_may_go_at_once() {
    let mut world = rolling();
    let web = world.stage.store.service("web").unwrap().clone();
    world.put(&web, 3, "n1", TaskState::Starting);
    world.pass(100, &["n1", "n2", "n3"]);
    world.told("n1");
    world.want("web.3", DesiredState::Shutdown);
    assert_eq!(world.told("n1"), " +task web.3 +unbound web.3");
}

#[test]
fn a_dead_node_is_not_waited_for() {
    let mut world = rolling();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1", "n3"]);
    world.acknowledge("n1");
    world.pass(6_800, &["n1", "n3"]);
    assert!(!world.told("n1").contains("unbound"));
    world.pass(300, &["n1", "n3"]);
    assert_eq!(world.node_state("n2"), "Down heartbeat failure");
    world.acknowledge("n1");
    assert!(world.told("n1").contains("unbound web.1"));
}

#[test]
fn a_node_that_hangs_is_waited_for_ten_seconds() {
    let mut world = rolling();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(9_900, &["n1", "n2", "n3"]);
    world.acknowledge("n1");
    assert!(!world.told("n1").contains("unbound"));
    world.pass(200, &["n1", "n2", "n3"]);
    assert!(world.told("n1").contains("unbound web.1"));
}

#[test]
fn the_next_leader_asks_again() {
    let mut world = rolling();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1", "n2", "n3"]);
    world.acknowledge("n1");
    world.new_leader();
    world.join("n1");
    world.pass(100, &["n1"]);
    assert_eq!(
        world.told("n1"),
        "= +network net +endpoints net +task web.1"
    );
    world.acknowledge("n1");
    assert_eq!(world.told("n1"), "", "n2 is alive and has said nothing yet");
    world.join("n2");
    assert_eq!(world.told("n1"), "");
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
}

#[test]
fn a_task_without_networks_has_nothing_to_wait_for() {
    let mut world = World::in_session(1);
    let job = service("job", &[], &[]);
    let mut task = task(&job, 1);
    task.node_id = "n1".to_owned();
    task.status.state = TaskState::Running;
    let events = world.stage.create(task);
    world.happened(&events);
    world.told("n1");
    world.want("job.1", DesiredState::Shutdown);
    assert_eq!(world.told("n1"), " +task job.1 +unbound job.1");
}

/// `web` published on `n1` and `n2`, its task on `n1`; both have programmed it. Then its port goes, unheard by `n2`.
fn unpublished() -> World {
    let mut world = World::in_session(2);
    let mut ingress = network("ing", "ingress");
    ingress.spec.ingress = true;
    let mut events = world.stage.create(ingress);
    for (node, address) in [("n1", "10.255.0.2/16"), ("n2", "10.255.0.3/16")] {
        events.extend(world.stage.change_node(node, |node| {
            let address = vec![address.parse().unwrap()];
            node.attachments.insert("ing".to_owned(), address);
        }));
    }
    let mut web = service("web", &[], &[(8080, 80)]);
    web.endpoint.ports = vec![PortConfig {
        published_port: 8080,
        target_port: 80,
        ..PortConfig::default()
    }];
    web.endpoint.virtual_ips = vec![VirtualIp {
        network_id: "ing".to_owned(),
        address: "10.255.0.9/16".parse().unwrap(),
    }];
    events.extend(world.stage.create(web.clone()));
    let mut one = task(&web, 1);
    one.node_id = "n1".to_owned();
    one.status.state = TaskState::Running;
    one.networks = vec![Attachment {
        network_id: "ing".to_owned(),
        addresses: vec!["10.255.0.10/16".parse().unwrap()],
        aliases: Vec::new(),
    }];
    events.extend(world.stage.create(one));
    world.happened(&events);
    world.pass(100, &["n1", "n2"]);
    for node in ["n1", "n2"] {
        world.acknowledge(node);
        assert!(world.told(node).contains("+endpoints ing"));
    }
    let events = world.stage.change_service("web", |web| {
        web.endpoint.ports.clear();
        web.endpoint.virtual_ips.clear();
    });
    world.happened(&events);
    world.pass(100, &["n1", "n2"]);
    world.acknowledge("n1");
    assert_eq!(world.told("n2"), " -endpoints ing -network ing");
    world
}

#[test]
fn a_port_that_is_gone_is_waited_for_where_it_may_still_be() {
    let mut world = unpublished();
    world.want("web.1", DesiredState::Shutdown);
    world.pass(1_000, &["n1", "n2"]);
    world.acknowledge("n1");
    assert!(
        !world.told("n1").contains("unbound"),
        "n2 still sends to it"
    );
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
}

#[test]
fn a_port_that_went_under_an_older_leader_is_waited_for() {
    let mut world = unpublished();
    world.new_leader();
    world.join("n1");
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1"]);
    world.acknowledge("n1");
    assert!(
        !world.told("n1").contains("unbound"),
        "n2 still sends to it"
    );
    world.join("n2");
    assert_eq!(world.told("n2"), "=");
    assert!(
        !world.told("n1").contains("unbound"),
        "n2 still sends to it"
    );
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
}

#[test]
fn a_node_that_left_the_network_is_waited_for() {
    let mut world = rolling();
    world.report("web.2", TaskState::Shutdown);
    world.want("web.1", DesiredState::Shutdown);
    world.pass(100, &["n1", "n2", "n3"]);
    world.acknowledge("n1");
    assert!(
        !world.told("n1").contains("unbound"),
        "n2 still sends to it"
    );
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
}

#[test]
fn a_network_that_is_gone_is_waited_for() {
    let mut world = rolling();
    world.want("web.1", DesiredState::Shutdown);
    let net = world.stage.store.network("net").unwrap().clone();
    let events = world.stage.remove(net.into());
    world.happened(&events);
    assert_eq!(world.told("n2"), " -endpoints net -network net");
    world.acknowledge("n1");
    assert!(
        !world.told("n1").contains("unbound"),
        "n2 still sends to it"
    );
    world.acknowledge("n2");
    assert_eq!(world.told("n1"), " +unbound web.1");
}
