//! The table inside a sandbox on overlays: virtual addresses are translated to a backend where the
//! connection begins, and answers to clients that came through another host's published port go back
//! through that host.
//!
//! ```text
//! table inet muster_overlay {
//!   vips4/6              { 10.0.1.2 }
//!   slots4_12, … 6_10080 { 10.0.1.2 . <slot> : 10.0.1.5 }       one map and rule for each number of slots
//!   ingress { eth1 }     onlink4/6 { 10.0.0.0/24 }     nodes { 02:42:0a:00:00:02 : 0x6d700002 }
//!
//!   balance   nat output, dstnat     destination . random slot looked up, destination translated, port kept
//!   pass      nat prerouting, dstnat the same for what a sandbox forwards for containers of its own
//!   unserved  filter output          still to a virtual address: no backend, refuse
//!                                    into the ingress network, new and not to an address of it: refuse
//!   arrive    filter prerouting      new from a host of the ingress network: remember which (connection mark)
//!   depart    route output           a connection with such a mark: packet mark, which routing rules look at
//! }
//! ```
//!
//! The last two chains, and the rule about the ingress network, are there only in sandboxes on it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::expression::*;
use super::message::{
    ChainDefinition, Element, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink, Ownership,
    SetDefinition, Transaction,
};
use super::ruleset::{HOOK_OUTPUT, HOOK_PREROUTING, IFNAME, IPV4, IPV6, MARK, concatenation, join};
use super::{interface_key, interval, octets};
use crate::overlay::slots;

const TABLE: &str = "muster_overlay";
const VIPS: [&str; 2] = ["vips4", "vips6"];
const SLOTS: [[&str; slots::SIZES.len()]; 2] = [
    ["slots4_12", "slots4_420", "slots4_10080"],
    ["slots6_12", "slots6_420", "slots6_10080"],
];
const INGRESS: &str = "ingress";
const ONLINK: [&str; 2] = ["onlink4", "onlink6"];
const NODES: &str = "nodes";

/// `ether_addr` of nft(8).
const ETHER: u32 = 9;
const MANGLE: i32 = -150;

/// Marks of hosts have these bits, the rest says which host.
pub(crate) const MARK_BASE: u32 = 0x6d70_0000;
const MARK_MASK: u32 = 0xfff0_0000;

/// Elements of several sets: set and key to data, which is empty in a plain set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Elements(BTreeMap<(&'static str, bool, Vec<u8>), Vec<u8>>);

impl Elements {
    /// A virtual address and the backends its slots point to.
    pub(crate) fn add_vip(&mut self, vip: IpAddr, slots: &[IpAddr]) {
        let family = usize::from(vip.is_ipv6());
        self.put(VIPS[family], Element::key(octets(vip)));
        let size = slots::SIZES
            .iter()
            .position(|size| *size as usize == slots.len());
        let Some(size) = size else { return };
        for (slot, backend) in (0u32..).zip(slots) {
            let mut key = octets(vip);
            key.extend(slot.to_ne_bytes());
            let data = octets(*backend);
            self.put(
                SLOTS[family][size],
                Element {
                    key,
                    data,
                    interval_end: false,
                },
            );
        }
    }

    /// The interface on the ingress network, and what is reached there directly.
    pub(crate) fn add_ingress(&mut self, interface: &str, subnets: &[IpNet]) {
        self.put(INGRESS, Element::key(interface_key(interface)));
        for subnet in subnets {
            let set = ONLINK[usize::from(matches!(subnet, IpNet::V6(_)))];
            for (set, element) in interval(set, *subnet) {
                self.put(set, element);
            }
        }
    }

    /// A host of the ingress network and the mark of connections through it.
    pub(crate) fn add_node(&mut self, mac: [u8; 6], mark: u32) {
        self.put(
            NODES,
            Element {
                key: mac.to_vec(),
                data: mark.to_ne_bytes().to_vec(),
                interval_end: false,
            },
        );
    }

    fn put(&mut self, set: &'static str, element: Element) {
        self.0
            .insert((set, element.interval_end, element.key), element.data);
    }
}

/// What a table consists of; parts that stay the same are the same allocation.
#[derive(Debug, Default, Clone)]
pub(crate) struct Contents {
    pub(crate) parts: Vec<Arc<Elements>>,
    /// Whether the sandbox is on the ingress network.
    pub(crate) on_ingress: bool,
}

