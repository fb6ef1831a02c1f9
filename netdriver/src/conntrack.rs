//! Connection tracking entries that outlive what they were made for.
//!
//! A UDP "connection" is remembered for as long as its client keeps sending, with the address it
//! was translated to. When a port moves or closes, these entries must go, or the client's packets
//! keep going to the old container (moby#8795). Numbers are those of
//! `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;
use std::net::IpAddr;

use crate::firewall::PublishedAt;
use crate::firewall::message::{
    Attributes, NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink, ReadAttributes, number,
};
use crate::spec::Protocol;
use crate::{Error, Result};

const SUBSYS_CTNETLINK: u16 = 1 << 8;
const GET: u16 = SUBSYS_CTNETLINK | 1;
const DELETE: u16 = SUBSYS_CTNETLINK | 2;
const GET_STATISTICS: u16 = SUBSYS_CTNETLINK | 5;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;

/// A tracked connection, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Where the client sent it.
    pub(crate) destination: IpAddr,
    /// 0 in protocols without ports.
    pub(crate) port: u16,
    /// Who answers: another address than `destination` if it was translated.
    pub(crate) answered_by: IpAddr,
}

impl Flow {
    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == Protocol::Udp.number()
    }
}

/// Deletes the entries of published UDP ports. Does nothing, at no cost, when none is UDP.
pub(crate) fn forget(ports: &[PublishedAt]) -> Result<()> {
    let udp: Vec<_> = ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp)
        .collect();
    if udp.is_empty() {
        return Ok(());
    }
    let of_ports = |flow: &Flow| {
        flow.is_udp()
            && udp.iter().any(|published| {
                published.host_port == flow.port
                    && published.host_ip.is_ipv4() == flow.destination.is_ipv4()
                    && (published.host_ip.is_unspecified() || published.host_ip == flow.destination)
            })
    };
    Nfnetlink::open()
        .and_then(|mut socket| forget_matching(&mut socket, of_ports))
        .map_err(Error::kernel(
            "delete connection tracking entries of a published port",
        ))
}

/// Deletes the entries of the socket's namespace that match.
pub(crate) fn forget_matching(
    socket: &mut Nfnetlink,
    matches: impl Fn(&Flow) -> bool,
) -> io::Result<()> {
    if count(socket)? == 0 {
        // A dump walks through the table of all namespaces together.
        return Ok(());
    }
    for family in [NFPROTO_IPV4, NFPROTO_IPV6] {
        let mut found = Vec::new();
        socket.dump(GET, family, &[], |_, entry| {
            if flow(entry).is_some_and(|flow| matches(&flow)) {
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
    }
    Ok(())
}

/// How many entries the namespace has.
fn count(socket: &mut Nfnetlink) -> io::Result<u32> {
    const ENTRIES: u16 = 1;
    let mut entries = 0;
    socket.ask(GET_STATISTICS, NFPROTO_IPV4, &[], |_, answer| {
        entries = ReadAttributes::find(answer, ENTRIES).map_or(0, number);
    })?;
    Ok(entries)
}

fn flow(entry: &[u8]) -> Option<Flow> {
    let original = ReadAttributes::find(entry, TUPLE_ORIG)?;
    let reply = ReadAttributes::find(entry, TUPLE_REPLY)?;
    let protocol = ReadAttributes::find(original, TUPLE_PROTO)?;
    let port = ReadAttributes::find(protocol, PROTO_DST_PORT)
        .and_then(|port| port.try_into().ok())
        .map_or(0, u16::from_be_bytes);
    Some(Flow {
        protocol: *ReadAttributes::find(protocol, PROTO_NUM)?.first()?,
        destination: address(original, IP_V4_DST, IP_V6_DST)?,
        port,
        answered_by: address(reply, IP_V4_SRC, IP_V6_SRC)?,
    })
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let address = ReadAttributes::find(tuple, TUPLE_IP)?;
    match (
        ReadAttributes::find(address, v4),
        ReadAttributes::find(address, v6),
    ) {
        (Some(v4), _) => Some(IpAddr::from(<[u8; 4]>::try_from(v4).ok()?)),
        (None, Some(v6)) => Some(IpAddr::from(<[u8; 16]>::try_from(v6).ok()?)),
        (None, None) => None,
    }
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
