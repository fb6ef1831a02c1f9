//! Links, addresses and routes through rtnetlink: a synchronous socket and the requests made with
//! it.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good. Requests are
//! sent in batches: the kernel works through them before `send` returns, so all answers are there
//! to be read and nothing ever waits.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Error, Result};

mod neighbours;
mod rules;
mod vxlan;

pub(crate) use neighbours::{Forwarding, Resolution, Seen, Watcher};
pub(crate) use rules::{PolicyRoute, PolicyRule};
pub(crate) use vxlan::Vxlan;

/// Requests sent at once: their acknowledgements must fit the socket's receive buffer.
const BATCH: usize = 64;

/// An rtnetlink socket of one network namespace.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A request with the words for its failure.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
}

/// An interface as far as this package cares.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) group: u32,
    pub(crate) is_bridge: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Vec<u8>,
    pub(crate) up: bool,
    /// Index of the bridge it is a port of; 0 is none.
    pub(crate) controller: u32,
    /// What a VXLAN device was created with.
    pub(crate) vxlan: Option<Vxlan>,
}

/// A veth pair to create: the host's end in a bridge, the other one in a sandbox.
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge_index: u32,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: [u8; 6],
    pub(crate) netns: BorrowedFd<'a>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Netlink> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(Error::kernel("open a route netlink socket"))?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Sends all requests at once. Every request is tried; the first failure is returned.
    pub(crate) fn execute(&mut self, requests: Vec<Request>) -> Result<()> {
        let first = self.sequence + 1;
        let mut buffer = Vec::new();
        let mut names = Vec::with_capacity(requests.len());
        for request in requests {
            self.append(&mut buffer, request.message, request.flags | NLM_F_ACK);
            names.push(request.what);
        }
        let failed = |index: usize, source| Error::Kernel {
            what: names[index].clone(),
            source,
        };
        self.socket
            .send(&buffer, 0)
            .map_err(|source| failed(0, source))?;
        let mut result = Ok(());
        let mut answered = 0;
        while answered < names.len() {
            let (bytes, _) = self
                .socket
                .recv_from_full()
                .map_err(|source| failed(answered, source))?;
            for message in messages(&bytes) {
                let (header, payload) = message
                    .map_err(|source| failed(answered, source))?
                    .into_parts();
                let Some(index) = header
                    .sequence_number
                    .checked_sub(first)
                    .map(|index| index as usize)
                else {
                    continue;
                };
                if let NetlinkPayload::Error(answer) = payload {
                    answered += 1;
                    if answer.code.is_some() && result.is_ok() && index < names.len() {
                        result = Err(failed(index, answer.to_io()));
                    }
                }
            }
        }
        result
    }

    /// As [`execute`](Self::execute), for any number of requests: in batches, each of which is tried;
    /// the first failure is returned.
    pub(crate) fn execute_all(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<()> {
        let mut requests = requests.into_iter();
        let mut result = Ok(());
        loop {
            let batch: Vec<_> = requests.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return result;
            }
            result = result.and(self.execute(batch));
        }
    }

    /// The interface of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let answer = self.query(
            RouteNetlinkMessage::GetLink(message),
            0,
            &format!("look up interface {name}"),
        );
        match answer {
            Ok(answers) => Ok(answers.into_iter().find_map(into_link)),
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.query(request, NLM_F_DUMP, "list interfaces")?;
        Ok(answers.into_iter().filter_map(into_link).collect())
    }

    /// Every network this host has an address in or a route to, default routes apart.
    pub(crate) fn networks_in_use(&mut self) -> Result<Vec<IpNet>> {
        let mut nets = Vec::new();
        let addresses = self.query(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
            "list addresses",
        )?;
        for answer in addresses {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                let prefix = message.header.prefix_len;
                nets.extend(
                    message
                        .attributes
                        .iter()
                        .filter_map(|attribute| match attribute {
                            AddressAttribute::Address(address) => IpNet::new(*address, prefix).ok(),
                            _ => None,
                        }),
                );
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            for answer in self.query(
                RouteNetlinkMessage::GetRoute(message),
                NLM_F_DUMP,
                "list routes",
            )? {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    nets.extend(destination(&message));
                }
            }
        }
        Ok(nets
            .into_iter()
            .map(|net| net.trunc())
            .filter(|net| net.prefix_len() > 0)
            .collect())
    }

    /// The largest packet that gets to an address in one piece as far as this host knows: the
    /// route's own limit, else its device's.
    pub(crate) fn path_mtu(&mut self, to: IpAddr) -> Result<u32> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to);
        message.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(to.into()));
        let answers = self.query(
            RouteNetlinkMessage::GetRoute(message),
            0,
            &format!("look up the route to {to}"),
        )?;
        let route = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Some(message),
            _ => None,
        });
        let mut limit = u32::MAX;
        for attribute in route.into_iter().flat_map(|route| route.attributes) {
            match attribute {
                RouteAttribute::Metrics(metrics) => {
                    for metric in metrics {
                        if let RouteMetric::Mtu(mtu) = metric {
                            limit = limit.min(mtu);
                        }
                    }
                }
                RouteAttribute::Oif(index) => {
                    let mut message = LinkMessage::default();
                    message.header.index = index;
                    let answers = self.query(
                        RouteNetlinkMessage::GetLink(message),
                        0,
                        &format!("look up interface {index}"),
                    )?;
                    let link = answers.into_iter().find_map(into_link);
                    limit = limit.min(link.map_or(u32::MAX, |link| link.mtu));
                }
                _ => {}
            }
        }
        Ok(limit)
    }

    /// The MTU of the interface that has this address; `None` when none has.
    pub(crate) fn mtu_of_address(&mut self, address: IpAddr) -> Result<Option<u32>> {
        let addresses = self.dump_addresses()?;
        let found = addresses.iter().find(|(_, net)| net.addr() == address);
        let Some((index, _)) = found else {
            return Ok(None);
        };
        let links = self.links()?;
        let link = links.into_iter().find(|link| link.index == *index);
        Ok(link.map(|link| link.mtu))
    }

    /// The addresses of an interface.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>> {
        let mut addresses = self.dump_addresses()?;
        addresses.retain(|(of, _)| *of == index);
        Ok(addresses.into_iter().map(|(_, net)| net).collect())
    }

    /// Every address of this namespace.
    pub(crate) fn own_addresses(&mut self) -> Result<HashSet<IpAddr>> {
        let addresses = self.dump_addresses()?;
        Ok(addresses.into_iter().map(|(_, net)| net.addr()).collect())
    }

    /// Interface index and address.
    fn dump_addresses(&mut self) -> Result<Vec<(u32, IpNet)>> {
        let answers = self.query(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
            "list addresses",
        )?;
        let own = |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                return None;
            };
            // On a point-to-point link `Address` is the other end's, and `Local` is given always in
            // IPv4, only there in IPv6.
            let (mut local, mut address) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(own) => local = Some(*own),
                    AddressAttribute::Address(own) => address = Some(*own),
                    _ => {}
                }
            }
            let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
            Some((message.header.index, net))
        };
        Ok(answers.into_iter().filter_map(own).collect())
    }

    fn query(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let failed = |source| Error::Kernel {
            what: what.into(),
            source,
        };
        let mut buffer = Vec::new();
        self.append(&mut buffer, message, flags);
        self.socket.send(&buffer, 0).map_err(failed)?;
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(failed)?;
            for message in messages(&bytes) {
                let (header, payload) = message.map_err(failed)?.into_parts();
                if header.sequence_number != self.sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => {
                        return Err(failed(answer.to_io()));
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    _ => {}
                }
            }
            if flags & NLM_F_DUMP == 0 {
                return Ok(found);
            }
        }
    }

    fn append(&mut self, buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }
}

