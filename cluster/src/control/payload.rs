//! Secrets and configs (SwarmKit `controlapi/secret.go`, `config.go`): their data never change, and they stay while a
//! service refers to them.

use std::sync::Arc;

use agent_api::swarm::{Annotations, ConfigSpec, SecretSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_api::{Config, Kind, Meta, Object, Secret, Service};

use super::{Refusal, annotations, lookup};
use crate::Context;
use crate::store::{Guard, Store, Transaction};

/// What is kept for services as it was given.
pub(super) trait Payload: Clone + Into<Object> {
    const KIND: Kind;
    /// The first size of its data that is too large.
    const LIMIT: usize;
    type Spec: Clone;

    fn new(id: String, spec: Self::Spec) -> Self;
    fn spec(&self) -> &Self::Spec;
    fn annotations_mut(&mut self) -> &mut Annotations;
    fn annotations(spec: &Self::Spec) -> &Annotations;
    /// In base64.
    fn data(spec: &Self::Spec) -> Option<&str>;
    /// Refuses options by name that are not followed.
    fn check_options(spec: &Self::Spec) -> Result<(), Refusal>;
    fn find<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Self>, Refusal>;
    /// Services whose spec refers to it.
    fn users<'a>(store: &'a Store, id: &str) -> impl Iterator<Item = &'a Arc<Service>>;
}

impl Payload for Secret {
    const KIND: Kind = Kind::Secret;
    const LIMIT: usize = 500 * 1024;
    type Spec = SecretSpec;

    fn new(id: String, spec: SecretSpec) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec,
        }
    }

    fn spec(&self) -> &SecretSpec {
        &self.spec
    }

    fn annotations_mut(&mut self) -> &mut Annotations {
        &mut self.spec.annotations
    }

    fn annotations(spec: &SecretSpec) -> &Annotations {
        &spec.annotations
    }

    fn data(spec: &SecretSpec) -> Option<&str> {
        spec.data.as_deref()
    }

    fn check_options(spec: &SecretSpec) -> Result<(), Refusal> {
        if let Some(driver) = &spec.driver {
            let option = format!("secret driver {:?}", driver.name);
            return Err(Refusal::unsupported(option));
        }
        match spec.templating {
            Some(_) => Err(Refusal::unsupported("templating of secrets")),
            None => Ok(()),
        }
    }

    fn find<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Self>, Refusal> {
        lookup::secret(store, input)
    }

    fn users<'a>(store: &'a Store, id: &str) -> impl Iterator<Item = &'a Arc<Service>> {
        store.services_with_secret(id)
    }
}

impl Payload for Config {
    const KIND: Kind = Kind::Config;
    const LIMIT: usize = 1000 * 1024;
    type Spec = ConfigSpec;

    fn new(id: String, spec: ConfigSpec) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec,
        }
    }

    fn spec(&self) -> &ConfigSpec {
        &self.spec
    }

    fn annotations_mut(&mut self) -> &mut Annotations {
        &mut self.spec.annotations
    }

    fn annotations(spec: &ConfigSpec) -> &Annotations {
        &spec.annotations
    }

    fn data(spec: &ConfigSpec) -> Option<&str> {
        spec.data.as_deref()
    }

    fn check_options(spec: &ConfigSpec) -> Result<(), Refusal> {
        match spec.templating {
            Some(_) => Err(Refusal::unsupported("templating of configs")),
            None => Ok(()),
        }
    }

    fn find<'a>(store: &'a Store, input: &str) -> Result<&'a Arc<Self>, Refusal> {
        lookup::config(store, input)
    }

    fn users<'a>(store: &'a Store, id: &str) -> impl Iterator<Item = &'a Arc<Service>> {
        store.services_with_config(id)
    }
}

pub(super) fn create<P: Payload>(
    context: &mut Context<'_>,
    change: &mut Transaction,
    spec: &P::Spec,
) -> Result<String, Refusal> {
    P::check_options(spec)?;
    let (kind, limit) = (P::KIND, P::LIMIT);
    let annotations = P::annotations(spec);
    annotations::check_payload(annotations)?;
    let length = decode(kind, P::data(spec))?.len();
    if length == 0 || length >= limit {
        return Err(Refusal::invalid(format!(
            "{kind} data must be larger than 0 and less than {limit} bytes"
        )));
    }
    let name = &annotations.name;
    if context.store.id_of(kind, name).is_some() {
        return Err(Refusal::Conflict(format!("{kind} {name} already exists")));
    }
    let id = context.ids.id();
    change.create(P::new(id.clone(), spec.clone()));
    Ok(id)
}

/// Only labels may change; who leaves the data out means the same data.
pub(super) fn update<P: Payload>(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
    version: u64,
    spec: &P::Spec,
) -> Result<(), Refusal> {
    let mut payload = P::clone(P::find(context.store, input)?);
    let same_data = match P::data(spec) {
        None => true,
        given => decode(P::KIND, given)? == decode(P::KIND, P::data(payload.spec()))?,
    };
    let annotations = P::annotations(spec);
    if !same_data || annotations.name != P::annotations(payload.spec()).name {
        return Err(Refusal::invalid("only updates to Labels are allowed"));
    }
    payload
        .annotations_mut()
        .labels
        .clone_from(&annotations.labels);
    let object: Object = payload.into();
    if object.meta().version != version {
        return Err(Refusal::out_of_sequence());
    }
    change.update(object);
    Ok(())
}

/// Nobody may refer to what is removed.
pub(super) fn remove<P: Payload>(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
) -> Result<(), Refusal> {
    let payload = P::find(context.store, input)?;
    let object: Object = P::clone(payload).into();
    let (kind, id) = (P::KIND, object.id());
    let users: Vec<_> = P::users(context.store, id)
        .filter(|service| !service.pending_delete)
        .map(|service| service.spec.annotations.name.as_str())
        .collect();
    if !users.is_empty() {
        return Err(Refusal::invalid(format!(
            "{kind} '{}' is in use by the following {}: {}",
            P::annotations(payload.spec()).name,
            if users.len() == 1 {
                "service"
            } else {
                "services"
            },
            users.join(", ")
        )));
    }
    change.expect(Guard::Unused {
        kind,
        id: id.to_owned(),
    });
    change.remove(&object);
    Ok(())
}

fn decode(kind: Kind, data: Option<&str>) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(data.unwrap_or_default())
        .map_err(|error| Refusal::invalid(format!("the data of the {kind} is not base64: {error}")))
}
