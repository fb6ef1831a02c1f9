//! Compose model → Engine API requests. Pure: the same input gives the same request, and nothing is asked or read.
//!
//! What is sent is what docker/compose 2.40 sends (`pkg/compose/create.go`), so that either tool can take over a
//! project of the other; `tests/it/recorded.rs` compares with a recording of it and lists the differences. What neither
//! the engine nor this tool honours is refused or warned of by [`support`], never dropped here.

pub mod build;
mod config;
pub mod files;
mod host;
mod mounts;
mod networks;
mod resources;
pub mod support;
mod volumes;

use agent_api::{ContainerCreateRequest, Labels};
use compose_model::{DependencyCondition, Project, ServiceConfig};

use crate::labels;
use crate::plan::ShareField;
use crate::state::ObservedMount;

pub use config::hook;
pub(crate) use config::seconds;
pub(crate) use networks::names as network_names;
pub use networks::network;
pub(crate) use volumes::named as named_volumes;
pub use volumes::volume;

/// What a container is made from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerSpec<'a> {
    /// The project.
    pub project: &'a Project,
    /// Name of the service.
    pub name: &'a str,
    /// The service.
    pub service: &'a ServiceConfig,
    /// Number of the container within the service, from 1.
    pub number: u32,
    /// Id of the image, when it is known.
    pub image_id: &'a str,
    /// Value of [`labels::CONFIG_HASH`].
    pub config_hash: &'a str,
    /// Value of [`labels::ATTRIBUTES`].
    pub attributes: &'a str,
    /// Anonymous volumes to take over from the container it replaces.
    pub inherited: &'a [ObservedMount],
    /// Id of the container it replaces.
    pub replaces: Option<&'a str>,
}

/// The create request of a container. References to containers of the same project name the service where the engine
/// needs an id; [`shares`] says where.
#[must_use]
pub fn container(spec: &ContainerSpec<'_>) -> ContainerCreateRequest {
    ContainerCreateRequest {
        config: config::config(spec),
        host_config: host::host_config(spec),
        networking_config: networks::endpoints(spec),
    }
}

/// Name of a container: `container_name`, else `PROJECT-SERVICE-NUMBER`.
#[must_use]
pub fn container_name(
    project: &str,
    service_name: &str,
    service: &ServiceConfig,
    number: u32,
) -> String {
    match &service.container_name {
        Some(name) => name.clone(),
        None => format!("{project}-{service_name}-{number}"),
    }
}

/// Fields of the request that name a container of another service, and that service.
#[must_use]
pub fn shares(service: &ServiceConfig) -> Vec<(ShareField, &str)> {
    let namespaces = [
        (ShareField::Network, &service.network_mode),
        (ShareField::Ipc, &service.ipc),
        (ShareField::Pid, &service.pid),
    ];
    let mut found: Vec<(ShareField, &str)> = namespaces
        .into_iter()
        .filter_map(|(field, mode)| Some((field, mode.as_deref()?.strip_prefix("service:")?)))
        .collect();
    for (index, from) in service.volumes_from.iter().enumerate() {
        if !from.starts_with("container:") {
            found.push((ShareField::VolumesFrom(index), volumes_from_service(from)));
        }
    }
    found
}

/// The service in `SERVICE[:ro|rw]`.
fn volumes_from_service(from: &str) -> &str {
    from.split_once(':').map_or(from, |(service, _)| service)
}

/// Names of containers outside the project that a service refers to by `container:NAME`.
pub fn external_containers(service: &ServiceConfig) -> impl Iterator<Item = &str> {
    [&service.network_mode, &service.ipc, &service.pid]
        .into_iter()
        .filter_map(|mode| mode.as_deref()?.strip_prefix("container:"))
        .chain(service.volumes_from.iter().filter_map(|from| {
            let name = from.strip_prefix("container:")?;
            Some(name.split_once(':').map_or(name, |(name, _)| name))
        }))
        .chain(
            service
                .external_links
                .iter()
                .map(|link| link.split_once(':').map_or(link.as_str(), |(name, _)| name)),
        )
}

/// Labels of the container: the file's, and those that make it part of the project.
fn container_labels(spec: &ContainerSpec<'_>) -> Labels {
    let ContainerSpec {
        project, service, ..
    } = spec;
    let mut all: Labels = service
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut set = |key: &str, value: String| {
        all.insert(key.to_owned(), value);
    };
    set(labels::PROJECT, project.name.clone());
    set(labels::SERVICE, spec.name.to_owned());
    set(labels::CONTAINER_NUMBER, spec.number.to_string());
    set(labels::ONEOFF, "False".to_owned());
    set(labels::CONFIG_HASH, spec.config_hash.to_owned());
    set(labels::ATTRIBUTES, spec.attributes.to_owned());
    set(labels::IMAGE, spec.image_id.to_owned());
    set(labels::VERSION, labels::VERSION_VALUE.to_owned());
    set(
        labels::WORKING_DIR,
        project.working_dir.display().to_string(),
    );
    set(labels::CONFIG_FILES, joined(&project.compose_files));
    if !project.env_files.is_empty() {
        set(labels::ENVIRONMENT_FILE, joined(&project.env_files));
    }
    if !service.depends_on.is_empty() {
        set(labels::DEPENDS_ON, depends_on(service));
    }
    if let Some(replaced) = spec.replaces {
        set(labels::REPLACE, replaced.to_owned());
    }
    all
}

fn joined(paths: &[std::path::PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// `db:service_healthy:true,…`.
fn depends_on(service: &ServiceConfig) -> String {
    let entries = service.depends_on.iter().map(|(name, dependency)| {
        let condition = match dependency.condition {
            DependencyCondition::ServiceStarted => "service_started",
            DependencyCondition::ServiceHealthy => "service_healthy",
            DependencyCondition::ServiceCompletedSuccessfully => "service_completed_successfully",
        };
        format!("{name}:{condition}:{}", dependency.restart)
    });
    entries.collect::<Vec<_>>().join(",")
}
