//! Compose model → specs of a cluster. Pure: the same project gives the same specs, and nothing is asked or read.
//!
//! What is sent is what docker 28 sends for the same file (docker/cli `cli/compose/convert`), so that either tool can
//! take over a stack of the other; `tests/it/stack_recorded.rs` compares with a recording of it and lists the
//! differences. What Docker drops though a cluster can carry it is carried: `tmpfs`, `shm_size`, `dns_opt`, `group_add`,
//! `platform`, limits outside `deploy`, and `depends_on` as gates.

mod ports;
mod resources;
mod rollout;
mod task;

use std::collections::BTreeMap;

use agent_api::swarm::gate::{self, Gate};
use agent_api::swarm::{
    Annotations, ConfigReference, ConfigSpec, Driver, GlobalService, ReferenceFile, ReplicatedJob,
    ReplicatedService, SecretReference, SecretSpec, ServiceMode, ServiceSpec,
};
use agent_api::{Ipam, IpamConfig, Labels, NetworkCreateRequest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use compose_model::{
    Config, DependencyCondition, FileReference, Network, Project, Secret, ServiceConfig,
};

use super::labels;
use crate::plan::order;

pub(super) use task::{is_predefined, security_option};

/// The driver of a stack's networks unless the file names one.
const OVERLAY: &str = "overlay";

/// Names in the cluster of the secrets and configs of a project, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct PayloadNames {
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) configs: BTreeMap<String, String>,
}

/// Name of a service of a stack in the cluster.
#[must_use]
pub fn service_name(stack: &str, service: &str) -> String {
    format!("{stack}_{service}")
}

/// The spec of a service. Secrets and configs are named; their ids are filled in when they exist.
pub(super) fn service(
    project: &Project,
    name: &str,
    service: &ServiceConfig,
    names: &PayloadNames,
) -> ServiceSpec {
    let stack = &project.name;
    let deploy = service.deploy.clone().unwrap_or_default();
    let image = service.image_or_default(stack, name);
    let mut annotations = Annotations {
        name: service_name(stack, name),
        labels: of_stack(stack, &deploy.labels),
    };
    annotations.labels.insert(labels::IMAGE.to_owned(), image);
    let gates = gates(project, service);
    if !gates.is_empty() {
        annotations
            .labels
            .insert(gate::LABEL.to_owned(), gate::format(&gates));
    }
    ServiceSpec {
        annotations,
        task_template: task::template(project, name, service, names),
        mode: mode(service),
        update_config: deploy.update_config.as_ref().map(rollout::config),
        rollback_config: deploy.rollback_config.as_ref().map(rollout::config),
        networks: Vec::new(),
        endpoint_spec: Some(ports::endpoint(service)),
    }
}

/// Labels of the file, and the one that makes the object part of the stack.
fn of_stack(stack: &str, own: &BTreeMap<String, String>) -> Labels {
    let mut all = pairs(own);
    all.insert(labels::NAMESPACE.to_owned(), stack.to_owned());
    all
}

fn pairs(map: &BTreeMap<String, String>) -> Labels {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What the service waits for before its first task starts. Services that are not part of the project count only when
/// they are required, and the loader has refused those.
fn gates(project: &Project, service: &ServiceConfig) -> Vec<Gate> {
    let dependencies = order::dependencies(service).into_iter();
    let gates = dependencies.filter(|(name, _)| project.services.contains_key(name));
    gates
        .map(|(name, dependency)| Gate {
            service: service_name(&project.name, &name),
            condition: match dependency.condition {
                DependencyCondition::ServiceStarted => gate::Condition::Started,
                DependencyCondition::ServiceHealthy => gate::Condition::Healthy,
                DependencyCondition::ServiceCompletedSuccessfully => gate::Condition::Completed,
            },
            required: dependency.required.0,
        })
        .collect()
}

/// How many tasks. Docker leaves an unset number of replicas to the managers, whose number is one.
fn mode(service: &ServiceConfig) -> ServiceMode {
    let replicas = Some(u64::from(service.replicas()));
    let deploy_mode = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.mode.as_deref());
    let mut mode = ServiceMode::default();
    match deploy_mode {
        Some("global") => mode.global = Some(GlobalService {}),
        Some("global-job") => mode.global_job = Some(GlobalService {}),
        Some("replicated-job") => {
            mode.replicated_job = Some(ReplicatedJob {
                max_concurrent: replicas,
                total_completions: replicas,
            });
        }
        _ => mode.replicated = Some(ReplicatedService { replicas }),
    }
    mode
}

