//! The only reader that feeds a plan: four list calls to the Engine API become an [`ObservedState`].
//!
//! The lists say everything a plan needs, exit codes and health included (in the words of the status column, as every
//! engine since 1.8 writes them). Single objects are asked for only where a list cannot help: an image that is named by
//! digest or id, an image whose anonymous volumes a container holds, a container outside the project.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::client::{ClientError, ListContainersOptions, ListImagesOptions};
use agent_api::{
    Client, ContainerStatus, ContainerSummary, Filters, HealthStatus, ImageSummary, MountType,
    Network, Volume,
};
use compose_model::Project;
use futures_util::future::try_join_all;

use crate::state::{
    Contents, ObservedContainer, ObservedImage, ObservedMount, ObservedNetwork, ObservedState,
    ObservedVolume,
};
use crate::{contents, convert, labels};

/// The state of the engine could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the {what} of project {project}")]
pub struct ObserveError {
    /// `containers`, `networks` …
    pub what: &'static str,
    /// Project.
    pub project: String,
    /// Why.
    #[source]
    pub source: ClientError,
}

/// What the engine holds of a project. With `project`, also what its files refer to: images, external networks and
/// volumes, and the contents of its configs and secrets; without, only what carries the project's label.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn observe(
    client: &Client,
    name: &str,
    project: Option<&Project>,
) -> Result<ObservedState, ObserveError> {
    let failed = |what: &'static str| {
        move |source| ObserveError {
            what,
            project: name.to_owned(),
            source,
        }
    };
    let filters = Filters::new()
        .with("label", format!("{}={name}", labels::PROJECT))
        .with("label", labels::CONFIG_HASH);
    let all = ListContainersOptions {
        all: true,
        filters,
        ..ListContainersOptions::default()
    };
    let (containers, networks, volumes, images) = tokio::try_join!(
        async {
            client
                .list_containers(&all)
                .await
                .map_err(failed("containers"))
        },
        async {
            client
                .list_networks(&Filters::new())
                .await
                .map_err(failed("networks"))
        },
        async {
            client
                .list_volumes(&Filters::new())
                .await
                .map_err(failed("volumes"))
        },
        async {
            match project {
                Some(_) => client
                    .list_images(&ListImagesOptions::default())
                    .await
                    .map_err(failed("images")),
                None => Ok(Vec::new()),
            }
        },
    )?;
    let mut containers: Vec<ObservedContainer> = containers.into_iter().map(container).collect();
    containers
        .sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    let mut state = ObservedState {
        containers,
        networks: ours(
            networks.into_iter().map(network),
            name,
            project,
            |project| {
                project
                    .networks
                    .values()
                    .map(|network| network.name.clone())
                    .collect()
            },
        ),
        volumes: ours(
            volumes.volumes.into_iter().map(volume),
            name,
            project,
            |project| {
                project
                    .volumes
                    .values()
                    .map(|volume| volume.name.clone())
                    .collect()
            },
        ),
        ..ObservedState::default()
    };
    if let Some(project) = project {
        state.images = observe_images(client, project, &state.containers, &images)
            .await
            .map_err(failed("images"))?;
        state.external_containers = external_containers(client, project)
            .await
            .map_err(failed("containers"))?;
        state.contents = read_contents(project).await;
    }
    Ok(state)
}

/// Reading files blocks, so it happens beside the runtime's own threads.
async fn read_contents(project: &Project) -> Contents {
    if project.configs.is_empty() && project.secrets.is_empty() {
        return Contents::default();
    }
    let parts = Project {
        configs: project.configs.clone(),
        secrets: project.secrets.clone(),
        environment: project.environment.clone(),
        ..Project::default()
    };
    let read = tokio::task::spawn_blocking(move || contents::contents(&parts));
    read.await
        .expect("reading files does not panic and is never aborted")
}

