//! Connection tracking entries of published UDP ports.
//!
//! A UDP "connection" is remembered for as long as its client keeps sending, with the address it
//! was translated to. When a port moves or closes, these entries must go, or the client's packets
//! keep going to the old container (moby#8795). Numbers are those of
//! `linux/netfilter/nfnetlink_conntrack.h`.

use std::net::IpAddr;

use crate::firewall::PublishedAt;
use crate::firewall::message::{Attributes, NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink, ReadAttributes};
use crate::spec::Protocol;
use crate::{Error, Result};

const SUBSYS_CTNETLINK: u16 = 1 << 8;
const GET: u16 = SUBSYS_CTNETLINK | 1;
const DELETE: u16 = SUBSYS_CTNETLINK | 2;
const TUPLE_ORIG: u16 = 1;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;

/// Deletes the entries whose original destination is one of these ports. Does nothing, at no cost,
/// when none is UDP.
pub(crate) fn forget(ports: &[PublishedAt]) -> Result<()> {
    let udp: Vec<_> = ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .collect();
    for family in [NFPROTO_IPV4, NFPROTO_IPV6] {
        let of_family: Vec<_> = udp
            .iter()
            .filter(|port| port.host_ip.is_ipv4() == (family == NFPROTO_IPV4))
            .collect();
        if of_family.is_empty() {
            continue;
        }
        let forget = || {
            let mut socket = Nfnetlink::open()?;
            let mut found = Vec::new();
            socket.dump(GET, family, &[], |_, entry| {
                let matches = destination(entry).is_some_and(|(address, port)| {
                    of_family.iter().any(|published| {
                        published.host_port == port
                            && (published.host_ip.is_unspecified() || published.host_ip == address)
                    })
                });
                if matches {
                    found.extend(key(entry));
                }
            })?;
            for entry in found {
                match socket.request(DELETE, 0, family, &entry) {
                    // Expired in the meantime.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    result => result?,
                }
            }
            Ok(())
        };
        forget().map_err(Error::kernel(
            "delete connection tracking entries of a published port",
        ))?;
    }
    Ok(())
}

/// The original destination of a UDP entry.
fn destination(entry: &[u8]) -> Option<(IpAddr, u16)> {
    let tuple = ReadAttributes::find(entry, TUPLE_ORIG)?;
    let protocol = ReadAttributes::find(tuple, TUPLE_PROTO)?;
    if ReadAttributes::find(protocol, PROTO_NUM)? != [Protocol::Udp.number()] {
        return None;
    }
    let port = ReadAttributes::find(protocol, PROTO_DST_PORT)?;
    let address = ReadAttributes::find(tuple, TUPLE_IP)?;
    let address = match (
        ReadAttributes::find(address, IP_V4_DST),
        ReadAttributes::find(address, IP_V6_DST),
    ) {
        (Some(v4), _) => IpAddr::from(<[u8; 4]>::try_from(v4).ok()?),
        (None, Some(v6)) => IpAddr::from(<[u8; 16]>::try_from(v6).ok()?),
        (None, None) => return None,
    };
    Some((address, u16::from_be_bytes(port.try_into().ok()?)))
}

/// What names the entry in a request: its original tuple and its id, lest a younger entry of the
/// same tuple go.
fn key(entry: &[u8]) -> Option<Vec<u8>> {
    const NESTED: u16 = 0x8000;
    let mut attributes = Attributes::default();
    attributes.bytes(
        TUPLE_ORIG | NESTED,
        ReadAttributes::find(entry, TUPLE_ORIG)?,
    );
    attributes.bytes(ID, ReadAttributes::find(entry, ID)?);
    Some(attributes.into_bytes())
}
