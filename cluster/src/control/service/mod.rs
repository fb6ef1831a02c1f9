//! Services (SwarmKit `controlapi/service.go`, moby `daemon/cluster/services.go`): made, changed, rolled back, removed.
//!
//! ```text
//! spec as sent ──admit──▶ defaults written out, networks by id ──check──▶ rules of the spec alone
//!                                                              ──ports, references──▶ rules against the store
//! ```
//!
//! What a service is to be is all that is decided here; the orchestrators and the allocator see to the rest.

mod admit;
mod check;
mod container;
mod image;
mod placement;
mod ports;

use std::sync::Arc;

use agent_api::swarm::{NetworkAttachmentConfig, PullOptions, ServiceSpec};
use cluster_api::{Kind, Meta, Rollout, RolloutState, Service};

use super::{Refusal, RegistryAuth, lookup, network, size};
use crate::Context;
use crate::store::{Guard, Store, Transaction};

pub(super) use admit::admit;

pub(super) fn create(
    context: &mut Context<'_>,
    change: &mut Transaction,
    spec: &ServiceSpec,
    auth: Option<&PullOptions>,
) -> Result<String, Refusal> {
    let mut spec = admit(context.store, spec)?;
    set_pull_options(&mut spec, auth.cloned());
    check_all(context.store, change, &spec, None)?;
    let name = &spec.annotations.name;
    if context.store.id_of(Kind::Service, name).is_some() {
        return Err(Refusal::Conflict(format!(
            "name conflicts with an existing object: service {name} already exists"
        )));
    }
    let id = context.ids.id();
    change.create(Service {
        id: id.clone(),
        meta: Meta::default(),
        spec: Arc::new(spec),
        ..Service::default()
    });
    Ok(id)
}

pub(super) fn update(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    version: u64,
    spec: &ServiceSpec,
    auth: &RegistryAuth,
) -> Result<(), Refusal> {
    let mut spec = admit(context.store, spec)?;
    let service = lookup::service(context.store, input)?;
    set_pull_options(&mut spec, inherited(service, auth)?);
    check_all(context.store, change, &spec, Some(service))?;
    check_transition(&service.spec, &spec)?;
    if service.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    let mut next = Service::clone(service);
    next.previous_spec = Some(service.spec.clone());
    next.previous_spec_version = Some(service.spec_version);
    if needs_new_tasks(&service.spec, &spec) {
        // Never used before: no other change of this service has this index.
        next.spec_version = service.meta.version;
    }
    next.spec = Arc::new(spec);
    next.rollout = None;
    change.update(next);
    Ok(())
}

pub(super) fn rollback(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    version: u64,
) -> Result<(), Refusal> {
    let service = lookup::service(context.store, input)?;
    let Some(previous) = &service.previous_spec else {
        return Err(Refusal::invalid(format!(
            "service {} does not have a previous spec",
            service.id
        )));
    };
    // What it refers to may be gone by now, and its ports taken.
    check_references(context.store, change, previous, Some(service))?;
    if service.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    let mut next = Service::clone(service);
    next.spec = previous.clone();
    next.spec_version = service.previous_spec_version.unwrap_or_default();
    next.previous_spec = Some(service.spec.clone());
    next.previous_spec_version = Some(service.spec_version);
    next.rollout = Some(Rollout {
        state: RolloutState::RollbackStarted,
        spec_version: next.spec_version,
        started_at: context.now.wall,
        message: "manually requested rollback".to_owned(),
        ..Rollout::default()
    });
    change.update(next);
    Ok(())
}

/// The name is free at once; the object stays until the tasks are gone.
pub(super) fn remove(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
) -> Result<(), Refusal> {
    let mut service = Service::clone(lookup::service(context.store, input)?);
    service.pending_delete = true;
    change.update(service);
    Ok(())
}

/// Whether tasks made from `old` have to be replaced under `new`. Credentials for the registry do not count: a task
/// that has its image runs on. Neither do ingress ports, which no container sees. A change of the placement alone counts
/// here; a task whose node satisfies the new constraints may stay nevertheless.
#[must_use]
pub fn needs_new_tasks(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let (mut old_template, mut new_template) =
        (old.task_template.clone(), new.task_template.clone());
    for template in [&mut old_template, &mut new_template] {
        if let Some(container) = &mut template.container_spec {
            container.pull_options = None;
        }
    }
    old_template != new_template
        || !networks(old).eq(networks(new))
        || !ports::on_hosts(old).eq(ports::on_hosts(new))
}

