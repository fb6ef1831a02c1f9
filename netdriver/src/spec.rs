//! The public vocabulary: what callers ask for and what they are told. Data only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::SystemTime;

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use netdriver_ipam::AddressPool;

/// How to open [`Networks`](crate::Networks).
#[derive(Debug, Clone)]
pub struct Config {
    /// Persistent state: `<root>/<network id>.json`. Created when missing.
    pub root: PathBuf,
    /// Volatile state: `<run>/netns/<sandbox id>`, `<run>/sandboxes/<sandbox id>.json`. Created
    /// when missing.
    pub run: PathBuf,
    /// Where the DNS servers and port proxies run. Its threads must be in the daemon's network
    /// namespace.
    pub runtime: tokio::runtime::Handle,
    /// Pools that networks without a subnet take theirs from; empty means Docker's defaults.
    pub default_address_pools: Vec<AddressPool>,
    /// The interface of the `bridge` network; `None` chooses `muster0`, or a name of its own for
    /// every `run` directory but `/run/muster`.
    pub bridge_name: Option<String>,
    /// Address and subnet of the `bridge` network (dockerd's `--bip`); `None` takes one from the
    /// pools.
    pub bridge_address: Option<Ipv4Net>,
    /// MTU of networks that do not set `com.docker.network.driver.mtu`.
    pub mtu: u32,
    /// The host address `host-gateway` stands for; `None` means the gateway of the `bridge`
    /// network.
    pub host_gateway: Option<IpAddr>,
    /// Host address that ports are published on when a request names none.
    pub default_publish_address: Option<IpAddr>,
    /// The host's resolver configuration, normally `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The host's names, normally `/etc/hosts`: sandboxes in the host's namespace see them.
    pub hosts: PathBuf,
}

impl Config {
    /// Docker's defaults for everything but the directories and the runtime.
    pub fn new(
        root: impl Into<PathBuf>,
        run: impl Into<PathBuf>,
        runtime: tokio::runtime::Handle,
    ) -> Config {
        Config {
            root: root.into(),
            run: run.into(),
            runtime,
            default_address_pools: Vec::new(),
            bridge_name: None,
            bridge_address: None,
            mtu: 1500,
            host_gateway: None,
            default_publish_address: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
        }
    }
}

/// The drivers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge on this host, masqueraded to the outside.
    Bridge,
    /// The host's own network namespace.
    Host,
    /// VXLAN between hosts; made by [`Networks::ensure_overlay`](crate::Networks::ensure_overlay)
    /// alone.
    Overlay,
    /// Loopback only. Docker's API calls the driver `null`.
    #[serde(rename = "null")]
    None,
}

impl Driver {
    /// The driver's name in the Engine API: `bridge`, `host`, `overlay` or `null`.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Overlay => "overlay",
            Driver::None => "null",
        }
    }
}

/// One `IPAM.Config` entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// The subnet; `None` in a request takes one from the default pools.
    pub subnet: Option<IpNet>,
    /// Where dynamic addresses come from, inside the subnet.
    pub ip_range: Option<IpNet>,
    /// The gateway; `None` in a request takes the first address.
    pub gateway: Option<IpAddr>,
    /// Addresses never given to an endpoint, by their name.
    #[serde(default)]
    pub auxiliary_addresses: IndexMap<String, IpAddr>,
}

/// A network as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The name, unique on this daemon.
    pub name: String,
    /// `bridge` (also when empty), `host`, `null`; everything else is refused.
    pub driver: String,
    /// `IPAM.Driver`: `default` or empty; everything else is refused.
    #[serde(default)]
    pub ipam_driver: String,
    /// `IPAM.Options`: kept for inspection; none is known, so any is refused.
    #[serde(default)]
    pub ipam_options: IndexMap<String, String>,
    /// Subnets. At most one of each address family.
    #[serde(default)]
    pub ipam: Vec<IpamConfig>,
    /// No way out of the network and none in.
    #[serde(default)]
    pub internal: bool,
    /// Whether endpoints get an IPv4 address; `None` means yes.
    #[serde(default)]
    pub enable_ipv4: Option<bool>,
    /// Whether endpoints get an IPv6 address; `None` means no.
    #[serde(default)]
    pub enable_ipv6: Option<bool>,
    /// Driver options (`com.docker.network.…`). Unknown ones of the bridge driver's name space are
    /// refused.
    #[serde(default)]
    pub options: IndexMap<String, String>,
    /// Labels, kept for inspection.
    #[serde(default)]
    pub labels: IndexMap<String, String>,
    /// Kept for inspection: every network of this host can be attached to.
    #[serde(default)]
    pub attachable: bool,
}

impl NetworkSpec {
    /// A bridge network with defaults throughout.
    pub fn bridge(name: impl Into<String>) -> NetworkSpec {
        NetworkSpec {
            name: name.into(),
            driver: "bridge".into(),
            ipam_driver: String::new(),
            ipam_options: IndexMap::new(),
            ipam: Vec::new(),
            internal: false,
            enable_ipv4: None,
            enable_ipv6: None,
            options: IndexMap::new(),
            labels: IndexMap::new(),
            attachable: false,
        }
    }
}

