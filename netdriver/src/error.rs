//! What can go wrong in this package, worded for the person who asked.
//!
//! Texts that tools match on (pool overlap, port clash, active endpoints, predefined networks) are
//! Docker's. HTTP codes do not appear here: [`Error::kind`] is what a server maps.

use std::net::IpAddr;
use std::path::PathBuf;

/// The class of an error, after moby's `errdefs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The request itself is wrong.
    InvalidParameter,
    /// The request contradicts the present state.
    Conflict,
    /// The request is understood and refused.
    Forbidden,
    /// The request asks for something that is not there yet.
    NotImplemented,
    /// The host refused or failed.
    System,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything the operations on networks, sandboxes and endpoints can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network has this name, id or id prefix.
    #[error("network {0} not found")]
    NetworkNotFound(String),
    /// Several networks match an id prefix or a name.
    #[error("network {reference} is ambiguous ({count} matches found based on {by})")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// How many networks match.
        count: usize,
        /// `name` or `ID prefix`.
        by: &'static str,
    },
    /// A network of this name exists.
    #[error("network with name {0} already exists")]
    AlreadyExists(String),
    /// The operation would change or recreate `bridge`, `host` or `none`.
    #[error("operation is not permitted on predefined {0} network")]
    PredefinedCreate(String),
    /// `bridge`, `host` and `none` stay.
    #[error("{0} is a pre-defined network and cannot be removed")]
    PredefinedRemove(String),
    /// Endpoints are still connected to the network.
    #[error("error while removing network: network {network} has active endpoints ({endpoints})")]
    ActiveEndpoints {
        /// The network's name.
        network: String,
        /// The endpoints, as `name:"web" id:"0123456789ab"`.
        endpoints: String,
    },
    /// The requested subnet is taken by another network.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space (subnet {subnet} overlaps {other})"
    )]
    PoolOverlap {
        /// The subnet asked for.
        subnet: String,
        /// Who has it: a network's name and subnet.
        other: String,
    },
    /// Every default address pool is in use by networks or by routes of this host.
    #[error(
        "all predefined address pools have been fully subnetted: {0}; remove unused networks, give the network a subnet, or add default-address-pools"
    )]
    PoolsExhausted(String),
    /// Addresses of a network: used up, taken, or not in its subnet.
    #[error("network {network}: {source}")]
    Address {
        /// The network's name.
        network: String,
        /// What the allocator said.
        source: netdriver_ipam::Error,
    },
    /// A request that contradicts itself or names a value outside the allowed range.
    #[error("invalid network request: {0}")]
    Invalid(String),
    /// Something that Docker knows and this does not (yet).
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The network's bridge has no port left.
    #[error("network {0} is full: a bridge connects at most 1023 containers; use another network")]
    BridgeFull(String),
    /// Another overlay of this host has the VNI.
    #[error("VXLAN network identifier {vni} is in use by {holder}")]
    VniTaken {
        /// The identifier.
        vni: u32,
        /// `network <name>`, or `an interface of this host that muster did not create`.
        holder: String,
    },
    /// An overlay is not this host's to remove.
    #[error("network {0} belongs to the cluster: remove it through a manager")]
    ClusterNetwork(String),
    /// Published ports still use the overlay.
    #[error("error while removing network: network {0} carries this host's published ports")]
    IngressInUse(String),
    /// No driver has this name.
    #[error("plugin {0:?} not found")]
    DriverNotFound(String),
    /// No sandbox has this id.
    #[error("no network sandbox for container {0}")]
    SandboxNotFound(String),
    /// A sandbox of this id exists.
    #[error("a network sandbox for container {0} exists already")]
    SandboxExists(String),
    /// The container is connected to this network.
    #[error("endpoint with name {sandbox} already exists in network {network}")]
    AlreadyConnected {
        /// The container's name.
        sandbox: String,
        /// The network's name.
        network: String,
    },
    /// The container is not connected to this network.
    #[error("container {sandbox} is not connected to network {network}")]
    NotConnected {
        /// The container's id.
        sandbox: String,
        /// The network's name.
        network: String,
    },
    /// The sandbox shares the host's network, or has none, and cannot join another network.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    ModeConflict,
    /// A host port is taken.
    #[error("Bind for {address}:{port} failed: port is already allocated{holder}")]
    PortAllocated {
        /// The host address asked for.
        address: IpAddr,
        /// The host port asked for.
        port: u16,
        /// Empty, or ` (by container web 0123456789ab)`.
        holder: String,
    },
    /// A host port cannot be bound for another reason.
    #[error("failed to bind host port for {address}:{port}/{protocol}: {source}")]
    PortBind {
        /// The host address asked for.
        address: IpAddr,
        /// The host port asked for.
        port: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A range or the ephemeral range has no free port left.
    #[error("no free host port on {address} in {first}-{last}/{protocol}")]
    PortsExhausted {
        /// The host address asked for.
        address: IpAddr,
        /// First port tried.
        first: u16,
        /// Last port tried.
        last: u16,
        /// `tcp` or `udp`.
        protocol: &'static str,
    },
    /// A name this package would use for an interface is taken by something it did not create.
    #[error(
        "interface {0} exists and was not created by this daemon; remove it or choose another name (option com.docker.network.bridge.name)"
    )]
    ForeignInterface(String),
    /// The kernel refused a netlink request.
    #[error("{what}: {source}")]
    Kernel {
        /// What was attempted, on which interface, table or address.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A record on disk does not parse.
    #[error("network record {path} is damaged: {source}; move it away to go on without it")]
    Record {
        /// The record.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind::*;
        match self {
            Error::NetworkNotFound(_) | Error::DriverNotFound(_) | Error::SandboxNotFound(_) => {
                NotFound
            }
            Error::Ambiguous { .. } | Error::Invalid(_) | Error::PoolsExhausted(_) => {
                InvalidParameter
            }
            Error::AlreadyExists(_) | Error::SandboxExists(_) => Conflict,
            Error::Address { .. } => InvalidParameter,
            Error::PredefinedCreate(_)
            | Error::PredefinedRemove(_)
            | Error::ActiveEndpoints { .. }
            | Error::IngressInUse(_)
            | Error::ClusterNetwork(_)
            | Error::VniTaken { .. }
            | Error::PoolOverlap { .. }
            | Error::AlreadyConnected { .. }
            | Error::NotConnected { .. }
            | Error::ModeConflict => Forbidden,
            Error::Unsupported(_) => NotImplemented,
            Error::PortAllocated { .. }
            | Error::PortBind { .. }
            | Error::PortsExhausted { .. }
            | Error::ForeignInterface(_)
            | Error::BridgeFull(_)
            | Error::Kernel { .. }
            | Error::File { .. }
            | Error::Record { .. } => System,
        }
    }

    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Kernel { what, source }
    }

    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { what, path, source }
    }
}
