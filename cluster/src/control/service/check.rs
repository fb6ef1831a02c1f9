//! Rules of a service's spec alone (SwarmKit `validateServiceSpec`), on an admitted spec.

use agent_api::swarm::{
    EndpointSpec, ResourceRequirements, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig,
};

use super::super::{Refusal, annotations};
use super::{container, placement, ports};

/// Below this a reservation or limit of CPU means nothing.
const MIN_NANO_CPUS: i64 = 1_000_000;
const MIN_MEMORY_BYTES: i64 = 4 * 1024 * 1024;

pub(super) fn check(spec: &ServiceSpec) -> Result<(), Refusal> {
    annotations::check(&spec.annotations)?;
    template(&spec.task_template)?;
    if let Some(replicated) = &spec.mode.replicated
        && replicated
            .replicas
            .is_some_and(|replicas| i64::try_from(replicas).is_err())
    {
        return Err(Refusal::invalid("Number of replicas must be non-negative"));
    }
    for config in [&spec.update_config, &spec.rollback_config]
        .into_iter()
        .flatten()
    {
        rollout(config)?;
    }
    spec.endpoint_spec.as_ref().map_or(Ok(()), endpoint)
}

fn template(template: &TaskSpec) -> Result<(), Refusal> {
    if let Some(resources) = &template.resources {
        check_resources(resources)?;
    }
    if let Some(policy) = &template.restart_policy {
        restart(policy)?;
    }
    if let Some(placement) = &template.placement {
        placement::check(placement)?;
    }
    template
        .container_spec
        .as_ref()
        .map_or(Ok(()), container::check)
}

fn check_resources(resources: &ResourceRequirements) -> Result<(), Refusal> {
    if let Some(limits) = &resources.limits {
        amounts(limits.nano_cpus, limits.memory_bytes)?;
        if limits.pids < 0 {
            return Err(Refusal::invalid("invalid pids limit: Must not be negative"));
        }
    }
    if let Some(reservations) = &resources.reservations {
        if !reservations.generic_resources.is_empty() {
            return Err(Refusal::unsupported("reserving generic resources"));
        }
        amounts(reservations.nano_cpus, reservations.memory_bytes)?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people, who gave it as a decimal fraction"
)]
fn amounts(nano_cpus: i64, memory_bytes: i64) -> Result<(), Refusal> {
    if nano_cpus != 0 && nano_cpus < MIN_NANO_CPUS {
        return Err(Refusal::invalid(format!(
            "invalid cpu value {}: Must be at least 0.001",
            nano_cpus as f64 / 1e9
        )));
    }
    if memory_bytes != 0 && memory_bytes < MIN_MEMORY_BYTES {
        return Err(Refusal::invalid(format!(
            "invalid memory value {memory_bytes}: Must be at least 4MiB"
        )));
    }
    Ok(())
}

fn restart(policy: &RestartPolicy) -> Result<(), Refusal> {
    for (name, value) in [("delay", policy.delay), ("window", policy.window)] {
        if value.is_some_and(i64::is_negative) {
            return Err(Refusal::invalid(format!(
                "TaskSpec: restart-{name} cannot be negative"
            )));
        }
    }
    Ok(())
}

fn rollout(config: &UpdateConfig) -> Result<(), Refusal> {
    if config.delay < 0 {
        return Err(Refusal::invalid(
            "TaskSpec: update-delay cannot be negative",
        ));
    }
    if config.monitor < 0 {
        return Err(Refusal::invalid(
            "TaskSpec: update-monitor cannot be negative",
        ));
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(Refusal::invalid(
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ));
    }
    Ok(())
}

fn endpoint(endpoint: &EndpointSpec) -> Result<(), Refusal> {
    ports::check(endpoint)
}
