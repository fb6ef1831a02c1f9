//! Networks of the cluster.

use cluster_api::{
    Attachment, DesiredState, Kind, Network, NetworkSpec, Subnet, Task, TaskState, TaskStatus,
};
use serde_json::json;

use super::super::{Reply, Request, ingress_network, ingress_spec};
use super::{World, create, minimal, with_template};

fn spec(name: &str) -> NetworkSpec {
    let mut spec = NetworkSpec::default();
    spec.annotations.name = name.into();
    spec
}

fn made(spec: NetworkSpec) -> Request {
    Request::NetworkCreate {
        spec: Box::new(spec),
    }
}

fn remove(network: &str) -> Request {
    Request::NetworkRemove {
        network: network.into(),
    }
}

fn subnet(subnet: &str, gateway: &str, range: &str) -> Subnet {
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Subnet {
        subnet: subnet.parse().unwrap(),
        gateway: optional(gateway).map(|text| text.parse().unwrap()),
        range: optional(range).map(|text| text.parse().unwrap()),
    }
}

#[test]
fn networks_that_break_a_rule_are_refused() {
    let with = |change: fn(&mut NetworkSpec)| {
        let mut network = spec("net");
        change(&mut network);
        network
    };
    let mut world = World::new();
    world.created(made(spec("taken")));
    for (network, text) in [
        (spec(""), "400 meta: name must be provided"),
        (
            spec("a.b"),
            "400 name must be valid as a DNS name component",
        ),
        (spec("taken"), "409 network with name taken already exists"),
        (
            spec("host"),
            "403 operation is not permitted on predefined host network",
        ),
        (
            with(|n| n.ingress = true),
            "409 ingress network (ingress-id) is already present",
        ),
        (
            with(|n| {
                n.ingress = true;
                n.attachable = true;
            }),
            "400 ingress network cannot be attachable",
        ),
        (
            with(|n| n.driver.name = "macvlan".into()),
            "501 network driver \"macvlan\" for networks of the cluster is not supported",
        ),
        (
            with(|n| drop(n.driver.options.insert("encrypted".into(), String::new()))),
            "501 option encrypted= of overlay networks is not supported",
        ),
        (
            with(|n| {
                drop(
                    n.driver
                        .options
                        .insert("com.docker.network.driver.mtu".into(), "9".into()),
                )
            }),
            "400 option com.docker.network.driver.mtu of network net is a number from 576 to 65535, not \"9\"",
        ),
        (
            with(|n| n.subnets = vec![subnet("10.3.0.0/24", "10.4.0.1", "")]),
            "400 ipam configuration: subnet 10.3.0.0/24 does not contain gateway 10.4.0.1",
        ),
        (
            with(|n| n.subnets = vec![subnet("10.3.0.0/24", "", "10.9.0.0/28")]),
            "400 ipam configuration: subnet 10.3.0.0/24 does not contain range 10.9.0.0/28",
        ),
        (
            with(|n| {
                n.subnets = vec![subnet("10.3.0.0/16", "", ""), subnet("10.3.9.0/24", "", "")]
            }),
            "400 ipam configuration: subnets 10.3.0.0/16 and 10.3.9.0/24 overlap",
        ),
        (
            with(|n| n.ipv6 = true),
            "400 IPv6 network net needs a subnet: the address pools of this cluster have IPv4 addresses only",
        ),
        (
            with(|n| n.subnets = vec![subnet("fd00::/64", "", "")]),
            "400 network net has an IPv6 subnet but IPv6 is not enabled for it",
        ),
    ] {
        assert_eq!(world.refused(made(network)), text);
    }
    let mut both = spec("both");
    both.ipv6 = true;
    both.subnets = vec![
        subnet("10.3.0.0/24", "10.3.0.1", "10.3.0.128/25"),
        subnet("fd00::/64", "", ""),
    ];
    let id = world.created(made(both));
    assert_eq!(
        world.store.network(&id).unwrap().spec.driver.name,
        "overlay"
    );
}

#[test]
fn a_network_stays_while_a_service_uses_it() {
    let mut world = World::new();
    let id = world.created(made(spec("net")));
    let service = world.service(with_template(json!({"Networks": [{"Target": "net"}]})));
    assert_eq!(
        world.refused(remove("net")),
        format!("400 network {id} is in use by service {service}")
    );
    world.request(Request::ServiceRemove { service }).unwrap();
    assert_eq!(world.request(remove("net")), Ok(Reply::Done));
    assert!(world.store.network(&id).is_none());
    assert_eq!(world.refused(remove("net")), "404 network net not found");
}

#[test]
fn a_network_with_tasks_on_their_way_out_goes_after_them_but_its_name_is_free() {
    let mut world = World::new();
    let id = world.created(made(spec("net")));
    let service = world.service(with_template(json!({"Networks": [{"Target": "net"}]})));
    let mut task = Task {
        id: "task".into(),
        service_id: service.clone(),
        desired: DesiredState::Running,
        status: TaskStatus {
            state: TaskState::Running,
            ..TaskStatus::default()
        },
        networks: vec![Attachment {
            network_id: id.clone(),
            ..Attachment::default()
        }],
        ..Task::default()
    };
    world.put(task.clone());
    world.request(Request::ServiceRemove { service }).unwrap();
    world.request(remove("net")).unwrap();
    assert!(world.store.network(&id).unwrap().pending_delete);
    assert_eq!(world.store.id_of(Kind::Network, "net"), None);
    assert_eq!(
        world.refused(remove(&id)),
        format!("404 network {id} not found")
    );
    let next = world.created(made(spec("net")));
    assert_ne!(next, id);
    // A task that nobody stops holds its network.
    task.id = "other".into();
    task.service_id = world.service(minimal(json!({})));
    task.networks[0].network_id.clone_from(&next);
    world.put(task);
    assert_eq!(
        world.refused(remove("net")),
        format!("400 network {next} is in use by task other")
    );
}

#[test]
fn the_ingress_network_stays_while_ports_are_published_and_can_be_made_anew() {
    let mut world = World::new();
    let ports = json!({"EndpointSpec": {"Ports": [{"TargetPort": 80}]}});
    let service = world.service(minimal(ports));
    assert_eq!(
        world.refused(remove("ingress")),
        format!("400 ingress network cannot be removed because service {service} depends on it")
    );
    world.request(Request::ServiceRemove { service }).unwrap();
    world.request(remove("ingress")).unwrap();
    assert_eq!(ingress_network(&world.store), None);
    let mut own = ingress_spec();
    own.annotations.name = "my-ingress".into();
    own.ipv6 = false;
    own.subnets = vec![subnet("10.11.0.0/16", "", "")];
    let id = world.created(made(own));
    assert_eq!(
        ingress_network(&world.store).map(|n| n.id.clone()),
        Some(id)
    );
}

#[test]
fn a_network_that_is_going_is_not_attached_to() {
    let mut world = World::new();
    let mut going = Network {
        id: "going".into(),
        spec: spec("net"),
        ..Network::default()
    };
    going.pending_delete = true;
    world.put(going);
    for target in ["net", "going"] {
        let request = create(with_template(json!({"Networks": [{"Target": target}]})));
        assert_eq!(
            world.refused(request),
            format!("404 network {target} not found")
        );
    }
}
