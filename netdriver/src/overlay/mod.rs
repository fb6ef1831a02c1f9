//! Networks that span hosts: VXLAN between them, names and virtual addresses on them, and ports
//! published on every host.
//!
//! Nothing is learnt from packets and nothing is asked of other hosts: all state is assigned
//! ([`spec`](crate::Overlay)), complete and versioned, recorded, and every operation brings the
//! kernel to it by difference. Applying the same again changes nothing.
//!
//! ```text
//! live      namespace, bridge, VXLAN device, forwarding and neighbour entries of one overlay
//! watch     news of changes by others to these
//! flows     which tracked connections may go on when backends change (pure)
//! slots     which share of connections each backend gets (pure)
//! balance   virtual addresses, in each sandbox
//! returns   the way back of connections through published ports, in each sandbox
//! ingress   ports published on every host, in the host's namespace
//! gateway   the local bridge network that leads sandboxes on overlays outside
//! repair    everything compared with the kernel
//! ```

mod balance;
mod flows;
mod gateway;
mod ingress;
mod live;
mod repair;
mod returns;
pub(crate) mod slots;
mod spec;
mod watch;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

pub(crate) use balance::Balancer;
pub(crate) use gateway::GATEWAY_NETWORK;
pub(crate) use ingress::IngressState;
pub(crate) use live::Live;
pub use spec::*;

use crate::netlink::{Netlink, Request};
use crate::netns::{read_sysctl, write_sysctl};
use crate::networks::{Inner, short};
use crate::records::{NetworkRecord, OverlayRecord};
use crate::spec::{Driver, NetworkInfo, SandboxMode};
use crate::{Error, Networks, Result};
use watch::Watch;

/// A locked overlay.
type Locked = ArcMutexGuard<RawMutex, Live>;

/// Largest VXLAN network identifier: it has 24 bits.
const VNI_MAX: u32 = 0xff_ffff;

impl Networks {
    /// Makes an overlay network on this host, or brings the one of this id to what is asked
    /// (addressing and VNI of one in use do not change). Its name may be another network's, too: one
    /// that is being removed has it until its last sandbox is gone. Sandboxes are then connected to it by
    /// [`connect`](Self::connect) with the addresses their managers allocated; such an endpoint's
    /// aliases hold on this host alone, so what a cluster shall see belongs in [`Balanced`].
    ///
    /// A sandbox on an overlay that is not internal, and on no network that leads outside, also gets
    /// an endpoint on the local bridge network `docker_gwbridge`, which is made when needed and not
    /// listed among the sandbox's endpoints.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyExists`] (a local network of this id),
    /// [`Error::VniTaken`], the kernel's; after an error with a new network nothing is left.
    pub fn ensure_overlay(&self, mut overlay: Overlay) -> Result<NetworkInfo> {
        obey_options(&mut overlay)?;
        check(&overlay)?;
        let inner = &self.inner;
        let id = overlay.id.clone();
        let mut live = inner.live_or_new(&overlay);
        let is_new = !inner.state.lock().networks.contains_key(&id);
        let before = live.record.clone();
        live.record.overlay = overlay;
        let made = self.realize(&mut live, &before.overlay, is_new);
        if let Err(error) = made {
            if is_new {
                if let Err(leftover) = inner.forget_overlay(&mut live) {
                    tracing::warn!(network.id = id, %leftover, "could not remove an overlay whose creation failed");
                }
            } else {
                live.record = before;
                if let Err(leftover) = inner.restore_overlay(&live) {
                    tracing::warn!(network.id = id, %leftover, "could not undo a change of an overlay that failed");
                }
            }
            return Err(error);
        }
        drop(live);
        if is_new {
            tracing::info!(network.id = id, "overlay network created");
        } else {
            self.push_mtu(&id)?;
        }
        self.inspect(&id)
    }

