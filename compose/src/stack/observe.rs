//! Engine API → [`ObservedStack`]. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::client::{ObjectKind, RegistryAuth, Result};
use agent_api::swarm::{Annotations, ObjectVersion, Platform, Service, ServiceSpec};
use agent_api::{Client, Filters};
use futures_util::StreamExt as _;

use super::labels;
use super::observed::{ObservedPayload, ObservedStack, ResolvedImage};

/// Images that are looked up at the same time.
const PARALLEL: usize = 8;

/// Everything a plan for the stack looks at, but for its images.
///
/// # Errors
/// Those of the daemon: 503 when it is no manager.
pub async fn observe(client: &Client, stack: &str) -> Result<ObservedStack> {
    let all = Filters::new();
    // In one go: each is one request, and none needs another's answer.
    let (services, networks, secrets, configs) = tokio::try_join!(
        client.list_services(&all, false),
        client.list_networks(&all),
        client.list_secrets(&all),
        client.list_configs(&all),
    )?;
    let is_ours = |annotations: &Annotations| {
        annotations
            .labels
            .get(labels::NAMESPACE)
            .map(String::as_str)
            == Some(stack)
    };
    let (ours, others): (Vec<_>, Vec<_>) = services
        .into_iter()
        .partition(|service| is_ours(&service.spec.annotations));
    let users = Users::of(&others);
    let secrets = secrets.into_iter().map(|secret| {
        let annotations = secret.spec.annotations;
        let users = users.secrets.get(&annotations.name);
        payload(secret.id, secret.version, annotations, users)
    });
    let configs = configs.into_iter().map(|config| {
        let annotations = config.spec.annotations;
        let users = users.configs.get(&annotations.name);
        payload(config.id, config.version, annotations, users)
    });
    Ok(ObservedStack {
        services: by_name(ours),
        networks: networks
            .into_iter()
            .map(|network| (network.name.clone(), network))
            .collect(),
        secrets: secrets.collect(),
        configs: configs.collect(),
        images: BTreeMap::new(),
    })
}

fn by_name(services: Vec<Service>) -> BTreeMap<String, Service> {
    let named = services.into_iter();
    named
        .map(|service| (service.spec.annotations.name.clone(), service))
        .collect()
}

fn payload(
    id: String,
    version: ObjectVersion,
    annotations: Annotations,
    users: Option<&BTreeSet<String>>,
) -> (String, ObservedPayload) {
    let label = |key: &str| annotations.labels.get(key).cloned();
    let payload = ObservedPayload {
        id,
        version,
        stack: label(labels::NAMESPACE),
        key: label(labels::KEY),
        other_users: users.cloned().unwrap_or_default(),
    };
    (annotations.name, payload)
}

/// Names of services by the secrets and configs they refer to.
#[derive(Default)]
struct Users {
    secrets: BTreeMap<String, BTreeSet<String>>,
    configs: BTreeMap<String, BTreeSet<String>>,
}

impl Users {
    fn of(services: &[Service]) -> Self {
        let mut users = Self::default();
        for service in services {
            let specs = std::iter::once(&service.spec).chain(&service.previous_spec);
            specs.for_each(|spec| users.add(&service.spec.annotations.name, spec));
        }
        users
    }

    fn add(&mut self, service: &str, spec: &ServiceSpec) {
        let Some(container) = &spec.task_template.container_spec else {
            return;
        };
        for secret in &container.secrets {
            let users = self.secrets.entry(secret.secret_name.clone());
            users.or_default().insert(service.to_owned());
        }
        for config in &container.configs {
            let users = self.configs.entry(config.config_name.clone());
            users.or_default().insert(service.to_owned());
        }
    }
}

/// Looks images up, so that a plan can name them with their digests, each with the credentials that are to be used. What
/// cannot be looked up is said in its place.
pub async fn resolve(
    client: &Client,
    references: BTreeMap<String, Option<RegistryAuth>>,
) -> BTreeMap<String, ResolvedImage> {
    let look = |(reference, auth): (String, Option<RegistryAuth>)| async move {
        let resolved = match client.inspect_distribution(&reference, auth.as_ref()).await {
            Ok(found) => ResolvedImage::Pinned {
                reference: format!("{reference}@{}", found.descriptor.digest),
                platforms: found
                    .platforms
                    .into_iter()
                    .map(|platform| Platform {
                        architecture: platform.architecture,
                        os: platform.os,
                    })
                    .collect(),
            },
            Err(error) => match client
                .inspect_raw(ObjectKind::Image, &reference, false, None)
                .await
            {
                Ok(_) => ResolvedImage::Local,
                Err(_) => ResolvedImage::Unknown(error.to_string()),
            },
        };
        (reference, resolved)
    };
    futures_util::stream::iter(references)
        .map(look)
        .buffer_unordered(PARALLEL)
        .collect()
        .await
}
