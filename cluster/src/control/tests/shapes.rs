//! What a client reads: the same objects that a dockerd 28.5 had, shown with the same members in the same order.

use std::sync::Arc;

use agent_api::Filters;
use agent_api::swarm as api;
use cluster_api::{
    Attachment, ContainerStatus, DesiredState, Endpoint, Network, Node, Object, RaftMember,
    Rollout, RolloutState, Service, Subnet, Task, TaskState, TaskStatus, Timestamp, VirtualIp,
};
use serde_json::{Value, json};

use super::super::view::{self, Detail};
use super::super::{Refusal, Request, ingress_spec};
use super::{World, create, minimal, with_template};
use crate::store::StoreEvent;

macro_rules! docker {
    ($name:literal) => {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../agent/api/src/types/golden/",
            $name
        )))
        .expect("what dockerd sent")
    };
}

/// Versions and times are this store's own.
fn without_meta(mut shown: Value) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for name in ["Version", "CreatedAt", "UpdatedAt", "Created"] {
                    members.shift_remove(name);
                }
                members.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut shown);
    shown.to_string()
}

#[track_caller]
fn same<T: serde::Serialize>(ours: &T, dockers: &Value) {
    let ours = serde_json::to_value(ours).unwrap();
    assert_eq!(without_meta(ours), without_meta(dockers.clone()));
}

fn timestamp(text: &str) -> Timestamp {
    let time: jiff::Timestamp = text.parse().unwrap();
    Timestamp(i64::try_from(time.as_nanosecond()).unwrap())
}

fn service(shown: &api::Service) -> Service {
    let addresses = shown.endpoint.virtual_ips.iter();
    Service {
        id: shown.id.clone(),
        spec: Arc::new(shown.spec.clone()),
        previous_spec: shown.previous_spec.clone().map(Arc::new),
        endpoint: Endpoint {
            spec: shown.endpoint.spec.clone(),
            ports: shown.endpoint.ports.clone(),
            virtual_ips: addresses
                .map(|address| VirtualIp {
                    network_id: address.network_id.clone(),
                    address: address.addr.parse().unwrap(),
                })
                .collect(),
        },
        rollout: shown.update_status.as_ref().map(|status| Rollout {
            state: RolloutState::Completed,
            started_at: timestamp(status.started_at.as_ref().unwrap()),
            completed_at: timestamp(status.completed_at.as_ref().unwrap()),
            message: status.message.clone(),
            ..Rollout::default()
        }),
        ..Service::default()
    }
}

fn task(shown: &api::Task) -> Task {
    let state = TaskState::ALL
        .into_iter()
        .find(|state| state.as_str() == shown.status.state.word());
    let mut spec = shown.spec.clone();
    // As it was admitted.
    spec.runtime = "container".into();
    let attachments = shown.networks_attachments.iter();
    Task {
        id: shown.id.clone(),
        service_id: shown.service_id.clone(),
        slot: shown.slot,
        node_id: shown.node_id.clone(),
        spec: Arc::new(spec),
        status: TaskStatus {
            state: state.unwrap(),
            since: timestamp(&shown.status.timestamp),
            message: shown.status.message.clone(),
            error: shown.status.err.clone(),
            container: shown
                .status
                .container_status
                .as_ref()
                .map(|c| ContainerStatus {
                    id: c.container_id.clone(),
                    pid: c.pid,
                    exit_code: c.exit_code,
                }),
            ports: shown.status.port_status.ports.clone(),
        },
        desired: match shown.desired_state {
            api::TaskState::Running => DesiredState::Running,
            _ => DesiredState::Shutdown,
        },
        networks: attachments
            .map(|attachment| Attachment {
                network_id: attachment.network.id.clone(),
                addresses: attachment
                    .addresses
                    .iter()
                    .map(|a| a.parse().unwrap())
                    .collect(),
                aliases: Vec::new(),
            })
            .collect(),
        ..Task::default()
    }
}

fn network(id: &str, name: &str, vni: u32, subnet: &str) -> Network {
    let subnet: ipnet::IpNet = subnet.parse().unwrap();
    let mut network = Network {
        id: id.into(),
        vni: Some(vni),
        subnets: vec![Subnet {
            subnet,
            gateway: subnet.hosts().next(),
            range: None,
        }],
        ..Network::default()
    };
    network.spec.annotations.name = name.into();
    network.spec.driver.name = "overlay".into();
    network
}