    /// Removes an overlay, by id, with its peers, names and virtual addresses. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// [`Error::ActiveEndpoints`], [`Error::IngressInUse`], the kernel's; it can be removed again.
    pub fn remove_overlay(&self, network: &str) -> Result<()> {
        let inner = &self.inner;
        let ingress = inner.ingress.lock();
        let mut live = match inner.live(network) {
            Ok(live) => live,
            Err(Error::NetworkNotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let name = live.record.overlay.name.clone();
        if ingress.uses(network) {
            return Err(Error::IngressInUse(name));
        }
        {
            let mut state = inner.state.lock();
            if let Some(entry) = state.networks.get_mut(network) {
                entry.removing = true;
            }
            let endpoints = state.info(network).endpoints;
            if !endpoints.is_empty() {
                state.networks[network].removing = false;
                let list: Vec<_> = endpoints
                    .iter()
                    .map(|connected| {
                        let id = short(&connected.endpoint.id);
                        format!("name:{:?} id:{id:?}", connected.name)
                    })
                    .collect();
                return Err(Error::ActiveEndpoints {
                    network: name,
                    endpoints: list.join(", "),
                });
            }
        }
        inner.forget_overlay(&mut live)?;
        tracing::info!(network.id = network, "overlay network removed");
        Ok(())
    }

    /// Says where all endpoints of an overlay are (by id): the complete list, of which those on this
    /// host are passed over. `version` orders calls: a lower one than the last is
    /// [`Stale`](PeersSet::Stale).
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Invalid`] (a host address of the wrong family), the
    /// kernel's; what could be done is done.
    pub fn set_peers(&self, network: &str, version: u64, peers: Vec<Peer>) -> Result<PeersSet> {
        let mut live = self.inner.live(network)?;
        if live.record.peers_version.is_some_and(|last| version < last) {
            return Ok(PeersSet::Stale);
        }
        check_peers(&live.record.overlay, &peers)?;
        let changed = live.record.peers != peers;
        if changed || live.record.peers_version != Some(version) {
            live.record.peers_version = Some(version);
            live.record.peers = peers;
            self.inner.records.write_overlay(&live.record)?;
        }
        live.sync_peers()?;
        let mtu_changed = changed && live.adjust_mtu()?;
        drop(live);
        if mtu_changed {
            self.push_mtu(network)?;
        }
        Ok(PeersSet::Applied)
    }

    /// Says what names and virtual addresses an overlay (by id) has: the complete list.
    ///
    /// When this returns `Ok`, every sandbox on the network answers and balances accordingly: no new
    /// connection of theirs, and no UDP packet, goes to a backend that is draining or gone. TCP
    /// connections to one draining go on, those to one gone are forgotten.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Invalid`], the kernel's for the first sandbox that could
    /// not be brought up to date (all others are).
    pub fn set_balanced(&self, network: &str, balanced: Vec<Balanced>) -> Result<()> {
        check_balanced(&balanced)?;
        {
            let mut live = self.inner.live(network)?;
            if live.set_balanced(balanced) {
                self.inner.records.write_overlay(&live.record)?;
            }
            let name = &live.record.overlay.name;
            let mut zone = self.inner.zone.write();
            zone.assign(network, name, &live.record.balanced);
        }
        self.refresh_sandboxes(network)
    }

    /// The state of an overlay, by id.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`].
    pub fn overlay(&self, network: &str) -> Result<OverlayStatus> {
        let live = self.inner.live(network)?;
        Ok(OverlayStatus {
            vni: live.record.overlay.vni,
            mtu: live.mtu,
            peers_version: live.record.peers_version,
            peers: live.remote_peers(),
            repairs: live.repairs,
        })
    }

    /// Records an overlay and makes it real, in this order.
    fn realize(&self, live: &mut Live, before: &Overlay, is_new: bool) -> Result<()> {
        let inner = &self.inner;
        let overlay = live.record.overlay.clone();
        let same_addressing = before.ipam == overlay.ipam && before.vni == overlay.vni;
        {
            let mut state = inner.state.lock();
            let others = || {
                state
                    .networks
                    .values()
                    .filter(|entry| entry.record.id != overlay.id)
            };
            let known = state.networks.get(&overlay.id);
            if known.is_some_and(|entry| entry.record.driver != Driver::Overlay) {
                return Err(Error::AlreadyExists(overlay.id));
            }
            let vni = |record: &NetworkRecord| Some(record.overlay.as_ref()?.vni);
            if let Some(other) = others().find(|entry| vni(&entry.record) == Some(overlay.vni)) {
                return Err(Error::VniTaken {
                    vni: overlay.vni,
                    holder: format!("network {}", other.record.name),
                });
            }
            if !is_new && !same_addressing && !state.info(&overlay.id).endpoints.is_empty() {
                return Err(Error::Invalid(format!(
                    "network {} is in use: its subnets and VNI cannot change",
                    overlay.name
                )));
            }
            if is_new || *before != overlay {
                inner.records.write_overlay(&live.record)?;
            }
            let record = NetworkRecord::from(&overlay);
            match state.networks.get_mut(&overlay.id) {
                Some(entry) if same_addressing => entry.record = Arc::new(record),
                _ => state.add(record)?,
            }
        }
        raise_neighbour_limits();
        live.ensure_devices(&inner.records.overlay_netns(&overlay.id))?;
        live.sync_peers()?;
        self.listen(live)
    }

    /// Starts to listen to the kernel's news of an overlay, if that is not done yet.
    fn listen(&self, live: &mut Live) -> Result<()> {
        if live.watch.is_none() {
            let (watcher, expected) = live.open_watcher()?;
            let id = live.record.overlay.id.clone();
            let watch = Watch::start(&self.inner, id, watcher, expected);
            live.watch = Some(watch.map_err(Error::kernel("listen to changes of an overlay"))?);
        }
        Ok(())
    }

    /// Brings the interfaces inside sandboxes to the overlay's MTU. Goes on after a failure and
    /// returns the first.
    fn push_mtu(&self, network: &str) -> Result<()> {
        let mut result = Ok(());
        for sandbox in self.sandboxes_on(network) {
            result = result.and(self.adjust_sandbox_mtu(&sandbox, network));
        }
        result.and(self.push_ingress_mtu(network))
    }

    fn adjust_sandbox_mtu(&self, sandbox: &str, network: &str) -> Result<()> {
        let work = match self.lock(sandbox) {
            Err(Error::SandboxNotFound(_)) => return Ok(()),
            work => work?,
        };
        let mtu = self.inner.live(network)?.mtu;
        let name = {
            let state = self.inner.state.lock();
            let endpoints = &state.sandbox(sandbox)?.record.endpoints;
            let on_it = endpoints
                .iter()
                .find(|one| one.endpoint.network_id == network);
            on_it.map(|record| record.endpoint.ifname.clone())
        };
        let (Some(netns), Some(name)) = (&work.netns, name) else {
            return Ok(());
        };
        netns.enter(|| {
            let mut netlink = Netlink::open()?;
            match netlink.link(&name)? {
                Some(link) if link.mtu != mtu => {
                    netlink.execute(vec![Request::set_mtu(&name, mtu)])
                }
                _ => Ok(()),
            }
        })
    }

    /// The private sandboxes with an endpoint on a network.
    fn sandboxes_on(&self, network: &str) -> Vec<String> {
        let state = self.inner.state.lock();
        let mut found: Vec<String> = state
            .sandboxes
            .values()
            .map(|entry| &entry.record)
            .filter(|record| record.spec.mode == SandboxMode::Private)
            .filter(|record| {
                let mut endpoints = record.endpoints.iter();
                endpoints.any(|endpoint| endpoint.endpoint.network_id == network)
            })
            .map(|record| record.spec.id.clone())
            .collect();
        found.sort();
        found
    }
}

impl Inner {
    /// Locks an overlay that exists.
    pub(crate) fn live(&self, network: &str) -> Result<Locked> {
        let found = self.overlays.lock().get(network).cloned();
        let live = found.ok_or_else(|| Error::NetworkNotFound(network.to_owned()))?;
        let locked = live.lock_arc();
        if locked.removed {
            Err(Error::NetworkNotFound(network.to_owned()))
        } else {
            Ok(locked)
        }
    }

