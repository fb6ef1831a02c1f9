//! Subnets, gateways and reserved addresses of a network: what a request leaves open is decided
//! here.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netdriver_ipam::{AddressPool, Addresses, choose_subnet, default_pools, overlaps};

use crate::networks::NetworkEntry;
use crate::records::NetworkRecord;
use crate::spec::{Config, Driver, Endpoint, IpamConfig, NetworkSpec};
use crate::{Error, Result, dns};

/// A network's addressing with nothing left open.
pub(crate) struct Plan {
    pub(crate) ipam: Vec<IpamConfig>,
    pub(crate) ipv4: Option<Addresses>,
    pub(crate) ipv6: Option<Addresses>,
}

/// Prefix length of IPv6 subnets taken without a pool: /64 out of a random /48 of fd00::/8 (RFC
/// 4193).
const ULA_SUBNET: u8 = 64;

/// `taken` are the subnets of other networks, which never may overlap; `in_use` those the host has
/// addresses in or routes to, which subnets of our own choice avoid.
pub(crate) fn plan(
    spec: &NetworkSpec,
    config: &Config,
    taken: &[(IpNet, String)],
    in_use: &[IpNet],
    resolv_conf: &Path,
) -> Result<Plan> {
    let mut avoid: Vec<IpNet> = taken
        .iter()
        .map(|(net, _)| *net)
        .chain(in_use.iter().copied())
        .collect();
    avoid.extend(dns::host_servers(resolv_conf).into_iter().map(IpNet::from));
    let mut plan = Plan {
        ipam: Vec::new(),
        ipv4: None,
        ipv6: None,
    };
    let families = [
        (false, spec.enable_ipv4.unwrap_or(true)),
        (true, spec.enable_ipv6.unwrap_or(false)),
    ];
    if !families.iter().any(|(_, enabled)| *enabled) {
        return Err(Error::Invalid("IPv4 and IPv6 are both disabled".into()));
    }
    for (v6, enabled) in families {
        let wanted = wanted(spec, v6)?;
        if !enabled {
            if let Some(subnet) = wanted.and_then(|wanted| wanted.subnet) {
                let family = if v6 { "IPv6" } else { "IPv4" };
                return Err(Error::Invalid(format!(
                    "subnet {subnet} is given, but {family} is not enabled"
                )));
            }
            continue;
        }
        let subnet = match wanted.and_then(|wanted| wanted.subnet) {
            Some(subnet) => given_subnet(subnet, taken)?,
            None => free_subnet(config, v6, &avoid)?,
        };
        avoid.push(subnet);
        let mut resolved = wanted.cloned().unwrap_or_default();
        resolved.subnet = Some(subnet);
        let addresses = reserve(&spec.name, &mut resolved)?;
        plan.ipam.push(resolved);
        *(if v6 { &mut plan.ipv6 } else { &mut plan.ipv4 }) = Some(addresses);
    }
    Ok(plan)
}

/// The allocators of a recorded network, without its endpoints.
pub(crate) fn restore(record: &NetworkRecord) -> Result<(Option<Addresses>, Option<Addresses>)> {
    let (mut ipv4, mut ipv6) = (None, None);
    for config in &record.ipam {
        let mut config = config.clone();
        let addresses = match (record.driver, config.gateway, config.subnet) {
            // Chosen by the managers; what they left open is not ours to choose.
            (Driver::Overlay, None, Some(subnet)) => {
                Addresses::new(subnet, None).map_err(|source| Error::Address {
                    network: record.name.clone(),
                    source,
                })?
            }
            _ => reserve(&record.name, &mut config)?,
        };
        match config.subnet {
            Some(IpNet::V6(_)) => ipv6 = Some(addresses),
            _ => ipv4 = Some(addresses),
        }
    }
    Ok((ipv4, ipv6))
}

