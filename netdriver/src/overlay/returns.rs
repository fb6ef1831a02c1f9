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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use indexmap::IndexMap;

    use super::*;
    use crate::overlay::{Backend, BackendState, DataPath, IngressPort};
    use crate::spec::IpamConfig;

    fn overlay(subnet: &str) -> Overlay {
        Overlay {
            id: "i".into(),
            name: "ingress".into(),
            created: SystemTime::UNIX_EPOCH,
            vni: 4096,
            ipam: vec![IpamConfig {
                subnet: Some(subnet.parse().unwrap()),
                ..IpamConfig::default()
            }],
            data_path: DataPath {
                address: [192, 0, 2, 2].into(),
                port: 4789,
            },
            mtu: None,
            internal: false,
            attachable: false,
            ingress: true,
            options: IndexMap::new(),
            labels: IndexMap::new(),
        }
    }

    fn node(ipv4: &str) -> IngressNode {
        IngressNode {
            ipv4: Some(ipv4.parse().unwrap()),
            ipv6: None,
        }
    }

    fn mesh() -> Mesh {
        let backend = Backend {
            names: Vec::new(),
            ipv4: Some([10, 0, 0, 50].into()),
            ipv6: None,
            state: BackendState::Draining,
        };
        let port = |published, protocol| IngressPort {
            published,
            protocol,
            target: 53,
            backends: vec![backend.clone()],
        };
        let ingress = Ingress {
            network: "i".into(),
            own: node("10.0.0.2"),
            nodes: vec![node("10.0.0.3")],
            ports: vec![port(5353, Protocol::Udp), port(5353, Protocol::Tcp)],
        };
        Mesh::new(&overlay("10.0.0.0/24"), &ingress).unwrap()
    }

    /// `<priority> <conditions> -> <table>`, then `<table> <metric> via <gateway>`.
    fn text(ways: &BTreeSet<Way>) -> Vec<String> {
        let table = |table: u32| match table {
            MAIN => "main".to_owned(),
            marked => format!("{}", marked - MARK_BASE),
        };
        ways.iter()
            .map(|way| match way {
                Way::Rule(rule) => {
                    let mark = rule.mark.map(|mark| format!(" mark {}", mark - MARK_BASE));
                    let port = rule.udp_source_port.map(|port| format!(" udp from {port}"));
                    let suppress = rule.suppress_prefix.map(|_| " without default".to_owned());
                    let conditions: String = [mark, port, suppress].into_iter().flatten().collect();
                    format!("{}{conditions} -> {}", rule.priority, table(rule.table))
                }
                Way::Route {
                    table: number,
                    gateway,
                    interface,
                    metric,
                } => {
                    let number = table(*number);
                    let last = if *metric == LAST_METRIC { " last" } else { "" };
                    format!("{number}{last} via {gateway} {interface}")
                }
            })
            .collect()
    }

    #[test]
    fn answers_go_back_through_the_host_of_their_mark() {
        let backend = Some(IpAddr::from([10, 0, 0, 50]));
        assert_eq!(
            text(&mesh().ways("eth1", [backend, None])),
            [
                "28000 mark 2 -> 2",
                "28000 mark 3 -> 3",
                "28001 without default -> main",
                "28002 udp from 53 -> 0",
                "main last via 10.0.0.2 eth1",
                "0 via 10.0.0.2 eth1",
                "2 via 10.0.0.2 eth1",
                "3 via 10.0.0.3 eth1",
            ]
        );
        // Who serves no UDP port needs no rule for one.
        let other = Some(IpAddr::from([10, 0, 0, 51]));
        assert_eq!(mesh().ways("eth1", [other, None]).len(), 7);
        // No host has an IPv6 address: nothing of that family.
        let six = Some("fd00::50".parse().unwrap());
        assert!(mesh().ways("eth1", [None, six]).is_empty());
    }

    #[test]
    fn marks_are_places_in_the_subnet() {
        let mark_in = |subnet: &str, address: &str| mark(&overlay(subnet), &node(address));
        assert_eq!(mark_in("10.0.0.0/24", "10.0.0.7").unwrap(), MARK_BASE | 7);
        let wide = mark_in("10.0.0.0/12", "10.15.1.2").unwrap();
        assert_eq!(wide, MARK_BASE | 0xf_0102);
        assert!(mark_in("10.0.0.0/12", "10.0.0.0").is_err());
        let nobody = IngressNode {
            ipv4: None,
            ipv6: None,
        };
        assert!(mark(&overlay("10.0.0.0/24"), &nobody).is_err());
        for (subnet, expected) in [
            ("10.0.0.0/12", false),
            ("10.0.0.0/11", true),
            ("fd00::/8", false),
        ] {
            assert_eq!(too_wide(&subnet.parse().unwrap()), expected, "{subnet}");
        }
    }
}
