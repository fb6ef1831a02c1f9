//! VXLAN devices: what one is created with, and how it reads back.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};

use super::Request;

/// The identity of a VXLAN device: what cannot be changed once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) local: IpAddr,
    pub(crate) port: u16,
}

impl Vxlan {
    /// Of a device's description; `None` when it is no VXLAN device of the kind made here.
    pub(super) fn read(info: &[LinkInfo]) -> Option<Vxlan> {
        let data = info.iter().find_map(|part| match part {
            LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
            _ => None,
        })?;
        let (mut vni, mut local, mut port, mut learning, mut proxy) =
            (None, None, None, false, false);
        for part in data {
            match part {
                InfoVxlan::Id(id) => vni = Some(*id),
                InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
                InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
                InfoVxlan::Port(number) => port = Some(*number),
                InfoVxlan::Learning(on) => learning = *on,
                InfoVxlan::Proxy(on) => proxy = *on,
                _ => {}
            }
        }
        if learning || !proxy {
            return None;
        }
        Some(Vxlan {
            vni: vni?,
            local: local?,
            port: port?,
        })
    }
}

impl Request {
    /// A VXLAN device in another namespace. Its UDP socket stays in the namespace this request is
    /// sent from.
    ///
    /// It learns nothing from packets and answers ARP and neighbour solicitations out of its own
    /// table.
    pub(crate) fn create_vxlan(
        name: &str,
        vxlan: Vxlan,
        mtu: u32,
        netns: BorrowedFd<'_>,
    ) -> Request {
        let data = vec![
            InfoVxlan::Id(vxlan.vni),
            match vxlan.local {
                IpAddr::V4(address) => InfoVxlan::Local(address),
                IpAddr::V6(address) => InfoVxlan::Local6(address),
            },
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(false),
            InfoVxlan::Proxy(true),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(data)),
            ]),
        ];
        Request::new(
            format!("create VXLAN interface {name}"),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        )
    }
}
