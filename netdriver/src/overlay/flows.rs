//! Which tracked connections may go on when backends change. Pure.
//!
//! A TCP connection goes on while its backend drains. A UDP flow has no end, so it moves as soon as
//! its backend drains, or the client's packets would follow it into the grave.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::spec::{Backend, BackendState};
use crate::conntrack::Flow;
use crate::spec::Protocol;

/// A port of this host.
pub(super) type Port = (Protocol, u16);

/// Who may answer for what: for virtual addresses or for published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served<K>(BTreeMap<K, Answering>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Answering {
    ready: BTreeSet<IpAddr>,
    /// Also those that drain.
    all: BTreeSet<IpAddr>,
}

impl<K> Default for Served<K> {
    fn default() -> Self {
        Served(BTreeMap::new())
    }
}

impl<K: Ord> Served<K> {
    /// Adds backends with those of their addresses that count.
    pub(super) fn add<'a, A: IntoIterator<Item = IpAddr>>(
        &mut self,
        key: K,
        backends: &'a [Backend],
        addresses: impl Fn(&'a Backend) -> A,
    ) {
        let answering = self.0.entry(key).or_default();
        for backend in backends {
            for address in addresses(backend) {
                answering.all.insert(address);
                if backend.state == BackendState::Ready {
                    answering.ready.insert(address);
                }
            }
        }
    }

    /// Whether any flow can be stale at all: not if backends were only added to others. Looking for
    /// flows costs milliseconds in each namespace that has some.
    pub(super) fn may_have_stale(&self, before: &Served<K>) -> bool {
        let lost = |(key, old): (&K, &Answering)| {
            let new = self.0.get(key);
            new.is_none_or(|new| !old.ready.is_subset(&new.ready) || !old.all.is_subset(&new.all))
        };
        let unserved = |key| before.0.get(key).is_none_or(|old| old.ready.is_empty());
        let mut now = self.0.iter();
        before.0.iter().any(lost) || now.any(|(key, new)| unserved(key) && !new.ready.is_empty())
    }
}

impl Answering {
    fn may_answer(&self, flow: &Flow) -> bool {
        let may = if flow.is_udp() {
            &self.ready
        } else {
            &self.all
        };
        may.contains(&flow.answered_by)
    }
}

/// Whether a flow of a sandbox to a virtual address would go somewhere else, or nowhere, if it began
/// now, and may not go on.
pub(super) fn is_stale_at_vip(flow: &Flow, before: &Served<IpAddr>, now: &Served<IpAddr>) -> bool {
    match now.0.get(&flow.destination) {
        Some(answering) => !answering.may_answer(flow),
        None => before.0.contains_key(&flow.destination),
    }
}

/// Whether a flow of this host goes to a backend that may not answer for its port, or, if it is UDP,
/// reached nobody so far. Flows through this host that have nothing to do with it may use the same
/// ports. `subnets` are those of the backends, `own` this host's addresses.
pub(super) fn is_stale_at_port(
    flow: &Flow,
    before: &Served<Port>,
    now: &Served<Port>,
    subnets: &[IpNet],
    own: &HashSet<IpAddr>,
) -> bool {
    let protocol = match flow.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return false,
    };
    let key = (protocol, flow.port);
    let to_backend = flow.answered_by != flow.destination
        && subnets
            .iter()
            .any(|subnet| subnet.contains(&flow.answered_by));
    match now.0.get(&key) {
        Some(answering) if to_backend => !answering.may_answer(flow),
        Some(_) => {
            flow.is_udp() && flow.answered_by == flow.destination && own.contains(&flow.destination)
        }
        None => to_backend && before.0.contains_key(&key),
    }
}

#[cfg(test)]
mod tests {
    use BackendState::*;

    use super::*;

    fn served<K: Ord>(key: K, backends: &[(&str, BackendState)]) -> Served<K> {
        let backend = |(address, state): &(&str, BackendState)| Backend {
            names: Vec::new(),
            ipv4: Some(address.parse().unwrap()),
            ipv6: None,
            state: *state,
        };
        let backends: Vec<_> = backends.iter().map(backend).collect();
        let mut served = Served::default();
        served.add(key, &backends, Backend::addresses);
        served
    }

