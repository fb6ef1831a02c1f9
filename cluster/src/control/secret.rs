//! Secrets (SwarmKit `controlapi/secret.go`): their data never change, and they stay while a service refers to them.

use agent_api::swarm::SecretSpec;
use cluster_api::{Kind, Meta, Object, Secret};

use super::{Refusal, lookup, payload};
use crate::Context;
use crate::store::Transaction;

/// The first size that is too large.
const MAX_BYTES: usize = 500 * 1024;

pub(super) fn create(
    context: &mut Context<'_>,
    change: &mut Transaction,
    spec: &SecretSpec,
) -> Result<String, Refusal> {
    if let Some(driver) = &spec.driver {
        return Err(Refusal::unsupported(format_args!(
            "secret driver {:?}",
            driver.name
        )));
    }
    if spec.templating.is_some() {
        return Err(Refusal::unsupported("templating of secrets"));
    }
    payload::check(
        Kind::Secret,
        &spec.annotations,
        spec.data.as_deref(),
        MAX_BYTES,
    )?;
    let name = &spec.annotations.name;
    if context.store.id_of(Kind::Secret, name).is_some() {
        return Err(payload::taken(Kind::Secret, name));
    }
    let id = context.ids.id();
    change.create(Secret {
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
    spec: &SecretSpec,
) -> Result<(), Refusal> {
    let secret = lookup::secret(context.store, input)?;
    payload::check_change(
        Kind::Secret,
        (&secret.spec.annotations, secret.spec.data.as_deref()),
        (&spec.annotations, spec.data.as_deref()),
    )?;
    if secret.meta.version != version {
        return Err(Refusal::out_of_sequence());
    }
    let mut secret = Secret::clone(secret);
    secret.spec.annotations.labels = spec.annotations.labels.clone();
    change.update(secret);
    Ok(())
}

pub(super) fn remove(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
) -> Result<(), Refusal> {
    let secret = lookup::secret(context.store, input)?;
    payload::check_unused(
        Kind::Secret,
        &secret.spec.annotations.name,
        context.store.services_with_secret(&secret.id),
    )?;
    change.remove(&Object::Secret(secret.clone()));
    Ok(())
}
