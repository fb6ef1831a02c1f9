//! Real TLS over loopback sockets. The backends answer as little as they can; what stands before them is under test.

mod access;
mod handshake;
mod joining;
mod links;
mod renewing;
mod session;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_api::swarm::NodeRole;
use cluster_api::proto::ManagerAddress;
use cluster_api::{Cluster, IdSource, Timestamp, proto};
use futures_util::StreamExt as _;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::async_trait;

use super::*;
use crate::ca::{Identity, NodeKey, RaftKey, RootCa, TokenSecret, admit, certify};

/// Far from both ends of everything.
const START: u64 = 1_700_000_000;

/// A clock that stands until it is moved.
#[derive(Debug)]
struct TestClock(AtomicU64);

impl TimeProvider for TestClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A cluster's authority, and a clock.
struct Swarm {
    cluster: parking_lot::Mutex<Cluster>,
    clock: Arc<TestClock>,
}

impl Swarm {
    fn new(id: &str) -> Arc<Self> {
        let ids = &mut IdSource::seeded(1);
        let root = RootCa::create(at(START)).unwrap();
        let mut cluster = Cluster {
            id: id.to_owned(),
            ..Cluster::default()
        };
        cluster.root_ca.certificate = root.trust().pem();
        cluster.root_ca.key = root.key_pem().to_string();
        cluster.root_ca.tokens.worker = TokenSecret::generate(ids).as_str().to_owned();
        cluster.root_ca.tokens.manager = TokenSecret::generate(ids).as_str().to_owned();
        Arc::new(Self {
            cluster: parking_lot::Mutex::new(cluster),
            clock: Arc::new(TestClock(AtomicU64::new(START))),
        })
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn now(&self) -> Timestamp {
        at(self.clock.0.load(Ordering::Relaxed))
    }

    fn identity(&self, node_id: &str, role: NodeRole) -> Identity {
        let cluster = self.cluster.lock();
        let key = NodeKey::generate().unwrap();
        let request = crate::ca::CertificateRequest::from_der(&key.request().unwrap()).unwrap();
        Identity {
            root: crate::ca::TrustRoot::from_pem(cluster.root_ca.certificate.as_bytes()).unwrap(),
            certificate: certify(&cluster, &request, node_id, role, self.now()).unwrap(),
            key,
            raft_key: RaftKey::generate().unwrap(),
        }
    }

    fn tls(&self, node_id: &str, role: NodeRole) -> Arc<NodeTls> {
        NodeTls::new(self.identity(node_id, role), self.clock()).unwrap()
    }

    fn peers(&self, node_id: &str, role: NodeRole) -> Arc<Peers> {
        Peers::new(self.tls(node_id, role))
    }

    /// A manager that answers everything.
    async fn manager(self: &Arc<Self>, node_id: &str) -> (Server, ManagerAddress) {
        let answers = Arc::new(Answers {
            swarm: self.clone(),
            batches: None,
        });
        serve(&self.tls(node_id, NodeRole::Manager), answers.backends()).await
    }
}

const fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds as i64 * 1_000_000_000)
}

async fn serve(tls: &Arc<NodeTls>, backends: Backends) -> (Server, ManagerAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(listener, tls.clone(), SharedBackends::new(backends)).unwrap();
    let address = ManagerAddress {
        node_id: tls.identity().certificate.subject.node_id.clone(),
        address: server.address().to_string(),
    };
    (server, address)
}

/// Answers with as little as a message can hold, but for certificates, which are real.
struct Answers {
    swarm: Arc<Swarm>,
    batches: Option<mpsc::Sender<(PeerIdentity, proto::RaftMessages)>>,
}

impl Answers {
    fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            raft: Some(self.clone()),
            ca: Some(self.clone()),
            dispatcher: Some(self.clone()),
            control: Some(self.clone()),
            membership: Some(self.clone()),
            images: Some(self.clone()),
            logs: Some(self.clone()),
            roster: None,
        }
    }
}

fn nothing<T: Send + 'static>() -> Messages<T> {
    futures_util::stream::empty().boxed()
}

