//! Ports published on every host: this host's interface on the ingress network, the ports it holds,
//! and which backends their connections go to.
//!
//! Connections are translated to a backend, on this host if there is one, and sent to it through the
//! overlay with the client's address; [`returns`](super::returns) brings the answers back here.
//! Connections to `::1`, and TCP ones of a family the ingress network does not have, are relayed to
//! this host's own address on that network, and so spread like all others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use ipnet::IpNet;

use super::flows;
use super::returns::{Mesh, too_wide};
use super::spec::{Backend, BackendState, Ingress, IngressNode, IngressPort, Overlay};
use super::{Live, endpoint_mac, slots};
use crate::conntrack;
use crate::firewall::ingress::{SpreadPort, elements};
use crate::firewall::message::Nfnetlink;
use crate::netlink::{Netlink, Request};
use crate::netns::{Netns, has_ipv6, read_sysctl, write_sysctl};
use crate::networks::Networks;
use crate::ports::HeldPort;
use crate::records::NetworkRecord;
use crate::relay::Relay;
use crate::spec::{PortBinding, Protocol};
use crate::{Error, Result};

/// This host's interface on the ingress network, on a host with one daemon.
const INTERFACE: &str = "muster_ingress";
/// Its other end, in the overlay's namespace.
const PORT: &str = "ingress";
/// Whose ports these are, for the error message of whoever wants one.
const HOLDER: &str = "a port published by the cluster";

/// The ingress of this host.
pub(crate) struct IngressState {
    wanted: Option<Ingress>,
    held: BTreeMap<Key, Vec<Holding>>,
    /// What flows were checked against last.
    served: Served,
}

/// A published port.
type Key = flows::Port;

/// What holds one port of one family.
struct Holding {
    binding: PortBinding,
    _keeper: Keeper,
}

