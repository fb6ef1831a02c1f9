//! What is sent to a node, and what is not.

use std::sync::Arc;

use agent_api::swarm::{
    Annotations, ContainerSpec, NodeState, PortConfig, SecretReference, SecretSpec, TaskSpec,
};
use cluster_api::{Attachment, DesiredState, Secret, TaskState, VirtualIp};

use super::World;
use crate::dispatcher::{Change, Endpoints, ItemKind};
use crate::stage::{network, service, task};

#[test]
fn everything_first_then_what_changed() {
    let mut world = World::new(2);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.put(&web, 2, "n2", TaskState::Running);
    let mut waiting = task(&web, 3);
    waiting.node_id = "n1".to_owned();
    waiting.status.state = TaskState::Pending;
    let events = world.stage.create(waiting);
    world.happened(&events);
    world.pass(100, &[]);
    world.join("n1");
    assert_eq!(
        world.told("n1"),
        "= +network net +endpoints net +task web.1"
    );

    world.put(&web, 4, "n1", TaskState::Assigned);
    world.pass(100, &["n1"]);
    assert_eq!(world.told("n1"), " +task web.4\n +endpoints net");
    world.want("web.1", DesiredState::Shutdown);
    assert_eq!(world.told("n1"), " +task web.1");
}

#[test]
fn a_node_is_not_told_what_it_said() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Assigned);
    world.pass(100, &["n1"]);
    world.told("n1");
    for state in [
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Starting,
    ] {
        world.report("web.1", state);
        world.pass(100, &["n1"]);
    }
    assert_eq!(world.told("n1"), "");
    // Others now send connections there.
    world.report("web.1", TaskState::Running);
    world.pass(100, &["n1"]);
    assert_eq!(world.told("n1"), " +endpoints net");
}

#[test]
fn an_ended_task_stays_until_it_is_deleted_and_its_network_does_not() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.pass(100, &["n1"]);
    world.told("n1");
    world.report("web.1", TaskState::Failed);
    assert_eq!(world.told("n1"), " -endpoints net -network net");
    let gone = world.task("web.1");
    let events = world.stage.remove(gone.into());
    world.happened(&events);
    assert_eq!(world.told("n1"), " -task web.1");
}

#[test]
fn an_orphaned_task_is_nobodys() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.pass(100, &["n1"]);
    world.told("n1");
    world.report("web.1", TaskState::Orphaned);
    assert_eq!(world.told("n1"), " -task web.1 -endpoints net -network net");
}

/// A task on `n1` that uses the secret `s`.
fn with_secret(world: &mut World, slot: u64) {
    let mut service = service("db", &[], &[]);
    let reference = SecretReference {
        secret_id: "s".to_owned(),
        ..SecretReference::default()
    };
    Arc::make_mut(&mut service.spec).task_template = TaskSpec {
        container_spec: Some(ContainerSpec {
            secrets: vec![reference],
            ..ContainerSpec::default()
        }),
        ..TaskSpec::default()
    };
    let mut task = task(&service, slot);
    task.node_id = "n1".to_owned();
    task.status.state = TaskState::Assigned;
    let events = world.stage.create(task);
    world.happened(&events);
}

#[test]
fn a_secret_is_there_as_long_as_a_task_needs_it() {
    let mut world = World::in_session(2);
    world.stage.create(Secret {
        id: "s".to_owned(),
        spec: SecretSpec {
            annotations: Annotations {
                name: "s".to_owned(),
                ..Annotations::default()
            },
            ..SecretSpec::default()
        },
        ..Secret::default()
    });
    world.told("n1");
    world.told("n2");
    with_secret(&mut world, 1);
    assert_eq!(world.told("n1"), " +secret s +task db.1");
    with_secret(&mut world, 2);
    assert_eq!(world.told("n1"), " +task db.2");
    world.report("db.1", TaskState::Complete);
    assert_eq!(world.told("n1"), "");
    world.report("db.2", TaskState::Rejected);
    assert_eq!(world.told("n1"), " -secret s");
    assert_eq!(world.told("n2"), "");
}

#[test]
fn a_gap_is_closed_by_a_complete_set() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.pass(100, &["n1"]);
    world.told("n1");
    let session = world.agents["n1"].session.clone();
    world
        .dispatcher
        .open_assignments("n1", &session, world.stage.now)
        .unwrap();
    world.run();
    assert_eq!(
        world.told("n1"),
        "= +network net +endpoints net +task web.1"
    );
}

