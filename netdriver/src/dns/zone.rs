//! The names of all endpoints and the look-up in them: pure, a few map accesses per question.
//!
//! A name holds within one network; a sandbox sees the networks it is connected to, in its order,
//! and the first that knows a name answers. `<name>.<network>` asks one network alone.
//!
//! On a network that spans hosts there are also names assigned to it as a whole; they come before
//! those of this host's endpoints.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::overlay::{Backend, BackendState, Balanced};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Ipv4,
    Ipv6,
    Pointer,
    /// A type no endpoint has records of.
    Other,
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Name(String),
    /// The name is ours, but has no record of this type: nobody else shall be asked.
    Empty,
    /// Not ours.
    Unknown,
}

/// An endpoint's entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) endpoint: String,
    /// Every name, the container's first: reverse look-ups answer it.
    pub(crate) names: Vec<String>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

#[derive(Debug, Default)]
struct Network {
    name: String,
    /// Lower-case name to the endpoints that have it.
    names: HashMap<String, Vec<(String, Addresses)>>,
    addresses: HashMap<IpAddr, String>,
    assigned: Assigned,
}

/// What was assigned to a network as a whole.
#[derive(Debug, Default)]
struct Assigned {
    /// Lower-case name to its addresses, of both families.
    names: HashMap<String, Vec<IpAddr>>,
    pointers: HashMap<IpAddr, String>,
}

/// The names of all networks.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    networks: HashMap<String, Network>,
}

impl Zone {
    /// Adds an endpoint, replacing what it had on this network.
    pub(crate) fn insert(&mut self, network_id: &str, network_name: &str, entry: &Entry) {
        self.remove(network_id, &entry.endpoint);
        let network = self.networks.entry(network_id.to_owned()).or_default();
        network.name = network_name.to_lowercase();
        let addresses = Addresses {
            ipv4: entry.ipv4,
            ipv6: entry.ipv6,
        };
        for name in &entry.names {
            let list = network.names.entry(name.to_lowercase()).or_default();
            if !list.iter().any(|(endpoint, _)| *endpoint == entry.endpoint) {
                list.push((entry.endpoint.clone(), addresses));
            }
        }
        if let Some(name) = entry.names.first() {
            let ipv4 = entry.ipv4.map(IpAddr::V4);
            let ipv6 = entry.ipv6.map(IpAddr::V6);
            for address in ipv4.into_iter().chain(ipv6) {
                network.addresses.insert(address, name.clone());
            }
        }
    }

    /// Removes an endpoint; the last one takes the network with it.
    pub(crate) fn remove(&mut self, network_id: &str, endpoint: &str) {
        let Some(network) = self.networks.get_mut(network_id) else {
            return;
        };
        let mut gone = Vec::new();
        network.names.retain(|_, list| {
            list.retain(|(id, addresses)| {
                let keep = id != endpoint;
                if !keep {
                    gone.push(*addresses);
                }
                keep
            });
            !list.is_empty()
        });
        for addresses in gone {
            addresses
                .ipv4
                .map(|address| network.addresses.remove(&address.into()));
            addresses
                .ipv6
                .map(|address| network.addresses.remove(&address.into()));
        }
        if network.is_empty() {
            self.networks.remove(network_id);
        }
    }

    /// Replaces what is assigned to a network as a whole.
    pub(crate) fn assign(&mut self, network_id: &str, network_name: &str, balanced: &[Balanced]) {
        let network = self.networks.entry(network_id.to_owned()).or_default();
        network.name = network_name.to_lowercase();
        network.assigned = Assigned::new(balanced);
        if network.is_empty() {
            self.networks.remove(network_id);
        }
    }

