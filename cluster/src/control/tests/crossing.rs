//! Requests that are decided on the same state and of which only one may take effect.

use agent_api::swarm::{Annotations, ConfigSpec, NodeRole, NodeSpec, SecretSpec};
use cluster_api::{IdSource, NetworkSpec};
use serde_json::{Value, json};

use super::super::{Request, ingress_spec};
use super::{World, create, minimal, with_container, with_ports, with_template};
use crate::store::Conflict;

/// Whichever comes first in the log, the other one has no effect, and is refused when it is decided again.
fn cross(world: &World, one: &Request, other: &Request) {
    for [first, second] in [[one, other], [other, one]] {
        let mut world = World {
            store: world.store.clone(),
            ids: IdSource::seeded(7),
        };
        let [made, lost] = [first, second].map(|request| world.decide(request).unwrap());
        world.apply(&made.transaction);
        let index = world.store.index() + 1;
        let conflict = world.store.apply(index, &lost.transaction).unwrap_err();
        assert!(matches!(conflict, Conflict::Crossed { .. }), "{conflict}");
        world.refused(second.clone());
    }
}

fn named(name: &str) -> Annotations {
    Annotations {
        name: name.into(),
        ..Annotations::default()
    }
}

fn reference(kind: &str, id: &str) -> Value {
    let file = json!({"Name": "f", "UID": "0", "GID": "0", "Mode": 292});
    let (kind_id, kind_name) = (format!("{kind}ID"), format!("{kind}Name"));
    with_container(json!({
        format!("{kind}s"): [{kind_id: id, kind_name: "used", "File": file}]
    }))
}

#[test]
fn what_a_service_refers_to_is_not_removed_at_the_same_time() {
    let mut world = World::new();
    let data = Some("eA==".to_owned());
    let secret = world.created(Request::SecretCreate {
        spec: SecretSpec {
            annotations: named("used"),
            data: data.clone(),
            ..SecretSpec::default()
        },
    });
    let config = world.created(Request::ConfigCreate {
        spec: ConfigSpec {
            annotations: named("used"),
            data,
            ..ConfigSpec::default()
        },
    });
    let network = world.created(Request::NetworkCreate {
        spec: Box::new(NetworkSpec {
            annotations: named("used"),
            ..NetworkSpec::default()
        }),
    });
    let pairs = [
        (
            reference("Secret", &secret),
            Request::SecretRemove { secret },
        ),
        (
            reference("Config", &config),
            Request::ConfigRemove { config },
        ),
        (
            with_template(json!({"Networks": [{"Target": network}]})),
            Request::NetworkRemove { network },
        ),
        (
            with_ports(json!([{"TargetPort": 80, "PublishedPort": 8080}])),
            Request::NetworkRemove {
                network: "ingress".into(),
            },
        ),
    ];
    for (spec, removal) in pairs {
        cross(&world, &create(spec.clone()), &removal);
        // The same for one that is there and begins to refer to it.
        let mut world = World {
            store: world.store.clone(),
            ids: IdSource::seeded(3),
        };
        let service = world.created(create(minimal(json!({}))));
        let version = world.store.service(&service).unwrap().meta.version;
        let update = Request::ServiceUpdate {
            service,
            version,
            spec: super::spec(spec),
            auth: super::super::RegistryAuth::Spec,
        };
        cross(&world, &update, &removal);
    }
}

#[test]
fn there_is_one_ingress_network_though_two_are_made_at_once() {
    let mut world = World::new();
    let ingress = world.store.networks().next().unwrap().id.clone();
    let removal = Request::NetworkRemove { network: ingress };
    world.request(removal).unwrap();
    let [one, other] = ["one", "other"].map(|name| {
        let mut spec = ingress_spec();
        spec.annotations.name = name.into();
        Request::NetworkCreate {
            spec: Box::new(spec),
        }
    });
    cross(&world, &one, &other);
}

#[test]
fn a_manager_is_left_though_two_are_demoted_at_once() {
    let mut world = World::new();
    world.manager("a", 1);
    world.manager("b", 2);
    let [one, other] = ["a", "b"].map(|id| Request::NodeUpdate {
        node: id.into(),
        version: world.store.node(id).unwrap().meta.version,
        spec: NodeSpec {
            role: NodeRole::Worker,
            ..NodeSpec::default()
        },
    });
    cross(&world, &one, &other);
}
