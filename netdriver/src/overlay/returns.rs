//! The way back of connections that came in through a published port of any host: their packets keep
//! the client's address, so the answers must go to the host that translated them, not by the
//! sandbox's own default route.
//!
//! The packet filter marks answers with the host they belong to (`firewall::balancer`); here are the
//! routing rules and tables that obey the marks:
//!
//! ```text
//! 28000  mark of host n                       table n: default via that host's address on the ingress network
//! 28001  main, but for default routes         what is on a network of the sandbox is reached there
//! 28002  UDP from a published port            table 0: default via this host. A server that answers a datagram without
//!                                             naming its own address gets the one on the ingress network by this, and
//!                                             the filter then finds the connection and its mark
//! main   default, last resort                 via this host: an answer needs some route before it can be marked
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::endpoint_mac;
use super::spec::{Ingress, IngressNode, Overlay};
use crate::firewall::{Elements, MARK_BASE};
use crate::netlink::{Netlink, PolicyRoute, PolicyRule, Request};
use crate::spec::Protocol;
use crate::{Error, Result};

const BY_MARK: u32 = 28000;
const MAIN_WITHOUT_DEFAULT: u32 = 28001;
const BY_UDP_PORT: u32 = 28002;
const MAIN: u32 = 254;
/// The tables' numbers are the marks; the one without a host is for answers not marked yet.
const UNMARKED: u32 = MARK_BASE;
/// Marks and tables are numbered within this many bits.
const HOST_BITS: u32 = 20;
/// Of the routes in our tables; what IPv6 routes get anyway.
const METRIC: u32 = 1024;
/// Of the last resort: any other default route comes before.
const LAST_METRIC: u32 = 0x7fff_0000;

/// What sandboxes on the ingress network must know of it.
pub(super) struct Mesh {
    own: IngressNode,
    nodes: Vec<(u32, IngressNode)>,
    /// Published UDP ports by backend.
    udp_ports: BTreeMap<IpAddr, BTreeSet<u16>>,
    /// Which host marks what.
    pub(super) elements: Arc<Elements>,
}

/// One rule or route a sandbox shall have; routes name their interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Rule(PolicyRule),
    Route {
        table: u32,
        gateway: IpAddr,
        interface: String,
        metric: u32,
    },
}

impl Mesh {
    pub(super) fn new(overlay: &Overlay, ingress: &Ingress) -> Result<Mesh> {
        let mut nodes = BTreeMap::new();
        for node in ingress.nodes.iter().chain([&ingress.own]) {
            nodes.insert(mark(overlay, node)?, *node);
        }
        let mut elements = Elements::default();
        for (mark, node) in &nodes {
            elements.add_node(endpoint_mac(node.ipv4, node.ipv6), *mark);
        }
        let mut udp_ports: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
        for port in ingress
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp)
        {
            for address in port.backends.iter().flat_map(|backend| backend.addresses()) {
                udp_ports.entry(address).or_default().insert(port.target);
            }
        }
        Ok(Mesh {
            own: ingress.own,
            nodes: nodes.into_iter().collect(),
            udp_ports,
            elements: Arc::new(elements),
        })
    }

    /// Whether sandboxes see no difference.
    pub(super) fn is_same(&self, other: &Mesh) -> bool {
        self.own == other.own && self.nodes == other.nodes && self.udp_ports == other.udp_ports
    }

    /// For a sandbox with this interface and these addresses on the network.
    pub(super) fn ways(&self, interface: &str, addresses: [Option<IpAddr>; 2]) -> BTreeSet<Way> {
        let mut ways = BTreeSet::new();
        for address in addresses.into_iter().flatten() {
            let v6 = address.is_ipv6();
            let rule = |priority, table| PolicyRule {
                v6,
                priority,
                table,
                mark: None,
                udp_source_port: None,
                suppress_prefix: None,
            };
            let mut default = |table, node: &IngressNode, metric| {
                let Some(gateway) = node.address(v6) else {
                    return false;
                };
                let interface = interface.to_owned();
                ways.insert(Way::Route {
                    table,
                    gateway,
                    interface,
                    metric,
                })
            };
            let mut rules = Vec::new();
            for (mark, node) in &self.nodes {
                if default(*mark, node, METRIC) {
                    rules.push(PolicyRule {
                        mark: Some(*mark),
                        ..rule(BY_MARK, *mark)
                    });
                }
            }
            if default(MAIN, &self.own, LAST_METRIC) && default(UNMARKED, &self.own, METRIC) {
                rules.push(PolicyRule {
                    suppress_prefix: Some(0),
                    ..rule(MAIN_WITHOUT_DEFAULT, MAIN)
                });
                for port in self.udp_ports.get(&address).into_iter().flatten() {
                    rules.push(PolicyRule {
                        udp_source_port: Some(*port),
                        ..rule(BY_UDP_PORT, UNMARKED)
                    });
                }
            }
            ways.extend(rules.into_iter().map(Way::Rule));
        }
        ways
    }
}