impl NetworkEntry {
    /// Takes the addresses of an endpoint of an earlier life.
    pub(crate) fn occupy(&mut self, endpoint: &Endpoint) {
        for (addresses, address) in [
            (
                &mut self.ipv4,
                endpoint.ipv4.map(|net| IpAddr::V4(net.addr())),
            ),
            (
                &mut self.ipv6,
                endpoint.ipv6.map(|net| IpAddr::V6(net.addr())),
            ),
        ] {
            if let (Some(addresses), Some(address)) = (addresses, address) {
                // Taken already only if records contradict each other; the kernel then tells who
                // has it.
                let _ = addresses.allocate_static(address);
                addresses.continue_after(address);
            }
        }
    }
}

/// The request's entry for a family: the one with a subnet, range, gateway or address of it; an
/// entry without any is IPv4's.
fn wanted(spec: &NetworkSpec, v6: bool) -> Result<Option<&IpamConfig>> {
    let is_v6 = |config: &IpamConfig| {
        let subnet = config
            .subnet
            .or(config.ip_range)
            .map(|net| matches!(net, IpNet::V6(_)));
        let gateway = config
            .gateway
            .or(config.auxiliary_addresses.values().next().copied())
            .map(|address| address.is_ipv6());
        subnet.or(gateway).unwrap_or(false)
    };
    let mut found = spec.ipam.iter().filter(|config| is_v6(config) == v6);
    let first = found.next();
    if found.next().is_some() {
        return Err(Error::Unsupported(
            "more than one subnet of an address family on a bridge network".into(),
        ));
    }
    let needs_subnet = |config: &IpamConfig| {
        config.ip_range.is_some()
            || config.gateway.is_some()
            || !config.auxiliary_addresses.is_empty()
    };
    match first {
        Some(config) if config.subnet.is_none() && needs_subnet(config) => Err(Error::Invalid(
            "ip range, gateway and auxiliary addresses need a subnet".into(),
        )),
        _ => Ok(first),
    }
}

fn given_subnet(subnet: IpNet, taken: &[(IpNet, String)]) -> Result<IpNet> {
    if subnet.trunc() != subnet {
        return Err(Error::Invalid(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.trunc()
        )));
    }
    match taken.iter().find(|(net, _)| overlaps(net, &subnet)) {
        Some((net, name)) => Err(Error::PoolOverlap {
            subnet: subnet.to_string(),
            other: format!("{net} of network {name}"),
        }),
        None => Ok(subnet),
    }
}

fn free_subnet(config: &Config, v6: bool, avoid: &[IpNet]) -> Result<IpNet> {
    let mut pools = config.default_address_pools.clone();
    if pools.is_empty() {
        pools = default_pools();
    }
    if v6 && !pools.iter().any(|pool| matches!(pool.base, IpNet::V6(_))) {
        let mut prefix = [0u8; 16];
        prefix[0] = 0xfd;
        prefix[1..6].copy_from_slice(&rand::random::<[u8; 5]>());
        let base = IpNet::new(prefix.into(), 48).expect("48 is at most 128");
        pools.push(AddressPool {
            base,
            size: ULA_SUBNET,
        });
    }
    choose_subnet(&pools, v6, avoid).ok_or_else(|| {
        let list: Vec<_> = pools
            .iter()
            .map(|pool| format!("{} as /{}", pool.base, pool.size))
            .collect();
        Error::PoolsExhausted(list.join(", "))
    })
}

/// Reserves auxiliary addresses and the gateway, which it chooses if none is given.
fn reserve(network: &str, config: &mut IpamConfig) -> Result<Addresses> {
    let failed = |source| Error::Address {
        network: network.to_owned(),
        source,
    };
    let subnet = config.subnet.expect("a resolved entry has a subnet");
    let mut addresses = Addresses::new(subnet, config.ip_range).map_err(failed)?;
    for address in config.auxiliary_addresses.values() {
        addresses.allocate_static(*address).map_err(failed)?;
    }
    match config.gateway {
        Some(gateway) => addresses.allocate_static(gateway).map_err(failed)?,
        None => config.gateway = Some(addresses.allocate_gateway().map_err(failed)?),
    }
    Ok(addresses)
}
