//! What a service of a stack waits for (`depends_on`): gates, written on it as a label. They are looked at until the
//! service has run for the first time; restarts, moves and scaling never wait. An update waits only while a service it
//! depends on is being updated itself, so that a stack that is deployed again rolls out in its order.

use std::sync::Arc;

use agent_api::swarm::gate::{Condition, Gate, LABEL, parse};
use cluster_api::{DesiredState, Kind, Service, Task, TaskState, Timestamp};

use super::slot::{SlotKey, is_live, slots_of};
use super::template::Template;
use crate::store::Store;

/// Why tasks of a service that has never run are held back, for people; `None` when they are not.
#[must_use]
pub fn waits_for(store: &Store, service: &Service) -> Option<String> {
    let gates = gates_of(service);
    if gates.as_ref().is_ok_and(Vec::is_empty) || has_run(store, service) {
        return None;
    }
    match gates {
        Ok(gates) => gates
            .iter()
            .find_map(|gate| closed_to_start(store, service, gate)),
        Err(reason) => Some(reason),
    }
}

/// Why an update of the service may not go on yet; `None` when it may.
pub(super) fn update_waits_for(store: &Store, service: &Service) -> Option<String> {
    let gates = gates_of(service).ok()?;
    gates
        .iter()
        .find_map(|gate| closed_to_update(store, service, gate))
}

/// The services whose changes may open a gate of this one.
pub(super) fn dependencies(service: &Service) -> Vec<String> {
    let gates = gates_of(service).unwrap_or_default();
    gates.into_iter().map(|gate| gate.service).collect()
}

fn gates_of(service: &Service) -> Result<Vec<Gate>, String> {
    service
        .spec
        .annotations
        .labels
        .get(LABEL)
        .map_or_else(|| Ok(Vec::new()), |label| parse(label))
        .map_err(|error| error.to_string())
}

fn has_run(store: &Store, service: &Service) -> bool {
    store
        .tasks_of_service(&service.id)
        .any(|task| task.running_since != Timestamp::default())
}

fn closed_to_start(store: &Store, service: &Service, gate: &Gate) -> Option<String> {
    let name = &gate.service;
    let Some(awaited) = awaited(store, service, gate) else {
        return gate
            .required
            .then(|| format!("waiting for {name}, which does not exist"));
    };
    let newest = newest_of_slots(store, awaited);
    if newest.is_empty() && wants_none(awaited) {
        return None;
    }
    let mut tasks = store.tasks_of_service(&awaited.id);
    let open = match gate.condition {
        Condition::Started => tasks.any(|task| task.running_since != Timestamp::default()),
        Condition::Healthy => {
            tasks.any(|task| is_live(task) && task.status.state == TaskState::Running)
        }
        Condition::Completed => all_completed(&newest),
    };
    if open || (!gate.required && has_failed(&newest)) {
        return None;
    }
    Some(match gate.condition {
        Condition::Started => format!("waiting for {name} to start"),
        Condition::Healthy => format!("waiting for {name} to be healthy"),
        Condition::Completed => format!("waiting for {name} to complete"),
    })
}

fn closed_to_update(store: &Store, service: &Service, gate: &Gate) -> Option<String> {
    let name = &gate.service;
    let awaited = awaited(store, service, gate)?;
    let template = Template::new(store, awaited);
    let under_way = match &awaited.rollout {
        Some(rollout) => rollout.state.is_active(),
        None => store
            .tasks_of_service(&awaited.id)
            .any(|task| is_live(task) && template.is_dirty(task)),
    };
    if under_way {
        return Some(format!("waiting for the update of {name}"));
    }
    let newest = newest_of_slots(store, awaited);
    (gate.condition == Condition::Completed
        && gate.required
        && !newest.is_empty()
        && !all_completed(&newest))
    .then(|| format!("waiting for {name} to complete"))
}

fn awaited<'a>(store: &'a Store, service: &Service, gate: &Gate) -> Option<&'a Arc<Service>> {
    store
        .id_of(Kind::Service, &gate.service)
        .and_then(|id| store.service(id))
        .filter(|awaited| awaited.id != service.id)
}

fn wants_none(service: &Service) -> bool {
    service
        .spec
        .mode
        .replicated
        .as_ref()
        .is_some_and(|replicated| replicated.replicas == Some(0))
}

fn newest_of_slots<'a>(store: &'a Store, service: &Service) -> Vec<&'a Arc<Task>> {
    slots_of(store, &service.id)
        .values()
        .filter_map(super::slot::Slot::newest)
        .collect()
}

fn all_completed(newest: &[&Arc<Task>]) -> bool {
    !newest.is_empty()
        && newest
            .iter()
            .all(|task| task.status.state == TaskState::Complete)
}

fn has_failed(newest: &[&Arc<Task>]) -> bool {
    newest.iter().any(|task| {
        matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
            || task.restarts.attempts > 0
    })
}

/// Whether the task is held back and what it waits for is there.
pub(super) fn is_released(task: &Task, is_open: bool) -> bool {
    task.desired == DesiredState::Ready && (!task.gated || is_open)
}

/// The slot a message speaks of.
pub(super) fn name_of(service: &Service, key: &SlotKey) -> String {
    format!("{}.{key}", service.spec.annotations.name)
}