/// The two networks the samples have.
fn put_networks(world: &mut World) {
    let mut ingress = network("xyaq6gmdowy2kl0mxyl2bv8ps", "ingress", 4096, "10.0.0.0/24");
    ingress.spec.ingress = true;
    world.put(ingress);
    let mut own = network("w39okrb0z5rf2ul9oonpy7cds", "mynet", 4097, "10.0.1.0/24");
    own.spec.attachable = true;
    own.spec.annotations.labels.insert("a".into(), "b".into());
    world.put(own);
}

#[test]
fn services() {
    let mut world = World::empty();
    let dockers: Value = docker!("swarm-services.json");
    let shown: Vec<api::Service> = serde_json::from_value(dockers.clone()).unwrap();
    for one in &shown {
        world.put(service(one));
        if one.spec.mode.global.is_some() {
            world.put(Task {
                id: "on a node".into(),
                service_id: one.id.clone(),
                ..Task::default()
            });
        }
    }
    same(
        &view::services(&world.store, &Filters::new(), Detail::Status).unwrap(),
        &dockers,
    );
    let updated: Value = docker!("swarm-services-updated.json");
    let shown: Vec<api::Service> = serde_json::from_value(updated.clone()).unwrap();
    world.put(service(&shown[0]));
    same(
        &view::service(&world.store, "min", Detail::Plain).unwrap(),
        &updated[0],
    );
}

#[test]
fn defaults_are_written_where_they_are_asked_for() {
    let mut world = World::new();
    world.service(json!({
        "Name": "min",
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1000"], "Init": false, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}},
        "Mode": {"Replicated": {"Replicas": 1}}, "EndpointSpec": {"Mode": "vip"},
    }));
    let shown = view::service(&world.store, "min", Detail::Defaults).unwrap();
    // `GET /services/min?insertDefaults=true` of dockerd.
    let dockers = r#"{"Name":"min","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest","Args":["sleep","1000"],"Init":false,"StopGracePeriod":10000000000,"DNSConfig":{},"Isolation":"default"},"Resources":{"Limits":{},"Reservations":{}},"RestartPolicy":{"Condition":"any","Delay":5000000000,"MaxAttempts":0},"Placement":{},"ForceUpdate":0,"Runtime":"container"},"Mode":{"Replicated":{"Replicas":1}},"UpdateConfig":{"Parallelism":1,"FailureAction":"pause","Monitor":5000000000,"MaxFailureRatio":0,"Order":"stop-first"},"RollbackConfig":{"Parallelism":1,"FailureAction":"pause","Monitor":5000000000,"MaxFailureRatio":0,"Order":"stop-first"},"EndpointSpec":{"Mode":"vip"}}"#;
    assert_eq!(serde_json::to_string(&shown.spec).unwrap(), dockers);
}

#[test]
fn tasks() {
    let mut world = World::empty();
    put_networks(&mut world);
    let dockers: Value = docker!("swarm-tasks.json");
    let shown: Vec<api::Task> = serde_json::from_value(dockers.clone()).unwrap();
    for (one, dockers) in shown.iter().zip(dockers.as_array().unwrap()) {
        world.put(task(one));
        let ours = serde_json::to_value(view::task(&world.store, &one.id).unwrap()).unwrap();
        let mut dockers = dockers.clone();
        for attachment in dockers
            .get_mut("NetworksAttachments")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            // dockerd keeps no driver in the spec of the ingress network it makes by itself.
            let spec = &mut attachment["Network"]["Spec"];
            spec["DriverConfiguration"] = json!({"Name": "overlay"});
            spec["IPAMOptions"] = json!({"Driver": {"Name": "default"}});
        }
        assert_eq!(without_meta(ours), without_meta(dockers));
    }
}

