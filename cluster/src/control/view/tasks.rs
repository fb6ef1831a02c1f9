//! Tasks.

use std::sync::Arc;

use agent_api::Filters;
use agent_api::swarm::{
    Annotations, NetworkAttachment, Task as Shape, TaskContainerStatus, TaskPortStatus,
    TaskState as State, TaskStatus as StatusShape,
};
use cluster_api::{DesiredState, Task, TaskState, TaskStatus};

use super::super::{Refusal, lookup};
use super::{Shown, has_labels, has_prefix, networks};
use crate::orchestrator;
use crate::store::Store;

const FILTERS: [&str; 8] = [
    "name",
    "id",
    "label",
    "service",
    "node",
    "desired-state",
    "_up-to-date",
    "runtime",
];
const STATES: [&str; 15] = [
    "new",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "completed",
    "shutdown",
    "failed",
    "rejected",
    "remove",
    "orphaned",
];

/// `GET /tasks`.
///
/// # Errors
///
/// A filter that does not exist, a value it cannot have, or a service or node that does not exist.
pub fn tasks(store: &Store, filters: &Filters) -> Result<Vec<Shape>, Refusal> {
    filters.allow(&FILTERS)?;
    if let Some(word) = filters.get("desired-state").find(|word| {
        !word.is_empty() && !STATES.iter().any(|known| known.eq_ignore_ascii_case(word))
    }) {
        return Err(Refusal::invalid(format!(
            "Invalid desired-state filter: '{word}'"
        )));
    }
    let services = filters
        .get("service")
        .map(|input| lookup::service(store, input).map(|service| service.id.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    let nodes = filters
        .get("node")
        .map(|input| lookup::node(store, input).map(|node| node.id.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    // The shortest list there is an index for.
    let candidates: Vec<&Arc<Task>> = match (services.as_slice(), nodes.as_slice()) {
        ([one], _) => store.tasks_of_service(one).collect(),
        (_, [one]) => store.tasks_of_node(one).collect(),
        _ => store.tasks().collect(),
    };
    let is_one_of = |ids: &[&str], id: &str| ids.is_empty() || ids.contains(&id);
    Ok(candidates
        .into_iter()
        .filter(|task| is_one_of(&services, &task.service_id) && is_one_of(&nodes, &task.node_id))
        .filter(|task| is_wanted(store, task, filters))
        .map(|task| shape(store, task))
        .collect())
}

/// `GET /tasks/{id}`.
///
/// # Errors
///
/// There is no such task, or there are several.
pub fn task(store: &Store, input: &str) -> Result<Shape, Refusal> {
    Ok(shape(store, lookup::task(store, input)?))
}

/// The ids of a service and of its tasks, for who wants their logs.
///
/// # Errors
///
/// There is no such service, or there are several.
pub fn service_tasks(store: &Store, input: &str) -> Result<(String, Vec<Arc<Task>>), Refusal> {
    let service = lookup::service(store, input)?;
    let tasks = store.tasks_of_service(&service.id).cloned().collect();
    Ok((service.id.clone(), tasks))
}

fn is_wanted(store: &Store, task: &Task, filters: &Filters) -> bool {
    has_prefix(filters, "id", &task.id)
        && filters.any("name", |prefix| lookup::view_name(task).starts_with(prefix))
        && has_labels(filters, "label", &task.service.labels)
        && filters.any("runtime", |runtime| ["", "container"].contains(&runtime))
        && filters.any("desired-state", |word| {
            word.is_empty() || word.eq_ignore_ascii_case(task.desired.as_str())
        })
        && (!filters.contains("_up-to-date") || is_up_to_date(store, task))
}

fn is_up_to_date(store: &Store, task: &Task) -> bool {
    store
        .service(&task.service_id)
        .is_some_and(|service| !orchestrator::is_dirty(store, service, task))
}

fn shape(store: &Store, task: &Task) -> Shape {
    let meta = Shown::from(task.meta);
    let mut spec = agent_api::swarm::TaskSpec::clone(&task.spec);
    // Docker tells the runtime of services only.
    spec.runtime.clear();
    if let Some(container) = &mut spec.container_spec {
        container.pull_options = None;
    }
    Shape {
        id: task.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        name: String::new(),
        labels: Annotations::default().labels,
        spec,
        service_id: task.service_id.clone(),
        slot: task.slot,
        node_id: task.node_id.clone(),
        status: status(store, task),
        desired_state: desired(task.desired),
        networks_attachments: attachments(store, task),
        ..Shape::default()
    }
}

fn attachments(store: &Store, task: &Task) -> Vec<NetworkAttachment> {
    let found = task.networks.iter().filter_map(|attachment| {
        let network = store.network(&attachment.network_id)?;
        Some(NetworkAttachment {
            network: networks::attached(network),
            addresses: attachment
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
    });
    found.collect()
}

fn status(store: &Store, task: &Task) -> StatusShape {
    let TaskStatus {
        state,
        since,
        message,
        error,
        container,
        ports,
    } = &task.status;
    let held_back = (task.gated && task.desired == DesiredState::Ready)
        .then(|| store.service(&task.service_id))
        .flatten()
        .and_then(|service| orchestrator::waits_for(store, service));
    StatusShape {
        timestamp: since.rfc3339(),
        state: observed(*state),
        message: held_back.unwrap_or_else(|| message.clone()),
        err: error.clone(),
        container_status: container.as_ref().map(|container| TaskContainerStatus {
            container_id: container.id.clone(),
            pid: container.pid,
            exit_code: container.exit_code,
        }),
        port_status: TaskPortStatus {
            ports: ports.clone(),
        },
    }
}

const fn observed(state: TaskState) -> State {
    match state {
        TaskState::New => State::New,
        TaskState::Pending => State::Pending,
        TaskState::Assigned => State::Assigned,
        TaskState::Accepted => State::Accepted,
        TaskState::Preparing => State::Preparing,
        TaskState::Ready => State::Ready,
        TaskState::Starting => State::Starting,
        TaskState::Running => State::Running,
        TaskState::Complete => State::Complete,
        TaskState::Shutdown => State::Shutdown,
        TaskState::Failed => State::Failed,
        TaskState::Rejected => State::Rejected,
        TaskState::Orphaned => State::Orphaned,
    }
}

const fn desired(state: DesiredState) -> State {
    match state {
        DesiredState::Ready => State::Ready,
        DesiredState::Running => State::Running,
        DesiredState::Complete => State::Complete,
        DesiredState::Shutdown => State::Shutdown,
        DesiredState::Remove => State::Remove,
    }
}
