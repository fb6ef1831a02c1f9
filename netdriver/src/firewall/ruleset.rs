//! The constant part of the table: sets, chains and rules.
//!
//! ```text
//! table inet muster_<instance> {
//!   bridges     { br-a, br-b }            internal { br-b }        within { br-a . br-a }       unrouted { eth0, eth1 }
//!   subnets4/6  { subnets of bridges }    masquerade4/6 { those that leave with the host's address }
//!   ingress     { interfaces to the ingress network }
//!   ports4/6          { tcp . 8080 : 172.18.0.2 . 80 }             address_ports4/6 { 127.0.0.1 . tcp . 8081 : … }
//!   spread4_12, … 6_10080 { tcp . 8080 . <slot> : 10.0.0.5 . 80 }  refused4/6 { tcp . 8080 }       published on every host
//!
//!   guard       prerouting, raw      from a bridge to or from 127/8: drop (bridges have route_localnet)
//!   prerouting  nat, dstnat          to an address of this host (not 127/8): look the port up, translate; then the port with a random slot
//!   output      nat, dstnat          the same for this host's own packets, 127/8 included (::1 goes to a relay)
//!   input       filter               from the ingress network, not known: drop
//!                                    to a port in refused, not translated above (no backend): refuse (::1 goes to a relay)
//!   postrouting nat, srcnat          from 127/8 to a bridge: masquerade
//!                                    from a container, translated, to a bridge (hairpin): masquerade
//!                                    from a container to anywhere else: masquerade
//!   forward     filter               between interfaces in unrouted: drop
//!                                    neither from nor to a bridge: not our business
//!                                    known connections: accept
//!                                    from the ingress network: drop
//!                                    within one bridge: accept, unless inter-container traffic is off
//!                                    from or to an internal bridge: drop
//!                                    to a bridge: accept what was translated (published), drop the rest (isolation)
//! }
//! ```

use super::expression::*;
use super::message::{ChainDefinition, NFPROTO_IPV4, NFPROTO_IPV6, SetDefinition, Transaction};
use crate::overlay::slots;

pub(super) const BRIDGES: &str = "bridges";
pub(super) const INTERNAL: &str = "internal";
pub(super) const WITHIN: &str = "within";
/// This host's interfaces on the ingress network, which are among the bridges.
pub(super) const INGRESS: &str = "ingress";
pub(super) const SPREAD: [[&str; slots::SIZES.len()]; 2] = [
    ["spread4_12", "spread4_420", "spread4_10080"],
    ["spread6_12", "spread6_420", "spread6_10080"],
];
pub(super) const REFUSED: [&str; 2] = ["refused4", "refused6"];
/// Interfaces this host did not forward between before this daemon turned forwarding on.
pub(super) const UNROUTED: &str = "unrouted";
pub(super) const SUBNETS4: &str = "subnets4";
pub(super) const SUBNETS6: &str = "subnets6";
pub(super) const MASQUERADE4: &str = "masquerade4";
pub(super) const MASQUERADE6: &str = "masquerade6";
pub(super) const PORTS4: &str = "ports4";
pub(super) const PORTS6: &str = "ports6";
pub(super) const ADDRESS_PORTS4: &str = "address_ports4";
pub(super) const ADDRESS_PORTS6: &str = "address_ports6";

pub(super) const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
pub(super) const HOOK_FORWARD: u32 = 2;
pub(super) const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;

// Data types of nft(8), for `nft list`; a concatenation shifts by 6 bits.
pub(super) const IPV4: u32 = 7;
pub(super) const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
/// `mark`: 4 bytes in this host's order.
pub(super) const MARK: u32 = 19;
pub(super) const IFNAME: u32 = 41;

pub(super) const fn concatenation(first: u32, second: u32) -> u32 {
    first << 6 | second
}