#[test]
fn nodes() {
    let dockers: Value = docker!("swarm-nodes.json");
    let shown: Vec<api::Node> = serde_json::from_value(dockers.clone()).unwrap();
    let mut world = World::empty();
    world.put(Node {
        id: shown[0].id.clone(),
        spec: shown[0].spec.clone(),
        description: Some(shown[0].description.clone()),
        status: shown[0].status.clone(),
        role: api::NodeRole::Manager,
        member: Some(RaftMember {
            raft_id: 1,
            addr: "127.0.0.1:2377".into(),
            reachability: api::Reachability::Reachable,
        }),
        ..Node::default()
    });
    let leader = Some(shown[0].id.as_str());
    same(
        &view::nodes(&world.store, leader, &Filters::new()).unwrap(),
        &dockers,
    );
    let follower = view::node(&world.store, Some("another"), "vm").unwrap();
    assert!(!serde_json::to_string(&follower).unwrap().contains("Leader"));
}

#[test]
fn payloads() {
    let mut world = World::new();
    let secret = |data: Option<&str>| api::SecretSpec {
        annotations: api::Annotations {
            name: "sec".into(),
            labels: [("x".to_owned(), "y".to_owned())].into_iter().collect(),
        },
        data: data.map(str::to_owned),
        ..api::SecretSpec::default()
    };
    world.created(Request::SecretCreate {
        spec: secret(Some("ZGF0YQo=")),
    });
    let shown = view::secrets(&world.store, &Filters::new()).unwrap();
    assert_eq!(
        shown[0].spec,
        secret(None),
        "the data of a secret are never shown"
    );
    let spec = api::ConfigSpec {
        annotations: api::Annotations {
            name: "cfg".into(),
            ..api::Annotations::default()
        },
        data: Some("Y29uZgo=".into()),
        ..api::ConfigSpec::default()
    };
    world.created(Request::ConfigCreate { spec: spec.clone() });
    assert_eq!(
        view::configs(&world.store, &Filters::new()).unwrap()[0].spec,
        spec
    );
}

#[test]
fn networks() {
    let mut world = World::empty();
    put_networks(&mut world);
    let mut dockers: Value = docker!("swarm-networks.json");
    for network in dockers.as_array_mut().unwrap() {
        // No container is not a missing list.
        for name in ["Containers", "Labels"] {
            if network[name].is_null() {
                network[name] = json!({});
            }
        }
    }
    same(&view::networks(&world.store), &dockers);
    assert_eq!(
        view::network(&world.store, "ingress").unwrap().scope,
        "swarm"
    );
}

#[test]
fn credentials_are_shown_to_nobody() {
    let mut world = World::new();
    let id = world.created(Request::ServiceCreate {
        spec: super::spec(minimal(json!({}))),
        auth: Some(api::PullOptions {
            registry_auth: "very secret".into(),
        }),
    });
    let template = world.store.service(&id).unwrap().spec.task_template.clone();
    world.put(Task {
        id: "t".into(),
        service_id: id,
        spec: Arc::new(template),
        ..Task::default()
    });
    let all = [
        json!(view::services(&world.store, &Filters::new(), Detail::Defaults).unwrap()),
        json!(view::tasks(&world.store, &Filters::new()).unwrap()),
    ];
    assert!(!format!("{all:?}").contains("very secret"));
}

/// Lists with filters: the names of what is left.
#[test]
fn filters() {
    let mut world = World::new();
    for (name, further) in [
        ("web", json!({"Labels": {"tier": "front", "a": ""}})),
        ("worker", json!({"Labels": {"tier": "back"}})),
        ("agent", json!({"Mode": {"Global": {}}})),
    ] {
        let mut spec = minimal(further);
        spec["Name"] = json!(name);
        world.service(spec);
    }
    let leaving = world.service(minimal(json!({"Name": "leaving"})));
    world
        .request(Request::ServiceRemove { service: leaving })
        .unwrap();
    let web = world
        .store
        .id_of(cluster_api::Kind::Service, "web")
        .unwrap()
        .to_owned();
    let names = |filters: Value| -> Result<Vec<String>, Refusal> {
        let filters = Filters::parse(&filters.to_string()).unwrap();
        let mut names: Vec<_> = view::services(&world.store, &filters, Detail::Plain)?
            .into_iter()
            .map(|service| service.spec.annotations.name)
            .collect();
        names.sort();
        Ok(names)
    };
    for (filters, expected) in [
        (json!({}), vec!["agent", "web", "worker"]),
        (json!({"name": ["w"]}), vec!["web", "worker"]),
        (json!({"name": ["web", "ag"]}), vec!["agent", "web"]),
        (json!({"id": [web[..8]]}), vec!["web"]),
        (json!({"label": ["tier"]}), vec!["web", "worker"]),
        (json!({"label": ["tier=back"]}), vec!["worker"]),
        (json!({"label": ["tier", "a"]}), vec!["web"]),
        (json!({"mode": ["global"]}), vec!["agent"]),
        (
            json!({"mode": ["replicated"], "name": ["wo"]}),
            vec!["worker"],
        ),
        (json!({"runtime": ["plugin"]}), vec![]),
    ] {
        assert_eq!(names(filters.clone()).unwrap(), expected, "{filters}");
    }
    assert_eq!(
        names(json!({"foo": ["x"]})),
        Err(Refusal::InvalidParameter("invalid filter 'foo'".into()))
    );
}

