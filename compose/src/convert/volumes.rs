//! Volumes of the project.

use agent_api::VolumeCreateRequest;
use compose_model::{Project, ServiceConfig, Volume};

use super::mounts::volume_name;
use super::networks::{pairs, resource_labels};
use crate::labels;

/// The create request of a volume of the project.
#[must_use]
pub fn volume(
    project: &Project,
    key: &str,
    volume: &Volume,
    config_hash: &str,
    attributes: &str,
) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: volume.name.clone(),
        driver: volume.driver.clone().unwrap_or_default(),
        driver_opts: pairs(&volume.driver_opts),
        labels: resource_labels(
            project,
            &volume.labels,
            (labels::VOLUME, key),
            config_hash,
            attributes,
        ),
    }
}

/// Names and mount points of the named volumes a service's containers are to have.
pub(crate) fn named(project: &Project, service: &ServiceConfig) -> Vec<(String, String)> {
    let volumes = service
        .volumes
        .iter()
        .filter(|volume| volume.r#type == compose_model::MountType::Volume);
    volumes
        .filter_map(|volume| {
            Some((
                volume_name(project, volume.source.as_deref()?),
                volume.target.clone(),
            ))
        })
        .collect()
}
