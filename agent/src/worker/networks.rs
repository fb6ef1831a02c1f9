//! What managers say of a network, in the words of this node's network driver. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use cluster::dispatcher::{
    Backend as AssignedBackend, BackendState as AssignedState, Endpoints, NodeAddress,
    PublishedPort,
};
use cluster_api::Network;
use netdriver::{
    Backend, BackendState, Balanced, DataPath, Ingress, IngressNode, IngressPort, IpamConfig,
    Overlay, Peer, Protocol,
};

use super::container::Place;

/// A network cannot be made on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("network {0} has no VXLAN network identifier yet")]
    Unallocated(String),
    #[error("network {name} has driver {driver:?}, which this node does not have")]
    Driver { name: String, driver: String },
    #[error("network {network}: option {option}={value:?}: {reason}")]
    Option {
        network: String,
        option: String,
        value: String,
        reason: String,
    },
}

/// The option that sets a network's MTU.
const MTU: &str = "com.docker.network.driver.mtu";

/// What a network is on this node.
pub(crate) fn place(network: &Network) -> Result<Place, NetworkError> {
    match network.spec.driver.name.as_str() {
        "" | "overlay" => Ok(Place::Overlay),
        driver @ ("host" | "bridge" | "none") => Ok(Place::Local(driver.to_owned())),
        driver => Err(NetworkError::Driver {
            name: network.spec.annotations.name.clone(),
            driver: driver.to_owned(),
        }),
    }
}

/// The network as this node makes it.
pub(crate) fn overlay(network: &Network, data_path: DataPath) -> Result<Overlay, NetworkError> {
    let name = &network.spec.annotations.name;
    let options = network.spec.driver.options.clone();
    let mtu = options
        .get(MTU)
        .map(|value| {
            value.parse::<u32>().map_err(|error| NetworkError::Option {
                network: name.clone(),
                option: MTU.to_owned(),
                value: value.clone(),
                reason: error.to_string(),
            })
        })
        .transpose()?;
    let created = u64::try_from(network.meta.created_at.0).unwrap_or(0);
    Ok(Overlay {
        id: network.id.clone(),
        name: name.clone(),
        created: SystemTime::UNIX_EPOCH + Duration::from_nanos(created),
        vni: network
            .vni
            .ok_or_else(|| NetworkError::Unallocated(name.clone()))?,
        ipam: network
            .subnets
            .iter()
            .map(|subnet| IpamConfig {
                subnet: Some(subnet.subnet),
                ip_range: subnet.range,
                gateway: subnet.gateway,
                auxiliary_addresses: Default::default(),
            })
            .collect(),
        data_path,
        mtu,
        internal: network.spec.internal,
        attachable: network.spec.attachable,
        ingress: network.spec.ingress,
        options,
        labels: network.spec.annotations.labels.clone(),
    })
}

/// Where all endpoints are: tasks, and the nodes' own on the ingress network.
pub(crate) fn peers(endpoints: &Endpoints) -> Vec<Peer> {
    let peer = |addresses: &mut dyn Iterator<Item = IpAddr>, vtep| {
        let (ipv4, ipv6) = families(addresses);
        Peer {
            ipv4,
            ipv6,
            mac: None,
            vtep,
        }
    };
    let tasks = endpoints
        .peers
        .iter()
        .map(|task| peer(&mut task.addresses.iter().copied(), task.vtep));
    let nodes = endpoints.nodes.iter().map(|node| {
        peer(
            &mut node.addresses.iter().map(ipnet::IpNet::addr),
            node.vtep,
        )
    });
    tasks.chain(nodes).collect()
}

/// Names, virtual addresses and backends.
pub(crate) fn balanced(endpoints: &Endpoints) -> Vec<Balanced> {
    endpoints
        .services
        .iter()
        .map(|service| Balanced {
            names: service.names.clone(),
            backend_names: service.backend_names.clone(),
            vips: service.virtual_ips.clone(),
            backends: service.backends.iter().map(backend).collect(),
        })
        .collect()
}

