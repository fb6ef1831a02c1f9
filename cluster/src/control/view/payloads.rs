//! Secrets, without their data, and configs.

use agent_api::Filters;
use agent_api::swarm::{Config as ConfigShape, Secret as SecretShape, SecretSpec};
use cluster_api::{Config, Secret};

use super::super::{Refusal, lookup};
use super::{Shown, matches};
use crate::store::Store;

/// `GET /secrets`.
///
/// # Errors
///
/// A filter that does not exist.
pub fn secrets(store: &Store, filters: &Filters) -> Result<Vec<SecretShape>, Refusal> {
    filters.allow(&["names", "name", "id", "label"])?;
    let secrets = store.secrets().filter(|secret| {
        let annotations = &secret.spec.annotations;
        matches(filters, &secret.id, annotations)
            && filters.any("names", |name| name == annotations.name)
    });
    Ok(secrets.map(|secret| secret_shape(secret)).collect())
}

/// `GET /secrets/{id}`.
///
/// # Errors
///
/// There is no such secret, or there are several.
pub fn secret(store: &Store, input: &str) -> Result<SecretShape, Refusal> {
    Ok(secret_shape(lookup::secret(store, input)?))
}

/// `GET /configs`.
///
/// # Errors
///
/// A filter that does not exist.
pub fn configs(store: &Store, filters: &Filters) -> Result<Vec<ConfigShape>, Refusal> {
    filters.allow(&["name", "id", "label"])?;
    let configs = store
        .configs()
        .filter(|config| matches(filters, &config.id, &config.spec.annotations));
    Ok(configs.map(|config| config_shape(config)).collect())
}

/// `GET /configs/{id}`.
///
/// # Errors
///
/// There is no such config, or there are several.
pub fn config(store: &Store, input: &str) -> Result<ConfigShape, Refusal> {
    Ok(config_shape(lookup::config(store, input)?))
}

fn secret_shape(secret: &Secret) -> SecretShape {
    let meta = Shown::from(secret.meta);
    SecretShape {
        id: secret.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: SecretSpec {
            data: None,
            ..secret.spec.clone()
        },
    }
}

fn config_shape(config: &Config) -> ConfigShape {
    let meta = Shown::from(config.meta);
    ConfigShape {
        id: config.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: config.spec.clone(),
    }
}