/// The create request of a network of the stack.
pub(super) fn network(stack: &str, network: &Network) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone().unwrap_or_else(|| OVERLAY.to_owned()),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: ipam(network),
        internal: network.internal,
        attachable: network.attachable,
        options: pairs(&network.driver_opts),
        labels: of_stack(stack, &network.labels),
        ..NetworkCreateRequest::default()
    }
}

fn ipam(network: &Network) -> Option<Ipam> {
    let ipam = network.ipam.as_ref()?;
    if ipam.driver.is_none() && ipam.config.is_empty() && ipam.options.is_empty() {
        return None;
    }
    let pool = |pool: &compose_model::IpamPool| IpamConfig {
        subnet: pool.subnet.clone().unwrap_or_default(),
        ip_range: pool.ip_range.clone().unwrap_or_default(),
        gateway: pool.gateway.clone().unwrap_or_default(),
        aux_addresses: pairs(&pool.aux_addresses),
    };
    Some(Ipam {
        driver: ipam.driver.clone().unwrap_or_default(),
        options: (!ipam.options.is_empty()).then(|| pairs(&ipam.options)),
        config: ipam.config.iter().map(pool).collect(),
    })
}

/// The spec of a secret; one of a driver has no data.
pub(super) fn secret(
    stack: &str,
    (key, name): (&str, &str),
    secret: &Secret,
    data: &[u8],
) -> SecretSpec {
    SecretSpec {
        annotations: payload_annotations(stack, (key, name), &secret.labels),
        data: Some(BASE64.encode(data)),
        driver: secret.driver.as_ref().map(|driver| Driver {
            name: driver.clone(),
            options: pairs(&secret.driver_opts),
        }),
        templating: secret.template_driver.as_deref().map(template_driver),
    }
}

/// The spec of a config.
pub(super) fn config(
    stack: &str,
    (key, name): (&str, &str),
    config: &Config,
    data: &[u8],
) -> ConfigSpec {
    ConfigSpec {
        annotations: payload_annotations(stack, (key, name), &config.labels),
        data: Some(BASE64.encode(data)),
        templating: config.template_driver.as_deref().map(template_driver),
    }
}

fn payload_annotations(
    stack: &str,
    (key, name): (&str, &str),
    own: &BTreeMap<String, String>,
) -> Annotations {
    let mut all = of_stack(stack, own);
    all.insert(labels::KEY.to_owned(), key.to_owned());
    Annotations {
        name: name.to_owned(),
        labels: all,
    }
}

fn template_driver(name: &str) -> Driver {
    Driver {
        name: name.to_owned(),
        options: Labels::new(),
    }
}

/// References to secrets, sorted by name: another order in the file must not restart tasks.
fn secrets(service: &ServiceConfig, names: &PayloadNames) -> Vec<SecretReference> {
    let mut all: Vec<_> = service
        .secrets
        .iter()
        .map(|reference| SecretReference {
            file: Some(file(reference)),
            secret_id: String::new(),
            secret_name: named(&names.secrets, &reference.source),
        })
        .collect();
    all.sort_by(|a, b| a.secret_name.cmp(&b.secret_name));
    all
}

/// References to configs, sorted by name.
fn configs(service: &ServiceConfig, names: &PayloadNames) -> Vec<ConfigReference> {
    let mut all: Vec<_> = service
        .configs
        .iter()
        .map(|reference| ConfigReference {
            file: Some(file(reference)),
            config_name: named(&names.configs, &reference.source),
            ..ConfigReference::default()
        })
        .collect();
    all.sort_by(|a, b| a.config_name.cmp(&b.config_name));
    all
}

fn named(names: &BTreeMap<String, String>, key: &str) -> String {
    names.get(key).cloned().unwrap_or_else(|| key.to_owned())
}

/// Where the file is and whose. The loader writes out where secrets lie by default; a cluster keeps the name alone.
fn file(reference: &FileReference) -> ReferenceFile {
    let source = &reference.source;
    let target = reference
        .target
        .as_ref()
        .filter(|target| target.strip_prefix("/run/secrets/") != Some(source));
    let id = |id: &Option<String>| {
        id.clone()
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| "0".to_owned())
    };
    ReferenceFile {
        name: target.unwrap_or(source).clone(),
        uid: id(&reference.uid),
        gid: id(&reference.gid),
        mode: reference.mode.map_or(0o444, |mode| mode.0),
    }
}
