//! The cluster as clients see it: lists, single objects, filters. Reads a store, decides nothing; shapes and filters are
//! Docker's (moby `daemon/cluster`, `convert`). Secrets never show their data, specs never their credentials, and what
//! is being removed is not seen.

mod events;
mod networks;
mod nodes;
mod payloads;
mod services;
mod swarm;
mod tasks;

pub use events::{TASK, event};
pub use networks::{network, networks};
pub use nodes::{node, nodes};
pub use payloads::{config, configs, secret, secrets};
pub use services::{Detail, service, services};
pub use swarm::{info, swarm, tls_info};
pub use tasks::{service_tasks, task, tasks};

use agent_api::swarm::{Annotations, ObjectVersion};
use agent_api::{FilterError, Filters};
use cluster_api::Meta;

use super::Refusal;

/// Version and times, as every object shows them.
struct Shown {
    version: ObjectVersion,
    created_at: String,
    updated_at: String,
}

impl From<Meta> for Shown {
    fn from(meta: Meta) -> Self {
        Self {
            version: ObjectVersion {
                index: meta.version,
            },
            created_at: meta.created_at.rfc3339(),
            updated_at: meta.updated_at.rfc3339(),
        }
    }
}

impl From<FilterError> for Refusal {
    fn from(error: FilterError) -> Self {
        Self::InvalidParameter(error.to_string())
    }
}

/// Whether `value` begins with one of the filter's values, or the filter is absent.
fn has_prefix(filters: &Filters, name: &str, value: &str) -> bool {
    filters.any(name, |prefix| value.starts_with(prefix))
}

/// The filters all kinds with names have: `id` and `name` by their beginnings, `label`.
fn matches(filters: &Filters, id: &str, annotations: &Annotations) -> bool {
    has_prefix(filters, "id", id)
        && has_prefix(filters, "name", &annotations.name)
        && has_labels(filters, "label", &annotations.labels)
}

/// Every `key` or `key=value` of the filter is among the labels. An empty value asks for the key only.
fn has_labels(filters: &Filters, name: &str, labels: &agent_api::Labels) -> bool {
    filters.get(name).all(|wanted| {
        let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
        labels
            .get(key)
            .is_some_and(|found| value.is_empty() || found == value)
    })
}