/// The table of one sandbox, and the socket that owns it.
pub(crate) struct BalancerTable {
    socket: Nfnetlink,
    /// What the kernel has; `None` before the first and after a failure.
    applied: Option<Contents>,
}

impl BalancerTable {
    /// To be called in the sandbox. Touches nothing yet.
    pub(crate) fn open() -> io::Result<BalancerTable> {
        Ok(BalancerTable {
            socket: Nfnetlink::open()?,
            applied: None,
        })
    }

    /// The socket, for connection tracking of the same namespace.
    pub(crate) fn socket(&mut self) -> &mut Nfnetlink {
        &mut self.socket
    }

    /// Brings the kernel from what it has to `wanted`, in one transaction.
    pub(crate) fn apply(&mut self, wanted: Contents) -> io::Result<()> {
        let Some(applied) = self
            .applied
            .take()
            .filter(|applied| applied.on_ingress == wanted.on_ingress)
        else {
            return self.install(wanted);
        };
        let only_in = |these: &Contents, others: &Contents| -> Vec<Arc<Elements>> {
            let new =
                |part: &&Arc<Elements>| !others.parts.iter().any(|other| Arc::ptr_eq(part, other));
            these.parts.iter().filter(new).cloned().collect()
        };
        let (old, new) = (only_in(&applied, &wanted), only_in(&wanted, &applied));
        let (old, new) = (union(&old), union(&new));
        let mut transaction = Transaction::new(NFPROTO_INET, TABLE);
        for (set, elements) in by_set(
            old.iter()
                .filter(|(key, data)| new.get(*key) != Some(*data)),
        ) {
            transaction.delete_elements(set, &elements);
        }
        for (set, elements) in by_set(
            new.iter()
                .filter(|(key, data)| old.get(*key) != Some(*data)),
        ) {
            transaction.add_elements(set, &elements);
        }
        match self.socket.commit(&transaction) {
            Ok(()) => {
                self.applied = Some(wanted);
                Ok(())
            }
            // Somebody flushed or edited the table: put all of it back.
            Err(error) => {
                tracing::warn!(table = TABLE, %error, "nftables table of a sandbox is not as it was left, installing it again");
                self.install(wanted)
            }
        }
    }