    /// Looks a name up for a sandbox on these networks. `name` is in lower case, without the final
    /// dot.
    pub(crate) fn lookup(&self, networks: &[String], name: &str, question: Question) -> Answer {
        let visible = || networks.iter().filter_map(|id| self.networks.get(id));
        if let Some(address) = reverse(name) {
            let found = visible().find_map(|network| Some((network, network.pointer(&address)?)));
            return match (found, question) {
                (None, _) => Answer::Unknown,
                (Some((network, name)), Question::Pointer) => {
                    Answer::Name(format!("{name}.{}", network.name))
                }
                (Some(_), _) => Answer::Empty,
            };
        }
        let plain = visible().find_map(|network| network.get(name));
        let qualified = || {
            visible().find_map(|network| {
                network.get(name.strip_suffix(&network.name)?.strip_suffix('.')?)
            })
        };
        let Some(mut addresses) = plain.or_else(qualified) else {
            return Answer::Unknown;
        };
        addresses.retain(|address| match question {
            Question::Ipv4 => address.is_ipv4(),
            Question::Ipv6 => address.is_ipv6(),
            Question::Pointer | Question::Other => false,
        });
        if addresses.is_empty() {
            Answer::Empty
        } else {
            Answer::Addresses(addresses)
        }
    }
}

impl Network {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.assigned.names.is_empty()
    }

    /// All addresses of a name; `None` when it is not known.
    fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Some(addresses) = self.assigned.names.get(name) {
            return Some(addresses.clone());
        }
        let endpoints = self.names.get(name)?;
        let both = |(_, addresses): &(String, Addresses)| {
            let ipv4 = addresses.ipv4.map(IpAddr::V4);
            ipv4.into_iter().chain(addresses.ipv6.map(IpAddr::V6))
        };
        Some(endpoints.iter().flat_map(both).collect())
    }

    fn pointer(&self, address: &IpAddr) -> Option<&String> {
        let assigned = self.assigned.pointers.get(address);
        assigned.or_else(|| self.addresses.get(address))
    }
}

impl Assigned {
    fn new(balanced: &[Balanced]) -> Assigned {
        let mut assigned = Assigned::default();
        // A name of the whole hides the same name of a single backend.
        let mut of_all = HashMap::new();
        for one in balanced {
            let ready: Vec<IpAddr> = one
                .backends
                .iter()
                .filter(|backend| backend.state == BackendState::Ready)
                .flat_map(Backend::addresses)
                .collect();
            let addresses = if one.vips.is_empty() {
                &ready
            } else {
                &one.vips
            };
            for name in &one.names {
                add(&mut of_all, name, addresses);
            }
            for name in &one.backend_names {
                add(&mut of_all, name, &ready);
            }
            assigned.point(&one.vips, one.names.first());
            for backend in &one.backends {
                let addresses: Vec<_> = backend.addresses().collect();
                // Who drains has connections yet, whose other end may want to know a name.
                assigned.point(&addresses, backend.names.first());
                if backend.state == BackendState::Ready {
                    for name in &backend.names {
                        add(&mut assigned.names, name, &addresses);
                    }
                }
            }
        }
        assigned.names.extend(of_all);
        assigned
    }

    fn point(&mut self, addresses: &[IpAddr], name: Option<&String>) {
        for (address, name) in addresses.iter().zip(std::iter::repeat(name).flatten()) {
            self.pointers.insert(*address, name.clone());
        }
    }
}

fn add(names: &mut HashMap<String, Vec<IpAddr>>, name: &str, addresses: &[IpAddr]) {
    let list = names.entry(name.to_lowercase()).or_default();
    for address in addresses {
        if !list.contains(address) {
            list.push(*address);
        }
    }
}