/// The messages of one datagram.
fn messages(bytes: &[u8]) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
            Ok(message) => {
                let length = (message.header.length as usize).max(16).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                Some(Ok(message))
            }
            Err(error) => {
                rest = &[];
                Some(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    error.to_string(),
                )))
            }
        }
    })
}

fn into_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        group: 0,
        is_bridge: false,
        mtu: 0,
        mac: Vec::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        controller: 0,
        vxlan: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Controller(index) => link.controller = index,
            LinkAttribute::LinkInfo(info) => {
                link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge));
                link.vxlan = Vxlan::read(&info);
            }
            _ => {}
        }
    }
    Some(link)
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    if matches!(
        message.header.kind,
        RouteType::Multicast | RouteType::Broadcast
    ) {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })
        .and_then(|address| IpNet::new(address, message.header.destination_prefix_length).ok())
}

impl Request {
    fn new(what: impl Into<String>, flags: u16, message: RouteNetlinkMessage) -> Request {
        Request {
            message,
            flags,
            what: what.into(),
        }
    }

    /// A new bridge. Its MAC is fixed, or it would change with its ports.
    pub(crate) fn create_bridge(name: &str, mac: [u8; 6], mtu: u32, group: u32) -> Request {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Group(group),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        Request::new(
            format!("create bridge {name}"),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// Writes an interface's alias and group, and takes it up.
    pub(crate) fn mark_and_raise(name: &str, alias: &str, group: u32) -> Request {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::IfAlias(alias.into()),
            LinkAttribute::Group(group),
        ];
        Request::new(
            format!("configure interface {name}"),
            0,
            RouteNetlinkMessage::SetLink(message),
        )
    }

    /// Sets what packets an interface sends at most.
    pub(crate) fn set_mtu(name: &str, mtu: u32) -> Request {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::Mtu(mtu)];
        Request::new(
            format!("set the MTU of interface {name} to {mtu}"),
            0,
            RouteNetlinkMessage::SetLink(message),
        )
    }

