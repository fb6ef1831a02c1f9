//! What of a store's events `/events` tells (moby `daemon/events.go`). Docker has none about tasks; here they exist for
//! who asks for the type, so that waiting for a service needs no polling.

use agent_api::swarm::{NodeAvailability, NodeRole, NodeState, Reachability};
use agent_api::{EventActor, EventMessage, Labels};
use cluster_api::{Node, Object, Service, Task};

use crate::store::StoreEvent;

/// Type of events about tasks.
pub const TASK: &str = "task";

/// The event for clients; `None` for what is no business of theirs.
#[must_use]
pub fn event(event: &StoreEvent) -> Option<EventMessage> {
    let (action, old, object) = match event {
        StoreEvent::Created(object) => ("create", None, object),
        // What is being removed is gone for clients.
        StoreEvent::Updated { old, new } if is_leaving(new) && !is_leaving(old) => {
            ("remove", None, new)
        }
        StoreEvent::Updated { old, new } => ("update", Some(old), new),
        StoreEvent::Removed(object) => ("remove", None, object),
    };
    let told_before = match event {
        StoreEvent::Created(_) => false,
        StoreEvent::Updated { old, .. } | StoreEvent::Removed(old) => is_leaving(old),
    };
    if told_before {
        return None;
    }
    let attributes = match (object, old) {
        (Object::Service(new), Some(Object::Service(old))) => service(new, Some(old)),
        (Object::Service(new), _) => service(new, None),
        (Object::Node(new), Some(Object::Node(old))) => node(new, Some(old)),
        (Object::Node(new), _) => node(new, None),
        (Object::Task(new), _) => task(new),
        (Object::Network(network), _) => name(&network.spec.annotations.name),
        (Object::Secret(secret), _) => name(&secret.spec.annotations.name),
        (Object::Config(config), _) => name(&config.spec.annotations.name),
        (Object::Cluster(_), _) => return None,
    };
    let nanoseconds = object.meta().updated_at.0;
    Some(EventMessage {
        kind: object.kind().to_string(),
        action: action.to_owned(),
        actor: EventActor {
            id: object.id().to_owned(),
            attributes,
        },
        scope: "swarm".to_owned(),
        time: nanoseconds.div_euclid(1_000_000_000),
        time_nano: nanoseconds,
        ..EventMessage::default()
    })
}

fn is_leaving(object: &Object) -> bool {
    match object {
        Object::Service(service) => service.pending_delete,
        Object::Network(network) => network.pending_delete,
        _ => false,
    }
}

fn name(name: &str) -> Labels {
    Labels::from_iter([("name".to_owned(), name.to_owned())])
}

/// Notes a member that changed.
fn changed(attributes: &mut Labels, what: &str, old: Option<&str>, new: Option<&str>) {
    if old == new {
        return;
    }
    for (when, value) in [("new", new), ("old", old)] {
        if let Some(value) = value {
            attributes.insert(format!("{what}.{when}"), value.to_owned());
        }
    }
}

fn service(new: &Service, old: Option<&Service>) -> Labels {
    let mut attributes = name(&new.spec.annotations.name);
    let Some(old) = old else {
        return attributes;
    };
    let image = |service: &Service| {
        let container = service.spec.task_template.container_spec.as_ref();
        container.map(|container| container.image.clone())
    };
    changed(
        &mut attributes,
        "image",
        image(old).as_deref(),
        image(new).as_deref(),
    );
    let replicas = |service: &Service| {
        let replicated = service.spec.mode.replicated.as_ref();
        replicated
            .and_then(|replicated| replicated.replicas)
            .map(|count| count.to_string())
    };
    changed(
        &mut attributes,
        "replicas",
        replicas(old).as_deref(),
        replicas(new).as_deref(),
    );
    let state = |service: &Service| {
        service
            .rollout
            .as_ref()
            .map(|rollout| rollout.state.as_str())
    };
    if new.rollout.is_some() {
        changed(&mut attributes, "updatestate", state(old), state(new));
    }
    attributes
}

fn node(new: &Node, old: Option<&Node>) -> Labels {
    let hostname = new
        .description
        .as_ref()
        .map(|description| &description.hostname);
    let own = Some(&new.spec.annotations.name).filter(|name| !name.is_empty());
    let mut attributes = name(own.or(hostname).map_or("", String::as_str));
    let Some(old) = old else {
        return attributes;
    };
    let availability = |node: &Node| match node.spec.availability {
        NodeAvailability::Active => "active",
        NodeAvailability::Pause => "pause",
        NodeAvailability::Drain => "drain",
    };
    changed(
        &mut attributes,
        "availability",
        Some(availability(old)),
        Some(availability(new)),
    );
    let role = |node: &Node| match node.role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    changed(&mut attributes, "role", Some(role(old)), Some(role(new)));
    let state = |node: &Node| match node.status.state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    };
    changed(&mut attributes, "state", Some(state(old)), Some(state(new)));
    let reachability = |node: &Node| {
        node.member
            .as_ref()
            .map(|member| match member.reachability {
                Reachability::Unknown => "unknown",
                Reachability::Unreachable => "unreachable",
                Reachability::Reachable => "reachable",
            })
    };
    if old.member.is_some() && new.member.is_some() {
        changed(
            &mut attributes,
            "reachability",
            reachability(old),
            reachability(new),
        );
    }
    attributes
}

fn task(task: &Task) -> Labels {
    Labels::from_iter([
        ("name".to_owned(), super::super::lookup::view_name(task)),
        ("service.id".to_owned(), task.service_id.clone()),
        ("node.id".to_owned(), task.node_id.clone()),
        ("state".to_owned(), task.status.state.as_str().to_owned()),
        ("desired".to_owned(), task.desired.as_str().to_owned()),
    ])
}
