//! One overlay in the kernel: a namespace of its own with a bridge, a VXLAN device among its ports,
//! and that device's forwarding and neighbour entries.
//!
//! ```text
//!   sandbox           <run>/overlays/<network id>.net             host
//!   eth0 ───────────── veth… ┐
//!   eth0 ───────────── veth… ┼ br0 ─ vx<vni> ····················· UDP socket ─── other hosts
//!                     ingress ┘                                    muster_ingress (published ports)
//! ```
//!
//! The VXLAN device is born in the overlay's namespace while its socket belongs to the host's, so
//! that no name of ours can clash there. Everything is found again by name and identity: what is
//! right is kept, what is not is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::returns::Mesh;
use super::spec::{Balanced, DataPath, Overlay, Peer};
use super::watch::{Expected, Watch};
use super::{endpoint_mac, slots};
use crate::firewall::Elements;
use crate::netlink::{Forwarding, Netlink, Request, Resolution, Veth, Vxlan, Watcher};
use crate::netns::{Netns, has_ipv6, read_sysctl, write_sysctl};
use crate::overlay::BackendState;
use crate::records::OverlayRecord;
use crate::{Error, Result};

const BRIDGE: &str = "br0";

/// Bytes VXLAN puts in front of a packet: Ethernet, VXLAN, UDP and IP headers.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;
/// IPv6 does not work below; what is larger than the way allows is sent in fragments then.
const MTU_MIN_V6: u32 = 1280;
/// Nor IPv4.
const MTU_MIN_V4: u32 = 68;

/// An overlay of this host.
pub(crate) struct Live {
    pub(super) record: OverlayRecord,
    netns: Option<Arc<Netns>>,
    /// Inside the namespace.
    netlink: Option<Netlink>,
    bridge: u32,
    pub(super) mtu: u32,
    /// Of the virtual addresses, for the sandboxes' tables.
    pub(super) elements: Arc<Elements>,
    /// Set while ports are published through this network.
    pub(super) mesh: Option<Mesh>,
    /// What the kernel shall have; shared with whoever listens to the kernel's news.
    expected: Arc<Mutex<Expected>>,
    pub(super) watch: Option<Watch>,
    pub(super) repairs: u64,
    /// Set once it is gone; whoever waited for the lock finds out here.
    pub(super) removed: bool,
}

impl Live {
    /// As recorded; touches nothing yet.
    pub(crate) fn new(record: OverlayRecord) -> Live {
        let elements = Arc::new(elements(&record.balanced));
        Live {
            record,
            netns: None,
            netlink: None,
            bridge: 0,
            mtu: 0,
            elements,
            mesh: None,
            expected: Arc::default(),
            watch: None,
            repairs: 0,
            removed: false,
        }
    }

    /// Makes what is missing or wrong; says what that was. `path` is where the namespace is mounted.
    pub(super) fn ensure_devices(&mut self, path: &Path) -> Result<Vec<String>> {
        let mut made = Vec::new();
        let netns = match &self.netns {
            Some(netns) => netns.clone(),
            None => {
                let netns = match Netns::open(path) {
                    Ok(netns) => netns,
                    Err(_) => {
                        made.push("namespace".to_owned());
                        Netns::create(path, prepare_namespace)?.0
                    }
                };
                self.netlink = Some(netns.enter(Netlink::open)?);
                self.netns.insert(Arc::new(netns)).clone()
            }
        };
        let mut host = Netlink::open()?;
        self.mtu = path_mtu(&mut host, &self.record)?;
        let mtu = self.mtu;
        let inside = self.inside()?;
        let bridge = match inside.link(BRIDGE)? {
            Some(link) if link.is_bridge && link.up => link,
            found => {
                if found.is_none() {
                    inside.execute(vec![Request::create_bridge(
                        BRIDGE,
                        [0x02, 0x42, 0, 0, 0, 1],
                        mtu,
                        0,
                    )])?;
                }
                made.push(format!("interface {BRIDGE}"));
                inside.execute(vec![Request::mark_and_raise(BRIDGE, "", 0)])?;
                found_link(inside, BRIDGE)?
            }
        };
        let overlay = &self.record.overlay;
        let wanted = Vxlan {
            vni: overlay.vni,
            local: overlay.data_path.address,
            port: overlay.data_path.port,
        };
        let name = format!("vx{}", wanted.vni);
        let inside = self.netlink.as_mut().expect("opened above");
        let links = inside.links()?;
        for link in &links {
            // Of an earlier VNI, address or port.
            if link.vxlan != Some(wanted) && (link.name == name || link.vxlan.is_some()) {
                inside.execute(vec![Request::delete_link(&link.name)])?;
            }
        }
        let vxlan = links
            .into_iter()
            .find(|link| link.name == name && link.vxlan == Some(wanted));
        if vxlan.is_none() {
            made.push(format!("interface {name}"));
            host.execute(vec![Request::create_vxlan(
                &name,
                wanted,
                mtu,
                netns.as_fd(),
            )])
            .map_err(|error| vxlan_error(error, wanted))?;
        }
        if vxlan
            .as_ref()
            .is_none_or(|link| !link.up || link.controller != bridge.index)
        {
            if vxlan.is_some() {
                made.push(format!("port {name}"));
            }
            inside
                .execute(vec![Request::enslave_and_raise(&name, bridge.index)])
                .map_err(|error| vxlan_error(error, wanted))?;
        }
        let vxlan = found_link(inside, &name)?;
        self.bridge = bridge.index;
        {
            let mut expected = self.expected.lock();
            expected.bridge = bridge.index;
            expected.vxlan = vxlan.index;
        }
        made.extend(self.adjust_ports()?);
        Ok(made)
    }

