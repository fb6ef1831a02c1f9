//! Configs (SwarmKit `controlapi/config.go`): their data never change, and they stay while a service refers to them.

use agent_api::swarm::ConfigSpec;
use cluster_api::{Config, Kind, Meta, Object};

use super::{Refusal, lookup, payload};
use crate::Context;
use crate::store::Transaction;

/// The first size that is too large.
const MAX_BYTES: usize = 1000 * 1024;

pub(super) fn create(
    context: &mut Context<'_>,
    change: &mut Transaction,
    spec: &ConfigSpec,
) -> Result<String, Refusal> {
    if spec.templating.is_some() {
        return Err(Refusal::unsupported("templating of configs"));
    }
    payload::check(
        Kind::Config,
        &spec.annotations,
        spec.data.as_deref(),
        MAX_BYTES,
    )?;
    let name = &spec.annotations.name;
    if context.store.id_of(Kind::Config, name).is_some() {
        return Err(payload::taken(Kind::Config, name));
    }
    let id = context.ids.id();
    change.create(Config {
        id: id.clone(),
        meta: Meta::default(),
        spec: spec.clone(),
    });
    Ok(id)
}

pub(super) fn update(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    version: u64,
    spec: &ConfigSpec,
) -> Result<(), Refusal> {
    let config = lookup::config(context.store, input)?;
    payload::check_change(
        Kind::Config,
        (&config.spec.annotations, config.spec.data.as_deref()),
        (&spec.annotations, spec.data.as_deref()),
    )?;
    if config.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    let mut config = Config::clone(config);
    config.spec.annotations.labels = spec.annotations.labels.clone();
    change.update(config);
    Ok(())
}

pub(super) fn remove(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
) -> Result<(), Refusal> {
    let config = lookup::config(context.store, input)?;
    payload::check_unused(
        Kind::Config,
        &config.spec.annotations.name,
        context.store.services_with_config(&config.id),
    )?;
    change.remove(&Object::Config(config.clone()));
    Ok(())
}