enum Keeper {
    Socket(#[expect(dead_code, reason = "held until the port is given back")] OwnedFd),
    Relay(#[expect(dead_code, reason = "runs until the port is given back")] Relay),
}

/// By published port.
type Served = flows::Served<Key>;

impl IngressState {
    pub(crate) fn new(wanted: Option<Ingress>) -> IngressState {
        IngressState {
            wanted,
            held: BTreeMap::new(),
            served: Served::default(),
        }
    }

    /// Whether ports are published through this network.
    pub(crate) fn uses(&self, network: &str) -> bool {
        self.wanted
            .as_ref()
            .is_some_and(|ingress| ingress.network == network)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }
}

impl Networks {
    /// Says which ports are published on this host for backends anywhere: the complete list; `None`
    /// takes everything back. Connections keep their clients' address; those from this host's own
    /// containers and from 127.0.0.1 and `::1` carry this host's on the ingress network.
    ///
    /// When this returns `Ok`, no new connection and no UDP packet arriving at this host goes to a
    /// backend that is draining or gone. The list holds ports that another program has on this host
    /// ([`Error::PortAllocated`], [`Error::PortBind`]); all others work, and those are tried again at
    /// the next call and by [`repair`](Self::repair).
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Invalid`], [`Error::ForeignInterface`], the kernel's.
    pub fn set_ingress(&self, ingress: Option<Ingress>) -> Result<Vec<Error>> {
        let mut state = self.inner.ingress.lock();
        if let Some(ingress) = &ingress {
            let overlay = self.inner.live(&ingress.network)?.record.overlay.clone();
            check(&overlay, ingress)?;
        }
        let moved = match (&state.wanted, &ingress) {
            (Some(old), Some(new)) => old.network != new.network,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if moved {
            self.withdraw(&mut state)?;
        }
        self.inner.records.write_ingress(ingress.as_ref())?;
        state.wanted = ingress;
        self.apply_ingress(&mut state)
    }

    /// Brings host and sandboxes to what is wanted. Returns the ports that could not be had.
    pub(super) fn apply_ingress(&self, state: &mut IngressState) -> Result<Vec<Error>> {
        let Some(ingress) = state.wanted.clone() else {
            return Ok(Vec::new());
        };
        let inner = &self.inner;
        let name = inner.interface_name(INTERFACE, "mgi-");
        let mesh_changed = {
            let mut live = inner.live(&ingress.network)?;
            let overlay = live.record.overlay.clone();
            inner.enable_forwarding(&NetworkRecord::from(&overlay))?;
            self.ensure_interface(&mut live, &name, &ingress.own)?;
            let mesh = Mesh::new(&overlay, &ingress)?;
            let same = live.mesh.as_ref().is_some_and(|old| old.is_same(&mesh));
            if !same {
                live.mesh = Some(mesh);
            }
            !same
        };
        // Sandboxes must know the way back before the first connection comes.
        if mesh_changed {
            self.refresh_sandboxes(&ingress.network)?;
        }
        let problems = self.hold_ports(state, &ingress);
        let ports = self.spread_ports(state, &ingress);
        inner.firewall.lock().set_ingress(elements(&name, &ports))?;
        self.forget_stale_flows(state, &ingress)?;
        Ok(problems)
    }

    /// At start-up, before sandboxes are adopted: the way back is what it was.
    pub(super) fn adopt_mesh(&self) -> Result<()> {
        let state = self.inner.ingress.lock();
        if let Some(ingress) = &state.wanted {
            let mut live = self.inner.live(&ingress.network)?;
            live.mesh = Some(Mesh::new(&live.record.overlay, ingress)?);
        }
        Ok(())
    }

    /// For the table that is installed at start-up: what would be there.
    pub(crate) fn recorded_ingress(&self) {
        let state = self.inner.ingress.lock();
        let Some(ingress) = &state.wanted else { return };
        let ports: Vec<_> = ingress
            .ports
            .iter()
            .map(|port| self.spread_port(ingress, port))
            .collect();
        let name = self.inner.interface_name(INTERFACE, "mgi-");
        self.inner
            .firewall
            .lock()
            .prepare_ingress(elements(&name, &ports));
    }

    /// Takes everything back. Goes on after a failure and returns the first.
    pub(super) fn withdraw(&self, state: &mut IngressState) -> Result<()> {
        let inner = &self.inner;
        let Some(ingress) = state.wanted.clone() else {
            return Ok(());
        };
        let none = Ingress {
            ports: Vec::new(),
            ..ingress.clone()
        };
        let mut result = inner.firewall.lock().set_ingress(BTreeSet::new());
        result = result.and(self.forget_stale_flows(state, &none));
        for (_, holdings) in std::mem::take(&mut state.held) {
            let bindings = holdings.iter().map(|holding| &holding.binding);
            inner.ports.lock().release(bindings);
        }
        result = result.and(self.remove_interface());
        if let Ok(mut live) = inner.live(&ingress.network) {
            live.mesh = None;
            drop(live);
            result = result.and(self.refresh_sandboxes(&ingress.network));
        }
        result
    }

    /// The host's end of a pair into the overlay.
    fn ensure_interface(&self, live: &mut Live, name: &str, own: &IngressNode) -> Result<()> {
        let overlay = live.record.overlay.clone();
        let mut netlink = Netlink::open()?;
        let alias = format!(
            "{} {} {:?} {:?}",
            self.ingress_alias(),
            overlay.vni,
            own.ipv4,
            own.ipv6
        );
        let addresses = own_networks(&overlay, own);
        let mac = endpoint_mac(own.ipv4, own.ipv6);
        match netlink.link(name)? {
            Some(link)
                if link.alias == alias && link.up && link.mac == mac && live.has_port(PORT)? =>
            {
                if link.mtu != live.mtu {
                    netlink.execute(vec![Request::set_mtu(name, live.mtu)])?;
                }
                live.pin(PORT, mac)?;
                let present = netlink.addresses(link.index)?;
                let missing = addresses.iter().filter(|net| !present.contains(net));
                return netlink
                    .execute_all(missing.map(|net| Request::add_address(link.index, *net)));
            }
            // Of other addresses, or half made: start afresh.
            Some(link)
                if link.alias.is_empty() || link.alias.starts_with(&self.ingress_alias()) =>
            {
                netlink.execute(vec![Request::delete_link(name)])?;
            }
            Some(_) => return Err(Error::ForeignInterface(name.to_owned())),
            None => {}
        }
        live.detach(PORT)?;
        let host = Netns::open(Path::new("/proc/thread-self/ns/net"))?;
        live.attach(&host, PORT, name, mac)?;
        let finish = |netlink: &mut Netlink| {
            let Some(link) = netlink.link(name)? else {
                let source = std::io::Error::from_raw_os_error(libc::ENODEV);
                return Err(Error::kernel(format!("find interface {name}"))(source));
            };
            // Connections of this host's own to 127.0.0.1 leave through it; the firewall's guard chain
            // closes the way in.
            write_sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
            let disable_ipv6 = format!("ipv6/conf/{name}/disable_ipv6");
            if read_sysctl(&disable_ipv6).is_some() {
                write_sysctl(&disable_ipv6, if own.ipv6.is_some() { "0" } else { "1" })?;
            }
            let add = addresses
                .iter()
                .map(|net| Request::add_address(link.index, *net));
            let mut requests: Vec<_> = add.collect();
            requests.push(Request::mark_and_raise(name, &alias, 0));
            netlink.execute(requests)
        };
        finish(&mut netlink).inspect_err(|_| {
            // The first error is the one to report.
            let _ = netlink.execute(vec![Request::delete_link(name)]);
        })
    }

    /// Removes the host's interface on the ingress network if it is ours.
    pub(super) fn remove_interface(&self) -> Result<()> {
        let name = self.inner.interface_name(INTERFACE, "mgi-");
        let mut netlink = Netlink::open()?;
        match netlink.link(&name)? {
            Some(link) if link.alias.starts_with(&self.ingress_alias()) => {
                netlink.execute(vec![Request::delete_link(&name)])
            }
            _ => Ok(()),
        }
    }

    /// Brings the host's interface to the overlay's MTU.
    pub(super) fn push_ingress_mtu(&self, network: &str) -> Result<()> {
        let state = self.inner.ingress.lock();
        if !state.uses(network) {
            return Ok(());
        }
        let mtu = self.inner.live(network)?.mtu;
        let name = self.inner.interface_name(INTERFACE, "mgi-");
        let mut netlink = Netlink::open()?;
        match netlink.link(&name)? {
            Some(link) if link.mtu != mtu => netlink.execute(vec![Request::set_mtu(&name, mtu)]),
            _ => Ok(()),
        }
    }

    fn ingress_alias(&self) -> String {
        format!("{} ingress", self.inner.alias)
    }

    /// Takes ports that are new and gives back those that are gone; returns what another program
    /// has.
    fn hold_ports(&self, state: &mut IngressState, ingress: &Ingress) -> Vec<Error> {
        let wanted: BTreeSet<Key> = ingress
            .ports
            .iter()
            .map(|port| (port.protocol, port.published))
            .collect();
        let gone: Vec<Key> = state
            .held
            .keys()
            .filter(|key| !wanted.contains(key))
            .copied()
            .collect();
        for key in gone {
            let holdings = state.held.remove(&key).unwrap_or_default();
            let bindings = holdings.iter().map(|holding| &holding.binding);
            self.inner.ports.lock().release(bindings);
        }
        let mut problems = Vec::new();
        for port in &ingress.ports {
            let key = (port.protocol, port.published);
            if state.held.contains_key(&key) {
                continue;
            }
            match self.hold_port(ingress, port) {
                Ok(holdings) => {
                    state.held.insert(key, holdings);
                }
                Err(error) => problems.push(error),
            }
        }
        problems
    }

    fn hold_port(&self, ingress: &Ingress, port: &IngressPort) -> Result<Vec<Holding>> {
        let any = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let mut taken: Vec<HeldPort> = Vec::new();
        for host_ip in any {
            let binding = PortBinding {
                container_port: port.target,
                protocol: port.protocol,
                host_ip,
                host_port: port.published,
            };
            let result = self.inner.ports.lock().take(HOLDER, &binding);
            match result {
                Ok(held) => taken.push(held),
                // A host without IPv6.
                Err(Error::PortBind { .. }) if host_ip.is_ipv6() => {}
                Err(error) => {
                    let bindings = taken.iter().map(|held| &held.binding);
                    self.inner.ports.lock().release(bindings);
                    return Err(error);
                }
            }
        }
        let keep = |held: HeldPort| {
            let HeldPort { binding, socket } = held;
            let own = ingress.own.address(false).or(ingress.own.address(true));
            let keeper = match own {
                Some(own) if is_relayed(port.protocol, &ingress.own, binding.host_ip.is_ipv6()) => {
                    let target = SocketAddr::new(own, port.published);
                    let relay = Relay::start(&self.inner.config.runtime, socket, target);
                    Keeper::Relay(
                        relay.map_err(Error::kernel(format!("relay port {}", port.published)))?,
                    )
                }
                _ => Keeper::Socket(socket),
            };
            Ok(Holding {
                binding,
                _keeper: keeper,
            })
        };
        taken.into_iter().map(keep).collect()
    }

    fn spread_ports(&self, state: &IngressState, ingress: &Ingress) -> Vec<SpreadPort> {
        let ours = |port: &&IngressPort| state.held.contains_key(&(port.protocol, port.published));
        let held = ingress.ports.iter().filter(ours);
        held.map(|port| self.spread_port(ingress, port)).collect()
    }

    fn spread_port(&self, ingress: &Ingress, port: &IngressPort) -> SpreadPort {
        let local = self.local_addresses(&ingress.network);
        let slots = |v6| {
            let ready: Vec<IpAddr> = ready(&port.backends)
                .filter_map(|backend| backend.address(v6))
                .collect();
            let here: Vec<IpAddr> = ready
                .iter()
                .filter(|one| local.contains(one))
                .copied()
                .collect();
            slots::fill(if here.is_empty() { &ready } else { &here })
        };
        let is_refused = |v6| {
            // `::1` alone is relayed on a network that has IPv6, and exempt in the filter.
            ingress.own.address(v6).is_some() || port.protocol == Protocol::Udp
        };
        SpreadPort {
            published: port.published,
            protocol: port.protocol,
            target: port.target,
            slots4: slots(false),
            slots6: slots(true),
            refuse4: is_refused(false),
            refuse6: is_refused(true),
        }
    }

    /// Addresses of this host's endpoints on a network.
    fn local_addresses(&self, network: &str) -> HashSet<IpAddr> {
        let state = self.inner.state.lock();
        let endpoints = state
            .sandboxes
            .values()
            .flat_map(|entry| &entry.record.endpoints);
        endpoints
            .map(|record| &record.endpoint)
            .filter(|endpoint| endpoint.network_id == network)
            .flat_map(|endpoint| {
                let ipv4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
                ipv4.into_iter()
                    .chain(endpoint.ipv6.map(|net| IpAddr::V6(net.addr())))
            })
            .collect()
    }

    /// Ends flows to backends that may not answer any more.
    fn forget_stale_flows(&self, state: &mut IngressState, ingress: &Ingress) -> Result<()> {
        let mut now = Served::default();
        for port in &ingress.ports {
            let key = (port.protocol, port.published);
            now.add(key, &port.backends, Backend::addresses);
        }
        if !now.may_have_stale(&state.served) {
            state.served = now;
            return Ok(());
        }
        let subnets: Vec<IpNet> = match self.inner.live(&ingress.network) {
            Ok(live) => live
                .record
                .overlay
                .ipam
                .iter()
                .filter_map(|config| config.subnet)
                .collect(),
            Err(_) => Vec::new(),
        };
        let own = Netlink::open()?.own_addresses()?;
        let before = &state.served;
        Nfnetlink::open()
            .and_then(|mut socket| {
                conntrack::forget_matching(&mut socket, |flow| {
                    flows::is_stale_at_port(flow, before, &now, &subnets, &own)
                })
            })
            .map_err(Error::kernel("forget connections of published ports"))?;
        state.served = now;
        Ok(())
    }
}

fn check(overlay: &Overlay, ingress: &Ingress) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let subnets: Vec<IpNet> = overlay
        .ipam
        .iter()
        .filter_map(|config| config.subnet)
        .collect();
    if let Some(wide) = subnets.iter().find(|subnet| too_wide(subnet)) {
        let text = format!("ingress network with subnet {wide}: /12 is the widest");
        return Err(Error::Unsupported(text));
    }
    for node in ingress.nodes.iter().chain([&ingress.own]) {
        let addresses = [node.address(false), node.address(true)];
        for address in addresses.into_iter().flatten() {
            if !subnets.iter().any(|subnet| subnet.contains(&address)) {
                let name = &overlay.name;
                return invalid(format!(
                    "network {name}: {address} is not in one of its subnets"
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for port in &ingress.ports {
        let IngressPort {
            published,
            target,
            protocol,
            ..
        } = port;
        if *published == 0 || *target == 0 || !seen.insert((*protocol, *published)) {
            let protocol = protocol.name();
            return invalid(format!(
                "published port {published}:{target}/{protocol}: ports are 1 to 65535, each given once"
            ));
        }
    }
    Ok(())
}

/// TCP over IPv6, for `::1`; and TCP of a family without addresses on the network.
fn is_relayed(protocol: Protocol, own: &IngressNode, v6: bool) -> bool {
    protocol == Protocol::Tcp && (v6 || own.address(v6).is_none())
}

fn ready(backends: &[Backend]) -> impl Iterator<Item = &Backend> {
    backends
        .iter()
        .filter(|backend| backend.state == BackendState::Ready)
}

fn own_networks(overlay: &Overlay, own: &IngressNode) -> Vec<IpNet> {
    let subnets = overlay.ipam.iter().filter_map(|config| config.subnet);
    subnets
        .filter(|subnet| matches!(subnet, IpNet::V4(_)) || has_ipv6())
        .filter_map(|subnet| {
            let address = own.address(matches!(subnet, IpNet::V6(_)))?;
            IpNet::new(address, subnet.prefix_len()).ok()
        })
        .collect()
}