/// The published ports; `None` while this node has no address of its own on the network.
pub(crate) fn ingress(endpoints: &Endpoints, node_id: &str) -> Option<Ingress> {
    let own = endpoints
        .nodes
        .iter()
        .find(|node| node.node_id == node_id)?;
    Some(Ingress {
        network: endpoints.network_id.clone(),
        own: ingress_node(own),
        nodes: endpoints.nodes.iter().map(ingress_node).collect(),
        ports: endpoints.ports.iter().filter_map(port).collect(),
    })
}

fn port(port: &PublishedPort) -> Option<IngressPort> {
    let protocol = match port.protocol.as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        // Managers refuse to publish others on every node.
        _ => return None,
    };
    Some(IngressPort {
        published: port.published,
        protocol,
        target: port.target,
        backends: port.backends.iter().map(backend).collect(),
    })
}

fn backend(backend: &AssignedBackend) -> Backend {
    let (ipv4, ipv6) = families(&mut backend.addresses.iter().copied());
    Backend {
        names: backend.names.clone(),
        ipv4,
        ipv6,
        state: match backend.state {
            AssignedState::Ready => BackendState::Ready,
            AssignedState::Draining => BackendState::Draining,
        },
    }
}

fn ingress_node(node: &NodeAddress) -> IngressNode {
    let (ipv4, ipv6) = families(&mut node.addresses.iter().map(ipnet::IpNet::addr));
    IngressNode { ipv4, ipv6 }
}

/// The first address of each family.
fn families(addresses: &mut dyn Iterator<Item = IpAddr>) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    addresses.fold((None, None), |(ipv4, ipv6), address| match address {
        IpAddr::V4(address) => (ipv4.or(Some(address)), ipv6),
        IpAddr::V6(address) => (ipv4, ipv6.or(Some(address))),
    })
}

#[cfg(test)]
mod tests {
    use agent_api::swarm::Driver;
    use cluster_api::NetworkSpec;

    use super::*;

    fn network(driver: &str, mtu: &str) -> Network {
        Network {
            id: "n1".into(),
            vni: Some(4097),
            spec: NetworkSpec {
                driver: Driver {
                    name: driver.into(),
                    options: [(MTU.to_owned(), mtu.to_owned())].into(),
                },
                ..NetworkSpec::default()
            },
            ..Network::default()
        }
    }

    const DATA_PATH: DataPath = DataPath {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        port: 4789,
    };

    #[test]
    fn a_network_is_made_as_the_managers_allocated_it() {
        let made = overlay(&network("overlay", "1400"), DATA_PATH).unwrap();
        assert_eq!((made.vni, made.mtu), (4097, Some(1400)));
        assert!(overlay(&network("overlay", "big"), DATA_PATH).is_err());
        let unallocated = Network {
            vni: None,
            ..network("overlay", "1400")
        };
        assert!(overlay(&unallocated, DATA_PATH).is_err());
        assert_eq!(place(&network("host", "")), Ok(Place::Local("host".into())));
        assert!(place(&network("weave", "")).is_err());
    }

    #[test]
    fn ingress_needs_an_address_of_this_node() {
        let node = |id: &str, address: &str| NodeAddress {
            node_id: id.into(),
            addresses: vec![address.parse().unwrap()],
            vtep: DATA_PATH.address,
        };
        let endpoints = Endpoints {
            network_id: "i1".into(),
            nodes: vec![node("a", "10.0.0.2/24"), node("b", "10.0.0.3/24")],
            ports: vec![PublishedPort {
                service_id: "s".into(),
                published: 8080,
                protocol: "tcp".into(),
                target: 80,
                backends: vec![AssignedBackend {
                    task_id: "t".into(),
                    node_id: "b".into(),
                    names: vec!["web.1.t".into()],
                    addresses: vec!["10.0.0.9".parse().unwrap()],
                    state: AssignedState::Draining,
                }],
            }],
            ..Endpoints::default()
        };
        assert_eq!(ingress(&endpoints, "c"), None);
        let made = ingress(&endpoints, "b").unwrap();
        assert_eq!(made.own.ipv4, Some(Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!(made.ports[0].backends[0].state, BackendState::Draining);
        assert_eq!(peers(&endpoints).len(), 2);
    }
}
