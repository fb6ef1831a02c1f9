//! Creating a container.
//!
//! ```text
//! validate → image → name → mounts → record (intent) → volumes, filled from the image → visible to everybody
//! ```
//!
//! The record is written before anything else is made and already names the anonymous volumes, so a crash leaves
//! either nothing or a container whose missing volumes its first start makes.

use std::sync::Arc;

use agent_api::{ContainerCreateRequest, ContainerCreateResponse, EndpointSettings};
use agent_build::plan::{Platform, PlatformError};
use agent_image::{HeldFor, ImageConfig, Store};
use indexmap::IndexMap;
use jiff::Timestamp;

use super::container::{Container, DEFINITION_FORMAT, Definition, State, new_id};
use super::driver::Driver;
use super::mounts::{self, Donor, MountSource};
use super::shared::{Shared, blocking};
use super::volumes::Creation;
use super::{defaults, endpoint, ports, spec, validate};
use crate::error::{Error, Result};

/// Creates a container.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    name: Option<String>,
    platform: Option<String>,
    request: ContainerCreateRequest,
) -> Result<ContainerCreateResponse> {
    let shared = Arc::clone(shared);
    blocking(move || {
        let (driver, response) =
            create_blocking(&shared, name.as_deref(), platform.as_deref(), request)?;
        // In here: nobody may wait for the answer any more, and the container is there all the same.
        shared.tasks.spawn(driver.run());
        Ok(response)
    })
    .await
}

fn create_blocking(
    shared: &Arc<Shared>,
    name: Option<&str>,
    platform: Option<&str>,
    request: ContainerCreateRequest,
) -> Result<(Driver, ContainerCreateResponse)> {
    let ContainerCreateRequest {
        mut config,
        mut host_config,
        networking_config,
    } = request;
    let mut warnings = validate::create(&config, &mut host_config, shared.host)?;
    // Kept until the container is visible and so counts as a user of the image.
    let (image_id, _hold) = shared
        .images
        .hold(&config.image, HeldFor::Container)
        .map_err(|error| no_image(&config.image, error))?;
    let image = shared.images.inspect(&image_id.to_string())?;
    if let Some(platform) = platform {
        check_platform(platform, &image.config, &config.image)?;
    }
    defaults::merge_image(&mut config, &image.config.config);
    let command = defaults::command(&config)?;
    defaults::fill_host(&mut host_config, &shared.options, is_v2(shared));
    let id = new_id();
    resolve_containers(shared, &mut host_config);
    let endpoints = endpoints(
        shared,
        &mut config,
        &mut host_config,
        networking_config.endpoints_config,
    )?;
    if config.hostname.is_empty()
        && (host_config.network_mode == "host" || host_config.uts_mode == "host")
    {
        // With the host's network a container is known by the host's name.
        config.hostname = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
    }
    let plans = mounts::plan(
        &config,
        &host_config,
        |reference| {
            let donor = shared.registry.find(reference)?.container();
            Ok(Donor {
                mounts: donor.definition.mounts.clone(),
            })
        },
        new_id,
    )?;
    mounts::check_sources(&plans)?;
    let name = shared.registry.reserve_name(name, &id)?;
    let mut definition = Definition {
        format: DEFINITION_FORMAT,
        id: id.clone(),
        name: name.clone(),
        created: Timestamp::now(),
        image: image_id.to_string(),
        command,
        config,
        host: host_config,
        mounts: plans,
        endpoints,
    };
    let made = (|| {
        early_errors(shared, &definition)?;
        shared.records.create(&definition)?;
        let (handle, mut driver) =
            Driver::new(shared, Container::new(definition.clone(), State::default()));
        // Visible from here on, so that its volumes count as used; requests wait for the driver.
        shared.registry.insert(&id, handle);
        let result = make_volumes(shared, &mut definition, &image.layers);
        match result {
            Ok(()) => {
                driver.set_definition(definition.clone());
                Ok(driver)
            }
            Err(error) => {
                shared.registry.remove(&id, &name);
                if let Err(leftover) = shared.records.remove(&id) {
                    tracing::error!(container.id = id, error = %leftover, "cannot take back a failed creation");
                }
                Err(error)
            }
        }
    })();
    let driver = made.inspect_err(|_| shared.registry.release_name(&name, &id))?;
    shared.events.container(&definition, "create", &[]);
    warnings.dedup();
    Ok((driver, ContainerCreateResponse { id, warnings }))
}

fn is_v2(shared: &Shared) -> bool {
    shared.hierarchy.version() == agent_runtime::cgroup::Version::V2
}

fn no_image(name: &str, error: agent_image::ImageError) -> Error {
    match Error::from(error) {
        Error::NotFound(_) if name.is_empty() => Error::invalid("no image specified"),
        Error::NotFound(_) => match agent_image::Reference::parse(name) {
            Ok(reference) => Error::not_found(format!(
                "No such image: {}",
                reference.with_default_tag().familiar()
            )),
            Err(_) => Error::not_found(format!("No such image: {name}")),
        },
        other => other,
    }
}

fn check_platform(wanted: &str, image: &ImageConfig, name: &str) -> Result<()> {
    let platform: Platform = wanted
        .parse()
        .map_err(|error: PlatformError| Error::invalid(error.to_string()))?;
    if image.runs_on(&platform) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {name} was found but its platform ({}) does not match the specified platform ({platform})",
        image.platform()
    )))
}

/// Names of containers whose namespaces are shared become ids, so that renaming them breaks nothing.
fn resolve_containers(shared: &Shared, host: &mut agent_api::HostConfig) {
    for mode in [
        &mut host.network_mode,
        &mut host.pid_mode,
        &mut host.ipc_mode,
    ] {
        if let Some(reference) = mode.strip_prefix("container:")
            && let Ok(other) = shared.registry.find(reference)
        {
            *mode = format!("container:{}", other.container().id());
        }
    }
}