#[async_trait]
impl RaftInbound for Answers {
    async fn messages(
        &self,
        peer: &PeerIdentity,
        batch: proto::RaftMessages,
    ) -> Result<(), Refusal> {
        if let Some(batches) = &self.batches {
            // A test that has seen enough.
            let _ = batches.send((peer.clone(), batch)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl CaBackend for Answers {
    async fn root_certificate(&self) -> Result<String, Refusal> {
        Ok(self.swarm.cluster.lock().root_ca.certificate.clone())
    }

    async fn issue(
        &self,
        request: proto::IssueCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let cluster = self.swarm.cluster.lock();
        let (token, availability) = (&request.token, &request.availability);
        let admission = admit(&cluster, &request.csr, token, availability)
            .map_err(|error| Refusal::Unauthenticated(error.to_string()))?;
        let (node_id, role) = (admission.node_id, admission.role);
        let certificate = certify(
            &cluster,
            &admission.request,
            &node_id,
            role,
            self.swarm.now(),
        )
        .unwrap();
        Ok(proto::IssueCertificateResponse {
            node_id,
            certificate: certificate.pem().into_bytes().into(),
            root_certificate: cluster.root_ca.certificate.clone().into_bytes().into(),
        })
    }

    async fn renew(
        &self,
        peer: &PeerIdentity,
        request: proto::RenewCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let cluster = self.swarm.cluster.lock();
        let request = crate::ca::CertificateRequest::from_der(&request.csr)
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let certificate = certify(
            &cluster,
            &request,
            &peer.node_id,
            peer.role,
            self.swarm.now(),
        )
        .unwrap();
        Ok(proto::IssueCertificateResponse {
            node_id: peer.node_id.clone(),
            certificate: certificate.pem().into_bytes().into(),
            root_certificate: cluster.root_ca.certificate.clone().into_bytes().into(),
        })
    }
}

#[async_trait]
impl DispatcherBackend for Answers {
    async fn session(
        &self,
        _peer: &PeerIdentity,
        _request: proto::SessionRequest,
    ) -> Result<Messages<proto::SessionMessage>, Refusal> {
        Ok(nothing())
    }

    async fn heartbeat(
        &self,
        _peer: &PeerIdentity,
        _request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Refusal> {
        Ok(proto::HeartbeatResponse { period_ms: 1000 })
    }

    async fn assignments(
        &self,
        _peer: &PeerIdentity,
        _request: proto::AssignmentsRequest,
    ) -> Result<Messages<proto::AssignmentsMessage>, Refusal> {
        Ok(nothing())
    }

    async fn update_task_status(
        &self,
        _peer: &PeerIdentity,
        _request: proto::UpdateTaskStatusRequest,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    async fn acknowledge(
        &self,
        _peer: &PeerIdentity,
        _request: proto::AckAssignmentsRequest,
    ) -> Result<(), Refusal> {
        Ok(())
    }
}

#[async_trait]
impl ControlBackend for Answers {
    /// The request comes back, with whom it came from.
    async fn forward(
        &self,
        peer: &PeerIdentity,
        request: proto::ForwardRequest,
    ) -> Result<proto::ForwardResponse, Refusal> {
        let mut answer = peer.node_id.clone().into_bytes();
        answer.extend_from_slice(&request.request);
        Ok(proto::ForwardResponse {
            outcome: Some(proto::forward_response::Outcome::Answer(answer.into())),
        })
    }
}

#[async_trait]
impl MembershipBackend for Answers {
    async fn join(
        &self,
        _peer: &PeerIdentity,
        _request: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Refusal> {
        Err(Refusal::NotLeader {
            leader: Some(ManagerAddress {
                node_id: "m9".into(),
                address: "10.9.9.9:2377".into(),
            }),
        })
    }

    async fn leave(
        &self,
        _peer: &PeerIdentity,
        _request: proto::LeaveRequest,
    ) -> Result<proto::LeaveResponse, Refusal> {
        Ok(proto::LeaveResponse {})
    }

    async fn health(&self, _peer: &PeerIdentity) -> Result<proto::HealthResponse, Refusal> {
        Ok(proto::HealthResponse {
            raft_id: 7,
            ..Default::default()
        })
    }
}

#[async_trait]
impl ImageSource for Answers {
    async fn resolve(
        &self,
        _request: proto::ResolveImageRequest,
    ) -> Result<proto::ResolveImageResponse, Refusal> {
        Ok(proto::ResolveImageResponse { manifest: None })
    }

    async fn available(
        &self,
        request: proto::AvailableBlobsRequest,
    ) -> Result<proto::AvailableBlobsResponse, Refusal> {
        let blob = |digest| proto::BlobDescriptor {
            digest,
            ..Default::default()
        };
        Ok(proto::AvailableBlobsResponse {
            blobs: request.digests.into_iter().map(blob).collect(),
        })
    }

    /// A blob of three pieces.
    async fn fetch(
        &self,
        request: proto::FetchBlobRequest,
    ) -> Result<Messages<proto::BlobPiece>, Refusal> {
        let piece = |number: u8| {
            Ok(proto::BlobPiece {
                total_size: 3,
                data: vec![number].into(),
            })
        };
        let pieces: Vec<_> = (0..3)
            .skip(usize::try_from(request.offset).unwrap())
            .map(piece)
            .collect();
        Ok(futures_util::stream::iter(pieces).boxed())
    }
}

#[async_trait]
impl LogBackend for Answers {
    async fn subscribe(
        &self,
        _peer: &PeerIdentity,
        _request: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal> {
        Ok(nothing())
    }

    async fn publish(
        &self,
        _peer: &PeerIdentity,
        batches: Messages<proto::PublishLogsRequest>,
    ) -> Result<(), Refusal> {
        batches.for_each(async |_| ()).await;
        Ok(())
    }
}
