//! Changes to a container that are not its life: its name, its limits, its networks.

use std::sync::Arc;

use agent_api::{ContainerStatus, ContainerUpdateRequest, EndpointSettings, Resources};

use super::Driver;
use crate::engine::container::{Attachment, Definition};
use crate::engine::shared::blocking;
use crate::engine::{endpoint, files, names, spec, validate};
use crate::error::{Error, Result};

impl Driver {
    pub(super) async fn rename(&mut self, name: &str) -> Result<()> {
        let old = self.container.name().to_owned();
        let id = self.container.id().to_owned();
        let bare = names::validate(name).map_err(|_| {
            Error::invalid(format!(
                "Error when allocating new name: Invalid container name (/{name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            ))
        })?;
        if bare == old {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.shared
            .registry
            .reserve_name(Some(bare), &id)
            .map_err(|error| error.context("Error when allocating new name"))?;
        let mut definition = Definition::clone(&self.container.definition);
        bare.clone_into(&mut definition.name);
        if let Err(error) = self.store(definition).await {
            self.shared.registry.release_name(bare, &id);
            return Err(error);
        }
        self.shared.registry.release_name(&old, &id);
        if self.container.attachment.is_some() {
            let (networks, id, name) = (self.shared.networks.clone(), id.clone(), bare.to_owned());
            let renamed = blocking(move || Ok(networks.rename_sandbox(&id, &name)?)).await;
            if let Err(error) = renamed {
                tracing::warn!(container.id = self.container.id(), %error, "other containers still resolve the old name");
            }
        }
        self.publish();
        self.event("rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    /// Records a changed definition, then makes it the container's.
    async fn store(&mut self, definition: Definition) -> Result<()> {
        let definition = Arc::new(definition);
        let (records, written) = (self.shared.records.clone(), Arc::clone(&definition));
        blocking(move || records.write_definition(&written)).await?;
        self.container.definition = definition;
        Ok(())
    }

    pub(super) async fn update(&mut self, request: ContainerUpdateRequest) -> Result<Vec<String>> {
        if matches!(
            self.container.state.status,
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(Error::conflict(
                "Cannot update container: container is marked for removal and cannot be \"update\"",
            ));
        }
        let mut definition = Definition::clone(&self.container.definition);
        let mut merged = definition.host.resources.clone();
        merge(&mut merged, &request.resources)?;
        let warnings = validate::resources(&mut merged, self.shared.host)?;
        definition.host.resources = merged;
        if !request.restart_policy.name.is_empty() {
            let auto_remove = definition.host.auto_remove;
            if auto_remove && request.restart_policy.name != "no" {
                return Err(Error::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            validate::restart_policy(&request.restart_policy, auto_remove)?;
            definition.host.restart_policy = request.restart_policy;
        }
        if self.container.is_alive() {
            let cgroup = self.shared.cgroup(&definition)?;
            let limits = spec::limits(&definition.host.resources);
            let id = self.container.id().to_owned();
            blocking(move || {
                cgroup.update(&limits).map(drop).map_err(|error| {
                    Error::system(format!("Cannot update container {id}: {error}"))
                })
            })
            .await?;
        }
        self.store(definition).await?;
        self.publish();
        self.event("update", &[]);
        Ok(warnings)
    }

    pub(super) async fn connect(
        &mut self,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let mode = self.container.definition.host.network_mode.as_str();
        if mode.starts_with("container:") {
            return Err(Error::Forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
            ));
        }
        let info = self.shared.networks.inspect(network)?;
        exclusive(mode, &info.name, &self.container.definition)?;
        if self.container.definition.endpoints.contains_key(&info.name) {
            return Err(Error::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                self.container.name(),
                info.name
            )));
        }
        let endpoint_spec = endpoint::spec(&settings)?;
        let mut definition = Definition::clone(&self.container.definition);
        definition.endpoints.insert(
            info.name.clone(),
            EndpointSettings {
                network_id: info.id.clone(),
                ..settings
            },
        );
        let before = Definition::clone(&self.container.definition);
        self.store(definition).await?;
        if self.container.is_alive() {
            let (networks, id, name) = (
                self.shared.networks.clone(),
                self.container.id().to_owned(),
                info.name.clone(),
            );
            let connected =
                blocking(move || Ok(networks.connect(&id, &name, endpoint_spec)?)).await;
            if let Err(error) = connected {
                self.store(before).await?;
                return Err(error);
            }
            self.refresh_attachment().await?;
        }
        self.publish();
        self.network_event(&info, "connect");
        Ok(())
    }

    pub(super) async fn disconnect(&mut self, network: &str, force: bool) -> Result<()> {
        let found = self.shared.networks.inspect(network);
        let name = match &found {
            Ok(info) => info.name.clone(),
            // A network that is gone can still be taken out of a container.
            Err(_) if self.container.definition.endpoints.contains_key(network) => {
                network.to_owned()
            }
            Err(error) => return Err(Error::not_found(error.to_string())),
        };
        if name == "host" && !force {
            return Err(Error::Forbidden(
                "container cannot be disconnected from host network or connected to host network"
                    .to_owned(),
            ));
        }
        if !self.container.definition.endpoints.contains_key(&name) {
            return Err(Error::Forbidden(format!(
                "container {} is not connected to network {name}",
                self.container.id()
            )));
        }
        if self.container.is_alive() {
            let (networks, id, target) = (
                self.shared.networks.clone(),
                self.container.id().to_owned(),
                name.clone(),
            );
            let result = blocking(move || Ok(networks.disconnect(&id, &target)?)).await;
            if !force {
                result?;
            }
        }
        let mut definition = Definition::clone(&self.container.definition);
        definition.endpoints.shift_remove(&name);
        self.store(definition).await?;
        if self.container.is_alive() {
            self.refresh_attachment().await?;
        }
        self.publish();
        if let Ok(info) = found {
            self.network_event(&info, "disconnect");
        }
        Ok(())
    }

    fn network_event(&self, info: &netdriver::NetworkInfo, action: &str) {
        self.shared.events.other(
            "network",
            &info.id,
            action,
            &[
                ("container", self.container.id()),
                ("name", &info.name),
                ("type", info.driver.name()),
            ],
        );
    }

    /// Asks netdriver what the container has now; its `hosts` and `resolv.conf` follow. Its published ports already do, and
    /// stay the same ones.
    async fn refresh_attachment(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let container = self.container.clone();
        let attachment = blocking(move || {
            files::write(&shared, &container)?;
            attachment(&shared.networks, container.id())
        })
        .await?;
        self.container.attachment = Some(Arc::new(attachment));
        Ok(())
    }
}

/// What netdriver holds for a container. Blocks.
pub(crate) fn attachment(networks: &netdriver::Networks, id: &str) -> Result<Attachment> {
    let sandbox = networks.sandbox(id)?;
    Ok(Attachment {
        netns: sandbox
            .netns
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        endpoints: sandbox.endpoints,
        ports: sandbox.ports,
    })
}

/// `host` and `none` stand alone.
fn exclusive(mode: &str, network: &str, definition: &Definition) -> Result<()> {
    if mode == "host" || network == "host" {
        return Err(Error::Forbidden(
            "container cannot be disconnected from host network or connected to host network"
                .to_owned(),
        ));
    }
    if (network == "none" && !definition.endpoints.is_empty())
        || definition.endpoints.contains_key("none")
    {
        return Err(Error::Forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Lays an update over the present limits; zero means "leave it".
fn merge(into: &mut Resources, update: &Resources) -> Result<()> {
    let unset = Resources::default();
    macro_rules! take {
        ($($field:ident),*) => {$(
            if update.$field != unset.$field {
                into.$field.clone_from(&update.$field);
            }
        )*};
    }
    if update.nano_cpus != 0 && (into.cpu_quota > 0 || into.cpu_period > 0) {
        return Err(Error::conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota or Period has already been set",
        ));
    }
    if (update.cpu_quota != 0 || update.cpu_period != 0) && into.nano_cpus > 0 {
        return Err(Error::conflict(
            "Conflicting options: CPU Quota or Period cannot be updated as NanoCPUs has already been set",
        ));
    }
    if update.memory != 0
        && update.memory_swap == 0
        && into.memory_swap > 0
        && update.memory > into.memory_swap
    {
        return Err(Error::conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ));
    }
    for (given, option) in [
        (!update.devices.is_empty(), "updating Devices"),
        (
            update.device_cgroup_rules.is_some(),
            "updating DeviceCgroupRules",
        ),
        (!update.ulimits.is_empty(), "updating Ulimits"),
        (!update.cgroup_parent.is_empty(), "updating CgroupParent"),
        (
            update.cpu_realtime_period != 0 || update.cpu_realtime_runtime != 0,
            "updating CpuRealtimePeriod and CpuRealtimeRuntime",
        ),
    ] {
        if given {
            return Err(Error::unsupported(option));
        }
    }
    take!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        pids_limit
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_what_it_names() {
        let mut into = Resources {
            memory: 10 << 20,
            memory_swap: 20 << 20,
            cpu_shares: 5,
            ..Resources::default()
        };
        let update = Resources {
            memory: 15 << 20,
            pids_limit: Some(9),
            ..Resources::default()
        };
        merge(&mut into, &update).unwrap();
        assert_eq!(
            (into.memory, into.memory_swap, into.cpu_shares),
            (15 << 20, 20 << 20, 5)
        );
        assert_eq!(into.pids_limit, Some(9));
        let update = Resources {
            memory: 30 << 20,
            ..Resources::default()
        };
        assert!(matches!(merge(&mut into, &update), Err(Error::Conflict(_))));
        let mut quota = Resources {
            cpu_quota: 5000,
            ..Resources::default()
        };
        let update = Resources {
            nano_cpus: 1,
            ..Resources::default()
        };
        assert!(matches!(
            merge(&mut quota, &update),
            Err(Error::Conflict(_))
        ));
    }
}