/// Objects of the project or that it names, by name.
fn ours<T: Belongs>(
    objects: impl Iterator<Item = (String, T)>,
    name: &str,
    project: Option<&Project>,
    named: impl Fn(&Project) -> BTreeSet<String>,
) -> BTreeMap<String, T> {
    let named = project.map(named).unwrap_or_default();
    objects
        .filter(|(key, object)| object.project() == Some(name) || named.contains(key))
        .collect()
}

trait Belongs {
    fn project(&self) -> Option<&str>;
}

impl Belongs for ObservedNetwork {
    fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }
}

impl Belongs for ObservedVolume {
    fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }
}

fn network(network: Network) -> (String, ObservedNetwork) {
    let label = |key: &str| network.labels.get(key).cloned();
    let observed = ObservedNetwork {
        project: label(labels::PROJECT),
        key: label(labels::NETWORK),
        config_hash: label(labels::CONFIG_HASH),
        attributes: label(labels::ATTRIBUTES),
        id: network.id,
    };
    (network.name, observed)
}

fn volume(volume: Volume) -> (String, ObservedVolume) {
    let labels = volume.labels.unwrap_or_default();
    let label = |key: &str| labels.get(key).cloned();
    let observed = ObservedVolume {
        project: label(labels::PROJECT),
        key: label(labels::VOLUME),
        config_hash: label(labels::CONFIG_HASH),
        attributes: label(labels::ATTRIBUTES),
    };
    (volume.name, observed)
}

fn container(summary: ContainerSummary) -> ObservedContainer {
    let label = |key: &str| summary.labels.get(key).cloned();
    let volumes = summary
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountType::Volume);
    ObservedContainer {
        name: summary
            .names
            .first()
            .map(|name| name.trim_start_matches('/').to_owned())
            .unwrap_or_default(),
        service: label(labels::SERVICE).unwrap_or_default(),
        number: label(labels::CONTAINER_NUMBER)
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        oneoff: label(labels::ONEOFF).is_some_and(|value| value.eq_ignore_ascii_case("true")),
        config_hash: label(labels::CONFIG_HASH),
        attributes: label(labels::ATTRIBUTES),
        replaces: label(labels::REPLACE),
        shares: shares(&summary),
        depends_on: label(labels::DEPENDS_ON),
        state: summary.state,
        exit_code: exit_code(summary.state, &summary.status),
        health: health(&summary.status),
        networks: summary
            .network_settings
            .networks
            .iter()
            .map(|(name, endpoint)| (name.clone(), endpoint.network_id.clone()))
            .collect(),
        volumes: volumes
            .map(|mount| ObservedMount {
                volume: mount.name.clone(),
                target: mount.destination.clone(),
                writable: mount.rw,
            })
            .collect(),
        created: summary.created,
        id: summary.id,
        image: summary.image,
        image_id: summary.image_id,
    }
}

/// Ids of other containers in its label, or at least in its network mode.
fn shares(summary: &ContainerSummary) -> BTreeSet<String> {
    if let Some(ids) = summary.labels.get(labels::SHARES) {
        return ids
            .split(',')
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
            .collect();
    }
    let mode = summary.host_config.network_mode.strip_prefix("container:");
    mode.map(str::to_owned).into_iter().collect()
}

/// `Exited (137) 3 minutes ago` → 137.
fn exit_code(state: ContainerStatus, status: &str) -> Option<i64> {
    if !matches!(state, ContainerStatus::Exited | ContainerStatus::Dead) {
        return None;
    }
    let (_, rest) = status.split_once('(')?;
    rest.split_once(')')?.0.parse().ok()
}

/// `Up 3 minutes (healthy)`, `Up 2 seconds (health: starting)`.
fn health(status: &str) -> HealthStatus {
    if status.contains("(healthy)") {
        HealthStatus::Healthy
    } else if status.contains("(unhealthy)") {
        HealthStatus::Unhealthy
    } else if status.contains("(health: starting)") {
        HealthStatus::Starting
    } else {
        HealthStatus::None
    }
}

