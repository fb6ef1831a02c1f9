//! Nodes.

use agent_api::Filters;
use agent_api::swarm::{ManagerStatus, Node as Shape, NodeRole};
use cluster_api::Node;

use super::super::{Refusal, lookup};
use super::{Shown, has_labels, has_prefix};
use crate::store::Store;

const FILTERS: [&str; 6] = ["name", "id", "label", "role", "membership", "node.label"];

/// `GET /nodes`. `leader` is the node id of Raft's leader.
///
/// # Errors
///
/// A filter that does not exist, or a value it cannot have.
pub fn nodes(
    store: &Store,
    leader: Option<&str>,
    filters: &Filters,
) -> Result<Vec<Shape>, Refusal> {
    filters.allow(&FILTERS)?;
    words(filters, "role", &["worker", "manager"])?;
    words(filters, "membership", &["accepted", "pending"])?;
    // A node is in the store when it has been accepted, never before.
    let accepted = filters.any("membership", |word| {
        word.is_empty() || word.eq_ignore_ascii_case("accepted")
    });
    Ok(store
        .nodes()
        .filter(|node| accepted && is_wanted(node, filters))
        .map(|node| shape(node, leader))
        .collect())
}

/// `GET /nodes/{id}`.
///
/// # Errors
///
/// There is no such node, or there are several.
pub fn node(store: &Store, leader: Option<&str>, input: &str) -> Result<Shape, Refusal> {
    Ok(shape(lookup::node(store, input)?, leader))
}

fn words(filters: &Filters, name: &str, known: &[&str]) -> Result<(), Refusal> {
    match filters
        .get(name)
        .find(|word| !word.is_empty() && !known.iter().any(|k| k.eq_ignore_ascii_case(word)))
    {
        Some(word) => Err(Refusal::invalid(format!("Invalid {name} filter: '{word}'"))),
        None => Ok(()),
    }
}

fn is_wanted(node: &Node, filters: &Filters) -> bool {
    let none = agent_api::Labels::default();
    let description = node.description.as_ref();
    let hostname = description.map_or("", |description| &description.hostname);
    let engine = description.map_or(&none, |description| &description.engine.labels);
    let role = match node.role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    has_prefix(filters, "id", &node.id)
        && has_prefix(filters, "name", hostname)
        && has_labels(filters, "label", engine)
        && has_labels(filters, "node.label", &node.spec.annotations.labels)
        && filters.any("role", |word| {
            word.is_empty() || word.eq_ignore_ascii_case(role)
        })
}

fn shape(node: &Node, leader: Option<&str>) -> Shape {
    let meta = Shown::from(node.meta);
    Shape {
        id: node.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: node.spec.clone(),
        description: node.description.clone().unwrap_or_default(),
        status: node.status.clone(),
        manager_status: node.member.as_ref().map(|member| ManagerStatus {
            leader: leader == Some(node.id.as_str()),
            reachability: member.reachability,
            addr: member.addr.clone(),
        }),
    }
}