/// The networks to connect to: that of the network mode first, under their own names where they exist.
fn endpoints(
    shared: &Shared,
    config: &mut agent_api::ContainerConfig,
    host: &mut agent_api::HostConfig,
    asked: IndexMap<String, EndpointSettings>,
) -> Result<IndexMap<String, EndpointSettings>> {
    if host.network_mode.starts_with("container:") {
        return match asked.is_empty() {
            true => Ok(IndexMap::new()),
            false => Err(Error::invalid(
                "conflicting options: cannot attach a container network mode to other networks",
            )),
        };
    }
    let known = |name: &str| match name {
        "default" => "bridge".to_owned(),
        other => shared
            .networks
            .inspect(other)
            .map_or_else(|_| other.to_owned(), |info| info.name),
    };
    let primary = known(&host.network_mode);
    host.network_mode.clone_from(&primary);
    let mut endpoints: IndexMap<String, EndpointSettings> = IndexMap::new();
    endpoints.insert(primary.clone(), EndpointSettings::default());
    for (name, settings) in asked {
        endpoint::spec(&settings)?;
        let name = known(&name);
        let has_address = settings
            .ipam_config
            .as_ref()
            .is_some_and(|ipam| !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty());
        if has_address && matches!(name.as_str(), "bridge" | "host" | "none") {
            return Err(Error::invalid(
                "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on user defined networks only"
                    .replace("bridge:", &format!("{name}:")),
            ));
        }
        if matches!(name.as_str(), "host" | "none") && name != primary {
            return Err(Error::invalid(format!(
                "conflicting options: network {name} cannot be combined with other networks"
            )));
        }
        endpoints.insert(name, settings);
    }
    if endpoints.len() > 1 && matches!(primary.as_str(), "host" | "none") {
        return Err(Error::invalid(format!(
            "conflicting options: network {primary} cannot be combined with other networks"
        )));
    }
    if !config.mac_address.is_empty()
        && let Some(first) = endpoints.get_mut(&primary)
        && first.mac_address.is_empty()
    {
        first.mac_address = std::mem::take(&mut config.mac_address);
        endpoint::spec(first)?;
    }
    Ok(endpoints)
}

/// What would only fail at the start otherwise, and can be told now.
fn early_errors(shared: &Shared, definition: &Definition) -> Result<()> {
    ports::requests(&definition.config, &definition.host)?;
    spec::seccomp(&definition.host)?;
    shared.cgroup_path(definition)?;
    for address in &definition.host.dns {
        let _: std::net::IpAddr = address
            .parse()
            .map_err(|_| Error::invalid(format!("{address:?} is not an IP address")))?;
    }
    Ok(())
}

/// Makes the volumes that are missing and fills empty ones from the image. Takes back what it made if that fails.
fn make_volumes(
    shared: &Shared,
    definition: &mut Definition,
    layers: &[std::path::PathBuf],
) -> Result<()> {
    let mut made: Vec<String> = Vec::new();
    let recorded = definition.mounts.clone();
    let result = (|| {
        for plan in &mut definition.mounts {
            let MountSource::Volume(volume) = &mut plan.source else {
                continue;
            };
            if shared.volumes.ensure(volume)? == Creation::Created {
                shared
                    .events
                    .other("volume", &volume.name, "create", &[("driver", "local")]);
                made.push(volume.name.clone());
            }
            if !volume.no_copy && !volume.inherited && volume.subpath.is_empty() {
                let in_use = in_use(shared, &volume.name);
                shared
                    .volumes
                    .fill(&volume.name, &plan.target, layers, in_use)?;
            }
        }
        match definition.mounts == recorded {
            true => Ok(()),
            false => shared.records.write_definition(definition),
        }
    })();
    if result.is_err() {
        for name in made {
            let discarded = shared.volumes.remove(&name, Vec::new, |directory| {
                shared.records.discard(directory)
            });
            if let Err(error) = discarded {
                tracing::warn!(volume = name, %error, "cannot take back a volume");
            }
        }
    }
    result
}

/// Whether a container that runs has the volume mounted.
fn in_use(shared: &Shared, volume: &str) -> bool {
    shared
        .registry
        .volume_users(volume)
        .iter()
        .filter_map(|id| shared.registry.get(id))
        .any(|handle| handle.container().is_alive())
}

/// Whether images made from others matter to a filter: the image and its descendants.
pub(crate) fn descendants(images: &Store, reference: &str) -> Vec<String> {
    let Ok(root) = images.inspect(reference) else {
        return Vec::new();
    };
    let own = &root.config.rootfs.diff_ids;
    let all = images.list(&agent_image::ListFilter {
        all: true,
        ..agent_image::ListFilter::default()
    });
    let built_on = |image: &agent_image::Image| image.config.rootfs.diff_ids.starts_with(own);
    let mut ids: Vec<String> = all
        .unwrap_or_default()
        .iter()
        .filter(|image| built_on(image))
        .map(|image| image.id.to_string())
        .collect();
    ids.push(root.id.to_string());
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_must_run_on_the_platform_that_is_wanted() {
        let image = ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..ImageConfig::default()
        };
        let check = |wanted: &str| check_platform(wanted, &image, "busybox");
        for good in [
            "linux/amd64",
            "linux/x86_64",
            "Linux/AMD64",
            "amd64",
            "linux/amd64/v2",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        assert_eq!(
            check("linux/arm64").unwrap_err(),
            Error::not_found(
                "image with reference busybox was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)"
            )
        );
        assert!(matches!(check("linux//x"), Err(Error::InvalidParameter(_))));
    }
}
