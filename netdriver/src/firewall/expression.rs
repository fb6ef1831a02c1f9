//! The expressions rules are made of. Each function returns one encoded `NFTA_LIST_ELEM`.
//!
//! Registers are the 32-bit ones (`NFT_REG32_00` = 8 and up). A concatenation is loaded into
//! neighbouring registers, each part filled up to 4 bytes, and looked up from the first.

use super::message::{Attributes, NFPROTO_IPV4, NFPROTO_IPV6};
use crate::spec::Protocol;

/// A 32-bit register, counted from `NFT_REG32_00`.
#[derive(Clone, Copy)]
pub(super) struct Register(pub(super) u32);

impl Register {
    fn number(self) -> u32 {
        8 + self.0
    }
}

pub(super) const R0: Register = Register(0);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal = 0,
    NotEqual = 1,
}

#[derive(Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

#[derive(Clone, Copy)]
pub(super) enum Conntrack {
    State = 0,
    Status = 2,
    Mark = 3,
}

/// `IPS_DST_NAT` of `ct status`: the connection's destination was translated.
pub(super) const STATUS_DNAT: u32 = 1 << 5;
/// `ct state new`.
pub(super) const STATE_NEW: u32 = 1 << 3;
/// `ct state established,related`.
pub(super) const STATE_KNOWN: u32 = 1 << 1 | 1 << 2;
/// `RTN_LOCAL`: an address of this host.
const RTN_LOCAL: u32 = 2;

#[derive(Clone, Copy)]
pub(super) enum Field {
    EtherSource,
    Ip4Source,
    Ip4Destination,
    Ip6Source,
    Ip6Destination,
    /// Of TCP and UDP alike.
    DestinationPort,
}

fn expression(name: &str, build: impl FnOnce(&mut Attributes)) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.string(1, name).nested(2, build);
    attributes.into_bytes()
}

pub(super) fn meta(key: Meta, to: Register) -> Vec<u8> {
    expression("meta", |a| {
        a.u32(1, to.number()).u32(2, key as u32);
    })
}

pub(super) fn conntrack(key: Conntrack, to: Register) -> Vec<u8> {
    expression("ct", |a| {
        a.u32(1, to.number()).u32(2, key as u32);
    })
}

/// Writes a register to the packet's mark.
pub(super) fn set_mark(from: Register) -> Vec<u8> {
    expression("meta", |a| {
        a.u32(2, Meta::Mark as u32).u32(3, from.number());
    })
}

/// Writes a register to the connection's mark.
pub(super) fn set_conntrack_mark(from: Register) -> Vec<u8> {
    expression("ct", |a| {
        a.u32(2, Conntrack::Mark as u32).u32(4, from.number());
    })
}

/// A random number below `modulus`, in this host's byte order.
pub(super) fn random(modulus: u32, to: Register) -> Vec<u8> {
    expression("numgen", |a| {
        // Type 1: random.
        a.u32(1, to.number()).u32(2, modulus).u32(3, 1);
    })
}

pub(super) fn payload(field: Field, to: Register) -> Vec<u8> {
    // Base: 0 link layer header, 1 network header, 2 transport header.
    let (base, offset, length) = match field {
        Field::EtherSource => (0, 6, 6),
        Field::Ip4Source => (1, 12, 4),
        Field::Ip4Destination => (1, 16, 4),
        Field::Ip6Source => (1, 8, 16),
        Field::Ip6Destination => (1, 24, 16),
        Field::DestinationPort => (2, 2, 2),
    };
    expression("payload", |a| {
        a.u32(1, to.number())
            .u32(2, base)
            .u32(3, offset)
            .u32(4, length);
    })
}

pub(super) fn compare(register: Register, test: Test, value: &[u8]) -> Vec<u8> {
    expression("cmp", |a| {
        a.u32(1, register.number())
            .u32(2, if test == Test::Equal { 0 } else { 1 })
            .nested(3, |data| {
                data.bytes(1, value);
            });
    })
}

/// `register & mask`, over as many bytes as the mask has.
pub(super) fn mask(register: Register, mask: &[u8]) -> Vec<u8> {
    let length = u32::try_from(mask.len()).expect("masks are a few bytes");
    expression("bitwise", |a| {
        a.u32(1, register.number())
            .u32(2, register.number())
            .u32(3, length)
            .nested(4, |data| {
                data.bytes(1, mask);
            })
            .nested(5, |data| {
                data.bytes(1, &vec![0; mask.len()]);
            });
    })
}

