//! The bridge driver: what its options mean, the bridge of a network, the veth pair of an endpoint.
//!
//! Option names and defaults are Docker's (`libnetwork/drivers/bridge/labels.go`). An option that
//! is not obeyed is refused.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::netlink::{Link, Netlink, Request, Veth, mac_of};
use crate::netns::{Netns, has_ipv6, read_sysctl, write_sysctl};
use crate::records::NetworkRecord;
use crate::spec::{Endpoint, NetworkSpec};
use crate::{Error, Result};

/// What the options of a bridge network mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bridge {
    /// The bridge's name.
    pub(crate) name: String,
    /// Interface group of the bridge and all its ports: they are deleted in one step.
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) masquerade: bool,
    pub(crate) inter_container: bool,
    /// Where ports are published when a request names no address.
    pub(crate) publish_address: Option<IpAddr>,
    /// `eth`, or another prefix for interfaces inside sandboxes.
    pub(crate) interface_prefix: String,
}

/// Longest interface name: `IFNAMSIZ` less the terminating zero.
const INTERFACE_NAME_MAX: usize = 15;

impl Bridge {
    /// Reads the options of a request.
    pub(crate) fn from_options(
        spec: &NetworkSpec,
        default_name: String,
        group: u32,
        mtu: u32,
    ) -> Result<Bridge> {
        let mut bridge = Bridge {
            name: default_name,
            group,
            mtu,
            masquerade: true,
            inter_container: true,
            publish_address: None,
            interface_prefix: "eth".into(),
        };
        for (key, value) in &spec.options {
            let invalid = || Error::Invalid(format!("option {key}={value}"));
            match key.as_str() {
                "com.docker.network.bridge.name" => {
                    check_interface_name(value)?;
                    bridge.name = value.clone();
                }
                "com.docker.network.driver.mtu" => {
                    bridge.mtu = value
                        .parse()
                        .ok()
                        .filter(|mtu| (68..=65535).contains(mtu))
                        .ok_or_else(invalid)?;
                }
                "com.docker.network.bridge.enable_ip_masquerade" => {
                    bridge.masquerade = boolean(value).ok_or_else(invalid)?;
                }
                "com.docker.network.bridge.enable_icc" => {
                    bridge.inter_container = boolean(value).ok_or_else(invalid)?;
                }
                "com.docker.network.bridge.host_binding_ipv4" => {
                    bridge.publish_address = Some(value.parse().map_err(|_| invalid())?);
                }
                "com.docker.network.container_iface_prefix" => {
                    check_interface_name(&format!("{value}999"))?;
                    bridge.interface_prefix = value.clone();
                }
                // Only their default is what this driver does.
                "com.docker.network.bridge.default_bridge"
                | "com.docker.network.bridge.inhibit_ipv4"
                    if boolean(value) == Some(false) => {}
                "com.docker.network.bridge.gateway_mode_ipv4"
                | "com.docker.network.bridge.gateway_mode_ipv6"
                    if value == "nat" => {}
                _ => return Err(Error::Unsupported(format!("network option {key}={value}"))),
            }
        }
        Ok(bridge)
    }
}

/// The booleans Go's `strconv.ParseBool` knows.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Refuses what the kernel would refuse, and what would leave `/proc/sys/net/…/<name>`.
pub(crate) fn check_interface_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > INTERFACE_NAME_MAX
        || name == "."
        || name == ".."
        || name.chars().any(|c| {
            c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control() || !c.is_ascii()
        });
    if bad {
        Err(Error::Invalid(format!(
            "interface name {name:?}: 1 to 15 characters without '/', ':' and blanks"
        )))
    } else {
        Ok(())
    }
}

/// Makes sure that the network's bridge exists, and returns its index. `alias` marks the interfaces
/// of this daemon; it is set last, so that a bridge without it is one that a crash left half made
/// (or somebody else's, told apart by the group).
pub(crate) fn ensure(netlink: &mut Netlink, network: &NetworkRecord, alias: &str) -> Result<u32> {
    let bridge = network
        .bridge
        .as_ref()
        .expect("only bridge networks come here");
    match netlink.link(&bridge.name)? {
        Some(link) if is_ours(&link, alias) && link.group == bridge.group => return Ok(link.index),
        // Ours of an earlier life (other subnets, perhaps), or half made: start afresh.
        Some(link) if is_ours(&link, alias) || (link.is_bridge && link.group == bridge.group) => {
            netlink.execute(vec![Request::delete_link(&bridge.name)])?;
        }
        Some(_) => return Err(Error::ForeignInterface(bridge.name.clone())),
        None => {}
    }
    let gateways = gateways(network);
    let v4 = gateways.iter().find_map(|net| {
        if let IpNet::V4(net) = net {
            Some(net.addr())
        } else {
            None
        }
    });
    let v6 = gateways.iter().find_map(|net| {
        if let IpNet::V6(net) = net {
            Some(net.addr())
        } else {
            None
        }
    });
    let mac = mac_of(v4, v6);
    netlink.execute(vec![Request::create_bridge(
        &bridge.name,
        mac,
        bridge.mtu,
        bridge.group,
    )])?;
    let finish = |netlink: &mut Netlink| {
        let index = match netlink.link(&bridge.name)? {
            Some(link) => link.index,
            None => return Err(Error::ForeignInterface(bridge.name.clone())),
        };
        if v4.is_some() {
            // Lets this host's own connections to 127.0.0.1 leave through the bridge; the
            // firewall's guard chain closes the way in.
            write_sysctl(&format!("ipv4/conf/{}/route_localnet", bridge.name), "1")?;
        }
        let disable_ipv6 = format!("ipv6/conf/{}/disable_ipv6", bridge.name);
        if read_sysctl(&disable_ipv6).is_some() {
            write_sysctl(&disable_ipv6, if v6.is_some() { "0" } else { "1" })?;
        }
        let mut requests: Vec<_> = gateways
            .iter()
            .map(|net| Request::add_address(index, *net))
            .collect();
        requests.push(Request::mark_and_raise(&bridge.name, alias, bridge.group));
        netlink.execute(requests)?;
        Ok(index)
    };
    finish(netlink).inspect_err(|_| {
        // Report why it could not be finished; a bridge that stays is half made and goes at the
        // next attempt.
        let _ = netlink.execute(vec![Request::delete_link(&bridge.name)]);
    })
}