    /// Makes an interface a port of a bridge and takes it up.
    pub(crate) fn enslave_and_raise(name: &str, bridge_index: u32) -> Request {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Controller(bridge_index),
        ];
        Request::new(
            format!("make interface {name} a port of a bridge"),
            0,
            RouteNetlinkMessage::SetLink(message),
        )
    }

    /// Takes an interface up.
    pub(crate) fn raise(index: u32) -> Request {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        Request::new(
            format!("take interface {index} up"),
            0,
            RouteNetlinkMessage::SetLink(message),
        )
    }

    /// A veth pair in one message: the peer is born in its namespace under its final name, for
    /// moving and renaming an interface waits for RCU grace periods (5–20 ms). The peer cannot be
    /// created up.
    pub(crate) fn create_veth(veth: &Veth<'_>) -> Request {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer_name.into()),
            LinkAttribute::Address(veth.peer_mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::NetNsFd(veth.netns.as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(veth.host_name.into()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge_index),
            LinkAttribute::Group(veth.group),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        Request::new(
            format!("create interface {} ({})", veth.peer_name, veth.host_name),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// Sets what a bridge port may do: `isolated` ports exchange no frames with each other,
    /// `hairpin` ones get frames back that the bridge sends where they came from.
    pub(crate) fn configure_port(name: &str, isolated: bool, hairpin: bool) -> Request {
        let options = vec![
            InfoBridgePort::Isolated(isolated),
            InfoBridgePort::HairpinMode(hairpin),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(options)),
            ]),
        ];
        Request::new(
            format!("configure bridge port {name}"),
            0,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// A bridge port that passes nothing any more. Unlike taking the interface down or deleting it,
    /// this waits for nothing.
    pub(crate) fn close_port(name: &str) -> Request {
        // The state alone is not enough: the bridge opens a port again when it hears that the link
        // has come up, which can be a second late.
        let closed = vec![
            InfoBridgePort::State(BridgePortState::Disabled),
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
            InfoBridgePort::MulticastFlood(false),
            InfoBridgePort::BroadcastFlood(false),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(closed)),
            ]),
        ];
        Request::new(
            format!("close bridge port {name}"),
            0,
            RouteNetlinkMessage::NewLink(message),
        )
    }

    /// Deletes an interface by name.
    pub(crate) fn delete_link(name: &str) -> Request {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        Request::new(
            format!("delete interface {name}"),
            0,
            RouteNetlinkMessage::DelLink(message),
        )
    }

    /// Deletes every interface of a group in one step.
    pub(crate) fn delete_group(group: u32) -> Request {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Group(group)];
        Request::new(
            format!("delete interfaces of group {group}"),
            0,
            RouteNetlinkMessage::DelLink(message),
        )
    }

    /// An address, usable at once: IPv6 without duplicate address detection.
    pub(crate) fn add_address(index: u32, net: IpNet) -> Request {
        let mut message = AddressMessage::default();
        message.header.family = family(net.addr());
        message.header.prefix_len = net.prefix_len();
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(net.addr()),
            AddressAttribute::Address(net.addr()),
        ];
        match net {
            IpNet::V4(net) => message
                .attributes
                .push(AddressAttribute::Broadcast(net.broadcast())),
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        Request::new(
            format!("add address {net}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        )
    }

    /// The default route of the gateway's family, replacing another one.
    pub(crate) fn set_default_route(index: u32, gateway: IpAddr) -> Request {
        let mut message = default_route(gateway);
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message
            .attributes
            .push(RouteAttribute::Gateway(gateway.into()));
        message.attributes.push(RouteAttribute::Oif(index));
        Request::new(
            format!("set default route via {gateway}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewRoute(message),
        )
    }
}

fn default_route(gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.scope = RouteScope::NoWhere;
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The MAC address that belongs to an address: an address that changes hands keeps its MAC, and
/// neighbours' caches stay right.
pub(crate) fn mac_of(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> [u8; 6] {
    let tail: [u8; 4] = match (ipv4, ipv6) {
        (Some(v4), _) => v4.octets(),
        (None, Some(v6)) => v6.octets()[12..].try_into().expect("16 minus 12 octets"),
        (None, None) => [0; 4],
    };
    [0x02, 0x42, tail[0], tail[1], tail[2], tail[3]]
}