/// Goes on only if the key is in the set.
pub(super) fn in_set(set: &str, key: Register) -> Vec<u8> {
    expression("lookup", |a| {
        a.string(1, set).u32(2, key.number());
    })
}

/// Goes on only if the key is not in the set.
pub(super) fn not_in_set(set: &str, key: Register) -> Vec<u8> {
    expression("lookup", |a| {
        a.string(1, set).u32(2, key.number()).u32(5, 1);
    })
}

/// Goes on with the value the key maps to, only if there is one.
pub(super) fn look_up(map: &str, key: Register, value: Register) -> Vec<u8> {
    expression("lookup", |a| {
        a.string(1, map).u32(2, key.number()).u32(3, value.number());
    })
}

/// Goes on only if the destination is an address of this host. Overwrites the register.
pub(super) fn destination_is_local(scratch: Register) -> [Vec<u8>; 2] {
    let lookup = expression("fib", |a| {
        // Result: address type; flags: look at the destination.
        a.u32(1, scratch.number()).u32(2, 3).u32(3, 2);
    });
    [
        lookup,
        compare(scratch, Test::Equal, &RTN_LOCAL.to_ne_bytes()),
    ]
}

/// Goes on only if one of these bits of the connection's state or status is set.
pub(super) fn conntrack_has(key: Conntrack, bits: u32) -> [Vec<u8>; 3] {
    [
        conntrack(key, R0),
        mask(R0, &bits.to_ne_bytes()),
        compare(R0, Test::NotEqual, &[0; 4]),
    ]
}

/// Goes on only for TCP.
pub(super) fn is_tcp() -> [Vec<u8>; 2] {
    [
        meta(Meta::L4proto, R0),
        compare(R0, Test::Equal, &[Protocol::Tcp.number()]),
    ]
}

/// Goes on only for this address family.
pub(super) fn family(nfproto: u8) -> [Vec<u8>; 2] {
    [
        meta(Meta::Nfproto, R0),
        compare(R0, Test::Equal, &[nfproto]),
    ]
}

/// Translates the destination to the address and port in registers.
pub(super) fn dnat(nfproto: u8, address: Register, port: Register) -> Vec<u8> {
    debug_assert!(nfproto == NFPROTO_IPV4 || nfproto == NFPROTO_IPV6);
    expression("nat", |a| {
        a.u32(1, 1)
            .u32(2, nfproto.into())
            .u32(3, address.number())
            .u32(4, address.number())
            .u32(5, port.number())
            .u32(6, port.number());
    })
}

/// Translates the destination to the address in registers; the port stays.
pub(super) fn dnat_address(nfproto: u8, address: Register) -> Vec<u8> {
    debug_assert!(nfproto == NFPROTO_IPV4 || nfproto == NFPROTO_IPV6);
    expression("nat", |a| {
        a.u32(1, 1)
            .u32(2, nfproto.into())
            .u32(3, address.number())
            .u32(4, address.number());
    })
}

/// Drops the packet and tells its sender that nobody listens.
pub(super) fn refuse() -> Vec<u8> {
    // NFT_REJECT_ICMPX_UNREACH with NFT_REJECT_ICMPX_PORT_UNREACH, of either family.
    expression("reject", |a| {
        a.u32(1, 2).bytes(2, &[1]);
    })
}

/// Drops a TCP packet and resets its connection.
pub(super) fn reset() -> Vec<u8> {
    expression("reject", |a| {
        a.u32(1, 1);
    })
}

/// Loads a constant.
pub(super) fn load(value: &[u8], to: Register) -> Vec<u8> {
    expression("immediate", |a| {
        a.u32(1, to.number()).nested(2, |data| {
            data.bytes(1, value);
        });
    })
}

pub(super) fn masquerade() -> Vec<u8> {
    expression("masq", |_| {})
}

pub(super) fn accept() -> Vec<u8> {
    verdict(1)
}

pub(super) fn drop() -> Vec<u8> {
    verdict(0)
}

/// Ends the evaluation of a base chain with its policy.
pub(super) fn finish() -> Vec<u8> {
    // NFT_RETURN is -5.
    verdict(0xffff_fffb)
}

fn verdict(code: u32) -> Vec<u8> {
    expression("immediate", |a| {
        a.u32(1, 0).nested(2, |data| {
            data.nested(2, |verdict| {
                verdict.u32(1, code);
            });
        });
    })
}
