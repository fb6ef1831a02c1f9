//! Networks of the cluster, in the shape `/networks` has for all networks, and as part of a task.

use agent_api::swarm::{AttachedNetwork, AttachedNetworkSpec, Driver, IpamOptions, IpamRange};
use agent_api::{Ipam, IpamConfig, Labels, Network as Shape};
use cluster_api::{Network, Subnet};

use super::super::{Refusal, lookup};
use super::Shown;
use crate::store::Store;

const VXLAN_IDS: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// All networks of the cluster; filters are the caller's, who lists the node's own beside them.
#[must_use]
pub fn networks(store: &Store) -> Vec<Shape> {
    store
        .networks()
        .filter(|network| !network.pending_delete)
        .map(|network| shape(network))
        .collect()
}

/// One network of the cluster, by id, name or the beginning of its id.
///
/// # Errors
///
/// There is no such network, or there are several.
pub fn network(store: &Store, input: &str) -> Result<Shape, Refusal> {
    Ok(shape(lookup::network(store, input)?))
}

fn shape(network: &Network) -> Shape {
    let spec = &network.spec;
    Shape {
        name: spec.annotations.name.clone(),
        id: network.id.clone(),
        created: network.meta.created_at.rfc3339(),
        scope: "swarm".to_owned(),
        driver: spec.driver.name.clone(),
        enable_ipv4: true,
        enable_ipv6: spec.ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: network
                .subnets
                .iter()
                .map(|subnet| {
                    let range = range(subnet);
                    IpamConfig {
                        subnet: range.subnet,
                        ip_range: range.range,
                        gateway: range.gateway,
                        ..IpamConfig::default()
                    }
                })
                .collect(),
        },
        internal: spec.internal,
        attachable: spec.attachable,
        ingress: spec.ingress,
        options: options(network),
        labels: spec.annotations.labels.clone(),
        ..Shape::default()
    }
}

/// The network as a part of a task's attachment.
pub(super) fn attached(network: &Network) -> AttachedNetwork {
    let meta = Shown::from(network.meta);
    let spec = &network.spec;
    let ipam = |subnets: &[Subnet]| {
        Some(IpamOptions {
            driver: Driver {
                name: "default".to_owned(),
                ..Driver::default()
            },
            configs: subnets.iter().map(range).collect(),
        })
    };
    AttachedNetwork {
        id: network.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: AttachedNetworkSpec {
            annotations: spec.annotations.clone(),
            driver_configuration: spec.driver.clone(),
            ipv6_enabled: spec.ipv6,
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            ipam_options: ipam(&spec.subnets),
            scope: "swarm".to_owned(),
        },
        driver_state: Driver {
            name: spec.driver.name.clone(),
            options: options(network),
        },
        ipam_options: ipam(&network.subnets),
    }
}

/// What the driver was given and what was allocated for it.
fn options(network: &Network) -> Labels {
    let mut options = network.spec.driver.options.clone();
    if let Some(vni) = network.vni {
        options.insert(VXLAN_IDS.to_owned(), vni.to_string());
    }
    options
}

fn range(subnet: &Subnet) -> IpamRange {
    IpamRange {
        subnet: subnet.subnet.to_string(),
        range: subnet
            .range
            .map_or_else(String::new, |range| range.to_string()),
        gateway: subnet
            .gateway
            .map_or_else(String::new, |gateway| gateway.to_string()),
    }
}