    /// Ports that lost their bridge get it back; all get the present MTU.
    fn adjust_ports(&mut self) -> Result<Vec<String>> {
        let (bridge, mtu) = (self.bridge, self.mtu);
        let inside = self.inside()?;
        let mut made = Vec::new();
        let mut requests = Vec::new();
        for link in inside.links()?.iter().filter(|link| link.name != "lo") {
            if link.mtu != mtu {
                requests.push(Request::set_mtu(&link.name, mtu));
            }
            if link.index != bridge && link.controller != bridge {
                made.push(format!("port {}", link.name));
                requests.push(Request::enslave_and_raise(&link.name, bridge));
            }
        }
        inside.execute_all(requests)?;
        Ok(made)
    }

    /// Brings forwarding and neighbour entries to what is recorded; returns how many differed.
    pub(super) fn sync_peers(&mut self) -> Result<usize> {
        let (forwardings, resolutions) = wanted_entries(&self.record);
        let vxlan = {
            let mut expected = self.expected.lock();
            expected.forwardings.clone_from(&forwardings);
            expected.resolutions.clone_from(&resolutions);
            expected.vxlan
        };
        let inside = self.inside()?;
        let mut found: BTreeMap<[u8; 6], Vec<IpAddr>> = BTreeMap::new();
        for entry in inside.forwardings(vxlan)? {
            found.entry(entry.mac).or_default().push(entry.vtep);
        }
        let mut requests = Vec::new();
        let mut differing = 0;
        for (mac, vteps) in &found {
            if forwardings.get(mac).is_none_or(|_| vteps.len() > 1) {
                requests.push(Request::delete_forwarding(vxlan, *mac));
            }
            differing += usize::from(!forwardings.contains_key(mac));
        }
        for (mac, vtep) in &forwardings {
            if found.get(mac).is_none_or(|vteps| vteps != &[*vtep]) {
                differing += 1;
                let entry = Forwarding {
                    mac: *mac,
                    vtep: *vtep,
                };
                requests.push(Request::set_forwarding(vxlan, entry));
            }
        }
        let found: BTreeMap<IpAddr, [u8; 6]> = inside
            .resolutions(vxlan)?
            .into_iter()
            .map(|entry| (entry.address, entry.mac))
            .collect();
        for address in found
            .keys()
            .filter(|address| !resolutions.contains_key(address))
        {
            differing += 1;
            requests.push(Request::delete_neighbour(vxlan, *address));
        }
        for (address, mac) in &resolutions {
            if found.get(address) != Some(mac) {
                differing += 1;
                let entry = Resolution {
                    address: *address,
                    mac: *mac,
                };
                requests.push(Request::set_neighbour(vxlan, entry));
            }
        }
        inside.execute_all(requests)?;
        Ok(differing)
    }

    /// Looks at the way to the peers again. Returns whether the MTU changed: interfaces inside
    /// sandboxes have the old one then.
    pub(super) fn adjust_mtu(&mut self) -> Result<bool> {
        let mtu = path_mtu(&mut Netlink::open()?, &self.record)?;
        if mtu == self.mtu {
            return Ok(false);
        }
        self.mtu = mtu;
        self.adjust_ports()?;
        Ok(true)
    }

    /// Creates an interface pair: one end a port of the overlay, the other in `netns`.
    pub(crate) fn attach(
        &mut self,
        netns: &Netns,
        port: &str,
        peer: &str,
        mac: [u8; 6],
    ) -> Result<()> {
        let veth = Veth {
            host_name: port,
            bridge_index: self.bridge,
            group: 0,
            mtu: self.mtu,
            peer_name: peer,
            peer_mac: mac,
            netns: netns.as_fd(),
        };
        let request = Request::create_veth(&veth);
        self.inside()?.execute(vec![request])?;
        self.pin(port, mac).inspect_err(|_| {
            // The first error is the one to report.
            let _ = self.detach(port);
        })
    }

