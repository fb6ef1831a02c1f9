//! New tasks, and whether an old one is still what its service asks for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_api::swarm::{EndpointSpec, PortConfig, ServiceSpec, TaskSpec};
use cluster_api::{
    Cluster, DesiredState, Endpoint, IdSource, Restarts, Service, Task, TaskStatus, Timestamp,
};

use super::slot::SlotKey;
use crate::constraint;
use crate::store::Store;

/// What the tasks of a service are made from.
pub(super) struct Template<'a> {
    pub(super) store: &'a Store,
    pub(super) service: &'a Service,
    spec: Arc<TaskSpec>,
    annotations: Arc<agent_api::swarm::Annotations>,
    /// By spec version: tasks of one version were made from one template.
    comparisons: RefCell<BTreeMap<u64, Comparison>>,
}

/// How a task's template differs from its service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Same,
    OnlyPlacement,
    Different,
}

/// What a new task is made of, next to the service's template.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) generation: u64,
    /// A task whose template is to be used instead of the service's.
    pub(super) like: Option<Arc<Task>>,
    pub(super) desired: DesiredState,
    pub(super) restarts: Restarts,
    pub(super) rollout: u64,
    pub(super) gated: bool,
}

impl<'a> Template<'a> {
    pub(super) fn new(store: &'a Store, service: &'a Service) -> Self {
        Self {
            store,
            service,
            spec: Arc::new(service.spec.task_template.clone()),
            annotations: Arc::new(service.spec.annotations.clone()),
            comparisons: RefCell::default(),
        }
    }

    /// Makes a task of the slot.
    pub(super) fn make(
        &self,
        key: &SlotKey,
        making: Making,
        now: Timestamp,
        ids: &mut IdSource,
    ) -> Task {
        let (slot, node_id) = match key {
            SlotKey::Number(number) => (*number, String::new()),
            SlotKey::Node(id) => (0, id.clone()),
        };
        let (spec, spec_version, annotations, endpoint) = match &making.like {
            Some(task) => (
                Arc::clone(&task.spec),
                task.spec_version,
                Arc::clone(&task.service),
                task.endpoint.spec.clone(),
            ),
            None => (
                Arc::clone(&self.spec),
                self.service.spec_version,
                Arc::clone(&self.annotations),
                self.service.spec.endpoint_spec.clone().unwrap_or_default(),
            ),
        };
        Task {
            id: ids.id(),
            service_id: self.service.id.clone(),
            service: annotations,
            slot,
            generation: making.generation,
            node_id,
            spec,
            spec_version,
            status: TaskStatus {
                since: now,
                message: "created".to_owned(),
                ..TaskStatus::default()
            },
            desired: making.desired,
            desired_since: now,
            rollout: making.rollout,
            gated: making.gated,
            log_driver: self.store.cluster().and_then(default_log_driver),
            endpoint: Endpoint {
                spec: endpoint,
                ..Endpoint::default()
            },
            restarts: making.restarts,
            ..Task::default()
        }
    }

    /// Whether the task is not what the service asks for (SwarmKit `orchestrator.IsTaskDirty`). A change of placement
    /// alone leaves tasks whose node satisfies the new constraints; credentials for the registry and ports published by
    /// every node leave all.
    pub(super) fn is_dirty(&self, task: &Task) -> bool {
        if task.spec_version == self.service.spec_version {
            return false;
        }
        let comparison = *self
            .comparisons
            .borrow_mut()
            .entry(task.spec_version)
            .or_insert_with(|| self.compare(task));
        match comparison {
            Comparison::Same => false,
            Comparison::Different => true,
            Comparison::OnlyPlacement => {
                let wanted = self.service.spec.task_template.placement.as_ref();
                let constraints = wanted.map_or(&[][..], |placement| &placement.constraints);
                self.store
                    .node(&task.node_id)
                    .is_none_or(|node| !constraint::all_met(constraints, node))
            }
        }
    }

    fn compare(&self, task: &Task) -> Comparison {
        let wanted = &self.service.spec.task_template;
        let published = self.service.spec.endpoint_spec.as_ref();
        if without_placement(&task.spec) != without_placement(wanted)
            || host_ports(Some(&task.endpoint.spec)) != host_ports(published)
        {
            Comparison::Different
        } else if task.spec.placement.clone().unwrap_or_default()
            == wanted.placement.clone().unwrap_or_default()
        {
            Comparison::Same
        } else {
            Comparison::OnlyPlacement
        }
    }
}

/// Whether the task is not what its service asks for: an update would replace it, or has not got to it yet.
#[must_use]
pub fn is_dirty(store: &Store, service: &Service, task: &Task) -> bool {
    Template::new(store, service).is_dirty(task)
}

/// Whether tasks of both specs would be the same and run at the same places.
pub(super) fn makes_same_tasks(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let (old, new) = (&a.task_template, &b.task_template);
    old.placement == new.placement
        && without_placement(old) == without_placement(new)
        && host_ports(a.endpoint_spec.as_ref()) == host_ports(b.endpoint_spec.as_ref())
}

fn without_placement(spec: &TaskSpec) -> TaskSpec {
    let mut spec = TaskSpec {
        placement: None,
        ..spec.clone()
    };
    if let Some(container) = &mut spec.container_spec {
        container.pull_options = None;
    }
    spec
}

/// The ports a task publishes on its own node.
pub(super) fn host_ports(spec: Option<&EndpointSpec>) -> BTreeSet<&PortConfig> {
    spec.into_iter()
        .flat_map(|spec| &spec.ports)
        .filter(|port| port.publish_mode == "host")
        .collect()
}

fn default_log_driver(cluster: &Arc<Cluster>) -> Option<agent_api::swarm::Driver> {
    cluster.spec.task_defaults.log_driver.clone()
}
