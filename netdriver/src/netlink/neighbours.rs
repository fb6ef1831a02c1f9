//! Forwarding entries of VXLAN devices (which host a MAC address is on) and permanent neighbour
//! entries (which MAC address an address has), and the kernel's news about them.
//!
//! Entries are written with `NLM_F_REPLACE` always: what another program left there never stands in
//! the way.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily as SocketFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

use super::{Netlink, Request, family, messages};
use crate::Result;

/// `RTMGRP_LINK` and `RTMGRP_NEIGH` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x4;
/// More news than this comes in several messages.
const NEWS_BYTES: usize = 65536;

/// A MAC address and the host it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Forwarding {
    pub(crate) mac: [u8; 6],
    pub(crate) vtep: IpAddr,
}

/// An address and its MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Resolution {
    pub(crate) address: IpAddr,
    pub(crate) mac: [u8; 6],
}

impl Request {
    pub(crate) fn set_forwarding(index: u32, entry: Forwarding) -> Request {
        let mut message = forwarding(index, entry.mac);
        message
            .attributes
            .push(NeighbourAttribute::Destination(entry.vtep.into()));
        Request::new(
            format!("forward frames for {} to {}", text(entry.mac), entry.vtep),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(message),
        )
    }

    /// Deletes all a VXLAN device has for a MAC address.
    pub(crate) fn delete_forwarding(index: u32, mac: [u8; 6]) -> Request {
        Request::new(
            format!("stop forwarding frames for {}", text(mac)),
            0,
            RouteNetlinkMessage::DelNeighbour(forwarding(index, mac)),
        )
    }

    /// Ties a MAC address to a bridge's port: frames from elsewhere do not make the bridge believe
    /// otherwise.
    pub(crate) fn pin_to_port(index: u32, mac: [u8; 6]) -> Request {
        let mut message = forwarding(index, mac);
        message.header.state = NeighbourState::Noarp;
        message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
        Request::new(
            format!("tie {} to its bridge port", text(mac)),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(message),
        )
    }

    pub(crate) fn unpin_from_port(index: u32, mac: [u8; 6]) -> Request {
        let mut message = forwarding(index, mac);
        message.header.flags = NeighbourFlags::Controller;
        Request::new(
            format!("free {} from its bridge port", text(mac)),
            0,
            RouteNetlinkMessage::DelNeighbour(message),
        )
    }

    pub(crate) fn set_neighbour(index: u32, entry: Resolution) -> Request {
        let mut message = resolution(index, entry.address);
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(entry.mac.to_vec()));
        Request::new(
            format!("set the neighbour entry of {}", entry.address),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(message),
        )
    }

    pub(crate) fn delete_neighbour(index: u32, address: IpAddr) -> Request {
        Request::new(
            format!("delete the neighbour entry of {address}"),
            0,
            RouteNetlinkMessage::DelNeighbour(resolution(index, address)),
        )
    }
}

impl Netlink {
    /// The forwarding entries of a VXLAN device, one for each destination.
    pub(crate) fn forwardings(&mut self, index: u32) -> Result<Vec<Forwarding>> {
        let found = self.dump_neighbours(AddressFamily::Bridge, "list forwarding entries")?;
        Ok(found
            .iter()
            .filter(|message| message.header.ifindex == index)
            .filter_map(into_forwarding)
            .collect())
    }

    /// The permanent neighbour entries of a device, both families.
    pub(crate) fn resolutions(&mut self, index: u32) -> Result<Vec<Resolution>> {
        let mut found = self.dump_neighbours(AddressFamily::Inet, "list neighbour entries")?;
        found.extend(self.dump_neighbours(AddressFamily::Inet6, "list neighbour entries")?);
        Ok(found
            .iter()
            .filter(|message| message.header.ifindex == index)
            .filter_map(into_resolution)
            .collect())
    }

    fn dump_neighbours(
        &mut self,
        family: AddressFamily,
        what: &str,
    ) -> Result<Vec<NeighbourMessage>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let answers = self.query(request, NLM_F_DUMP, what)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Some(message),
                _ => None,
            })
            .collect())
    }
}

/// One piece of news, as far as it is about what is kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Forwarding {
        index: u32,
        entry: Forwarding,
        there: bool,
    },
    /// `None`: no permanent entry any more.
    Resolution {
        index: u32,
        address: IpAddr,
        mac: Option<[u8; 6]>,
    },
    LinkGone {
        index: u32,
    },
}

/// The kernel's news about links and neighbours of one namespace.
pub(crate) struct Watcher {
    /// Any datagram socket can be received from as from one of these.
    socket: UnixDatagram,
}

impl Watcher {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<StdUnixDatagram> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 is `NETLINK_ROUTE`.
        let socket = socket_with(SocketFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(StdUnixDatagram::from(socket))
    }

    /// To be called in the context of a runtime.
    pub(crate) fn new(socket: StdUnixDatagram) -> io::Result<Watcher> {
        let socket = UnixDatagram::from_std(socket)?;
        Ok(Watcher { socket })
    }

    /// Waits for news. `ENOBUFS` when more came than fits.
    pub(crate) async fn next(&self) -> io::Result<Vec<Seen>> {
        loop {
            self.socket.readable().await?;
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Synchronous, so that the buffer is not in an idle task.
    fn read(&self) -> io::Result<Vec<Seen>> {
        let mut bytes = vec![0; NEWS_BYTES];
        let length = self.socket.try_recv(&mut bytes)?;
        let mut seen = Vec::new();
        for message in messages(&bytes[..length]) {
            let Ok(message) = message else { continue };
            let NetlinkPayload::InnerMessage(message) = message.into_parts().1 else {
                continue;
            };
            let there = matches!(message, RouteNetlinkMessage::NewNeighbour(_));
            match message {
                RouteNetlinkMessage::NewNeighbour(message)
                | RouteNetlinkMessage::DelNeighbour(message) => {
                    let index = message.header.ifindex;
                    let forwarding = into_forwarding(&message);
                    seen.extend(forwarding.map(|entry| Seen::Forwarding {
                        index,
                        entry,
                        there,
                    }));
                    let permanent = into_resolution(&message).filter(|_| there);
                    seen.extend(address(&message).map(|address| Seen::Resolution {
                        index,
                        address,
                        mac: permanent.map(|entry| entry.mac),
                    }));
                }
                RouteNetlinkMessage::DelLink(message) => seen.push(Seen::LinkGone {
                    index: message.header.index,
                }),
                _ => {}
            }
        }
        Ok(seen)
    }
}

fn forwarding(index: u32, mac: [u8; 6]) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.header.kind = RouteType::Unspec;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    message
}

fn resolution(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message
}

/// Entries of the device itself; those of the bridge it is a port of have no destination.
fn into_forwarding(message: &NeighbourMessage) -> Option<Forwarding> {
    if message.header.family != AddressFamily::Bridge {
        return None;
    }
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                Some(bytes.as_slice())
            }
            _ => None,
        })?;
    let vtep = match destination.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(destination).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(destination).ok()?),
    };
    Some(Forwarding {
        mac: mac(message)?,
        vtep,
    })
}

fn into_resolution(message: &NeighbourMessage) -> Option<Resolution> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    Some(Resolution {
        address: address(message)?,
        mac: mac(message)?,
    })
}

/// Of a neighbour entry of IP.
fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })
}

fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        })
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
