//! The wire between nodes: mutual TLS 1.3, gRPC over it, who may call what, and the clients.
//!
//! ```text
//! TcpListener ─▶ handshakes ─▶ TLS with the node's certificate ─▶ access table ─▶ service ─▶ backend trait
//!                (bounded)     client certificate: same root,      (denies by     (bounds)
//!                              same cluster, or none at all        default)
//! ```
//!
//! One listener per node serves everything; what a node does not do is refused as unavailable. Certificates are
//! replaced under a running server and running clients: new connections use the new one, old ones live on.
//! Nothing here decides anything about the cluster, and nothing here is imported by the parts that do.

pub mod access;
mod backend;
mod calls;
mod connection;
mod joining;
pub mod limits;
mod peers;
mod raft_transport;
mod refusal;
mod renewing;
mod server;
mod service;
mod session;
#[cfg(test)]
mod tests;
mod tls;

pub use backend::{
    Backends, CaBackend, ControlBackend, DispatcherBackend, ImageSource, LogBackend,
    MembershipBackend, Messages, RaftInbound, Roster, SharedBackends, Standing,
};
pub use joining::{JoinError, download_root, request_identity};
pub use peers::Peers;
pub use raft_transport::{RaftTransport, Unreachable};
pub use refusal::Refusal;
pub use renewing::{Renewal, RenewalError};
pub use server::Server;
pub use session::{AgentSession, SessionEvent};
pub use tls::{Clock, Expect, NodeTls, TlsError, system_clock};

use std::net::SocketAddr;

use agent_api::swarm::NodeRole;

use crate::ca::NodeCertificate;

/// Who is on the other end, as its certificate says and the cluster's state allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub node_id: String,
    pub role: NodeRole,
    pub cluster_id: String,
    /// Where its connection comes from.
    pub address: SocketAddr,
}

impl PeerIdentity {
    fn new(certificate: &NodeCertificate, address: SocketAddr) -> Self {
        let subject = certificate.subject.clone();
        Self {
            node_id: subject.node_id,
            role: subject.role,
            cluster_id: subject.cluster_id,
            address,
        }
    }
}