    /// Ties an endpoint's MAC address to its port. A late frame from the host it was on before would
    /// otherwise send all others there for minutes.
    pub(crate) fn pin(&mut self, port: &str, mac: [u8; 6]) -> Result<()> {
        let inside = self.inside()?;
        let index = found_link(inside, port)?.index;
        inside.execute(vec![Request::pin_to_port(index, mac)])
    }

    /// Whether the overlay's end of a pair is there.
    pub(crate) fn has_port(&mut self, port: &str) -> Result<bool> {
        Ok(self.inside()?.link(port)?.is_some())
    }

    /// Ends an endpoint without waiting for its interface to go: the kernel takes it with the
    /// sandbox's namespace, which may be a while off if somebody holds that.
    pub(crate) fn close(&mut self, port: &str, mac: [u8; 6]) -> Result<()> {
        let Ok(inside) = self.inside() else {
            return Ok(());
        };
        let Some(link) = inside.link(port)? else {
            return Ok(());
        };
        let closed = inside.execute(vec![
            Request::close_port(port),
            Request::unpin_from_port(link.index, mac),
        ]);
        match closed {
            // It went meanwhile, or its address already did.
            Err(Error::Kernel { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Deletes the overlay's end of a pair, and with it the other; gone already is no error.
    pub(crate) fn detach(&mut self, port: &str) -> Result<()> {
        if self.netns.is_none() {
            return Ok(());
        }
        match self.inside()?.execute(vec![Request::delete_link(port)]) {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Replaces names and virtual addresses; returns whether they are others.
    pub(super) fn set_balanced(&mut self, balanced: Vec<Balanced>) -> bool {
        if self.record.balanced == balanced {
            return false;
        }
        let elements = elements(&balanced);
        if *self.elements != elements {
            self.elements = Arc::new(elements);
        }
        self.record.balanced = balanced;
        true
    }

    /// How many endpoints are on other hosts.
    pub(super) fn remote_peers(&self) -> usize {
        remote_peers(&self.record).count()
    }

    /// Listens to the kernel's news from inside.
    pub(super) fn open_watcher(&self) -> Result<(UnixDatagram, Arc<Mutex<Expected>>)> {
        let netns = self.netns.as_ref().ok_or_else(gone)?;
        let open = || {
            Watcher::open().map_err(Error::kernel("listen to changes in an overlay's namespace"))
        };
        Ok((netns.enter(open)?, self.expected.clone()))
    }

    /// Removes everything from the kernel; the next [`ensure_devices`](Self::ensure_devices) makes it
    /// again.
    pub(super) fn tear_down(&mut self, path: &Path) -> Result<()> {
        self.watch = None;
        self.netns = None;
        self.netlink = None;
        *self.expected.lock() = Expected::default();
        remove_namespace(path)
    }

    fn inside(&mut self) -> Result<&mut Netlink> {
        self.netlink.as_mut().ok_or_else(gone)
    }
}

/// Removes an overlay's namespace with its devices. One that is not there is no error.
pub(super) fn remove_namespace(path: &Path) -> Result<()> {
    // Devices right away: a namespace is emptied some time after its last user is gone, and the VNI
    // is taken until then.
    if let Ok(netns) = Netns::open(path) {
        netns.enter(|| {
            let mut inside = Netlink::open()?;
            for link in inside.links()?.iter().filter(|link| link.name != "lo") {
                // One end of a pair takes the other with it.
                match inside.execute(vec![Request::delete_link(&link.name)]) {
                    Err(Error::Kernel { source, .. })
                        if source.raw_os_error() == Some(libc::ENODEV) => {}
                    result => result?,
                }
            }
            Ok(())
        })?;
    }
    Netns::remove(path)
}

fn gone() -> Error {
    Error::kernel("enter an overlay's namespace")(io::Error::from_raw_os_error(libc::ENODEV))
}

fn found_link(netlink: &mut Netlink, name: &str) -> Result<crate::netlink::Link> {
    netlink.link(name)?.ok_or_else(|| {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        Error::kernel(format!("find interface {name} in an overlay's namespace"))(source)
    })
}

/// The kernel tells of another device with this VNI at creation, or when it is taken up; of another
/// program on the UDP port, when it is taken up.
fn vxlan_error(error: Error, wanted: Vxlan) -> Error {
    let Error::Kernel { what, source } = error else {
        return error;
    };
    match source.raw_os_error() {
        Some(libc::EEXIST) => Error::VniTaken {
            vni: wanted.vni,
            holder: "an interface of this host that muster did not create".into(),
        },
        Some(libc::EADDRINUSE) => Error::Kernel {
            what: format!(
                "open UDP port {} for VXLAN, which another program has (or choose another with --data-path-port)",
                wanted.port
            ),
            source,
        },
        _ => Error::Kernel { what, source },
    }
}

/// Runs in a new overlay namespace.
fn prepare_namespace() -> Result<()> {
    // Nothing here speaks IP itself: no addresses of its own (IPv6 must be on for the neighbour
    // entries of the VXLAN device). And bridged frames need no packet filter.
    for (key, value) in [
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ] {
        if read_sysctl(key).is_some() {
            write_sysctl(key, value)?;
        }
    }
    Ok(())
}

/// The largest packet that reaches every peer, by what this host knows.
fn path_mtu(host: &mut Netlink, record: &OverlayRecord) -> Result<u32> {
    if let Some(mtu) = record.overlay.mtu {
        return Ok(mtu);
    }
    let local = record.overlay.data_path.address;
    let device = host.mtu_of_address(local)?.ok_or_else(|| {
        Error::Invalid(format!(
            "data path address {local} is not an address of this host: choose one with --data-path-addr"
        ))
    })?;
    let mut limit = device;
    for vtep in remote_vteps(record) {
        match host.path_mtu(vtep) {
            Ok(mtu) => limit = limit.min(mtu),
            Err(error) => {
                tracing::debug!(network.id = record.overlay.id, %vtep, %error, "no route to a host of an overlay")
            }
        }
    }
    let overhead = if local.is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    };
    let has_v6 = record
        .overlay
        .ipam
        .iter()
        .any(|config| matches!(config.subnet, Some(ipnet::IpNet::V6(_))));
    let least = if has_v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
    Ok(limit.saturating_sub(overhead).max(least))
}

fn remote_vteps(record: &OverlayRecord) -> BTreeSet<IpAddr> {
    remote_peers(record).map(|peer| peer.vtep).collect()
}

fn remote_peers(record: &OverlayRecord) -> impl Iterator<Item = &Peer> {
    let DataPath { address, .. } = record.overlay.data_path;
    record.peers.iter().filter(move |peer| peer.vtep != address)
}

type Entries = (BTreeMap<[u8; 6], IpAddr>, BTreeMap<IpAddr, [u8; 6]>);

fn wanted_entries(record: &OverlayRecord) -> Entries {
    let (mut forwardings, mut resolutions) = (BTreeMap::new(), BTreeMap::new());
    // A host without IPv6 is on the IPv4 half of a network alone.
    let has_ipv6 = has_ipv6();
    for peer in remote_peers(record) {
        let mac = peer
            .mac
            .unwrap_or_else(|| endpoint_mac(peer.ipv4, peer.ipv6));
        forwardings.insert(mac, peer.vtep);
        resolutions.extend(peer.ipv4.map(|address| (IpAddr::V4(address), mac)));
        let ipv6 = peer.ipv6.filter(|_| has_ipv6);
        resolutions.extend(ipv6.map(|address| (IpAddr::V6(address), mac)));
    }
    (forwardings, resolutions)
}

fn elements(balanced: &[Balanced]) -> Elements {
    let mut elements = Elements::default();
    for one in balanced {
        for vip in &one.vips {
            let ready: Vec<IpAddr> = one
                .backends
                .iter()
                .filter(|backend| backend.state == BackendState::Ready)
                .filter_map(|backend| backend.address(vip.is_ipv6()))
                .collect();
            elements.add_vip(*vip, &slots::fill(&ready));
        }
    }
    elements
}

impl From<&Overlay> for crate::records::NetworkRecord {
    fn from(overlay: &Overlay) -> Self {
        let has = |v6: bool| {
            let is = |net: &ipnet::IpNet| matches!(net, ipnet::IpNet::V6(_)) == v6;
            overlay
                .ipam
                .iter()
                .filter_map(|config| config.subnet)
                .any(|net| is(&net))
        };
        crate::records::NetworkRecord {
            id: overlay.id.clone(),
            name: overlay.name.clone(),
            created: overlay.created,
            driver: crate::spec::Driver::Overlay,
            ipam: overlay.ipam.clone(),
            user_subnet: true,
            internal: overlay.internal,
            enable_ipv4: has(false),
            enable_ipv6: has(true),
            attachable: overlay.attachable,
            options: overlay.options.clone(),
            labels: overlay.labels.clone(),
            predefined: false,
            bridge: None,
            overlay: Some(overlay.clone()),
        }
    }
}
