//! Published ports (SwarmKit `validateEndpointSpec`, `checkPortConflicts`).

use std::collections::BTreeSet;

use agent_api::swarm::{EndpointSpec, PortConfig, ServiceSpec};
use cluster_api::Service;

use super::super::Refusal;
use crate::store::Store;

const HOST: &str = "host";
const INGRESS: &str = "ingress";

/// Whether a service with this spec is reached through the ingress network.
pub(super) fn needs_ingress(spec: &ServiceSpec) -> bool {
    ports(spec).any(|port| port.publish_mode == INGRESS)
}

/// The ports that are part of its containers.
pub(super) fn on_hosts(spec: &ServiceSpec) -> impl Iterator<Item = &PortConfig> {
    ports(spec).filter(|port| port.publish_mode == HOST)
}

fn ports(spec: &ServiceSpec) -> impl Iterator<Item = &PortConfig> {
    spec.endpoint_spec.iter().flat_map(|spec| &spec.ports)
}

/// Rules of the spec alone.
pub(super) fn check(endpoint: &EndpointSpec) -> Result<(), Refusal> {
    let mut published = BTreeSet::new();
    for port in &endpoint.ports {
        if port.target_port == 0 {
            return Err(Refusal::invalid(
                "EndpointSpec: a published port needs a target port",
            ));
        }
        if port.protocol == "sctp" {
            return Err(Refusal::unsupported("publishing ports of protocol sctp"));
        }
        if endpoint.mode == "dnsrr" && port.publish_mode == INGRESS {
            return Err(Refusal::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published_port != 0 && !published.insert((port.published_port, &port.protocol)) {
            return Err(Refusal::invalid(
                "EndpointSpec: duplicate published ports provided",
            ));
        }
    }
    Ok(())
}

/// Ports other services have: asked for, or given to them by the allocator.
pub(super) fn check_conflicts(
    store: &Store,
    spec: &ServiceSpec,
    own: Option<&Service>,
) -> Result<(), Refusal> {
    let wanted = |mode: &str| -> BTreeSet<(u16, &str)> {
        ports(spec)
            .filter(|port| port.published_port != 0 && port.publish_mode == mode)
            .map(|port| (port.published_port, port.protocol.as_str()))
            .collect()
    };
    let (ingress, hosts) = (wanted(INGRESS), wanted(HOST));
    if ingress.is_empty() && hosts.is_empty() {
        return Ok(());
    }
    let others = store
        .services()
        .filter(|service| !service.pending_delete && own.is_none_or(|own| own.id != service.id));
    for service in others {
        for port in ports(&service.spec).chain(&service.endpoint.ports) {
            let key = (port.published_port, port.protocol.as_str());
            // Several services may have one port on hosts: the scheduler keeps them apart.
            let how = match port.publish_mode.as_str() {
                HOST if ingress.contains(&key) => "a host-published port",
                INGRESS if ingress.contains(&key) || hosts.contains(&key) => "an ingress port",
                _ => continue,
            };
            return Err(Refusal::invalid(format!(
                "port '{}' is already in use by service '{}' ({}) as {how}",
                port.published_port, service.spec.annotations.name, service.id
            )));
        }
    }
    Ok(())
}