fn endpoints(world: &World, node_id: &str, network_id: &str) -> Arc<Endpoints> {
    let key = (ItemKind::Endpoints, network_id.to_owned());
    match &world.agents[node_id].items[&key] {
        Change::Endpoints(endpoints) => endpoints.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endpoints_say_where_everybody_is() {
    let mut world = World::in_session(2);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.put(&web, 2, "n2", TaskState::Starting);
    world.pass(100, &["n1", "n2"]);
    let endpoints = endpoints(&world, "n1", "net");
    assert_eq!(endpoints.version >> 32, 7);
    assert_eq!(endpoints.data_path_port, 4789);
    insta::assert_snapshot!(serde_json::to_string_pretty(&(&endpoints.peers, &endpoints.services)).unwrap(), @r#"
    [
      [
        {
          "node_id": "n1",
          "addresses": [
            "10.0.0.11"
          ],
          "vtep": "172.16.0.1"
        },
        {
          "node_id": "n2",
          "addresses": [
            "10.0.0.12"
          ],
          "vtep": "172.16.0.2"
        }
      ],
      [
        {
          "service_id": "web",
          "names": [
            "web"
          ],
          "backend_names": [
            "tasks.web"
          ],
          "virtual_ips": [
            "10.0.0.100"
          ],
          "backends": [
            {
              "task_id": "web.1",
              "node_id": "n1",
              "names": [
                "web.1.web.1"
              ],
              "addresses": [
                "10.0.0.11"
              ],
              "state": "ready"
            }
          ]
        }
      ]
    ]
    "#);
}

#[test]
fn published_ports_reach_every_node_that_has_a_place() {
    let mut world = World::in_session(3);
    let mut ingress = network("ing", "ingress");
    ingress.spec.ingress = true;
    let mut events = world.stage.create(ingress);
    for (node, address) in [("n1", "10.255.0.2/16"), ("n2", "10.255.0.3/16")] {
        events.extend(world.stage.change_node(node, |n| {
            let address = vec![address.parse().unwrap()];
            n.attachments.insert("ing".to_owned(), address);
        }));
    }
    world.happened(&events);
    world.pass(100, &["n1", "n2", "n3"]);
    for node in ["n1", "n2", "n3"] {
        assert_eq!(world.told(node), "=", "nothing is published");
    }
    let mut web = service("web", &[], &[(8080, 80)]);
    web.endpoint.virtual_ips = vec![VirtualIp {
        network_id: "ing".to_owned(),
        address: "10.255.0.9/16".parse().unwrap(),
    }];
    web.endpoint.ports = vec![PortConfig {
        published_port: 8080,
        target_port: 80,
        ..PortConfig::default()
    }];
    let mut events = world.stage.create(web.clone());
    let mut one = task(&web, 1);
    one.node_id = "n2".to_owned();
    one.status.state = TaskState::Running;
    one.networks = vec![Attachment {
        network_id: "ing".to_owned(),
        addresses: vec!["10.255.0.10/16".parse().unwrap()],
        aliases: Vec::new(),
    }];
    events.extend(world.stage.create(one));
    world.happened(&events);
    world.pass(100, &["n1", "n2", "n3"]);
    assert_eq!(world.told("n1"), " +network ing +endpoints ing");
    assert_eq!(world.told("n3"), "", "it has no place");
    let endpoints = endpoints(&world, "n1", "ing");
    assert!(
        endpoints.services.is_empty(),
        "names are not resolved there"
    );
    assert_eq!(endpoints.nodes.len(), 2);
    assert_eq!(endpoints.peers.len(), 1);
    let port = &endpoints.ports[0];
    assert_eq!(
        (port.published, port.target, port.protocol.as_str()),
        (8080, 80, "tcp")
    );
    assert_eq!(
        port.backends[0].addresses,
        ["10.255.0.10".parse::<std::net::IpAddr>().unwrap()]
    );

    let service = world.stage.store.service("web").unwrap().clone();
    let events = world.stage.remove(service.into());
    world.happened(&events);
    world.pass(100, &["n1", "n2", "n3"]);
    assert_eq!(world.told("n1"), " -endpoints ing -network ing");
}

#[test]
fn connections_avoid_a_node_that_is_silent_as_long_as_there_is_another() {
    let mut world = World::in_session(3);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.put(&web, 2, "n2", TaskState::Running);
    let only = world.serve_at("only", "10.0.0.101/24");
    world.put(&only, 3, "n1", TaskState::Running);
    world.put(&only, 4, "n3", TaskState::Ready);
    world.pass(2_000, &["n2", "n3"]);
    assert_eq!(world.backends("n2", "web"), "web.1 ready, web.2 ready");
    world.pass(1_000, &["n2", "n3"]);
    assert_eq!(world.backends("n2", "web"), "web.1 draining, web.2 ready");
    assert_eq!(world.backends("n2", "only"), "only.3 ready");
    assert_eq!(world.writes, 0);
    world.join("n1");
    world.pass(100, &["n1", "n2", "n3"]);
    assert_eq!(world.backends("n2", "web"), "web.1 ready, web.2 ready");

    // On a node that is down as well.
    let now = world.stage.now.wall;
    let events = world.stage.change_node("n1", |n| {
        n.status.state = NodeState::Down;
        n.status_since = now;
    });
    world.happened(&events);
    world.pass(100, &["n2", "n3"]);
    assert_eq!(world.backends("n2", "web"), "web.1 draining, web.2 ready");
}

#[test]
fn versions_grow_across_leaders() {
    let mut world = World::in_session(1);
    let web = world.serve("web");
    world.put(&web, 1, "n1", TaskState::Running);
    world.pass(100, &["n1"]);
    let before = endpoints(&world, "n1", "net").version;
    world.new_leader();
    world.pass(100, &[]);
    world.join("n1");
    assert!(endpoints(&world, "n1", "net").version > before);
}
