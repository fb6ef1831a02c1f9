//! From what a user types to an object: a whole id, else a whole name, else the beginning of an id (moby
//! `daemon/cluster/helpers.go`). Objects that are being removed are not found.

use std::sync::Arc;

use cluster_api::{Config, Kind, Network, Node, Secret, Service, Task};

use super::Refusal;
use crate::store::Store;

pub(super) fn node<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Node>, Refusal> {
    if let Some(node) = store.node(input) {
        return Ok(node);
    }
    let named: Vec<_> = store
        .nodes()
        .filter(|node| {
            node.description
                .as_ref()
                .is_some_and(|description| description.hostname == input)
        })
        .collect();
    one(Kind::Node, input, named, || {
        store.nodes().filter(|node| node.id.starts_with(input))
    })
}

pub(super) fn service<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Service>, Refusal> {
    if let Some(service) = store
        .service(input)
        .filter(|service| !service.pending_delete)
    {
        return Ok(service);
    }
    let named = store
        .id_of(Kind::Service, input)
        .and_then(|id| store.service(id));
    one(Kind::Service, input, named.into_iter().collect(), || {
        store
            .services()
            .filter(|service| !service.pending_delete && service.id.starts_with(input))
    })
}

pub(super) fn task<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Task>, Refusal> {
    if let Some(task) = store.task(input) {
        return Ok(task);
    }
    let named: Vec<_> = match input.split_once('.') {
        Some((service, _)) => store
            .id_of(Kind::Service, service)
            .into_iter()
            .flat_map(|id| store.tasks_of_service(id))
            .filter(|task| view_name(task) == input)
            .collect(),
        None => Vec::new(),
    };
    one(Kind::Task, input, named, || {
        store.tasks().filter(|task| task.id.starts_with(input))
    })
}

pub(super) fn secret<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Secret>, Refusal> {
    if let Some(secret) = store.secret(input) {
        return Ok(secret);
    }
    let named = store
        .id_of(Kind::Secret, input)
        .and_then(|id| store.secret(id));
    one(Kind::Secret, input, named.into_iter().collect(), || {
        store
            .secrets()
            .filter(|secret| secret.id.starts_with(input))
    })
}

pub(super) fn config<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Config>, Refusal> {
    if let Some(config) = store.config(input) {
        return Ok(config);
    }
    let named = store
        .id_of(Kind::Config, input)
        .and_then(|id| store.config(id));
    one(Kind::Config, input, named.into_iter().collect(), || {
        store
            .configs()
            .filter(|config| config.id.starts_with(input))
    })
}

pub(super) fn network<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Network>, Refusal> {
    if let Some(network) = store
        .network(input)
        .filter(|network| !network.pending_delete)
    {
        return Ok(network);
    }
    let named = store
        .id_of(Kind::Network, input)
        .and_then(|id| store.network(id));
    one(Kind::Network, input, named.into_iter().collect(), || {
        store
            .networks()
            .filter(|network| !network.pending_delete && network.id.starts_with(input))
    })
}

/// What `docker service ps` and logs call a task: `<service>.<slot>` or `<service>.<node id>`, then its id.
pub(super) fn view_name(task: &Task) -> String {
    format!("{}.{}", task.name(), task.id)
}

fn one<'a, T, I>(
    kind: Kind,
    input: &str,
    named: Vec<&'a Arc<T>>,
    by_prefix: impl FnOnce() -> I,
) -> Result<&'a Arc<T>, Refusal>
where
    I: Iterator<Item = &'a Arc<T>>,
{
    let found = if named.is_empty() && !input.is_empty() {
        by_prefix().collect()
    } else {
        named
    };
    match found.as_slice() {
        [] => Err(Refusal::not_found(kind, input)),
        [one] => Ok(one),
        several => Err(Refusal::invalid(format!(
            "{kind} {input} is ambiguous ({} matches found)",
            several.len()
        ))),
    }
}