#[test]
fn filters_of_tasks_and_nodes() {
    let mut world = World::new();
    let id = world.service(minimal(json!({"Name": "web", "Labels": {"tier": "front"}})));
    world.manager("manager", 1);
    let mut worker = Node {
        id: "worker".into(),
        description: Some(api::NodeDescription {
            hostname: "host-w".into(),
            ..api::NodeDescription::default()
        }),
        ..Node::default()
    };
    worker
        .spec
        .annotations
        .labels
        .insert("zone".into(), "1".into());
    world.put(worker);
    let annotations = world.store.service(&id).unwrap().spec.annotations.clone();
    for (task, slot, node, desired) in [
        ("aa", 1, "worker", DesiredState::Running),
        ("ab", 2, "manager", DesiredState::Shutdown),
    ] {
        world.put(Task {
            id: task.into(),
            service_id: id.clone(),
            service: Arc::new(annotations.clone()),
            slot,
            node_id: node.into(),
            desired,
            ..Task::default()
        });
    }
    let tasks = |filters: Value| -> Result<Vec<String>, String> {
        let filters = Filters::parse(&filters.to_string()).unwrap();
        let found = view::tasks(&world.store, &filters).map_err(|refusal| refusal.to_string())?;
        Ok(found.into_iter().map(|task| task.id).collect())
    };
    for (filters, expected) in [
        (json!({}), Ok(vec!["aa", "ab"])),
        (json!({"service": ["web"]}), Ok(vec!["aa", "ab"])),
        (
            json!({"service": ["web"], "node": ["host-w"]}),
            Ok(vec!["aa"]),
        ),
        (json!({"node": ["manager"]}), Ok(vec!["ab"])),
        (json!({"desired-state": ["running"]}), Ok(vec!["aa"])),
        (
            json!({"desired-state": ["SHUTDOWN", "running"]}),
            Ok(vec!["aa", "ab"]),
        ),
        (json!({"id": ["ab"]}), Ok(vec!["ab"])),
        (json!({"name": ["web.1"]}), Ok(vec!["aa"])),
        (json!({"label": ["tier=front"]}), Ok(vec!["aa", "ab"])),
        (json!({"label": ["tier=back"]}), Ok(vec![])),
        (json!({"_up-to-date": ["true"]}), Ok(vec!["aa", "ab"])),
        (json!({"service": ["x"]}), Err("service x not found")),
        (json!({"node": ["x"]}), Err("node x not found")),
        (
            json!({"desired-state": ["x"]}),
            Err("Invalid desired-state filter: 'x'"),
        ),
        (json!({"colour": ["x"]}), Err("invalid filter 'colour'")),
    ] {
        let expected = expected
            .map(|ids| ids.into_iter().map(str::to_owned).collect())
            .map_err(str::to_owned);
        assert_eq!(tasks(filters.clone()), expected, "{filters}");
    }
    let nodes = |filters: Value| -> Result<Vec<String>, String> {
        let filters = Filters::parse(&filters.to_string()).unwrap();
        let found = view::nodes(&world.store, None, &filters).map_err(|r| r.to_string())?;
        Ok(found.into_iter().map(|node| node.id).collect())
    };
    for (filters, expected) in [
        (json!({"role": ["manager"]}), Ok(vec!["manager"])),
        (
            json!({"role": ["worker", "MANAGER"]}),
            Ok(vec!["manager", "worker"]),
        ),
        (json!({"name": ["host"]}), Ok(vec!["worker"])),
        (json!({"node.label": ["zone=1"]}), Ok(vec!["worker"])),
        (
            json!({"membership": ["accepted"]}),
            Ok(vec!["manager", "worker"]),
        ),
        (json!({"membership": ["pending"]}), Ok(vec![])),
        (json!({"role": ["x"]}), Err("Invalid role filter: 'x'")),
        (
            json!({"membership": ["x"]}),
            Err("Invalid membership filter: 'x'"),
        ),
    ] {
        let expected = expected
            .map(|ids| ids.into_iter().map(str::to_owned).collect())
            .map_err(str::to_owned);
        assert_eq!(nodes(filters.clone()), expected, "{filters}");
    }
}