    /// Locks an overlay, which is new and not recorded if it does not exist.
    fn live_or_new(&self, overlay: &Overlay) -> Locked {
        loop {
            let live = {
                let mut overlays = self.overlays.lock();
                let entry = overlays.entry(overlay.id.clone());
                let new = || {
                    Arc::new(Mutex::new(Live::new(OverlayRecord {
                        overlay: overlay.clone(),
                        peers_version: None,
                        peers: Vec::new(),
                        balanced: Vec::new(),
                    })))
                };
                entry.or_insert_with(new).clone()
            };
            let locked = live.lock_arc();
            if !locked.removed {
                return locked;
            }
        }
    }

    /// Records an overlay as it is here again; the kernel follows at the next repair.
    fn restore_overlay(&self, live: &Live) -> Result<()> {
        let record = NetworkRecord::from(&live.record.overlay);
        let mut state = self.state.lock();
        if let Some(entry) = state.networks.get_mut(&record.id) {
            let (ipv4, ipv6) = crate::pools::restore(&record)?;
            if entry.record.ipam != record.ipam {
                // Nobody is connected, or the addressing could not have been changed.
                (entry.ipv4, entry.ipv6) = (ipv4, ipv6);
            }
            entry.record = Arc::new(record);
        }
        self.records.write_overlay(&live.record)
    }

    /// Removes an overlay from the kernel, then from disk and memory.
    fn forget_overlay(&self, live: &mut Live) -> Result<()> {
        let id = live.record.overlay.id.clone();
        live.tear_down(&self.records.overlay_netns(&id))?;
        self.records.delete_overlay(&id)?;
        self.zone.write().assign(&id, "", &[]);
        self.state.lock().networks.shift_remove(&id);
        live.removed = true;
        self.overlays.lock().remove(&id);
        Ok(())
    }

