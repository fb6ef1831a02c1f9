//! The public vocabulary of networks that span hosts: what a cluster's managers decided and this
//! host carries out. Data only. The driver hears of endpoints, names, virtual addresses and
//! backends, never of services, tasks or nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::spec::{IpamConfig, Protocol};

/// IANA's port for VXLAN, and Docker's default `--data-path-port`.
pub const VXLAN_PORT: u16 = 4789;

/// How this host's packets reach the other hosts of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPath {
    /// This host's VTEP (`--data-path-addr`); an address of an interface of this host. Its family
    /// is that of every peer's.
    pub address: IpAddr,
    /// UDP port of VXLAN on all hosts (`--data-path-port`), normally [`VXLAN_PORT`].
    pub port: u16,
}

/// An overlay network as the managers allocated it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The network's id; letters, digits, `-` and `_`.
    pub id: String,
    /// The network's name; the id tells networks of the same name apart.
    pub name: String,
    /// When the network was created in the cluster.
    pub created: SystemTime,
    /// VXLAN network identifier, 1 to 16777215, unique in the cluster.
    pub vni: u32,
    /// Subnets and gateways as allocated: each with a subnet, at most one of each family.
    pub ipam: Vec<IpamConfig>,
    /// How packets get to other hosts.
    pub data_path: DataPath,
    /// `None`: what the way to the peers allows.
    pub mtu: Option<u32>,
    /// Endpoints get no way out of the network.
    pub internal: bool,
    /// For inspection.
    pub attachable: bool,
    /// For inspection: the routing mesh's network.
    pub ingress: bool,
    /// For inspection.
    #[serde(default)]
    pub options: IndexMap<String, String>,
    /// For inspection.
    #[serde(default)]
    pub labels: IndexMap<String, String>,
}

/// An endpoint on another host: where its frames have to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Peer {
    /// Its IPv4 address on the network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address on the network.
    pub ipv6: Option<Ipv6Addr>,
    /// Its MAC address; `None` is the one derived from the addresses ([`endpoint_mac`]).
    pub mac: Option<[u8; 6]>,
    /// Address of the host it is on (that host's [`DataPath::address`]).
    pub vtep: IpAddr,
}

/// The MAC address an endpoint with these addresses has unless it is given another: `02:42:` and
/// the IPv4 address, else the end of the IPv6 address.
pub fn endpoint_mac(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> [u8; 6] {
    crate::netlink::mac_of(ipv4, ipv6)
}

/// What [`Networks::set_peers`](crate::Networks::set_peers) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeersSet {
    /// The kernel has exactly these peers.
    Applied,
    /// A later version was applied before; nothing was changed.
    Stale,
}

/// Whether a backend gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It does.
    Ready,
    /// It gets none and has no name any more; connections it has go on.
    Draining,
}

/// An endpoint that connections are spread over. One that is starting or gone is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Names of this endpoint alone, the first of which its addresses' pointers give: the task's
    /// name, the container's short id.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its IPv4 address on the network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address on the network.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether it gets new connections.
    pub state: BackendState,
}

impl Backend {
    /// Its addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        ipv4.into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    pub(crate) fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses().find(|address| address.is_ipv6() == v6)
    }
}

/// A name with virtual addresses (or none: DNS round robin) in front of backends, on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balanced {
    /// Names that stand for all of it: they give the virtual addresses, or, without any, every ready
    /// backend in random order.
    pub names: Vec<String>,
    /// Names that always give every ready backend in random order (`tasks.<name>`).
    #[serde(default)]
    pub backend_names: Vec<String>,
    /// Virtual addresses, at most one of each family. A connection from a sandbox on the network to
    /// any port of one goes to the same port of a random ready backend.
    #[serde(default)]
    pub vips: Vec<IpAddr>,
    /// All but those starting and gone.
    pub backends: Vec<Backend>,
}

/// Ports published on every host, and how this host reaches the backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Id of the overlay that carries the connections, made by
    /// [`ensure_overlay`](crate::Networks::ensure_overlay) before.
    pub network: String,
    /// This host's own addresses on it.
    pub own: IngressNode,
    /// The addresses of all hosts on it, this one's may be among them. Each must also be a
    /// [`Peer`] of the network, or backends cannot answer.
    pub nodes: Vec<IngressNode>,
    /// The ports.
    pub ports: Vec<IngressPort>,
}

/// A host's addresses on the ingress network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IngressNode {
    /// On a network with an IPv4 subnet.
    pub ipv4: Option<Ipv4Addr>,
    /// On a network with an IPv6 subnet.
    pub ipv6: Option<Ipv6Addr>,
}

impl IngressNode {
    pub(crate) fn address(&self, v6: bool) -> Option<IpAddr> {
        if v6 {
            self.ipv6.map(IpAddr::V6)
        } else {
            self.ipv4.map(IpAddr::V4)
        }
    }
}

/// One port published on every host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressPort {
    /// The port on the hosts.
    pub published: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port of the backends.
    pub target: u16,
    /// With their addresses on the ingress network. Ready ones on this host are preferred.
    pub backends: Vec<Backend>,
}

/// An overlay as it is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayStatus {
    /// VXLAN network identifier.
    pub vni: u32,
    /// What interfaces on the network may send at once, in bytes.
    pub mtu: u32,
    /// Version of the peers applied last; `None` before the first.
    pub peers_version: Option<u64>,
    /// How many peers are programmed.
    pub peers: usize,
    /// How often something that others changed in the kernel was put right.
    pub repairs: u64,
}

/// What [`Networks::repair`](crate::Networks::repair) found and did.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was not as it should be and is again, each worded for a log.
    pub repaired: Vec<String>,
    /// What could not be put right.
    pub problems: Vec<crate::Error>,
}