const LOOPBACK_MASK: [u8; 4] = [255, 0, 0, 0];
const LOOPBACK4: [u8; 4] = [127, 0, 0, 0];
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Appends everything but the table itself and the elements.
pub(super) fn build(transaction: &mut Transaction<'_>) {
    for set in sets() {
        transaction.add_set(&set);
    }
    let chain = |name, kind, hook, priority| ChainDefinition {
        name,
        kind,
        hook,
        priority,
    };
    transaction.add_chain(&chain("guard", "filter", HOOK_PREROUTING, -300));
    transaction.add_chain(&chain("prerouting", "nat", HOOK_PREROUTING, -100));
    transaction.add_chain(&chain("output", "nat", HOOK_OUTPUT, -100));
    transaction.add_chain(&chain("postrouting", "nat", HOOK_POSTROUTING, 100));
    transaction.add_chain(&chain("forward", "filter", HOOK_FORWARD, 0));

    for field in [Field::Ip4Destination, Field::Ip4Source] {
        let from_bridge = interface_in(Meta::Iifname, BRIDGES);
        transaction.add_rule("guard", &join([&from_bridge, &loopback4(field), &[drop()]]));
    }

    transaction.add_rule(
        "prerouting",
        &join([&loopback4(Field::Ip4Destination), &[finish()]]),
    );
    let to_loopback6 = [
        payload(Field::Ip6Destination, R0),
        compare(R0, Test::Equal, &LOOPBACK6),
    ];
    transaction.add_rule(
        "output",
        &join([&family(NFPROTO_IPV6), &to_loopback6, &[finish()]]),
    );
    for name in ["prerouting", "output"] {
        for (nfproto, address_ports, ports) in [
            (NFPROTO_IPV4, ADDRESS_PORTS4, PORTS4),
            (NFPROTO_IPV6, ADDRESS_PORTS6, PORTS6),
        ] {
            transaction.add_rule(name, &published_on_address(nfproto, address_ports));
            transaction.add_rule(name, &published_on_any(nfproto, ports));
        }
        for (nfproto, maps) in [NFPROTO_IPV4, NFPROTO_IPV6].into_iter().zip(SPREAD) {
            for (size, map) in slots::SIZES.into_iter().zip(maps) {
                transaction.add_rule(name, &spread(nfproto, size, map));
            }
        }
    }

    transaction.add_chain(&chain("input", "filter", HOOK_INPUT, 0));
    let is_new = conntrack_has(Conntrack::State, STATE_NEW);
    transaction.add_rule(
        "input",
        &join([&interface_in(Meta::Iifname, INGRESS), &is_new, &[drop()]]),
    );
    transaction.add_rule(
        "input",
        &join([&family(NFPROTO_IPV6), &to_loopback6, &[finish()]]),
    );
    for (nfproto, refused) in [NFPROTO_IPV4, NFPROTO_IPV6].into_iter().zip(REFUSED) {
        let port = [
            meta(Meta::L4proto, R0),
            payload(Field::DestinationPort, Register(1)),
            in_set(refused, R0),
        ];
        let ours = join([&family(nfproto), &port, &is_new]);
        transaction.add_rule("input", &join([&ours, &is_tcp(), &[reset()]]));
        transaction.add_rule("input", &join([&ours, &[refuse()]]));
    }

    let to_bridge = interface_in(Meta::Oifname, BRIDGES);
    let translated = conntrack_has(Conntrack::Status, STATUS_DNAT);
    transaction.add_rule(
        "postrouting",
        &join([&loopback4(Field::Ip4Source), &to_bridge, &[masquerade()]]),
    );
    for (nfproto, source, subnets, leaving) in [
        (NFPROTO_IPV4, Field::Ip4Source, SUBNETS4, MASQUERADE4),
        (NFPROTO_IPV6, Field::Ip6Source, SUBNETS6, MASQUERADE6),
    ] {
        let from = |set| join([&family(nfproto), &[payload(source, R0), in_set(set, R0)]]);
        transaction.add_rule(
            "postrouting",
            &join([&from(subnets), &translated, &to_bridge, &[masquerade()]]),
        );
        let not_to_bridge = [meta(Meta::Oifname, R0), not_in_set(BRIDGES, R0)];
        transaction.add_rule(
            "postrouting",
            &join([&from(leaving), &not_to_bridge, &[masquerade()]]),
        );
    }

    let stays_apart = [
        interface_in(Meta::Iifname, UNROUTED),
        interface_in(Meta::Oifname, UNROUTED),
    ];
    transaction.add_rule(
        "forward",
        &join([&stays_apart[0], &stays_apart[1], &[drop()]]),
    );
    let not_ours = [
        meta(Meta::Iifname, R0),
        not_in_set(BRIDGES, R0),
        meta(Meta::Oifname, R0),
        not_in_set(BRIDGES, R0),
        finish(),
    ];
    transaction.add_rule("forward", &not_ours);
    transaction.add_rule(
        "forward",
        &join([&conntrack_has(Conntrack::State, STATE_KNOWN), &[accept()]]),
    );
    transaction.add_rule(
        "forward",
        &join([&interface_in(Meta::Iifname, INGRESS), &[drop()]]),
    );
    let within = [
        meta(Meta::Iifname, R0),
        meta(Meta::Oifname, Register(4)),
        in_set(WITHIN, R0),
        accept(),
    ];
    transaction.add_rule("forward", &within);
    for direction in [Meta::Iifname, Meta::Oifname] {
        transaction.add_rule(
            "forward",
            &join([&interface_in(direction, INTERNAL), &[drop()]]),
        );
    }
    transaction.add_rule("forward", &join([&to_bridge, &translated, &[accept()]]));
    transaction.add_rule("forward", &join([&to_bridge, &[drop()]]));
    transaction.add_rule("forward", &[accept()]);
}

