//! Networks of the cluster (SwarmKit `controlapi/network.go`): overlays only, one of them the ingress network. A network
//! that is removed loses its name at once and is gone when its last task is.

use std::net::IpAddr;
use std::sync::Arc;

use agent_api::swarm::{Annotations, Driver};
use cluster_api::{DesiredState, Kind, Meta, Network, NetworkSpec, Object, Subnet, TaskState};
use ipnet::IpNet;

use super::{Refusal, annotations, lookup, service, size};
use crate::Context;
use crate::store::{Guard, Store, Transaction};

const DRIVER: &str = "overlay";
/// Names no network of the cluster may have: each node has its own.
const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];
/// Driver options that are understood.
const OPTIONS: [&str; 1] = ["com.docker.network.driver.mtu"];
/// Name of the ingress network a new swarm is made with.
const INGRESS: &str = "ingress";
/// Its subnets: Docker's, wide enough for 4,000 tasks, and a local one of IPv6, without which clients over IPv6 would
/// not keep their addresses.
const INGRESS_SUBNETS: [&str; 2] = ["10.0.0.0/20", "fd6d:7573:7465:7200::/64"];

/// The network that carries published ports, if it is there.
#[must_use]
pub fn ingress_network(store: &Store) -> Option<&Arc<Network>> {
    store
        .networks()
        .find(|network| network.spec.ingress && !network.pending_delete)
}

/// What a new swarm's ingress network is.
#[must_use]
pub fn ingress_spec() -> NetworkSpec {
    let subnets = INGRESS_SUBNETS.map(|text| {
        let subnet: IpNet = text.parse().expect("the constant is a subnet");
        Subnet {
            subnet,
            gateway: subnet.hosts().find(|host| *host != subnet.network()),
            range: None,
        }
    });
    NetworkSpec {
        annotations: Annotations {
            name: INGRESS.to_owned(),
            ..Annotations::default()
        },
        driver: Driver {
            name: DRIVER.to_owned(),
            ..Driver::default()
        },
        ingress: true,
        ipv6: true,
        subnets: subnets.into(),
        ..NetworkSpec::default()
    }
}

pub(super) fn create(
    context: &mut Context<'_>,
    change: &mut Transaction,
    spec: &NetworkSpec,
) -> Result<String, Refusal> {
    check(context.store, spec)?;
    let name = &spec.annotations.name;
    size::check(format_args!("network {name}"), spec)?;
    if context.store.id_of(Kind::Network, name).is_some() {
        return Err(Refusal::Conflict(format!(
            "network with name {name} already exists"
        )));
    }
    if spec.ingress
        && let Some(present) = ingress_network(context.store)
    {
        return Err(Refusal::Conflict(format!(
            "ingress network ({}) is already present",
            present.id
        )));
    }
    if spec.ingress {
        change.expect(Guard::NoIngress);
    }
    let id = context.ids.id();
    let mut spec = spec.clone();
    DRIVER.clone_into(&mut spec.driver.name);
    change.create(Network {
        id: id.clone(),
        meta: Meta::default(),
        spec,
        ..Network::default()
    });
    Ok(id)
}

