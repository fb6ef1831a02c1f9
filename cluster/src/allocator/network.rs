//! Subnets and identifiers of networks.
//!
//! The size of a subnet out of the pools is the cluster's setting. Docker's default of /24 makes a network full at some 250
//! tasks; a cluster made without a choice is given /20, 4,093 addresses in each of 4,096 networks.
//!
//! A subnet out of the pools avoids all networks of the cluster and the addresses its nodes reach each other at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cluster_api::{Cluster, Network, Subnet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netdriver_ipam::{AddressPool, Addresses, choose_subnet, overlaps};

use super::AllocationError;
use super::space::Family;
use crate::store::Store;

/// First identifier of a network; those below are left to other tools (SwarmKit does the same).
const FIRST_VNI: u32 = 4_096;
const LAST_VNI: u32 = (1 << 24) - 1;

/// Of clusters whose object does not say; Docker's.
const POOL: IpNet = IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8));
/// Of clusters whose object does not say.
const SIZE: u8 = 20;
const V6_SIZE: u8 = 64;

/// Whether it spans hosts, and so needs subnets and an identifier.
pub(super) fn is_overlay(network: &Network) -> bool {
    matches!(network.spec.driver.name.as_str(), "" | "overlay")
}

/// Whether services and tasks can be attached.
pub(super) fn is_allocated(network: &Network) -> bool {
    !is_overlay(network) || (network.vni.is_some() && !network.subnets.is_empty())
}

/// The next identifier: above `highest`, which is the greatest this leader has seen, so that one is used again as late as
/// possible; what a node may still have under it is then long gone.
pub(super) fn next_vni(highest: u32, taken: &BTreeSet<u32>) -> Option<u32> {
    let above = FIRST_VNI.max(highest.saturating_add(1));
    if above <= LAST_VNI {
        return Some(above);
    }
    (FIRST_VNI..=LAST_VNI).find(|vni| !taken.contains(vni))
}

/// The subnets a network gets: those its spec names, and for a family it wants and does not name one out of the pools.
/// `tried` holds what this step gave to others.
///
/// # Errors
///
/// A subnet overlaps another network's or is unusable, or the pools have none left.
pub(super) fn choose_subnets(
    network: &Network,
    cluster: &Cluster,
    store: &Store,
    tried: &[IpNet],
) -> Result<Vec<Subnet>, AllocationError> {
    let others: Vec<(&str, IpNet)> = store
        .networks()
        .filter(|other| other.id != network.id)
        .flat_map(|other| {
            let name = other.spec.annotations.name.as_str();
            other.subnets.iter().map(move |s| (name, s.subnet))
        })
        .collect();
    let mut subnets = Vec::new();
    for wanted in &network.spec.subnets {
        let subnet = wanted.subnet.trunc();
        if let Some((name, other)) = others
            .iter()
            .map(|(name, net)| (*name, *net))
            .chain(tried.iter().map(|net| ("another network", *net)))
            .chain(
                subnets
                    .iter()
                    .map(|s: &Subnet| ("the same network", s.subnet)),
            )
            .find(|(_, net)| overlaps(&subnet, net))
        {
            return Err(AllocationError::Overlap {
                subnet,
                other,
                name: name.to_owned(),
            });
        }
        subnets.push(with_gateway(Subnet {
            subnet,
            ..wanted.clone()
        })?);
    }
    let mut taken: Vec<IpNet> = others.iter().map(|(_, net)| *net).collect();
    taken.extend(tried);
    taken.extend(subnets.iter().map(|s| s.subnet));
    taken.extend(
        store
            .nodes()
            .filter_map(|n| n.data_path_addr)
            .map(IpNet::from),
    );
    for family in [Family::V4, Family::V6] {
        let named = subnets
            .iter()
            .any(|s| Family::of(s.subnet.addr()) == family);
        let wanted = family == Family::V4 || network.spec.ipv6;
        if named || !wanted {
            continue;
        }
        let pools = pools(cluster, family);
        let subnet = choose_subnet(&pools, family == Family::V6, &taken)
            .ok_or(AllocationError::NoSubnet { family })?;
        taken.push(subnet);
        subnets.push(with_gateway(Subnet {
            subnet,
            gateway: None,
            range: None,
        })?);
    }
    Ok(subnets)
}

fn with_gateway(mut subnet: Subnet) -> Result<Subnet, AllocationError> {
    let unusable = |source| AllocationError::Subnet {
        subnet: subnet.subnet,
        source,
    };
    let mut addresses = Addresses::new(subnet.subnet, subnet.range).map_err(unusable)?;
    let gateway = match subnet.gateway {
        Some(gateway) => addresses.allocate_static(gateway).map(|()| gateway),
        None => addresses.allocate_gateway(),
    };
    subnet.gateway = Some(gateway.map_err(unusable)?);
    Ok(subnet)
}

fn pools(cluster: &Cluster, family: Family) -> Vec<AddressPool> {
    match family {
        Family::V4 => {
            let size = match cluster.subnet_size {
                0 => SIZE,
                size => size,
            };
            let bases = if cluster.address_pools.is_empty() {
                &[POOL]
            } else {
                cluster.address_pools.as_slice()
            };
            bases
                .iter()
                .map(|base| AddressPool { base: *base, size })
                .collect()
        }
        Family::V6 => {
            let given: Vec<_> = cluster
                .address_pools
                .iter()
                .filter(|base| Family::of(base.addr()) == Family::V6)
                .map(|base| AddressPool {
                    base: *base,
                    size: V6_SIZE.max(base.prefix_len()),
                })
                .collect();
            if given.is_empty() {
                vec![AddressPool {
                    base: unique_local(&cluster.id),
                    size: V6_SIZE,
                }]
            } else {
                given
            }
        }
    }
}

/// A /48 of the cluster's own (RFC 4193): `fd`, and 40 bits of its random id.
fn unique_local(cluster_id: &str) -> IpNet {
    let bits = cluster_id
        .bytes()
        .filter_map(|byte| char::from(byte).to_digit(36))
        .fold(0_u128, |bits, digit| {
            bits.wrapping_mul(36).wrapping_add(u128::from(digit))
        });
    let global_id = bits & ((1 << 40) - 1);
    let address = (0xfd_u128 << 120) | (global_id << 80);
    IpNet::V6(Ipv6Net::new_assert(address.into(), 48))
}

/// Addresses of objects, without their prefix lengths.
pub(super) fn addresses(nets: &[IpNet]) -> impl Iterator<Item = IpAddr> {
    nets.iter().map(IpNet::addr)
}