/// A network as it is.
#[derive(Debug, Clone)]
pub struct NetworkInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// When it was created.
    pub created: SystemTime,
    /// Its driver.
    pub driver: Driver,
    /// The subnets with every value filled in.
    pub ipam: Vec<IpamConfig>,
    /// No way out and none in.
    pub internal: bool,
    /// Endpoints have an IPv4 address.
    pub enable_ipv4: bool,
    /// Endpoints have an IPv6 address.
    pub enable_ipv6: bool,
    /// As given.
    pub attachable: bool,
    /// Driver options as given, plus those Docker shows for the default bridge.
    pub options: IndexMap<String, String>,
    /// As given.
    pub labels: IndexMap<String, String>,
    /// One of `bridge`, `host`, `none`.
    pub predefined: bool,
    /// The endpoints connected, in order of connection.
    pub endpoints: Vec<ConnectedEndpoint>,
}

/// One line of a network's `Containers` map.
#[derive(Debug, Clone)]
pub struct ConnectedEndpoint {
    /// The sandbox (container) id.
    pub sandbox_id: String,
    /// The container's name.
    pub name: String,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// Which network namespace a sandbox stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxMode {
    /// A new namespace of its own.
    Private,
    /// The host's: nothing is created, only the membership in `host` is recorded.
    Host,
}

/// A sandbox as it is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The container's id (64 hexadecimal digits); names the sandbox.
    pub id: String,
    /// The container's name, without slash.
    pub name: String,
    /// The hostname, without domain; answered by DNS too. Empty: the short id alone.
    pub hostname: String,
    /// Own namespace or the host's.
    pub mode: SandboxMode,
    /// Upstream servers (`--dns`); empty means the host's.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// Search domains (`--dns-search`); empty means the host's, `.` alone means none.
    #[serde(default)]
    pub dns_search: Vec<String>,
    /// Resolver options (`--dns-option`); empty means the host's.
    #[serde(default)]
    pub dns_options: Vec<String>,
}

/// A sandbox as it is.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The container's id.
    pub id: String,
    /// The namespace to join: `<run>/netns/<id>`; `None` is the host's.
    pub netns: Option<PathBuf>,
    /// The endpoints in order of connection.
    pub endpoints: Vec<Endpoint>,
    /// The published ports with their final host ports.
    pub ports: Vec<PortBinding>,
}

/// How a sandbox shall be connected to a network.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The endpoint's id (64 hexadecimal digits); `None` makes one.
    pub endpoint_id: Option<String>,
    /// A static IPv4 address.
    pub ipv4_address: Option<Ipv4Addr>,
    /// A static IPv6 address.
    pub ipv6_address: Option<Ipv6Addr>,
    /// A MAC address; `None` derives one from the address.
    pub mac_address: Option<[u8; 6]>,
    /// Names that hold on this network alone.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Higher wins the default route; ties go to the network connected first.
    #[serde(default)]
    pub gw_priority: i32,
    /// Interface name; `None` means the next free `eth<n>`.
    pub ifname: Option<String>,
    /// `com.docker.network.endpoint.ifname` means `ifname`; any other is refused.
    #[serde(default)]
    pub driver_options: IndexMap<String, String>,
}

/// An endpoint as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The network's id.
    pub network_id: String,
    /// The network's name.
    pub network_name: String,
    /// Interface inside the sandbox; empty on `host` and `none`.
    pub ifname: String,
    /// Address and prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// Address and prefix length.
    pub ipv6: Option<Ipv6Net>,
    /// The network's gateway; `None` on internal networks.
    pub gateway: Option<Ipv4Addr>,
    /// The network's IPv6 gateway.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The interface's MAC address.
    pub mac: Option<[u8; 6]>,
    /// Every name DNS answers on this network for this endpoint: container name, aliases, short id,
    /// hostname (Docker's `DNSNames`).
    pub dns_names: Vec<String>,
    /// As asked for.
    pub gw_priority: i32,
}

/// Transport protocol of a published port. SCTP is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// A port to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Port inside the sandbox.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// `None` means every address of the host, IPv4 and IPv6.
    pub host_ip: Option<IpAddr>,
    /// `None` means any free port of 32768–60999; one or more ports mean the first free one.
    pub host_ports: Option<(u16, u16)>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// Port inside the sandbox.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// `0.0.0.0` and `::` stand for every address of the host of that family.
    pub host_ip: IpAddr,
    /// The port on the host.
    pub host_port: u16,
}

/// What [`Networks::reconcile`](crate::Networks::reconcile) found and did.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Sandboxes that live on.
    pub adopted: Vec<String>,
    /// Sandboxes removed because nobody uses them any more.
    pub removed: Vec<String>,
    /// What could not be restored or removed, by sandbox, network or interface.
    pub problems: Vec<String>,
}
