//! Flags of `service create` and `service update` to the spec of a service. Pure: what the flags name is looked up
//! before and comes in as [`Known`].
//!
//! ```text
//!   scalars.rs     flags both have: each sets one thing of the spec
//!   create.rs      lists of create, and the spec of a new service       update.rs   -add and -rm pairs on a spec
//!   ports.rs · references.rs · small.rs    the syntaxes of single flags
//! ```
//! Source: docker/cli `cli/command/service/{opts,create,update,parse}.go`; `tests.rs` compares what is sent with a
//! recording of docker 28.2.2.

mod create;
mod ports;
mod references;
mod scalars;
mod small;
#[cfg(test)]
mod tests;
mod update;
mod words;

pub(crate) use create::CreateFlags;
pub(crate) use update::UpdateFlags;

use agent_api::swarm::{NetworkAttachmentConfig, ServiceSpec};
use std::collections::BTreeMap;

/// Ids of what flags name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) networks: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) configs: BTreeMap<String, String>,
}

/// Names that have to be looked up.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) networks: Vec<String>,
    pub(crate) secrets: Vec<String>,
    pub(crate) configs: Vec<String>,
}

impl Known {
    fn network(&self, name: &str) -> Result<String, String> {
        let id = self.networks.get(name).cloned();
        id.ok_or_else(|| format!("network {name} not found"))
    }
}

/// `--network NAME` or `--network name=NAME,alias=…,driver-opt=…`.
fn network(flag: &str) -> Result<NetworkAttachmentConfig, String> {
    let (name, endpoint) = super::network::network(flag)?;
    let asks_for_an_address = endpoint.ipam_config.is_some()
        || !endpoint.mac_address.is_empty()
        || endpoint.gw_priority != 0;
    if asks_for_an_address {
        return Err(format!(
            "invalid network {flag:?}: tasks get their addresses from the cluster: only alias and driver-opt can be given"
        ));
    }
    Ok(NetworkAttachmentConfig {
        target: name,
        aliases: endpoint.aliases.unwrap_or_default(),
        driver_opts: endpoint.driver_opts.unwrap_or_default(),
    })
}

/// The container of a service; a plugin has none.
fn container(spec: &mut ServiceSpec) -> &mut agent_api::swarm::ContainerSpec {
    spec.task_template.container_spec.get_or_insert_default()
}