/// Whether the hosts of an IPv4 subnet cannot all have marks of their own.
pub(super) fn too_wide(subnet: &IpNet) -> bool {
    matches!(subnet, IpNet::V4(net) if u32::from(net.prefix_len()) < 32 - HOST_BITS)
}

/// A host's mark: its place in the network's subnet, so that every sandbox of every host numbers alike
/// and a restart changes nothing.
fn mark(overlay: &Overlay, node: &IngressNode) -> Result<u32> {
    let mask = (1u32 << HOST_BITS) - 1;
    let number = match (node.ipv4, node.ipv6) {
        (Some(v4), _) => u32::from(v4) & mask,
        (None, Some(v6)) => u32::try_from(u128::from(v6) & u128::from(mask)).expect("masked"),
        (None, None) => 0,
    };
    if number == 0 {
        return Err(Error::Invalid(format!(
            "network {}: a host of the ingress has no address, or the network's own",
            overlay.name
        )));
    }
    Ok(MARK_BASE | number)
}

/// Routing of the namespace it was opened in.
pub(super) struct Returns(Netlink);

impl Returns {
    pub(super) fn open() -> Result<Returns> {
        Netlink::open().map(Returns)
    }

    /// Brings our rules and tables to what is wanted; returns whether anything differed.
    pub(super) fn sync(&mut self, ways: &BTreeSet<Way>) -> Result<bool> {
        let netlink = &mut self.0;
        let links = netlink.links()?;
        let (mut rules, mut routes) = (BTreeSet::new(), BTreeSet::new());
        for way in ways {
            match way {
                Way::Rule(rule) => {
                    rules.insert(*rule);
                }
                Way::Route {
                    table,
                    gateway,
                    interface,
                    metric,
                } => {
                    let link = links.iter().find(|link| link.name == *interface);
                    routes.extend(link.map(|link| PolicyRoute {
                        table: *table,
                        gateway: *gateway,
                        interface: link.index,
                        metric: *metric,
                    }));
                }
            }
        }
        let found_rules: BTreeSet<_> = netlink
            .policy_rules()?
            .into_iter()
            .filter(is_our_rule)
            .collect();
        let found_routes: BTreeSet<_> = netlink
            .default_routes()?
            .into_iter()
            .filter(is_our_route)
            .collect();
        // Routes before the rules that lead to them, and away after.
        let mut requests = Vec::new();
        requests.extend(
            routes
                .difference(&found_routes)
                .map(|route| Request::set_route(*route)),
        );
        requests.extend(
            rules
                .difference(&found_rules)
                .map(|rule| Request::add_rule(*rule)),
        );
        requests.extend(
            found_rules
                .difference(&rules)
                .map(|rule| Request::delete_rule(*rule)),
        );
        let replaced = |old: &PolicyRoute| {
            routes.iter().any(|new| {
                new.table == old.table
                    && new.metric == old.metric
                    && new.gateway.is_ipv4() == old.gateway.is_ipv4()
            })
        };
        let gone = found_routes
            .difference(&routes)
            .filter(|old| !replaced(old));
        requests.extend(gone.map(|route| Request::delete_route(*route)));
        let changed = !requests.is_empty();
        netlink.execute_all(requests)?;
        Ok(changed)
    }
}

fn is_our_rule(rule: &PolicyRule) -> bool {
    [BY_MARK, MAIN_WITHOUT_DEFAULT, BY_UDP_PORT].contains(&rule.priority)
}

fn is_our_route(route: &PolicyRoute) -> bool {
    route.table >> HOST_BITS == MARK_BASE >> HOST_BITS
        || (route.table == MAIN && route.metric == LAST_METRIC)
}