/// The images services use, by the reference they use.
async fn observe_images(
    client: &Client,
    project: &Project,
    containers: &[ObservedContainer],
    images: &[ImageSummary],
) -> Result<BTreeMap<String, ObservedImage>, ClientError> {
    let mut users: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, service) in &project.services {
        let reference = service.image_or_default(&project.name, name);
        users.entry(reference).or_default().push(name);
    }
    let found = users.iter().map(|(reference, users)| async move {
        let listed = images.iter().find(|image| is_called(image, reference));
        let inherits = users.iter().any(|name| {
            let own = containers
                .iter()
                .filter(|container| container.service == *name);
            holds_anonymous(&project.services[*name], own)
        });
        match listed {
            Some(image) if !inherits => {
                let image = ObservedImage {
                    id: image.id.clone(),
                    volumes: BTreeSet::new(),
                };
                Ok(Some((reference.clone(), image)))
            }
            _ => inspect_image(client, reference).await,
        }
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

async fn inspect_image(
    client: &Client,
    reference: &str,
) -> Result<Option<(String, ObservedImage)>, ClientError> {
    match client.inspect_image(reference).await {
        Ok(image) => {
            let volumes = image
                .config
                .and_then(|config| config.volumes)
                .unwrap_or_default();
            let volumes = volumes.into_keys().collect();
            Ok(Some((
                reference.to_owned(),
                ObservedImage {
                    id: image.id,
                    volumes,
                },
            )))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether containers hold volumes at paths that the service does not mention, so that the image may.
fn holds_anonymous<'a>(
    service: &compose_model::ServiceConfig,
    mut containers: impl Iterator<Item = &'a ObservedContainer>,
) -> bool {
    containers.any(|container| {
        container.volumes.iter().any(|mount| {
            !service
                .volumes
                .iter()
                .any(|volume| volume.target == mount.target)
        })
    })
}

/// Whether a reference is one of the image's names. Short names only; anything else the engine is asked about.
fn is_called(image: &ImageSummary, reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let tagged = if last.contains(':') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    };
    image.repo_tags.contains(&tagged)
}

/// Ids of containers outside the project that services refer to.
async fn external_containers(
    client: &Client,
    project: &Project,
) -> Result<BTreeMap<String, String>, ClientError> {
    let names: BTreeSet<&str> = project
        .services
        .values()
        .flat_map(convert::external_containers)
        .collect();
    let found = names.into_iter().map(|name| async move {
        match client.inspect_container(name).await {
            Ok(container) => Ok(Some((name.to_owned(), container.id))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_column_tells_exit_code_and_health() {
        assert_eq!(
            exit_code(ContainerStatus::Exited, "Exited (137) 3 minutes ago"),
            Some(137)
        );
        assert_eq!(
            exit_code(ContainerStatus::Running, "Up 3 minutes (healthy)"),
            None
        );
        assert_eq!(exit_code(ContainerStatus::Exited, "Exited"), None);
        assert_eq!(health("Up 3 minutes (healthy)"), HealthStatus::Healthy);
        assert_eq!(health("Up 3 minutes (unhealthy)"), HealthStatus::Unhealthy);
        assert_eq!(
            health("Up Less than a second (health: starting)"),
            HealthStatus::Starting
        );
        assert_eq!(health("Up 3 minutes"), HealthStatus::None);
    }

    #[test]
    fn short_names_mean_the_tag_latest() {
        let image = ImageSummary {
            repo_tags: vec!["busybox:latest".into(), "localhost:5000/a:1".into()],
            ..ImageSummary::default()
        };
        assert!(is_called(&image, "busybox"));
        assert!(is_called(&image, "busybox:latest"));
        assert!(is_called(&image, "localhost:5000/a:1"));
        assert!(!is_called(&image, "localhost:5000/a"));
        assert!(!is_called(&image, "busybox:1"));
    }
}
