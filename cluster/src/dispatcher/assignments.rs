//! What belongs on a node: its tasks, and what those need for as long as they need it.

use std::collections::BTreeSet;

use cluster_api::{Task, TaskState};

use super::drain::Drains;
use super::endpoints::EndpointTable;
use super::message::{Change, ItemKind};
use super::session::Items;
use crate::store::Store;

/// Everything the node has to have.
///
/// A task that ended stays until the managers delete it; its secrets, configs and networks go when it ends. One that was
/// given up as orphaned is left out: its addresses are somebody else's by now, so the node must end it at once.
pub(super) fn items_of_node(
    node_id: &str,
    store: &Store,
    endpoints: &EndpointTable,
    drains: &Drains,
) -> Items {
    let mut items = Items::new();
    let mut networks: BTreeSet<&str> = endpoints.ingress_of(node_id, store).into_iter().collect();
    for task in store.tasks_of_node(node_id) {
        if task.status.state < TaskState::Assigned || task.status.state == TaskState::Orphaned {
            continue;
        }
        put(&mut items, Change::Task(task.clone()));
        if task.status.state.is_terminal() {
            continue;
        }
        if drains.is_unbound(&task.id) {
            let task_id = task.id.clone();
            put(&mut items, Change::Unbound { task_id });
        }
        networks.extend(task.networks.iter().map(|a| a.network_id.as_str()));
        put_files(&mut items, task, store);
    }
    for network_id in networks {
        if let Some(network) = store.network(network_id) {
            put(&mut items, Change::Network(network.clone()));
        }
        if let Some(state) = endpoints.get(network_id) {
            put(&mut items, Change::Endpoints(state.clone()));
        }
    }
    items
}

/// Whether the agent of a task cares for the difference: what it reported itself is no news to it.
pub(super) fn is_same_for_agent(a: &Task, b: &Task) -> bool {
    a.desired == b.desired
        && a.node_id == b.node_id
        && a.spec_version == b.spec_version
        && a.networks == b.networks
        && a.endpoint == b.endpoint
        && a.restarts == b.restarts
        && a.service == b.service
        && (std::sync::Arc::ptr_eq(&a.spec, &b.spec) || a.spec == b.spec)
}

fn put_files(items: &mut Items, task: &Task, store: &Store) {
    let Some(container) = &task.spec.container_spec else {
        return;
    };
    for reference in &container.secrets {
        if let Some(secret) = store.secret(&reference.secret_id) {
            put(items, Change::Secret(secret.clone()));
        }
    }
    for reference in &container.configs {
        if let Some(config) = store.config(&reference.config_id) {
            put(items, Change::Config(config.clone()));
        }
    }
}

fn put(items: &mut Items, change: Change) {
    let key: (ItemKind, String) = {
        let (kind, id) = change.key();
        (kind, id.to_owned())
    };
    items.insert(key, change);
}
