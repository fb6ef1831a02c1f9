//! The packet filter: one nftables table of ours, changed by one transaction per change.
//!
//! Rules are constant; everything that varies is an element of a set or map, so that a change costs
//! microseconds and the data path does not get slower with more networks or ports. [`ruleset`]
//! draws the table.
//!
//! A verdict to accept holds for our table alone: another table may still drop. Such tables are
//! reported ([`forward_drops_elsewhere`]), never changed.

mod balancer;
mod expression;
pub(crate) mod ingress;
pub(crate) mod message;
mod ruleset;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::spec::Protocol;
use crate::{Error, Result};
use message::{Element, Nfnetlink, Ownership, ReadAttributes, Transaction};

pub(crate) use balancer::{BalancerTable, Contents, Elements, MARK_BASE};
pub(crate) use sandbox::redirect_dns;

/// What the firewall knows of a network. The key is its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkRules {
    pub(crate) ipv4: Option<Ipv4Net>,
    pub(crate) ipv6: Option<Ipv6Net>,
    /// Nothing leaves or enters.
    pub(crate) internal: bool,
    /// Endpoints reach each other without published ports.
    pub(crate) inter_container: bool,
    /// Packets leaving the host carry the host's address.
    pub(crate) masquerade: bool,
}

/// Where a published port is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PublishedAt {
    /// Unspecified: every address of the host of that family.
    pub(crate) host_ip: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) host_port: u16,
}

/// One daemon's table.
pub(crate) struct Firewall {
    table: String,
    /// Kept open: closing a socket that deleted something waits for the kernel to free it, 4 to 20
    /// ms.
    socket: Option<Nfnetlink>,
    installed: bool,
    /// Interfaces among which nothing is forwarded.
    unrouted: Vec<String>,
    networks: BTreeMap<String, NetworkRules>,
    ports: BTreeMap<PublishedAt, SocketAddr>,
    /// Everything of the ingress.
    ingress: BTreeSet<(&'static str, Element)>,
}

impl Firewall {
    /// Touches nothing yet; the table appears with the first network.
    pub(crate) fn new(table: String) -> Firewall {
        Firewall {
            table,
            socket: None,
            installed: false,
            unrouted: Vec::new(),
            networks: BTreeMap::new(),
            ports: BTreeMap::new(),
            ingress: BTreeSet::new(),
        }
    }

    /// Forbids forwarding from one of these interfaces to another. Set when this daemon turned
    /// forwarding on: a host that was no router between its interfaces does not become one. Bridges
    /// made later, ours and others', are not concerned.
    pub(crate) fn set_unrouted(&mut self, interfaces: Vec<String>) -> Result<()> {
        if self.unrouted == interfaces {
            return Ok(());
        }
        self.unrouted = interfaces;
        if self.installed {
            self.install()
        } else {
            Ok(())
        }
    }

    /// Whether the table keeps interfaces apart that are not ours.
    pub(crate) fn guards_routing(&self) -> bool {
        !self.unrouted.is_empty()
    }

    /// Whether no network is in the table.
    pub(crate) fn is_idle(&self) -> bool {
        self.networks.is_empty() && self.ingress.is_empty()
    }

