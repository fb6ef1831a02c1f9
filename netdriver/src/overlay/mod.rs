//! Networks that span hosts: VXLAN between them, names and virtual addresses on them, and ports
//! published on every host.
//!
//! Nothing is learnt from packets and nothing is asked of other hosts: all state is assigned
//! ([`spec`](crate::Overlay)), complete and versioned, and every operation brings the kernel to it by
//! difference. Applying the same again changes nothing.

mod spec;

pub use spec::*;

use crate::{Error, NetworkInfo, Networks, Result};

impl Networks {
    /// Makes an overlay network on this host, or brings the one of this id to what is asked
    /// (addressing and VNI of one in use do not change). Sandboxes are then connected to it by
    /// [`connect`](Self::connect) with the addresses their managers allocated; such an endpoint's
    /// aliases hold on this host alone, so what a cluster shall see belongs in [`Balanced`].
    ///
    /// A sandbox on an overlay that is not internal, and on no network that leads outside, also gets
    /// an endpoint on the local bridge network `docker_gwbridge`, which is made when needed and not
    /// listed among the sandbox's endpoints.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::AlreadyExists`] (another network of this name),
    /// [`Error::VniTaken`], the kernel's; after an error with a new network nothing is left.
    pub fn ensure_overlay(&self, overlay: Overlay) -> Result<NetworkInfo> {
        let _ = overlay;
        todo!()
    }

    /// Removes an overlay, by id, with its peers, names and virtual addresses. One that is not there
    /// is no error.
    ///
    /// # Errors
    /// [`Error::ActiveEndpoints`], [`Error::IngressInUse`], the kernel's; it can be removed again.
    pub fn remove_overlay(&self, network: &str) -> Result<()> {
        let _ = network;
        todo!()
    }

    /// Says where all endpoints of an overlay are (by id): the complete list, of which those on this
    /// host are passed over. `version` orders calls: a lower one than the last is
    /// [`Stale`](PeersSet::Stale).
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`], [`Error::Invalid`] (a host address of the wrong family), the
    /// kernel's; what could be done is done.
    pub fn set_peers(&self, network: &str, version: u64, peers: Vec<Peer>) -> Result<PeersSet> {
        let _ = (network, version, peers);
        todo!()
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
        let _ = (network, balanced);
        todo!()
    }

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
    /// [`Error::NetworkNotFound`], [`Error::Invalid`], the kernel's.
    pub fn set_ingress(&self, ingress: Option<Ingress>) -> Result<Vec<Error>> {
        let _ = ingress;
        todo!()
    }

    /// The state of an overlay, by id.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`].
    pub fn overlay(&self, network: &str) -> Result<OverlayStatus> {
        let _ = network;
        todo!()
    }

    /// Compares everything of overlays and ingress with the kernel and puts right what differs.
    /// Changes by others to peers and devices are noticed and repaired without this; a call now and
    /// then (10 s) covers the rest.
    pub fn repair(&self) -> Repaired {
        todo!()
    }
}
