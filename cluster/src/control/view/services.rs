//! Services, with how many of their tasks run.

use agent_api::Filters;
use agent_api::swarm::{
    DnsConfig, Endpoint, EndpointVirtualIp, Placement, ResourceRequirements, RestartPolicy,
    Service as Shape, ServiceSpec, ServiceStatus, UpdateConfig, UpdateStatus,
};
use cluster_api::{DesiredState, Rollout, Service, TaskState, Timestamp};

use super::super::{Refusal, lookup};
use super::{Shown, matches};
use crate::store::Store;

const FILTERS: [&str; 5] = ["name", "id", "label", "mode", "runtime"];
/// What a spec that says nothing gets (SwarmKit `api/defaults/service.go`).
const GRACE_NANOS: i64 = 10_000_000_000;
const RESTART_DELAY_NANOS: i64 = 5_000_000_000;
const MONITOR_NANOS: i64 = 5_000_000_000;

/// How much of a service is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    #[default]
    Plain,
    /// With the numbers of its tasks.
    Status,
    /// With the defaults of what its spec leaves out.
    Defaults,
}

/// `GET /services`.
///
/// # Errors
///
/// A filter that does not exist.
pub fn services(store: &Store, filters: &Filters, detail: Detail) -> Result<Vec<Shape>, Refusal> {
    filters.allow(&FILTERS)?;
    // Every service runs containers.
    let containers = filters.any("runtime", |runtime| runtime == "container");
    let wanted = store.services().filter(|service| {
        let mode = match service.spec.mode.global {
            Some(_) => "global",
            None => "replicated",
        };
        containers
            && !service.pending_delete
            && matches(filters, &service.id, &service.spec.annotations)
            && filters.any("mode", |wanted| wanted == mode)
    });
    Ok(wanted
        .map(|service| shape(store, service, detail))
        .collect())
}

/// `GET /services/{id}`.
///
/// # Errors
///
/// There is no such service, or there are several.
pub fn service(store: &Store, input: &str, detail: Detail) -> Result<Shape, Refusal> {
    Ok(shape(store, lookup::service(store, input)?, detail))
}

fn shape(store: &Store, service: &Service, detail: Detail) -> Shape {
    let meta = Shown::from(service.meta);
    let mut spec = without_credentials(&service.spec);
    if detail == Detail::Defaults {
        fill(&mut spec);
    }
    Shape {
        id: service.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec,
        previous_spec: service.previous_spec.as_deref().map(without_credentials),
        endpoint: endpoint(&service.endpoint),
        update_status: service.rollout.as_ref().map(update_status),
        service_status: (detail == Detail::Status).then(|| status(store, service)),
        job_status: None,
    }
}

fn without_credentials(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    if let Some(container) = &mut spec.task_template.container_spec {
        container.pull_options = None;
    }
    spec
}

fn endpoint(endpoint: &cluster_api::Endpoint) -> Endpoint {
    let addresses = endpoint.virtual_ips.iter();
    Endpoint {
        spec: endpoint.spec.clone(),
        ports: endpoint.ports.clone(),
        virtual_ips: addresses
            .map(|address| EndpointVirtualIp {
                network_id: address.network_id.clone(),
                addr: address.address.to_string(),
            })
            .collect(),
    }
}

fn update_status(rollout: &Rollout) -> UpdateStatus {
    let time = |time: Timestamp| (time != Timestamp::default()).then(|| time.rfc3339());
    UpdateStatus {
        state: rollout.state.as_str().to_owned(),
        started_at: time(rollout.started_at),
        completed_at: time(rollout.completed_at),
        message: rollout.message.clone(),
    }
}

fn status(store: &Store, service: &Service) -> ServiceStatus {
    let (mut running, mut wanted) = (0, 0);
    for task in store.tasks_of_service(&service.id) {
        running += u64::from(task.status.state == TaskState::Running);
        // One that waits for its predecessor's end is wanted, too.
        wanted += u64::from(task.desired <= DesiredState::Running);
    }
    let replicated = service.spec.mode.replicated.as_ref();
    ServiceStatus {
        running_tasks: running,
        desired_tasks: replicated
            .and_then(|replicated| replicated.replicas)
            .unwrap_or(wanted),
        completed_tasks: 0,
    }
}

/// Writes defaults where the spec says nothing.
fn fill(spec: &mut ServiceSpec) {
    let template = &mut spec.task_template;
    if let Some(container) = &mut template.container_spec {
        container.stop_grace_period.get_or_insert(GRACE_NANOS);
        container.dns_config.get_or_insert_with(DnsConfig::default);
    }
    template
        .resources
        .get_or_insert_with(ResourceRequirements::default);
    template
        .restart_policy
        .get_or_insert_with(|| RestartPolicy {
            condition: "any".to_owned(),
            max_attempts: Some(0),
            ..RestartPolicy::default()
        })
        .delay
        .get_or_insert(RESTART_DELAY_NANOS);
    template.placement.get_or_insert_with(Placement::default);
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(|| UpdateConfig {
            parallelism: 1,
            failure_action: "pause".to_owned(),
            order: "stop-first".to_owned(),
            ..UpdateConfig::default()
        });
        if config.monitor == 0 {
            config.monitor = MONITOR_NANOS;
        }
    }
}
