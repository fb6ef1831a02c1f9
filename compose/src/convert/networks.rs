//! Networks, and how a container is attached to them.

use agent_api::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, Labels, NetworkCreateRequest,
    NetworkingConfig,
};
use compose_model::{Network, Project, ServiceConfig, ServiceNetwork};
use indexmap::IndexMap;

use super::{ContainerSpec, container_name};
use crate::labels;

/// The create request of a network of the project.
#[must_use]
pub fn network(
    project: &Project,
    key: &str,
    network: &Network,
    config_hash: &str,
    attributes: &str,
) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone().unwrap_or_default(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: ipam(network),
        internal: network.internal,
        attachable: network.attachable,
        options: pairs(&network.driver_opts),
        labels: resource_labels(
            project,
            &network.labels,
            (labels::NETWORK, key),
            config_hash,
            attributes,
        ),
        ..NetworkCreateRequest::default()
    }
}

/// Labels of a network or volume: the file's, and those that make it part of the project.
pub(super) fn resource_labels(
    project: &Project,
    own: &std::collections::BTreeMap<String, String>,
    (label, key): (&str, &str),
    config_hash: &str,
    attributes: &str,
) -> Labels {
    let mut all = pairs(own);
    for (name, value) in [
        (label, key),
        (labels::PROJECT, project.name.as_str()),
        (labels::VERSION, labels::VERSION_VALUE),
        (labels::CONFIG_HASH, config_hash),
        (labels::ATTRIBUTES, attributes),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all
}

pub(super) fn pairs(map: &std::collections::BTreeMap<String, String>) -> Labels {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn ipam(network: &Network) -> Option<Ipam> {
    let ipam = network.ipam.clone().unwrap_or_default();
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

/// `HostConfig.NetworkMode`: what the file says, else the primary network, else none.
pub(super) fn mode(spec: &ContainerSpec<'_>) -> String {
    if let Some(mode) = &spec.service.network_mode {
        return mode.clone();
    }
    match spec.service.networks_by_priority().first() {
        Some(key) => network_name(spec.project, key),
        None => "none".to_owned(),
    }
}

/// Name of a network in the engine, by its key in the file.
pub(super) fn network_name(project: &Project, key: &str) -> String {
    project
        .networks
        .get(key)
        .map_or(key, |network| network.name.as_str())
        .to_owned()
}

/// One endpoint per network of the service, the primary one first.
pub(super) fn endpoints(spec: &ContainerSpec<'_>) -> NetworkingConfig {
    if spec.service.network_mode.is_some() {
        return NetworkingConfig::default();
    }
    let links = links(spec);
    let keys = spec.service.networks_by_priority();
    let endpoint = |(index, key): (usize, &&str)| {
        let own = spec
            .service
            .networks
            .get(*key)
            .cloned()
            .flatten()
            .unwrap_or_default();
        let mut settings = endpoint(spec, &own);
        settings.links = (!links.is_empty()).then(|| links.clone());
        if index == 0 && settings.mac_address.is_empty() {
            settings.mac_address = spec.service.mac_address.clone().unwrap_or_default();
        }
        (network_name(spec.project, key), settings)
    };
    let endpoints_config: IndexMap<_, _> = keys.iter().enumerate().map(endpoint).collect();
    NetworkingConfig { endpoints_config }
}

fn endpoint(spec: &ContainerSpec<'_>, network: &ServiceNetwork) -> EndpointSettings {
    let name = container_name(&spec.project.name, spec.name, spec.service, spec.number);
    let mut aliases = vec![name, spec.name.to_owned()];
    for alias in &network.aliases {
        if !aliases.contains(alias) {
            aliases.push(alias.clone());
        }
    }
    let mut driver_opts = pairs(&network.driver_opts);
    if let Some(interface) = &network.interface_name {
        driver_opts.insert(
            "com.docker.network.endpoint.ifname".to_owned(),
            interface.clone(),
        );
    }
    EndpointSettings {
        ipam_config: ipam_config(network),
        aliases: Some(aliases),
        mac_address: network.mac_address.clone().unwrap_or_default(),
        driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
        gw_priority: network.gw_priority.unwrap_or(0),
        ..EndpointSettings::default()
    }
}

fn ipam_config(network: &ServiceNetwork) -> Option<EndpointIpamConfig> {
    let config = EndpointIpamConfig {
        ipv4_address: network.ipv4_address.clone().unwrap_or_default(),
        ipv6_address: network.ipv6_address.clone().unwrap_or_default(),
        link_local_ips: network.link_local_ips.clone(),
    };
    (config != EndpointIpamConfig::default()).then_some(config)
}

/// `CONTAINER:ALIAS` of `links` and `external_links`. A link by the service's own name says nothing that DNS does not
/// know, so that only real aliases are asked for; the alias then means every container of the service.
pub(super) fn links(spec: &ContainerSpec<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for link in &spec.service.links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let target = spec.project.services.get(name).filter(|_| alias != name);
        if let Some(target) = target {
            let containers = (1..=target.replicas())
                .map(|number| container_name(&spec.project.name, name, target, number));
            all.extend(containers.map(|container| format!("{container}:{alias}")));
        }
    }
    for link in &spec.service.external_links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        all.push(format!("{name}:{alias}"));
    }
    all
}

/// Names of the networks a service's containers are to be attached to.
pub(crate) fn names(project: &Project, service: &ServiceConfig) -> Vec<String> {
    if service.network_mode.is_some() {
        return Vec::new();
    }
    service
        .networks_by_priority()
        .into_iter()
        .map(|key| network_name(project, key))
        .collect()
}
