//! Mounts of a container: `volumes`, `secrets`, `configs`, and the anonymous volumes of the container it replaces.
//!
//! Like docker compose, plain binds and volumes go as `Binds` (which make a missing host directory) and what needs more
//! goes as `Mounts`.

use agent_api::{BindOptions, ImageOptions, Mount, MountType, TmpfsOptions, VolumeOptions};
use compose_model::{FileReference, Project, VolumeMount};

use super::ContainerSpec;

/// `HostConfig.Binds` and `HostConfig.Mounts`.
pub(super) fn mounts(spec: &ContainerSpec<'_>) -> (Vec<String>, Vec<Mount>) {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for volume in &spec.service.volumes {
        match volume.r#type {
            compose_model::MountType::Bind => bind(volume, &mut binds, &mut mounts),
            compose_model::MountType::Volume => {
                volume_mount(spec, volume, &mut binds, &mut mounts);
            }
            compose_model::MountType::Tmpfs => mounts.push(tmpfs(volume)),
            compose_model::MountType::Image => mounts.push(image(volume)),
            compose_model::MountType::Cluster | compose_model::MountType::Npipe => {}
        }
    }
    for secret in &spec.service.secrets {
        let file = spec
            .project
            .secrets
            .get(&secret.source)
            .and_then(|secret| secret.file.clone());
        mounts.extend(file.map(|file| file_mount(file, secret_target(secret))));
    }
    for config in &spec.service.configs {
        let file = spec
            .project
            .configs
            .get(&config.source)
            .and_then(|config| config.file.clone());
        mounts.extend(file.map(|file| file_mount(file, config_target(config))));
    }
    inherit(spec, &mut mounts);
    (binds, mounts)
}

fn bind(volume: &VolumeMount, binds: &mut Vec<String>, mounts: &mut Vec<Mount>) {
    let source = volume.source.clone().unwrap_or_default();
    let options = volume.bind.clone().unwrap_or_default();
    let plain =
        options.create_host_path.0 && options.propagation.is_none() && options.recursive.is_none();
    if plain {
        let access = if volume.read_only { "ro" } else { "rw" };
        let label = options
            .selinux
            .map(|label| format!(",{label}"))
            .unwrap_or_default();
        binds.push(format!("{source}:{}:{access}{label}", volume.target));
        return;
    }
    let recursive = options.recursive.as_deref();
    mounts.push(Mount {
        kind: MountType::Bind,
        source,
        target: volume.target.clone(),
        read_only: volume.read_only,
        consistency: volume.consistency.clone().unwrap_or_default(),
        bind_options: Some(BindOptions {
            propagation: options.propagation.clone().unwrap_or_default(),
            non_recursive: recursive == Some("disabled"),
            create_mountpoint: options.create_host_path.0,
            read_only_non_recursive: recursive == Some("writable"),
            read_only_force_recursive: recursive == Some("readonly"),
        }),
        ..Mount::default()
    });
}

fn volume_mount(
    spec: &ContainerSpec<'_>,
    volume: &VolumeMount,
    binds: &mut Vec<String>,
    mounts: &mut Vec<Mount>,
) {
    let options = volume.volume.clone().unwrap_or_default();
    let plain = options.labels.is_empty() && options.subpath.is_none() && !options.nocopy;
    let source = volume
        .source
        .as_deref()
        .map(|key| volume_name(spec.project, key));
    if let (Some(name), true) = (&source, plain) {
        let access = if volume.read_only { "ro" } else { "rw" };
        binds.push(format!("{name}:{}:{access}", volume.target));
        return;
    }
    let kept = spec
        .inherited
        .iter()
        .find(|kept| kept.target == volume.target);
    mounts.push(Mount {
        kind: MountType::Volume,
        source: source
            .or_else(|| kept.map(|kept| kept.volume.clone()))
            .unwrap_or_default(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        volume_options: Some(VolumeOptions {
            no_copy: options.nocopy,
            labels: (!options.labels.is_empty()).then(|| {
                options
                    .labels
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect()
            }),
            subpath: options.subpath.clone().unwrap_or_default(),
            driver_config: None,
        }),
        ..Mount::default()
    });
}

/// Name of a volume in the engine, by its key in the file.
pub(super) fn volume_name(project: &Project, key: &str) -> String {
    project
        .volumes
        .get(key)
        .map_or(key, |volume| volume.name.as_str())
        .to_owned()
}

fn tmpfs(volume: &VolumeMount) -> Mount {
    let options = volume.tmpfs.clone().unwrap_or_default();
    Mount {
        kind: MountType::Tmpfs,
        target: volume.target.clone(),
        read_only: volume.read_only,
        tmpfs_options: Some(TmpfsOptions {
            size_bytes: options.size.map(|size| size.0),
            mode: options.mode.map(|mode| mode.0.0),
            options: None,
        }),
        ..Mount::default()
    }
}

fn image(volume: &VolumeMount) -> Mount {
    let options = volume.image.clone().unwrap_or_default();
    Mount {
        kind: MountType::Image,
        source: volume.source.clone().unwrap_or_default(),
        target: volume.target.clone(),
        read_only: volume.read_only,
        image_options: Some(ImageOptions {
            subpath: options.subpath.unwrap_or_default(),
        }),
        ..Mount::default()
    }
}

/// A file of the project, read-only; it must exist.
fn file_mount(source: String, target: String) -> Mount {
    Mount {
        kind: MountType::Bind,
        source,
        target,
        read_only: true,
        bind_options: Some(BindOptions::default()),
        ..Mount::default()
    }
}

pub(super) fn secret_target(secret: &FileReference) -> String {
    match secret.target.as_deref() {
        Some(target) if target.starts_with('/') => target.to_owned(),
        target => format!("/run/secrets/{}", target.unwrap_or(&secret.source)),
    }
}

pub(super) fn config_target(config: &FileReference) -> String {
    match config.target.as_deref() {
        Some(target) if target.starts_with('/') => target.to_owned(),
        target => format!("/{}", target.unwrap_or(&config.source)),
    }
}

/// Anonymous volumes at paths that the image, not the file, declares.
fn inherit(spec: &ContainerSpec<'_>, mounts: &mut Vec<Mount>) {
    for kept in spec.inherited {
        let declared = spec
            .service
            .volumes
            .iter()
            .any(|volume| volume.target == kept.target)
            || mounts.iter().any(|mount| mount.target == kept.target);
        if !declared {
            mounts.push(Mount {
                kind: MountType::Volume,
                source: kept.volume.clone(),
                target: kept.target.clone(),
                read_only: !kept.writable,
                ..Mount::default()
            });
        }
    }
}