    fn flow(protocol: u8, destination: &str, port: u16, answered_by: &str) -> Flow {
        Flow {
            protocol,
            destination: destination.parse().unwrap(),
            port,
            answered_by: answered_by.parse().unwrap(),
        }
    }

    #[test]
    fn flows_are_looked_for_only_when_one_can_be_stale() {
        let nobody = served(1, &[]);
        let one = served(1, &[("10.0.1.5", Ready)]);
        let two = served(1, &[("10.0.1.5", Ready), ("10.0.1.6", Ready)]);
        let drains = served(1, &[("10.0.1.5", Ready), ("10.0.1.6", Draining)]);
        let nothing = Served::default();
        for (before, now, expected) in [
            (&one, &one, false),
            (&one, &two, false),
            (&two, &one, true),
            (&two, &drains, true),
            (&drains, &two, false),
            (&drains, &one, true),
            (&one, &nothing, true),
            (&nothing, &nobody, false),
            (&nobody, &one, true),
            (&nothing, &one, true),
        ] {
            assert_eq!(now.may_have_stale(before), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn flows_to_virtual_addresses_end_with_their_backends_and_udp_moves_at_once() {
        let vip = |text: &str| text.parse::<IpAddr>().unwrap();
        let now = served(
            vip("10.0.1.2"),
            &[("10.0.1.5", Ready), ("10.0.1.6", Draining)],
        );
        let before = served(vip("10.0.1.9"), &[("10.0.1.7", Ready)]);
        for (protocol, destination, answered_by, stale) in [
            (6, "10.0.1.2", "10.0.1.5", false),
            (6, "10.0.1.2", "10.0.1.6", false),
            (6, "10.0.1.2", "10.0.1.7", true),
            (17, "10.0.1.2", "10.0.1.5", false),
            (17, "10.0.1.2", "10.0.1.6", true),
            (17, "10.0.1.2", "10.0.1.2", true),
            // A virtual address that is gone, and what never was one.
            (6, "10.0.1.9", "10.0.1.7", true),
            (17, "10.0.1.5", "10.0.1.5", false),
            (6, "198.51.100.1", "198.51.100.1", false),
        ] {
            let flow = flow(protocol, destination, 80, answered_by);
            assert_eq!(is_stale_at_vip(&flow, &before, &now), stale, "{flow:?}");
        }
    }

    #[test]
    fn only_flows_of_published_ports_are_ended() {
        let backends = [("10.0.0.5", Ready), ("10.0.0.6", Draining)];
        let mut now = served((Protocol::Tcp, 80), &backends);
        now.0.extend(served((Protocol::Udp, 53), &backends).0);
        let before = served((Protocol::Tcp, 81), &[]);
        let subnets = ["10.0.0.0/24".parse().unwrap()];
        let own = HashSet::from(["192.0.2.2".parse().unwrap()]);
        for (protocol, destination, port, answered_by, stale) in [
            (6, "192.0.2.2", 80, "10.0.0.5", false),
            (6, "192.0.2.2", 80, "10.0.0.6", false),
            (6, "192.0.2.2", 80, "10.0.0.7", true),
            (6, "192.0.2.2", 81, "10.0.0.5", true),
            (6, "192.0.2.2", 82, "10.0.0.7", false),
            // Somebody else's, through this host.
            (6, "198.51.100.9", 80, "198.51.100.9", false),
            (6, "192.0.2.2", 80, "172.17.0.2", false),
            (17, "192.0.2.2", 53, "10.0.0.5", false),
            (17, "192.0.2.2", 53, "10.0.0.6", true),
            (17, "192.0.2.2", 53, "192.0.2.2", true),
            (17, "198.51.100.9", 53, "198.51.100.9", false),
        ] {
            let flow = flow(protocol, destination, port, answered_by);
            let found = is_stale_at_port(&flow, &before, &now, &subnets, &own);
            assert_eq!(found, stale, "{flow:?}");
        }
    }
}
