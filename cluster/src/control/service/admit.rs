//! A spec as clients send it becomes the spec that is kept: defaults that clients may leave out are written out, as they
//! are when Docker translates a spec back and forth (moby `convert/service.go`), and networks are named by their ids. So
//! what a client reads and sends again unchanged is unchanged. Words no one knows are refused here.

use agent_api::swarm::{
    ContainerSpec, EndpointSpec, NetworkAttachmentConfig, PortConfig, ReplicatedService,
    RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use cluster_api::Kind;

use super::super::{Refusal, lookup};
use crate::store::Store;

/// The spec with its defaults.
pub(in super::super) fn admit(store: &Store, given: &ServiceSpec) -> Result<ServiceSpec, Refusal> {
    let mut spec = given.clone();
    runtime(&mut spec.task_template)?;
    if let Some(container) = &mut spec.task_template.container_spec {
        isolation(container)?;
        container.pull_options = None;
    }
    if let Some(policy) = &mut spec.task_template.restart_policy {
        restart(policy)?;
    }
    let rollouts = [&mut spec.update_config, &mut spec.rollback_config];
    for config in rollouts.into_iter().flatten() {
        rollout(config)?;
    }
    if let Some(config) = &spec.rollback_config
        && config.failure_action == "rollback"
    {
        return Err(Refusal::invalid(
            "the failure action of a rollback is pause or continue, not rollback",
        ));
    }
    if let Some(endpoint) = &mut spec.endpoint_spec {
        endpoint_words(endpoint)?;
    }
    mode(&mut spec.mode)?;
    let old_place = spec.task_template.networks.is_empty();
    let networks = if old_place {
        &mut spec.networks
    } else {
        &mut spec.task_template.networks
    };
    for network in networks {
        resolve(store, network)?;
    }
    Ok(spec)
}

fn runtime(template: &mut TaskSpec) -> Result<(), Refusal> {
    match template.runtime.as_str() {
        "" | "container" => {}
        "plugin" => return Err(Refusal::unsupported("runtime \"plugin\" of services")),
        "attachment" => return Err(Refusal::invalid("unsupported runtime")),
        other => return Err(Refusal::invalid(format!("unsupported runtime: {other:?}"))),
    }
    if template.plugin_spec.is_some() {
        return Err(Refusal::unsupported("a plugin spec"));
    }
    if template.container_spec.is_none() || template.network_attachment_spec.is_some() {
        return Err(Refusal::invalid("mismatched Runtime and *Spec fields"));
    }
    "container".clone_into(&mut template.runtime);
    Ok(())
}

fn isolation(container: &mut ContainerSpec) -> Result<(), Refusal> {
    match container.isolation.to_ascii_lowercase().as_str() {
        "" | "default" => {
            "default".clone_into(&mut container.isolation);
            Ok(())
        }
        other => Err(Refusal::unsupported(format_args!("isolation {other:?}"))),
    }
}

fn restart(policy: &mut RestartPolicy) -> Result<(), Refusal> {
    default_word(&mut policy.condition, &["any", "none", "on-failure"])
        .map_err(|word| Refusal::invalid(format!("invalid RestartCondition: {word:?}")))?;
    policy.max_attempts.get_or_insert(0);
    Ok(())
}

fn rollout(config: &mut UpdateConfig) -> Result<(), Refusal> {
    default_word(
        &mut config.failure_action,
        &["pause", "continue", "rollback"],
    )
    .map_err(|word| Refusal::invalid(format!("unrecognized update failure action {word}")))?;
    default_word(&mut config.order, &["stop-first", "start-first"])
        .map_err(|word| Refusal::invalid(format!("unrecognized update order {word}")))
}

fn endpoint_words(endpoint: &mut EndpointSpec) -> Result<(), Refusal> {
    default_word(&mut endpoint.mode, &["vip", "dnsrr"])
        .map_err(|word| Refusal::invalid(format!("invalid resolution mode: {word:?}")))?;
    for port in &mut endpoint.ports {
        port_words(port)?;
    }
    Ok(())
}

fn port_words(port: &mut PortConfig) -> Result<(), Refusal> {
    default_word(&mut port.protocol, &["tcp", "udp", "sctp"]).map_err(|word| {
        Refusal::invalid(format!(
            "invalid protocol {word:?} of a published port: tcp, udp or sctp"
        ))
    })?;
    default_word(&mut port.publish_mode, &["ingress", "host"]).map_err(|word| {
        Refusal::invalid(format!(
            "invalid publish mode {word:?} of a published port: ingress or host"
        ))
    })
}

fn mode(mode: &mut ServiceMode) -> Result<(), Refusal> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(Refusal::invalid("must specify only one service mode"));
    }
    if mode.replicated_job.is_some() {
        return Err(Refusal::unsupported("service mode replicated-job"));
    }
    if mode.global_job.is_some() {
        return Err(Refusal::unsupported("service mode global-job"));
    }
    if mode.global.is_none() {
        mode.replicated
            .get_or_insert_with(ReplicatedService::default)
            .replicas
            .get_or_insert(1);
    }
    Ok(())
}

fn resolve(store: &Store, network: &mut NetworkAttachmentConfig) -> Result<(), Refusal> {
    if let Some(option) = network.driver_opts.keys().next() {
        return Err(Refusal::unsupported(format_args!(
            "driver option {option} of the attachment to network {}",
            network.target
        )));
    }
    match lookup::network(store, &network.target) {
        Ok(found) => {
            network.target.clone_from(&found.id);
            Ok(())
        }
        Err(_) if ["bridge", "host", "none"].contains(&network.target.as_str()) => {
            Err(Refusal::Forbidden(format!(
                "The network {} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.",
                network.target
            )))
        }
        Err(Refusal::NotFound(_)) => Err(Refusal::not_found(Kind::Network, &network.target)),
        Err(other) => Err(other),
    }
}

/// The first of `known` where nothing was given; an unknown word comes back.
fn default_word<'a>(word: &'a mut String, known: &[&str]) -> Result<(), &'a str> {
    if word.is_empty() {
        known[0].clone_into(word);
    }
    if known.contains(&word.as_str()) {
        Ok(())
    } else {
        Err(word)
    }
}