/// The networks of its tasks: the template's, or where old clients put them.
pub(super) fn networks(spec: &ServiceSpec) -> impl Iterator<Item = &NetworkAttachmentConfig> {
    if spec.task_template.networks.is_empty() {
        spec.networks.iter()
    } else {
        spec.task_template.networks.iter()
    }
}

fn set_pull_options(spec: &mut ServiceSpec, options: Option<PullOptions>) {
    if let Some(container) = &mut spec.task_template.container_spec {
        container.pull_options = options;
    }
}

/// The credentials a changed spec has.
fn inherited(service: &Service, auth: &RegistryAuth) -> Result<Option<PullOptions>, Refusal> {
    let source = match auth {
        RegistryAuth::Given(options) => return Ok(Some(options.clone())),
        RegistryAuth::Spec => &service.spec,
        RegistryAuth::PreviousSpec => service.previous_spec.as_ref().ok_or_else(|| {
            Refusal::Unclassified("service does not have a previous spec".to_owned())
        })?,
    };
    let container = source.task_template.container_spec.as_ref();
    Ok(container.and_then(|container| container.pull_options.clone()))
}

fn check_all(
    store: &Store,
    change: &mut Transaction,
    spec: &ServiceSpec,
    own: Option<&Service>,
) -> Result<(), Refusal> {
    check::check(spec)?;
    size::check(format_args!("service {}", spec.annotations.name), spec)?;
    for attachment in networks(spec) {
        if let Some(ingress) = store
            .network(&attachment.target)
            .filter(|network| network.spec.ingress)
        {
            return Err(Refusal::invalid(format!(
                "Service cannot be explicitly attached to the ingress network {:?}",
                ingress.spec.annotations.name
            )));
        }
    }
    check_references(store, change, spec, own)
}

/// What depends on other objects of the cluster; they must be there when the change is made as well.
fn check_references(
    store: &Store,
    change: &mut Transaction,
    spec: &ServiceSpec,
    own: Option<&Service>,
) -> Result<(), Refusal> {
    let mut counts_on = |kind, id: &str| {
        let id = id.to_owned();
        change.expect(Guard::Exists { kind, id });
    };
    ports::check_conflicts(store, spec, own)?;
    if ports::needs_ingress(spec) {
        let ingress = network::ingress_network(store).ok_or_else(|| {
            Refusal::invalid("service needs ingress network, but no ingress network is present")
        })?;
        counts_on(Kind::Network, &ingress.id);
    }
    for attachment in networks(spec) {
        if store
            .network(&attachment.target)
            .is_none_or(|network| network.pending_delete)
        {
            return Err(Refusal::not_found(Kind::Network, &attachment.target));
        }
        counts_on(Kind::Network, &attachment.target);
    }
    let Some(container) = &spec.task_template.container_spec else {
        return Ok(());
    };
    let secrets = container.secrets.iter().filter(|reference| {
        store
            .secret(&reference.secret_id)
            .is_none_or(|secret| secret.spec.annotations.name != reference.secret_name)
    });
    all_there(
        "secret",
        secrets.map(|reference| reference.secret_name.as_str()),
    )?;
    let configs = container.configs.iter().filter(|reference| {
        store
            .config(&reference.config_id)
            .is_none_or(|config| config.spec.annotations.name != reference.config_name)
    });
    all_there(
        "config",
        configs.map(|reference| reference.config_name.as_str()),
    )?;
    for reference in &container.secrets {
        counts_on(Kind::Secret, &reference.secret_id);
    }
    for reference in &container.configs {
        counts_on(Kind::Config, &reference.config_id);
    }
    Ok(())
}

fn all_there<'a>(kind: &str, missing: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let missing: Vec<_> = missing.collect();
    match missing.len() {
        0 => Ok(()),
        1 => Err(Refusal::invalid(format!(
            "{kind} not found: {}",
            missing[0]
        ))),
        _ => Err(Refusal::invalid(format!(
            "{kind}s not found: {}",
            missing.join(", ")
        ))),
    }
}

/// What may not change in a service.
fn check_transition(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), Refusal> {
    if old.networks != new.networks && old.task_template.networks == new.task_template.networks {
        return Err(Refusal::Unimplemented(
            "networks must be migrated to TaskSpec before being changed".to_owned(),
        ));
    }
    if old.mode.replicated.is_some() != new.mode.replicated.is_some() {
        return Err(Refusal::Unimplemented(
            "service mode change is not allowed".to_owned(),
        ));
    }
    if old.annotations.name != new.annotations.name {
        return Err(Refusal::Unimplemented(
            "renaming services is not supported".to_owned(),
        ));
    }
    Ok(())
}