/// The address a `….in-addr.arpa` or `….ip6.arpa` name stands for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut labels = labels.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| octets.into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut value = 0u128;
    let mut count = 0;
    for (position, label) in labels.split('.').enumerate() {
        if label.len() != 1 || position > 31 {
            return None;
        }
        value |= u128::from(u8::from_str_radix(label, 16).ok()?) << (4 * position);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(endpoint: &str, names: &[&str], ipv4: &str, ipv6: Option<&str>) -> Entry {
        Entry {
            endpoint: endpoint.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ipv4: Some(ipv4.parse().unwrap()),
            ipv6: ipv6.map(|address| address.parse().unwrap()),
        }
    }

    fn zone() -> Zone {
        let mut zone = Zone::default();
        zone.insert(
            "n1",
            "Front",
            &entry("e1", &["web-1", "web", "0123456789ab"], "10.1.0.2", None),
        );
        zone.insert(
            "n1",
            "Front",
            &entry("e2", &["web-2", "web"], "10.1.0.3", Some("fd00::3")),
        );
        zone.insert("n2", "back", &entry("e3", &["DB", "web"], "10.2.0.2", None));
        zone
    }

    fn show(answer: Answer) -> String {
        match answer {
            Answer::Addresses(list) => {
                let list: Vec<_> = list.iter().map(IpAddr::to_string).collect();
                list.join(" ")
            }
            Answer::Name(name) => name,
            Answer::Empty => "empty".into(),
            Answer::Unknown => "unknown".into(),
        }
    }

    /// `<networks seen> <name> <question>` to the answer.
    #[test]
    fn names_hold_within_the_askers_networks() {
        let zone = zone();
        let cases = [
            ("n1", "web-1", Question::Ipv4, "10.1.0.2"),
            ("n1", "web", Question::Ipv4, "10.1.0.2 10.1.0.3"),
            ("n1 n2", "web", Question::Ipv4, "10.1.0.2 10.1.0.3"),
            ("n2 n1", "web", Question::Ipv4, "10.2.0.2"),
            ("n2 n1", "web.front", Question::Ipv4, "10.1.0.2 10.1.0.3"),
            ("n1", "0123456789ab.front", Question::Ipv4, "10.1.0.2"),
            ("n2", "web.front", Question::Ipv4, "unknown"),
            ("n1", "db", Question::Ipv4, "unknown"),
            ("n2", "db", Question::Ipv4, "10.2.0.2"),
            ("", "web", Question::Ipv4, "unknown"),
            ("n1", "web", Question::Ipv6, "fd00::3"),
            ("n1", "web-1", Question::Ipv6, "empty"),
            ("n1", "web-1", Question::Other, "empty"),
            ("n1", "example.com", Question::Ipv6, "unknown"),
            ("n1", "front", Question::Ipv4, "unknown"),
            ("n1", ".front", Question::Ipv4, "unknown"),
            ("n1", "", Question::Ipv4, "unknown"),
            (
                "n1",
                "2.0.1.10.in-addr.arpa",
                Question::Pointer,
                "web-1.front",
            ),
            ("n2", "2.0.1.10.in-addr.arpa", Question::Pointer, "unknown"),
            ("n1", "2.0.1.10.in-addr.arpa", Question::Ipv4, "empty"),
            (
                "n1",
                "1.2.0.1.10.in-addr.arpa",
                Question::Pointer,
                "unknown",
            ),
            (
                "n1",
                "999.0.1.10.in-addr.arpa",
                Question::Pointer,
                "unknown",
            ),
            (
                "n1",
                "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                Question::Pointer,
                "web-2.front",
            ),
        ];
        for (networks, name, question, expected) in cases {
            let networks: Vec<String> = networks.split_whitespace().map(str::to_owned).collect();
            let got = show(zone.lookup(&networks, name, question));
            assert_eq!(got, expected, "{networks:?} {name} {question:?}");
        }
    }

    #[test]
    fn removing_an_endpoint_removes_all_it_had() {
        let mut zone = zone();
        zone.remove("n1", "e1");
        let seen = ["n1".to_owned()];
        assert_eq!(zone.lookup(&seen, "web-1", Question::Ipv4), Answer::Unknown);
        assert_eq!(
            zone.lookup(&seen, "2.0.1.10.in-addr.arpa", Question::Pointer),
            Answer::Unknown
        );
        assert_eq!(
            zone.lookup(&seen, "web", Question::Ipv4),
            Answer::Addresses(vec!["10.1.0.3".parse().unwrap()])
        );
        zone.remove("n1", "e2");
        zone.remove("n2", "e3");
        assert!(zone.networks.is_empty());
    }

    /// `<name> <question>` to the answer, on a network with assigned names and local endpoints.
    #[test]
    fn assigned_names_come_before_those_of_endpoints() {
        let backend = |name: &str, last: u8, state| Backend {
            names: vec![name.into(), format!("id-of-{name}")],
            ipv4: Some([10, 1, 0, last].into()),
            ipv6: (last == 20).then(|| "fd00::20".parse().unwrap()),
            state,
        };
        let balanced = [
            Balanced {
                names: vec!["Web".into(), "www".into()],
                backend_names: vec!["tasks.web".into()],
                vips: vec!["10.1.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
                backends: vec![
                    backend("web.1", 20, BackendState::Ready),
                    backend("web.2", 21, BackendState::Ready),
                    backend("web.3", 22, BackendState::Draining),
                ],
            },
            Balanced {
                names: vec!["rr".into()],
                backend_names: vec!["tasks.rr".into()],
                vips: Vec::new(),
                backends: vec![
                    backend("rr", 30, BackendState::Ready),
                    backend("rr.2", 31, BackendState::Ready),
                ],
            },
            Balanced {
                names: vec!["none".into()],
                backend_names: vec!["tasks.none".into()],
                vips: Vec::new(),
                backends: Vec::new(),
            },
        ];
        let mut zone = zone();
        zone.assign("n1", "Front", &balanced);
        let seen = ["n1".to_owned()];
        let cases = [
            ("web", Question::Ipv4, "10.1.0.9"),
            ("web", Question::Ipv6, "fd00::9"),
            ("web", Question::Other, "empty"),
            ("www.front", Question::Ipv4, "10.1.0.9"),
            ("tasks.web", Question::Ipv4, "10.1.0.20 10.1.0.21"),
            ("tasks.web", Question::Ipv6, "fd00::20"),
            ("web.1", Question::Ipv4, "10.1.0.20"),
            ("web.2", Question::Ipv6, "empty"),
            ("id-of-web.2", Question::Ipv4, "10.1.0.21"),
            ("web.3", Question::Ipv4, "unknown"),
            ("rr", Question::Ipv4, "10.1.0.30 10.1.0.31"),
            ("rr", Question::Ipv6, "empty"),
            ("tasks.rr", Question::Ipv4, "10.1.0.30 10.1.0.31"),
            ("none", Question::Ipv4, "empty"),
            ("tasks.none", Question::Ipv4, "empty"),
            // Endpoints of this host keep what nobody assigned.
            ("web-1", Question::Ipv4, "10.1.0.2"),
            ("9.0.1.10.in-addr.arpa", Question::Pointer, "Web.front"),
            ("22.0.1.10.in-addr.arpa", Question::Pointer, "web.3.front"),
            ("2.0.1.10.in-addr.arpa", Question::Pointer, "web-1.front"),
            ("40.0.1.10.in-addr.arpa", Question::Pointer, "unknown"),
        ];
        for (name, question, expected) in cases {
            let got = show(zone.lookup(&seen, name, question));
            assert_eq!(got, expected, "{name} {question:?}");
        }
        zone.assign("n1", "Front", &[]);
        assert_eq!(
            show(zone.lookup(&seen, "web", Question::Ipv4)),
            "10.1.0.2 10.1.0.3"
        );
        assert_eq!(zone.lookup(&seen, "rr", Question::Ipv4), Answer::Unknown);
        // The last names take the network with them.
        zone.assign("n9", "alone", &balanced);
        zone.assign("n9", "alone", &[]);
        assert!(!zone.networks.contains_key("n9"));
    }

    #[test]
    fn inserting_again_replaces() {
        let mut zone = zone();
        zone.insert("n1", "front", &entry("e1", &["renamed"], "10.1.0.2", None));
        let seen = ["n1".to_owned()];
        assert_eq!(zone.lookup(&seen, "web-1", Question::Ipv4), Answer::Unknown);
        assert_eq!(
            zone.lookup(&seen, "2.0.1.10.in-addr.arpa", Question::Pointer),
            Answer::Name("renamed.front".into())
        );
    }
}