/// Whether an interface carries this daemon's mark.
pub(crate) fn is_ours(link: &Link, alias: &str) -> bool {
    link.alias == alias
}

/// Deletes the bridge and every port still on it, all in one step. Nothing of that group left is no
/// error.
pub(crate) fn delete(netlink: &mut Netlink, bridge: &Bridge, alias: &str) -> Result<()> {
    match netlink.link(&bridge.name)? {
        Some(link) if link.group == bridge.group && is_ours(&link, alias) => {
            netlink.execute(vec![Request::delete_group(bridge.group)])
        }
        Some(link) if link.is_bridge && link.group == bridge.group => {
            netlink.execute(vec![Request::delete_link(&bridge.name)])
        }
        _ => Ok(()),
    }
}

/// Creates the endpoint's interface pair and configures the sandbox's end: addresses and up.
pub(crate) fn attach(
    netlink: &mut Netlink,
    bridge: &Bridge,
    bridge_index: u32,
    netns: &Netns,
    endpoint: &Endpoint,
    host_interface: &str,
) -> Result<()> {
    use std::os::fd::AsFd;
    let mac = endpoint.mac.unwrap_or_else(|| {
        mac_of(
            endpoint.ipv4.map(|net| net.addr()),
            endpoint.ipv6.map(|net| net.addr()),
        )
    });
    let veth = Veth {
        host_name: host_interface,
        bridge_index,
        group: bridge.group,
        mtu: bridge.mtu,
        peer_name: &endpoint.ifname,
        peer_mac: mac,
        netns: netns.as_fd(),
    };
    let mut requests = vec![Request::create_veth(&veth)];
    let hairpin = filters_bridged_frames();
    if !bridge.inter_container || hairpin {
        requests.push(Request::configure_port(
            host_interface,
            !bridge.inter_container,
            hairpin,
        ));
    }
    netlink.execute(requests)
}

/// Whether br_netfilter shows bridged frames to the packet filter. It then keeps a connection that
/// a container makes to a published port of its own network on the bridge instead of routing it,
/// and one to itself has to leave by the port it came from. (On a network without inter-container
/// traffic, such connections stay forbidden in that case: the ports are isolated from each other.)
fn filters_bridged_frames() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|text| text.trim() == "1")
}

/// Runs inside the sandbox: gives its end of the pair addresses and takes it up.
pub(crate) fn configure_inside(netlink: &mut Netlink, endpoint: &Endpoint) -> Result<u32> {
    let index = netlink
        .link(&endpoint.ifname)?
        .map(|link| link.index)
        .ok_or_else(|| {
            let source = std::io::Error::from_raw_os_error(libc::ENODEV);
            Error::kernel(format!("find interface {} in the sandbox", endpoint.ifname))(source)
        })?;
    let disable_ipv6 = format!("ipv6/conf/{}/disable_ipv6", endpoint.ifname);
    if read_sysctl(&disable_ipv6).is_some() {
        write_sysctl(
            &disable_ipv6,
            if endpoint.ipv6.is_some() { "0" } else { "1" },
        )?;
    }
    // With addresses there first, taking it up announces them (arp_notify), so that neighbours
    // forget an earlier owner.
    let mut requests = Vec::new();
    requests.extend(
        endpoint
            .ipv4
            .map(|net| Request::add_address(index, net.into())),
    );
    requests.extend(
        endpoint
            .ipv6
            .filter(|_| has_ipv6())
            .map(|net| Request::add_address(index, net.into())),
    );
    requests.push(Request::raise(index));
    netlink.execute(requests)?;
    Ok(index)
}

/// The bridge's own addresses.
fn gateways(network: &NetworkRecord) -> Vec<IpNet> {
    network
        .ipam
        .iter()
        .filter_map(|config| IpNet::new(config.gateway?, config.subnet?.prefix_len()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Bridge> {
        let mut spec = NetworkSpec::bridge("n");
        spec.options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Bridge::from_options(&spec, "br-0".into(), 7, 1500)
    }

    #[test]
    fn options_are_obeyed_or_refused() {
        let bridge = parse(&[
            ("com.docker.network.driver.mtu", "9000"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
        ])
        .unwrap();
        assert_eq!(
            (bridge.mtu, bridge.inter_container, bridge.masquerade),
            (9000, false, true)
        );
        for (key, value, expected) in [
            (
                "com.docker.network.driver.mtu",
                "12",
                "invalid network request: option com.docker.network.driver.mtu=12",
            ),
            (
                "com.docker.network.bridge.gateway_mode_ipv4",
                "routed",
                "network option com.docker.network.bridge.gateway_mode_ipv4=routed is not supported",
            ),
            (
                "parent",
                "eth0",
                "network option parent=eth0 is not supported",
            ),
        ] {
            assert_eq!(parse(&[(key, value)]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn interface_names_cannot_leave_their_directory() {
        for name in [
            "",
            "..",
            "a/b",
            "a b",
            "0123456789abcdef",
            "a:1",
            "br%d",
            "ü",
        ] {
            assert!(check_interface_name(name).is_err(), "{name:?}");
        }
        check_interface_name("br-0123456789ab").unwrap();
    }
}
