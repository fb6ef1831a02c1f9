//! Rules that secrets and configs share.

use agent_api::swarm::Annotations;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_api::{Kind, Service};
use std::sync::Arc;

use super::{Refusal, annotations};

/// Name and size of a new one. `limit` is the first size that is too large.
pub(super) fn check(
    kind: Kind,
    names: &Annotations,
    data: Option<&str>,
    limit: usize,
) -> Result<(), Refusal> {
    annotations::check_payload(names)?;
    let length = decode(kind, data)?.len();
    if length == 0 || length >= limit {
        return Err(Refusal::invalid(format!(
            "{kind} data must be larger than 0 and less than {limit} bytes"
        )));
    }
    Ok(())
}

/// Only labels may change; who leaves the data out means the same data.
pub(super) fn check_change(
    kind: Kind,
    old: (&Annotations, Option<&str>),
    new: (&Annotations, Option<&str>),
) -> Result<(), Refusal> {
    let same_data = match new.1 {
        None => true,
        given => decode(kind, given)? == decode(kind, old.1)?,
    };
    if old.0.name == new.0.name && same_data {
        Ok(())
    } else {
        Err(Refusal::invalid("only updates to Labels are allowed"))
    }
}

/// Nobody may refer to what is removed.
pub(super) fn check_unused<'a>(
    kind: Kind,
    name: &str,
    services: impl Iterator<Item = &'a Arc<Service>>,
) -> Result<(), Refusal> {
    let names: Vec<_> = services
        .filter(|service| !service.pending_delete)
        .map(|service| service.spec.annotations.name.as_str())
        .collect();
    match names.len() {
        0 => Ok(()),
        count => Err(Refusal::invalid(format!(
            "{kind} '{name}' is in use by the following {}: {}",
            if count == 1 { "service" } else { "services" },
            names.join(", ")
        ))),
    }
}

/// A name somebody else has.
pub(super) fn taken(kind: Kind, name: &str) -> Refusal {
    Refusal::Conflict(format!("{kind} {name} already exists"))
}

fn decode(kind: Kind, data: Option<&str>) -> Result<Vec<u8>, Refusal> {
    STANDARD
        .decode(data.unwrap_or_default())
        .map_err(|error| Refusal::invalid(format!("the data of the {kind} is not base64: {error}")))
}