    /// Whether the kernel's table has as many rules and the very elements that were applied.
    pub(crate) fn is_intact(&mut self) -> io::Result<bool> {
        let Some(applied) = &self.applied else {
            return Ok(false);
        };
        let mut expected = Transaction::new(NFPROTO_INET, TABLE);
        add_rules(&mut expected, applied.on_ingress);
        if self.socket.count_rules(NFPROTO_INET, TABLE)? != expected.rules() {
            return Ok(false);
        }
        let wanted = union(&applied.parts);
        let mut wanted = by_set(wanted.iter());
        for set in sets(applied.on_ingress) {
            let mut found = match self.socket.elements(NFPROTO_INET, TABLE, set.name) {
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
            if found != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Replaces whatever table of this name there is.
    pub(crate) fn install(&mut self, wanted: Contents) -> io::Result<()> {
        self.applied = None;
        let elements = union(&wanted.parts);
        let elements = by_set(elements.iter());
        let mut install = |ownership| {
            let mut transaction = Transaction::new(NFPROTO_INET, TABLE);
            transaction.add_table(ownership);
            transaction.delete_table();
            transaction.add_table(ownership);
            for set in sets(wanted.on_ingress) {
                transaction.add_set(&set);
            }
            add_rules(&mut transaction, wanted.on_ingress);
            for (set, elements) in &elements {
                transaction.add_elements(set, elements);
            }
            self.socket.commit(&transaction)
        };
        match install(Ownership::Ours) {
            // Linux before 6.9.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                install(Ownership::Shared)?;
            }
            result => result?,
        }
        self.applied = Some(wanted);
        Ok(())
    }

    /// What is left to apply, for [`install`](Self::install).
    pub(crate) fn applied(&self) -> Option<Contents> {
        self.applied.clone()
    }
}

type Key = (&'static str, bool, Vec<u8>);

fn union(parts: &[Arc<Elements>]) -> BTreeMap<&Key, &Vec<u8>> {
    parts.iter().flat_map(|part| &part.0).collect()
}

fn by_set<'a>(
    elements: impl Iterator<Item = (&'a &'a Key, &'a &'a Vec<u8>)>,
) -> BTreeMap<&'static str, Vec<Element>> {
    let mut sets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((set, interval_end, key), data) in elements {
        sets.entry(*set).or_default().push(Element {
            key: key.clone(),
            data: (*data).clone(),
            interval_end: *interval_end,
        });
    }
    sets
}

fn sets(on_ingress: bool) -> Vec<SetDefinition> {
    let set = |name, key_type: u32, key_bytes| SetDefinition {
        name,
        key_type,
        key_bytes,
        data: None,
        interval: false,
        host_order: key_type == IFNAME,
    };
    let mut sets = Vec::new();
    for (family, (address, bytes)) in [(IPV4, 4), (IPV6, 16)].into_iter().enumerate() {
        sets.push(set(VIPS[family], address, bytes));
        for name in SLOTS[family] {
            sets.push(SetDefinition {
                data: Some((address, bytes)),
                ..set(name, concatenation(address, MARK), bytes + 4)
            });
        }
        if on_ingress {
            sets.push(SetDefinition {
                interval: true,
                ..set(ONLINK[family], address, bytes)
            });
        }
    }
    if on_ingress {
        sets.push(set(INGRESS, IFNAME, 16));
        sets.push(SetDefinition {
            data: Some((MARK, 4)),
            ..set(NODES, ETHER, 6)
        });
    }
    sets
}

fn add_rules(transaction: &mut Transaction<'_>, on_ingress: bool) {
    let chain = |name, kind, hook, priority| ChainDefinition {
        name,
        kind,
        hook,
        priority,
    };
    let destination = |family| {
        if family == NFPROTO_IPV4 {
            Field::Ip4Destination
        } else {
            Field::Ip6Destination
        }
    };
    let families = [NFPROTO_IPV4, NFPROTO_IPV6];
    transaction.add_chain(&chain("balance", "nat", HOOK_OUTPUT, -100));
    transaction.add_chain(&chain("pass", "nat", HOOK_PREROUTING, -100));
    transaction.add_chain(&chain("unserved", "filter", HOOK_OUTPUT, 0));
    for (index, nfproto) in families.into_iter().enumerate() {
        let to = destination(nfproto);
        let slot = Register(if nfproto == NFPROTO_IPV4 { 1 } else { 4 });
        for (size, map) in slots::SIZES.into_iter().zip(SLOTS[index]) {
            let translate = [
                payload(to, R0),
                random(size, slot),
                look_up(map, R0, R0),
                dnat_address(nfproto, R0),
            ];
            for chain in ["balance", "pass"] {
                transaction.add_rule(chain, &join([&family(nfproto), &translate]));
            }
        }
        let unserved = [payload(to, R0), in_set(VIPS[index], R0)];
        // A socket that connects is locked and does not hear of an ICMP error until its next try, a
        // second later; but it hears of a reset.
        for refusal in [join([&is_tcp(), &[reset()]]), vec![refuse()]] {
            transaction.add_rule("unserved", &join([&family(nfproto), &unserved, &refusal]));
        }
    }
    if !on_ingress {
        return;
    }
    let is_new = conntrack_has(Conntrack::State, STATE_NEW);
    for (index, nfproto) in families.into_iter().enumerate() {
        let into_ingress = [meta(Meta::Oifname, R0), in_set(INGRESS, R0)];
        let elsewhere = [
            payload(destination(nfproto), R0),
            not_in_set(ONLINK[index], R0),
        ];
        let leaves = join([&family(nfproto), &into_ingress, &is_new, &elsewhere]);
        for refusal in [join([&is_tcp(), &[reset()]]), vec![refuse()]] {
            transaction.add_rule("unserved", &join([&leaves, &refusal]));
        }
    }
    transaction.add_chain(&chain("arrive", "filter", HOOK_PREROUTING, MANGLE));
    let from_ingress = [meta(Meta::Iifname, R0), in_set(INGRESS, R0)];
    let remember = [
        payload(Field::EtherSource, R0),
        look_up(NODES, R0, R0),
        set_conntrack_mark(R0),
    ];
    transaction.add_rule("arrive", &join([&from_ingress, &is_new, &remember]));
    transaction.add_chain(&chain("depart", "route", HOOK_OUTPUT, MANGLE));
    let depart = [
        conntrack(Conntrack::Mark, R0),
        mask(R0, &MARK_MASK.to_ne_bytes()),
        compare(R0, Test::Equal, &MARK_BASE.to_ne_bytes()),
        conntrack(Conntrack::Mark, R0),
        set_mark(R0),
    ];
    transaction.add_rule("depart", &depart);
}