pub(super) fn sets() -> Vec<SetDefinition> {
    let set = |name, key_type: u32, key_bytes| SetDefinition {
        name,
        key_type,
        key_bytes,
        data: None,
        interval: false,
        host_order: key_type == IFNAME,
    };
    let subnets = |name, key_type, key_bytes| SetDefinition {
        interval: true,
        ..set(name, key_type, key_bytes)
    };
    let ports = |name, address: u32, address_bytes: u32, with_address: bool| {
        let port = concatenation(PROTOCOL, PORT);
        let (key_type, key_bytes) = if with_address {
            (address << 12 | port, address_bytes + 8)
        } else {
            (port, 8)
        };
        let data = Some((concatenation(address, PORT), address_bytes + 4));
        SetDefinition {
            data,
            ..set(name, key_type, key_bytes)
        }
    };
    let mut sets = vec![
        set(BRIDGES, IFNAME, 16),
        set(INGRESS, IFNAME, 16),
        set(INTERNAL, IFNAME, 16),
        set(UNROUTED, IFNAME, 16),
        set(WITHIN, concatenation(IFNAME, IFNAME), 32),
        subnets(SUBNETS4, IPV4, 4),
        subnets(MASQUERADE4, IPV4, 4),
        subnets(SUBNETS6, IPV6, 16),
        subnets(MASQUERADE6, IPV6, 16),
        ports(PORTS4, IPV4, 4, false),
        ports(ADDRESS_PORTS4, IPV4, 4, true),
        ports(PORTS6, IPV6, 16, false),
        ports(ADDRESS_PORTS6, IPV6, 16, true),
    ];
    for (family, (address, bytes)) in [(IPV4, 4), (IPV6, 16)].into_iter().enumerate() {
        let port = concatenation(PROTOCOL, PORT);
        sets.push(set(REFUSED[family], port, 8));
        for name in SPREAD[family] {
            sets.push(SetDefinition {
                data: Some((concatenation(address, PORT), bytes + 4)),
                ..set(name, concatenation(port, MARK), 12)
            });
        }
    }
    sets
}

/// `<destination address> . <protocol> . <destination port>` looked up, destination translated.
fn published_on_address(nfproto: u8, map: &str) -> Vec<Vec<u8>> {
    let (field, words) = match nfproto {
        NFPROTO_IPV4 => (Field::Ip4Destination, 1),
        _ => (Field::Ip6Destination, 4),
    };
    let translate = [
        payload(field, R0),
        meta(Meta::L4proto, Register(words)),
        payload(Field::DestinationPort, Register(words + 1)),
        look_up(map, R0, R0),
        dnat(nfproto, R0, Register(words)),
    ];
    join([&family(nfproto), &destination_is_local(R0), &translate])
}

/// `<protocol> . <destination port>` looked up, destination translated.
fn published_on_any(nfproto: u8, map: &str) -> Vec<Vec<u8>> {
    let words = if nfproto == NFPROTO_IPV4 { 1 } else { 4 };
    let translate = [
        meta(Meta::L4proto, R0),
        payload(Field::DestinationPort, Register(1)),
        look_up(map, R0, R0),
        dnat(nfproto, R0, Register(words)),
    ];
    join([&family(nfproto), &destination_is_local(R0), &translate])
}

/// `<protocol> . <destination port> . <random slot>` looked up, destination translated.
fn spread(nfproto: u8, size: u32, map: &str) -> Vec<Vec<u8>> {
    let words = if nfproto == NFPROTO_IPV4 { 1 } else { 4 };
    let backend = [
        meta(Meta::L4proto, R0),
        payload(Field::DestinationPort, Register(1)),
        random(size, Register(2)),
        look_up(map, R0, R0),
    ];
    // The route is looked up last: most connections are to other ports.
    join([
        &family(nfproto),
        &backend,
        &destination_is_local(Register(8)),
        &[dnat(nfproto, R0, Register(words))],
    ])
}

fn interface_in(direction: Meta, set: &str) -> Vec<Vec<u8>> {
    vec![meta(direction, R0), in_set(set, R0)]
}

fn loopback4(field: Field) -> Vec<Vec<u8>> {
    let loopback = [
        payload(field, R0),
        mask(R0, &LOOPBACK_MASK),
        compare(R0, Test::Equal, &LOOPBACK4),
    ];
    join([&family(NFPROTO_IPV4), &loopback])
}

pub(super) fn join<const N: usize>(parts: [&[Vec<u8>]; N]) -> Vec<Vec<u8>> {
    parts.concat()
}
