//! What a node does with the calls it gets. The other parts of the manager and the agent implement these traits; this
//! module knows nothing of them.
//!
//! Every method is called on a connection whose certificate was checked, for a method its role may call
//! ([`super::access`]). Dropping a returned stream is how a backend learns that the other side is gone.

use std::sync::Arc;

use agent_api::swarm::NodeRole;
use arc_swap::ArcSwap;
use cluster_api::proto;
use futures_util::stream::BoxStream;
use tonic::async_trait;

use super::{PeerIdentity, Refusal};

/// Messages of a call's answer, in order.
pub type Messages<T> = BoxStream<'static, Result<T, Refusal>>;

/// What of a node answers, by part. A part that is absent is refused as unavailable: a worker has images only.
#[derive(Clone, Default)]
pub struct Backends {
    pub raft: Option<Arc<dyn RaftInbound>>,
    pub ca: Option<Arc<dyn CaBackend>>,
    pub dispatcher: Option<Arc<dyn DispatcherBackend>>,
    pub control: Option<Arc<dyn ControlBackend>>,
    pub membership: Option<Arc<dyn MembershipBackend>>,
    pub images: Option<Arc<dyn ImageSource>>,
    pub logs: Option<Arc<dyn LogBackend>>,
    pub roster: Option<Arc<dyn Roster>>,
}

/// The backends of a running server. Replaced as a whole on promotion and demotion, while the listener stays.
#[derive(Default)]
pub struct SharedBackends(ArcSwap<Backends>);

impl SharedBackends {
    /// With these to begin with.
    #[must_use]
    pub fn new(backends: Backends) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(backends)))
    }

    /// From now on these answer; calls under way keep theirs.
    pub fn replace(&self, backends: Backends) {
        self.0.store(Arc::new(backends));
    }

    /// Changes some of them.
    pub fn update(&self, change: impl Fn(&mut Backends)) {
        self.0.rcu(|backends| {
            let mut backends = Backends::clone(backends);
            change(&mut backends);
            backends
        });
    }

    pub(super) fn get(&self) -> Arc<Backends> {
        self.0.load_full()
    }
}

/// What the cluster's state says of a node that shows a good certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not known here, where the state may be behind: the certificate counts. What changes the cluster is done by the leader,
    /// which knows.
    Unknown,
    /// In the cluster. A role lower than the certificate's counts instead of it.
    Member(NodeRole),
    /// Was removed: nothing it asks is answered.
    Removed,
    /// Not in the cluster, as the leader knows for certain: as if it was removed.
    Stranger,
}

/// Answers from memory, without waiting.
pub trait Roster: Send + Sync {
    /// What is known of a node.
    fn standing(&self, node_id: &str) -> Standing;
}

/// Raft's messages of other managers.
#[async_trait]
pub trait RaftInbound: Send + Sync {
    /// A batch, in the order sent. Waiting here slows that one sender down. An error ends the stream: the sender is no
    /// member, or means another receiver.
    async fn messages(
        &self,
        peer: &PeerIdentity,
        batch: proto::RaftMessages,
    ) -> Result<(), Refusal>;
}

/// Certificates. The messages come as they were sent: the backend reads the request
/// ([`crate::ca::CertificateRequest::from_der`]) and the token.
#[async_trait]
pub trait CaBackend: Send + Sync {
    /// The root, PEM.
    async fn root_certificate(&self) -> Result<String, Refusal>;

    /// For a stranger with a token.
    async fn issue(
        &self,
        request: proto::IssueCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal>;

    /// For a node of the cluster.
    async fn renew(
        &self,
        peer: &PeerIdentity,
        request: proto::RenewCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal>;
}

/// The leader's side of sessions. Managers that do not lead answer [`Refusal::NotLeader`].
#[async_trait]
pub trait DispatcherBackend: Send + Sync {
    /// Registers a node. The first message of the stream holds the session's id.
    async fn session(
        &self,
        peer: &PeerIdentity,
        request: proto::SessionRequest,
    ) -> Result<Messages<proto::SessionMessage>, Refusal>;

    async fn heartbeat(
        &self,
        peer: &PeerIdentity,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Refusal>;

    async fn assignments(
        &self,
        peer: &PeerIdentity,
        request: proto::AssignmentsRequest,
    ) -> Result<Messages<proto::AssignmentsMessage>, Refusal>;

    async fn update_task_status(
        &self,
        peer: &PeerIdentity,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<(), Refusal>;

    async fn acknowledge(
        &self,
        peer: &PeerIdentity,
        request: proto::AckAssignmentsRequest,
    ) -> Result<(), Refusal>;
}

/// Requests of another manager on somebody's behalf.
#[async_trait]
pub trait ControlBackend: Send + Sync {
    /// Both byte strings are JSON of types of `cluster::control`; an error of the request itself is part of the answer.
    async fn forward(
        &self,
        peer: &PeerIdentity,
        request: proto::ForwardRequest,
    ) -> Result<proto::ForwardResponse, Refusal>;
}

/// Who takes part in Raft.
#[async_trait]
pub trait MembershipBackend: Send + Sync {
    async fn join(
        &self,
        peer: &PeerIdentity,
        request: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Refusal>;

    async fn leave(
        &self,
        peer: &PeerIdentity,
        request: proto::LeaveRequest,
    ) -> Result<proto::LeaveResponse, Refusal>;

    async fn health(&self, peer: &PeerIdentity) -> Result<proto::HealthResponse, Refusal>;
}

/// Images this node has.
#[async_trait]
pub trait ImageSource: Send + Sync {
    async fn resolve(
        &self,
        request: proto::ResolveImageRequest,
    ) -> Result<proto::ResolveImageResponse, Refusal>;

    /// At most [`super::limits::BLOBS_PER_QUESTION`] digests are asked for at once.
    async fn available(
        &self,
        request: proto::AvailableBlobsRequest,
    ) -> Result<proto::AvailableBlobsResponse, Refusal>;

    /// Pieces of at most [`super::limits::PIECE_BYTES`].
    async fn fetch(
        &self,
        request: proto::FetchBlobRequest,
    ) -> Result<Messages<proto::BlobPiece>, Refusal>;
}

/// Output of tasks, between those who read it and the nodes that have it.
#[async_trait]
pub trait LogBackend: Send + Sync {
    async fn subscribe(
        &self,
        peer: &PeerIdentity,
        request: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal>;

    /// What a node publishes; returns when the node is done or nobody reads any more.
    async fn publish(
        &self,
        peer: &PeerIdentity,
        batches: Messages<proto::PublishLogsRequest>,
    ) -> Result<(), Refusal>;
}
