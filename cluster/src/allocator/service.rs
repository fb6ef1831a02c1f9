//! Endpoints of services: a virtual address on each of their networks, and their ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::{NetworkAttachmentConfig, ServiceSpec};
use cluster_api::{Endpoint, Kind, Network, Service, VirtualIp};
use ipnet::IpNet;

use super::network::{is_allocated, is_overlay};
use super::ports::{Ports, are_assigned, is_ingress};
use super::space::{Family, Space};
use super::trial::{Trial, families};
use super::{AllocationError, Outcome};
use crate::store::Store;

/// Names of the networks that each node has for itself.
const OF_EACH_NODE: [&str; 3] = ["host", "none", "bridge"];

/// The networks a spec names; old clients name them beside the template.
pub(super) fn targets(spec: &ServiceSpec) -> &[NetworkAttachmentConfig] {
    if spec.task_template.networks.is_empty() {
        &spec.networks
    } else {
        &spec.task_template.networks
    }
}

/// What a target in a spec is.
pub(super) enum Target<'a> {
    /// Of the cluster.
    Network(&'a Arc<Network>),
    /// Of each node: nothing is allocated on it.
    OfNode(&'a str),
}

/// Finds the network a spec names by id or name.
pub(super) fn resolve<'a>(
    store: &'a Store,
    target: &'a str,
) -> Result<Target<'a>, AllocationError> {
    let by_name = || store.network(store.id_of(Kind::Network, target)?);
    match store.network(target).or_else(by_name) {
        Some(network) => Ok(Target::Network(network)),
        None if OF_EACH_NODE.contains(&target) => Ok(Target::OfNode(target)),
        None => Err(AllocationError::NoNetwork(target.to_owned())),
    }
}

/// Whether addresses can be had on all of them; `false` while one is yet to be allocated.
pub(super) fn are_usable<'a>(
    networks: impl IntoIterator<Item = &'a Arc<Network>>,
) -> Result<bool, AllocationError> {
    let mut usable = true;
    for network in networks {
        if is_allocated(network) {
            continue;
        }
        if !network.error.is_empty() {
            return Err(AllocationError::Network {
                name: network.spec.annotations.name.clone(),
                error: network.error.clone(),
            });
        }
        usable = false;
    }
    Ok(usable)
}

/// Whether every node publishes a port for the service.
pub(super) fn publishes(service: &Service) -> bool {
    let spec = service.spec.endpoint_spec.as_ref();
    spec.is_some_and(|spec| spec.ports.iter().any(is_ingress))
}

fn has_virtual_ips(service: &Service) -> bool {
    let spec = service.spec.endpoint_spec.as_ref();
    spec.is_none_or(|spec| spec.mode != "dnsrr")
}

impl<'a> Trial<'a> {
    pub(super) fn service(
        &mut self,
        id: &str,
        ports: &Ports,
        spaces: &mut BTreeMap<String, Space>,
    ) -> Outcome {
        let Some(service) = self.store.service(id) else {
            return Outcome::Done;
        };
        if service.pending_delete || (self.is_settled(service, spaces) && service.error.is_empty())
        {
            return Outcome::Done;
        }
        let mut wanted = Service::clone(service);
        match self.endpoint(service, ports, spaces) {
            Ok(Some(endpoint)) => {
                wanted.endpoint = endpoint;
                wanted.error = String::new();
            }
            Ok(None) => return Outcome::Stuck,
            Err(error) => wanted.error = self.named(&error),
        }
        if wanted == **service {
            return Outcome::Stuck;
        }
        if self.batch.update(wanted) {
            Outcome::Written
        } else {
            Outcome::Full
        }
    }

    /// Whether the service has what its spec asks for.
    pub(super) fn is_settled(&self, service: &Service, spaces: &BTreeMap<String, Space>) -> bool {
        let spec = service.spec.endpoint_spec.clone().unwrap_or_default();
        let endpoint = &service.endpoint;
        if endpoint.spec != spec || !are_assigned(&spec.ports, &endpoint.ports) {
            return false;
        }
        let Ok(networks) = self.vip_networks(service) else {
            return false;
        };
        let wanted = networks
            .iter()
            .map(|network| (network, families(spaces, &network.id)));
        let mut count = 0;
        for (network, families) in wanted {
            if !is_allocated(network) || families.is_empty() {
                return false;
            }
            for family in families {
                count += 1;
                let has = endpoint.virtual_ips.iter().any(|ip| {
                    ip.network_id == network.id && Family::of(ip.address.addr()) == family
                });
                if !has {
                    return false;
                }
            }
        }
        endpoint.virtual_ips.len() == count
    }

    /// Networks on which the service has a virtual address.
    fn vip_networks(&self, service: &Service) -> Result<Vec<&'a Arc<Network>>, AllocationError> {
        let mut networks: Vec<&'a Arc<Network>> = Vec::new();
        if publishes(service) {
            if !has_virtual_ips(service) {
                return Err(AllocationError::IngressWithoutVip);
            }
            networks.push(self.ingress_network().ok_or(AllocationError::NoIngress)?);
        }
        for attachment in targets(&service.spec) {
            let store: &'a Store = self.store;
            let id = match resolve(store, &attachment.target)? {
                Target::Network(network) if is_overlay(network) => network.id.as_str(),
                _ => continue,
            };
            if let Some(network) = store.network(id)
                && !networks.iter().any(|known| known.id == network.id)
            {
                networks.push(network);
            }
        }
        Ok(if has_virtual_ips(service) {
            networks
        } else {
            Vec::new()
        })
    }

    /// The endpoint its spec asks for; `None` while one of its networks is not allocated yet.
    fn endpoint(
        &mut self,
        service: &Service,
        ports: &Ports,
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<Option<Endpoint>, AllocationError> {
        let spec = service.spec.endpoint_spec.clone().unwrap_or_default();
        let networks = self.vip_networks(service)?;
        if !are_usable(networks.iter().copied())? {
            return Ok(None);
        }
        let ports = ports.assign(
            &service.id,
            &spec.ports,
            &service.endpoint.ports,
            &mut self.ports,
        )?;
        let mut virtual_ips = Vec::new();
        for network in networks {
            let current: Vec<IpNet> = service
                .endpoint
                .virtual_ips
                .iter()
                .filter(|ip| ip.network_id == network.id)
                .map(|ip| ip.address)
                .collect();
            for family in families(spaces, &network.id) {
                let address = self.keep_or_take(network, family, &current, spaces)?;
                virtual_ips.push(VirtualIp {
                    network_id: network.id.clone(),
                    address,
                });
            }
        }
        Ok(Some(Endpoint {
            spec,
            ports,
            virtual_ips,
        }))
    }

    /// The error with the service that is in the way by its name.
    fn named(&self, error: &AllocationError) -> String {
        match error {
            AllocationError::PortTaken {
                port,
                protocol,
                service_id,
            } => {
                let owner = self.store.service(service_id);
                let name = owner.map_or(service_id, |s| &s.spec.annotations.name);
                format!("port {port}/{protocol} is already in use by service {name}")
            }
            other => other.to_string(),
        }
    }
}