    /// Replaces everything of the ingress; only what differs is sent.
    pub(crate) fn set_ingress(&mut self, wanted: BTreeSet<(&'static str, Element)>) -> Result<()> {
        let old = std::mem::replace(&mut self.ingress, wanted);
        let removed = old.difference(&self.ingress).cloned().collect();
        let added = self.ingress.difference(&old).cloned().collect();
        if old == self.ingress && (self.installed || old.is_empty()) {
            return Ok(());
        }
        self.change(removed, added)
    }

    /// As [`set_ingress`](Self::set_ingress), but in memory: [`install`](Self::install) follows.
    pub(crate) fn prepare_ingress(&mut self, wanted: BTreeSet<(&'static str, Element)>) {
        self.ingress = wanted;
    }

    /// Installs the table again if the kernel's has not as many rules and the very elements it
    /// should have. Returns whether that was so.
    pub(crate) fn repair(&mut self) -> Result<bool> {
        if !self.installed || self.is_intact()? {
            return Ok(false);
        }
        self.install().map(|()| true)
    }

    fn is_intact(&mut self) -> Result<bool> {
        let mut expected = Transaction::new(message::NFPROTO_INET, &self.table);
        ruleset::build(&mut expected);
        let rules = expected.rules();
        let mut wanted = self.elements();
        let table = self.table.clone();
        let mut compare = |socket: &mut Nfnetlink| {
            if socket.count_rules(message::NFPROTO_INET, &table)? != rules {
                return Ok(false);
            }
            for set in ruleset::sets() {
                let mut found = match socket.elements(message::NFPROTO_INET, &table, set.name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    result => result?,
                };
                let mut wanted = wanted.remove(set.name).unwrap_or_default();
                if set.interval {
                    // The kernel keeps an end of its own before the first interval.
                    found.retain(|element| !element.interval_end);
                    wanted.retain(|element| !element.interval_end);
                }
                found.sort();
                wanted.sort();
                wanted.dedup();
                if found != wanted {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let open = match self.socket.take() {
            Some(open) => Ok(open),
            None => Nfnetlink::open(),
        };
        open.and_then(|open| compare(self.socket.insert(open)))
            .map_err(Error::kernel(format!("read nftables table {}", self.table)))
    }

    /// Adds a network's rules or replaces them.
    pub(crate) fn set_network(&mut self, bridge: &str, rules: NetworkRules) -> Result<()> {
        let old = self.networks.insert(bridge.to_owned(), rules.clone());
        if self.installed && old.as_ref() == Some(&rules) {
            return Ok(());
        }
        self.change(
            old.map(|old| network_elements(bridge, &old))
                .unwrap_or_default(),
            network_elements(bridge, &rules),
        )
    }

    /// As [`set_network`](Self::set_network), but in memory: [`install`](Self::install) follows.
    pub(crate) fn prepare_network(&mut self, bridge: &str, rules: NetworkRules) {
        self.networks.insert(bridge.to_owned(), rules);
    }

    /// As [`set_ports`](Self::set_ports), but in memory: [`install`](Self::install) follows.
    pub(crate) fn prepare_ports(&mut self, ports: Vec<(PublishedAt, Option<SocketAddr>)>) {
        self.ports.extend(
            ports
                .into_iter()
                .filter_map(|(port, target)| Some((port, target?))),
        );
    }

    /// Takes a network's rules back.
    pub(crate) fn remove_network(&mut self, bridge: &str) -> Result<()> {
        match self.networks.remove(bridge) {
            Some(old) => self.change(network_elements(bridge, &old), Vec::new()),
            None => Ok(()),
        }
    }

    /// Sends ports to their targets; `None` closes a port. All in one step.
    pub(crate) fn set_ports(
        &mut self,
        changes: &[(PublishedAt, Option<SocketAddr>)],
    ) -> Result<()> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (port, target) in changes {
            let old = match target {
                Some(target) => self.ports.insert(*port, *target),
                None => self.ports.remove(port),
            };
            if old == *target {
                continue;
            }
            removed.extend(old.and_then(|old| port_element(port, &old)));
            added.extend(target.and_then(|target| port_element(port, &target)));
        }
        self.change(removed, added)
    }

    /// Replaces the kernel's table by what is known here, in one transaction.
    pub(crate) fn install(&mut self) -> Result<()> {
        let elements = self.elements();
        let mut install = |ownership| {
            let mut transaction = Transaction::new(message::NFPROTO_INET, &self.table);
            // Deleting needs a table to be there, and to be ours.
            transaction.add_table(ownership);
            transaction.delete_table();
            transaction.add_table(ownership);
            ruleset::build(&mut transaction);
            for (set, elements) in &elements {
                transaction.add_elements(set, elements);
            }
            Self::commit(&mut self.socket, &transaction)
        };
        let installed = match install(Ownership::Ours) {
            // Linux before 6.9; there, a table somebody flushed comes back with the next change.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                install(Ownership::Shared)
            }
            result => result,
        };
        installed.map_err(Error::kernel(format!(
            "install nftables table {}",
            self.table
        )))?;
        self.installed = true;
        Ok(())
    }

    /// All elements of all sets.
    fn elements(&self) -> BTreeMap<&'static str, Vec<Element>> {
        let mut elements = Vec::new();
        for (bridge, rules) in &self.networks {
            elements.extend(network_elements(bridge, rules));
        }
        for (port, target) in &self.ports {
            elements.extend(port_element(port, target));
        }
        for name in &self.unrouted {
            elements.push((ruleset::UNROUTED, Element::key(interface_key(name))));
        }
        elements.extend(self.ingress.iter().cloned());
        by_set(elements)
    }

    /// Removes the kernel's table, if there is one.
    pub(crate) fn uninstall(&mut self) -> Result<()> {
        let mut transaction = Transaction::new(message::NFPROTO_INET, &self.table);
        transaction.delete_table();
        self.installed = false;
        match Self::commit(&mut self.socket, &transaction) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(Error::kernel(format!(
                "remove nftables table {}",
                self.table
            ))),
        }
    }

    fn change(
        &mut self,
        removed: Vec<(&'static str, Element)>,
        added: Vec<(&'static str, Element)>,
    ) -> Result<()> {
        if !self.installed {
            return self.install();
        }
        let mut transaction = Transaction::new(message::NFPROTO_INET, &self.table);
        for (set, elements) in by_set(removed) {
            transaction.delete_elements(set, &elements);
        }
        for (set, elements) in by_set(added) {
            transaction.add_elements(set, &elements);
        }
        match Self::commit(&mut self.socket, &transaction) {
            Ok(()) => Ok(()),
            // Somebody flushed or edited the table: put all of it back.
            Err(error) => {
                tracing::warn!(table = self.table, %error, "nftables table is not as it was left, installing it again");
                self.install()
            }
        }
    }

    /// Commits with the kept socket.
    fn commit(socket: &mut Option<Nfnetlink>, transaction: &Transaction<'_>) -> io::Result<()> {
        let open = match socket.take() {
            Some(open) => open,
            None => Nfnetlink::open()?,
        };
        socket.insert(open).commit(transaction)
    }
}

/// Chains of other tables that drop forwarded packets by default, as `table ip filter, chain
/// FORWARD`.
pub(crate) fn forward_drops_elsewhere(own_table: &str) -> Result<Vec<String>> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const HOOK_NUMBER: u16 = 1;
    let mut found = Vec::new();
    let mut dump = || {
        Nfnetlink::open()?.dump_chains(|family, attributes| {
            let attribute = |kind| ReadAttributes::find(attributes, kind);
            let hook = attribute(HOOK)
                .and_then(|hook| ReadAttributes::find(hook, HOOK_NUMBER))
                .map(message::number);
            let policy = attribute(POLICY).map(message::number);
            let table = attribute(TABLE).map(message::text).unwrap_or_default();
            let family = match family {
                message::NFPROTO_INET => "inet",
                message::NFPROTO_IPV4 => "ip",
                message::NFPROTO_IPV6 => "ip6",
                _ => return,
            };
            if hook == Some(ruleset::HOOK_FORWARD) && policy == Some(0) && table != own_table {
                let chain = attribute(NAME).map(message::text).unwrap_or_default();
                found.push(format!("table {family} {table}, chain {chain}"));
            }
        })
    };
    dump().map_err(Error::kernel("list nftables chains"))?;
    Ok(found)
}

fn by_set(elements: Vec<(&'static str, Element)>) -> BTreeMap<&'static str, Vec<Element>> {
    let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (set, element) in elements {
        sets.entry(set).or_default().push(element);
    }
    sets
}

fn network_elements(bridge: &str, rules: &NetworkRules) -> Vec<(&'static str, Element)> {
    let name = interface_key(bridge);
    let mut elements = vec![(ruleset::BRIDGES, Element::key(name.clone()))];
    if rules.internal {
        elements.push((ruleset::INTERNAL, Element::key(name.clone())));
    }
    if rules.inter_container {
        elements.push((ruleset::WITHIN, Element::key([name.clone(), name].concat())));
    }
    let masquerade = rules.masquerade && !rules.internal;
    if let Some(net) = rules.ipv4 {
        elements.extend(interval(ruleset::SUBNETS4, net.into()));
        if masquerade {
            elements.extend(interval(ruleset::MASQUERADE4, net.into()));
        }
    }
    if let Some(net) = rules.ipv6 {
        elements.extend(interval(ruleset::SUBNETS6, net.into()));
        if masquerade {
            elements.extend(interval(ruleset::MASQUERADE6, net.into()));
        }
    }
    elements
}

/// A published port's element; `None` when the families differ, which only a relay can serve.
fn port_element(port: &PublishedAt, target: &SocketAddr) -> Option<(&'static str, Element)> {
    let set = match (port.host_ip, target, port.host_ip.is_unspecified()) {
        (IpAddr::V4(_), SocketAddr::V4(_), true) => ruleset::PORTS4,
        (IpAddr::V4(_), SocketAddr::V4(_), false) => ruleset::ADDRESS_PORTS4,
        (IpAddr::V6(_), SocketAddr::V6(_), true) => ruleset::PORTS6,
        (IpAddr::V6(_), SocketAddr::V6(_), false) => ruleset::ADDRESS_PORTS6,
        _ => return None,
    };
    let mut key = if port.host_ip.is_unspecified() {
        Vec::new()
    } else {
        octets(port.host_ip)
    };
    key.extend([port.protocol.number(), 0, 0, 0]);
    key.extend(port_key(port.host_port));
    let mut data = octets(target.ip());
    data.extend(port_key(target.port()));
    Some((
        set,
        Element {
            key,
            data,
            interval_end: false,
        },
    ))
}

fn interval(set: &'static str, net: IpNet) -> Vec<(&'static str, Element)> {
    let mut elements = vec![(set, Element::key(octets(net.network())))];
    let mut end = octets(net.broadcast());
    // One past the last address; an interval up to the last address of all has no end.
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            elements.push((
                set,
                Element {
                    key: end,
                    data: Vec::new(),
                    interval_end: true,
                },
            ));
            break;
        }
    }
    elements
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn port_key(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// An interface name as the kernel compares it: 16 bytes.
fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_end_behind_the_subnet() {
        let keys = |net: &str| -> Vec<_> {
            let elements = interval("s", net.parse().unwrap());
            elements
                .into_iter()
                .map(|(_, element)| (element.key, element.interval_end))
                .collect()
        };
        assert_eq!(
            keys("10.0.255.0/24"),
            [(vec![10, 0, 255, 0], false), (vec![10, 1, 0, 0], true)]
        );
        assert_eq!(keys("255.255.255.0/24"), [(vec![255, 255, 255, 0], false)]);
    }

    #[test]
    fn ports_between_families_are_no_element() {
        let port = PublishedAt {
            host_ip: "::".parse().unwrap(),
            protocol: Protocol::Tcp,
            host_port: 80,
        };
        assert_eq!(port_element(&port, &"10.0.0.2:80".parse().unwrap()), None);
        let (set, element) = port_element(&port, &"[fd00::2]:8080".parse().unwrap()).unwrap();
        assert_eq!(set, ruleset::PORTS6);
        assert_eq!(element.key, [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(element.data[16..], [0x1f, 0x90, 0, 0]);
    }
}
