//! Limits and reservations. `deploy.resources` wins over the attributes of the service.

use agent_api::swarm::{Limit, ResourceRequirements, Resources};
use compose_model::{Bytes, Resource, ServiceConfig};
use serde_json::{Value, json};

/// What a task may use, and what is kept free for it.
pub(super) fn requirements(service: &ServiceConfig) -> ResourceRequirements {
    let resources = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.resources.clone())
        .unwrap_or_default();
    ResourceRequirements {
        limits: limits(service, resources.limits.as_ref()),
        reservations: reservations(service, resources.reservations.as_ref()),
    }
}

fn limits(service: &ServiceConfig, deploy: Option<&Resource>) -> Option<Limit> {
    let limits = Limit {
        nano_cpus: nano(deploy.and_then(|limit| limit.cpus).or(service.cpus)),
        memory_bytes: bytes(deploy.and_then(|limit| limit.memory).or(service.mem_limit)),
        // -1 is no limit on a host, and 0 is in a cluster.
        pids: deploy
            .and_then(|limit| limit.pids)
            .or(service.pids_limit)
            .unwrap_or(0)
            .max(0),
    };
    (deploy.is_some() || limits != Limit::default()).then_some(limits)
}

fn reservations(service: &ServiceConfig, deploy: Option<&Resource>) -> Option<Resources> {
    let generic = deploy.into_iter().flat_map(|kept| &kept.generic_resources);
    let reserved = Resources {
        nano_cpus: nano(deploy.and_then(|kept| kept.cpus)),
        memory_bytes: bytes(
            deploy
                .and_then(|kept| kept.memory)
                .or(service.mem_reservation),
        ),
        generic_resources: generic.map(generic_resource).collect(),
    };
    (deploy.is_some() || reserved != Resources::default()).then_some(reserved)
}

fn generic_resource(resource: &compose_model::GenericResource) -> Value {
    match &resource.discrete_resource_spec {
        Some(discrete) => json!({"DiscreteResourceSpec": {
            "Kind": discrete.kind.clone().unwrap_or_default(),
            "Value": discrete.value.unwrap_or(0),
        }}),
        None => json!({}),
    }
}

fn bytes(bytes: Option<Bytes>) -> i64 {
    bytes.map_or(0, |bytes| bytes.0)
}

/// CPUs in units of 1e-9.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of CPUs fits, and a float saturates"
)]
fn nano(cpus: Option<f64>) -> i64 {
    (cpus.unwrap_or(0.0) * 1e9).round() as i64
}