fn check(store: &Store, spec: &NetworkSpec) -> Result<(), Refusal> {
    if spec.attachable && spec.ingress {
        return Err(Refusal::invalid("ingress network cannot be attachable"));
    }
    annotations::check(&spec.annotations)?;
    let name = &spec.annotations.name;
    if PREDEFINED.contains(&name.as_str()) {
        return Err(Refusal::Forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    if !["", DRIVER].contains(&spec.driver.name.as_str()) {
        return Err(Refusal::unsupported(format_args!(
            "network driver {:?} for networks of the cluster",
            spec.driver.name
        )));
    }
    for (option, value) in &spec.driver.options {
        if !OPTIONS.contains(&option.as_str()) {
            return Err(Refusal::unsupported(format_args!(
                "option {option}={value} of overlay networks"
            )));
        }
        if !value.parse().is_ok_and(|mtu| (576..=65535).contains(&mtu)) {
            return Err(Refusal::invalid(format!(
                "option {option} of network {name} is a number from 576 to 65535, not {value:?}"
            )));
        }
    }
    for subnet in &spec.subnets {
        check_subnet(subnet)?;
    }
    for (position, one) in spec.subnets.iter().enumerate() {
        for other in &spec.subnets[..position] {
            if overlap(&one.subnet, &other.subnet) {
                return Err(Refusal::invalid(format!(
                    "ipam configuration: subnets {} and {} overlap",
                    other.subnet, one.subnet
                )));
            }
        }
    }
    check_ipv6(store, spec)
}

fn check_subnet(subnet: &Subnet) -> Result<(), Refusal> {
    let Subnet {
        subnet,
        gateway,
        range,
    } = subnet;
    if let Some(range) = range
        && !subnet.contains(range)
    {
        return Err(Refusal::invalid(format!(
            "ipam configuration: subnet {subnet} does not contain range {range}"
        )));
    }
    if let Some(gateway) = gateway
        && !subnet.contains(gateway)
    {
        return Err(Refusal::invalid(format!(
            "ipam configuration: subnet {subnet} does not contain gateway {gateway}"
        )));
    }
    Ok(())
}

fn check_ipv6(store: &Store, spec: &NetworkSpec) -> Result<(), Refusal> {
    let name = &spec.annotations.name;
    let given = spec.subnets.iter().any(|subnet| is_ipv6(&subnet.subnet));
    if given && !spec.ipv6 {
        return Err(Refusal::invalid(format!(
            "network {name} has an IPv6 subnet but IPv6 is not enabled for it"
        )));
    }
    let in_pools = || {
        store
            .cluster()
            .is_some_and(|cluster| cluster.address_pools.iter().any(is_ipv6))
    };
    if spec.ipv6 && !given && !in_pools() {
        return Err(Refusal::invalid(format!(
            "IPv6 network {name} needs a subnet: the address pools of this cluster have IPv4 addresses only"
        )));
    }
    Ok(())
}

const fn is_ipv6(subnet: &IpNet) -> bool {
    matches!(subnet, IpNet::V6(_))
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    let first = |net: &IpNet| -> IpAddr { net.network() };
    one.contains(&first(other)) || other.contains(&first(one))
}

pub(super) fn remove(
    context: &Context<'_>,
    change: &mut Transaction,
    input: &str,
) -> Result<(), Refusal> {
    let store = context.store;
    let network = lookup::network(store, input)?;
    let id = &network.id;
    let users = || store.services().filter(|service| !service.pending_delete);
    if network.spec.ingress {
        if let Some(user) = users().find(|user| user.needs_ingress()) {
            return Err(Refusal::invalid(format!(
                "ingress network cannot be removed because service {} depends on it",
                user.id
            )));
        }
    } else if let Some(user) =
        users().find(|user| service::networks(&user.spec).any(|n| n.target == *id))
    {
        return Err(Refusal::invalid(format!(
            "network {id} is in use by service {}",
            user.id
        )));
    }
    // Tasks of services that are being removed are on their way out.
    if let Some(task) = store.tasks_on_network(id).find(|task| {
        task.desired <= DesiredState::Running
            && task.status.state <= TaskState::Running
            && (task.service_id.is_empty()
                || store
                    .service(&task.service_id)
                    .is_some_and(|service| !service.pending_delete))
    }) {
        return Err(Refusal::invalid(format!(
            "network {id} is in use by task {}",
            task.id
        )));
    }
    change.expect(Guard::Unused {
        kind: Kind::Network,
        id: id.clone(),
    });
    if store.tasks_on_network(id).next().is_none() {
        change.remove(&Object::Network(network.clone()));
    } else {
        let mut network = Network::clone(network);
        network.pending_delete = true;
        change.update(network);
    }
    Ok(())
}