    /// The ids of all overlays.
    fn overlay_ids(&self) -> Vec<String> {
        self.overlays.lock().keys().cloned().collect()
    }
}

/// Options that mean something here; all others are the managers' business.
fn obey_options(overlay: &mut Overlay) -> Result<()> {
    for (key, value) in &overlay.options {
        match key.as_str() {
            "com.docker.network.driver.mtu" if overlay.mtu.is_none() => {
                let mtu = value.parse();
                overlay.mtu =
                    Some(mtu.map_err(|_| Error::Invalid(format!("option {key}={value}")))?);
            }
            // Docker encrypts also when the value is empty.
            "encrypted" if value != "false" => {
                return Err(Error::Unsupported(format!(
                    "encryption of overlay networks (option encrypted of network {})",
                    overlay.name
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check(overlay: &Overlay) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let Overlay { id, name, vni, .. } = overlay;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || !id.bytes().all(is_plain) {
        return invalid(format!(
            "network id {id:?}: letters, digits, '-' and '_' only"
        ));
    }
    if name.trim().is_empty() {
        return invalid("network name must not be empty".into());
    }
    if *vni == 0 || *vni > VNI_MAX {
        return invalid(format!(
            "network {name}: VNI {vni} is not one of 1 to {VNI_MAX}"
        ));
    }
    if overlay.data_path.port == 0 || !is_unicast(overlay.data_path.address) {
        let DataPath { address, port } = overlay.data_path;
        return invalid(format!("network {name}: data path {address} port {port}"));
    }
    if overlay.mtu.is_some_and(|mtu| !(68..=65535).contains(&mtu)) {
        return invalid(format!("network {name}: the MTU is one of 68 to 65535"));
    }
    let mut families = HashSet::new();
    for config in &overlay.ipam {
        let Some(subnet) = config.subnet else {
            return invalid(format!("network {name}: an address range without a subnet"));
        };
        if subnet.trunc() != subnet {
            return invalid(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.trunc()
            ));
        }
        if !families.insert(matches!(subnet, IpNet::V6(_))) {
            let text = "more than one subnet of an address family on an overlay network";
            return Err(Error::Unsupported(text.into()));
        }
    }
    if families.is_empty() {
        return invalid(format!("network {name} has no subnet"));
    }
    Ok(())
}

fn check_peers(overlay: &Overlay, peers: &[Peer]) -> Result<()> {
    let local = overlay.data_path.address;
    for peer in peers {
        let Peer { vtep, mac, .. } = peer;
        if vtep.is_ipv4() != local.is_ipv4() || !is_unicast(*vtep) {
            return Err(Error::Invalid(format!(
                "network {}: host address {vtep} of an endpoint does not go with this host's {local}",
                overlay.name
            )));
        }
        if mac.is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6]) {
            return Err(Error::Invalid(format!(
                "network {}: an endpoint's MAC address is not that of a single interface",
                overlay.name
            )));
        }
    }
    Ok(())
}

fn check_balanced(balanced: &[Balanced]) -> Result<()> {
    let mut taken = HashSet::new();
    for one in balanced {
        let name = one.names.first().map_or("", String::as_str);
        let mut families = HashSet::new();
        for vip in &one.vips {
            if !families.insert(vip.is_ipv6()) {
                return Err(Error::Invalid(format!(
                    "{name:?} has more than one virtual address of a family"
                )));
            }
            if !is_unicast(*vip) || !taken.insert(*vip) {
                return Err(Error::Invalid(format!(
                    "virtual address {vip} of {name:?} is no endpoint's address or given twice"
                )));
            }
        }
    }
    Ok(())
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// A host's neighbour tables hold 1024 entries by default, for all namespaces together: too few for
/// its sandboxes on networks that span hosts. Raised as Docker does, where they are lower; only the
/// first namespace of a machine has these settings.
fn raise_neighbour_limits() {
    for (key, least) in [
        ("gc_thresh3", 65536),
        ("gc_thresh2", 49152),
        ("gc_thresh1", 8192),
    ] {
        for family in ["ipv4", "ipv6"] {
            let key = format!("{family}/neigh/default/{key}");
            let low = read_sysctl(&key)
                .and_then(|text| text.parse::<u32>().ok())
                .is_some_and(|value| value < least);
            if low && let Err(error) = write_sysctl(&key, &least.to_string()) {
                tracing::debug!(%error, "a limit of the neighbour table stays low");
            }
        }
    }
}

/// Whether a network is an overlay whose endpoints may leave it.
fn leads_outside_by_gateway(record: &NetworkRecord) -> bool {
    record.driver == Driver::Overlay && !record.internal
}