/// Events as lines: type, action, attributes.
#[test]
fn events() {
    let mut world = World::new();
    let told = |world: &mut World, request: Request| -> Vec<String> {
        let decision = world.decide(&request).unwrap();
        let index = world.store.index() + 1;
        let events = world.store.apply(index, &decision.transaction).unwrap();
        lines(&events)
    };
    let one = told(&mut world, create(minimal(json!({}))));
    assert_eq!(one, ["service create name=case"]);
    let update = |world: &World, further: Value| Request::ServiceUpdate {
        service: "case".into(),
        version: world.version(
            world
                .store
                .id_of(cluster_api::Kind::Service, "case")
                .unwrap(),
        ),
        spec: super::spec(further),
        auth: super::super::RegistryAuth::Spec,
    };
    let request = update(
        &world,
        with_template(json!({"ContainerSpec": {"Image": "other"}})),
    );
    assert_eq!(
        told(&mut world, request),
        ["service update image.new=other,image.old=busybox,name=case"]
    );
    let request = update(
        &world,
        minimal(json!({"Mode": {"Replicated": {"Replicas": 3}}})),
    );
    assert_eq!(
        told(&mut world, request),
        [
            "service update image.new=busybox,image.old=other,name=case,replicas.new=3,replicas.old=1"
        ]
    );
    let service = || "case".to_owned();
    let version = world.version(
        world
            .store
            .id_of(cluster_api::Kind::Service, "case")
            .unwrap(),
    );
    let rollback = Request::ServiceRollback {
        service: service(),
        version,
    };
    assert!(told(&mut world, rollback)[0].contains("updatestate.new=rollback_started"));
    // Gone for clients at once, and not gone a second time.
    let removed = told(&mut world, Request::ServiceRemove { service: service() });
    assert_eq!(removed, ["service remove name=case"]);
    let old = world
        .store
        .services()
        .next()
        .cloned()
        .map(Object::Service)
        .unwrap();
    assert_eq!(lines(&[StoreEvent::Removed(old)]), [""; 0]);
    let network = Request::NetworkCreate {
        spec: Box::new(cluster_api::NetworkSpec {
            annotations: api::Annotations {
                name: "net".into(),
                ..api::Annotations::default()
            },
            ..cluster_api::NetworkSpec::default()
        }),
    };
    assert_eq!(told(&mut world, network), ["network create name=net"]);
    let drained = |node: &Node| {
        let mut node = node.clone();
        node.spec.availability = api::NodeAvailability::Drain;
        node.status.state = api::NodeState::Down;
        node
    };
    let node = Node {
        id: "n".into(),
        ..Node::default()
    };
    let event = StoreEvent::Updated {
        new: drained(&node).into(),
        old: node.into(),
    };
    assert_eq!(
        lines(&[event]),
        [
            "node update availability.new=drain,availability.old=active,name=,state.new=down,state.old=unknown"
        ]
    );
    let cluster = world.store.cluster().cloned().map(Object::Cluster).unwrap();
    assert_eq!(
        lines(&[StoreEvent::Created(cluster)]),
        [""; 0],
        "the cluster has no events"
    );
    assert!(ingress_spec().ingress);
}

fn lines(events: &[StoreEvent]) -> Vec<String> {
    let told = events.iter().filter_map(view::event);
    told.map(|event| {
        assert_eq!(event.scope, "swarm");
        let mut attributes: Vec<_> = event
            .actor
            .attributes
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        attributes.sort();
        format!("{} {} {}", event.kind, event.action, attributes.join(","))
    })
    .collect()
}
