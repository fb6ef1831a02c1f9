//! Certificates for those who join and for nodes whose certificate ends or whose role changed.

use agent_api::swarm::{NodeRole, NodeSpec};
use cluster_api::{Node, Timestamp, proto};
use proto::ca_client::CaClient;
use tonic::async_trait;

use super::super::{Manager, address};
use super::refused;
use crate::ca::{Admission, AdmissionError, CertificateRequest, admit, certify};
use crate::core::{Answer, Command, Failure};
use crate::dispatcher::Contact;
use crate::rpc::{CaBackend, Expect, PeerIdentity, Refusal, limits};
use crate::store::{Store, Transaction};

pub(in super::super) struct Ca(pub(in super::super) Manager);

/// What became of a joiner's request.
enum Issued {
    Certificate(proto::IssueCertificateResponse),
    /// Its node must be in the state first.
    New(Box<Node>),
    Not(Refusal),
}

#[async_trait]
impl CaBackend for Ca {
    async fn root_certificate(&self) -> Result<String, Refusal> {
        let root = self.0.look(|core| {
            let cluster = core.store().cluster()?;
            Some(cluster.root_ca.certificate.clone())
        });
        root.await.map_err(refused)?.ok_or_else(|| {
            Refusal::Unavailable("this manager does not have the swarm's state yet".into())
        })
    }

    /// Only the leader knows which tokens are valid and which nodes there are; any manager passes the request on to it.
    async fn issue(
        &self,
        request: proto::IssueCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let standing = self.0.standing.borrow().clone();
        if !standing.leads {
            return match standing
                .leader
                .filter(|leader| *leader.node_id != *self.0.node_id)
            {
                Some(leader) => self.pass_on(&leader, request).await,
                None => Err(Refusal::NotLeader { leader: None }),
            };
        }
        // The first round makes the node, the second finds it.
        for _ in 0..2 {
            let asked = request.clone();
            let issued = self.0.read(move |store, _| issue(store, &asked));
            match issued.await.map_err(refused)? {
                Issued::Certificate(response) => return Ok(response),
                Issued::Not(refusal) => return Err(refusal),
                Issued::New(node) => {
                    let mut transaction = Transaction::new(wall());
                    transaction.create(*node);
                    match self.0.command(Command::Apply(transaction)).await {
                        Ok(Answer::Applied) | Err(Failure::Refused(_)) => {}
                        Ok(other) => return Err(Refusal::Internal(format!("{other:?}"))),
                        Err(failure) => return Err(refused(failure)),
                    }
                }
            }
        }
        Err(Refusal::Conflict(
            "the node was removed while it joined".into(),
        ))
    }

    /// The role is the one in the state, whatever the old certificate says. Any manager can sign.
    async fn renew(
        &self,
        peer: &PeerIdentity,
        request: proto::RenewCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let node_id = peer.node_id.clone();
        let renewed = self.0.read(move |store, _| {
            let Some(node) = store.node(&node_id) else {
                return Err(Refusal::Forbidden(format!(
                    "node {node_id} is not in the swarm"
                )));
            };
            let request = CertificateRequest::from_der(&request.csr)
                .map_err(|error| Refusal::Invalid(error.to_string()))?;
            sign(store, &request, &node.id, node.role)
        });
        renewed.await.map_err(refused)?
    }
}

impl Ca {
    async fn pass_on(
        &self,
        leader: &Contact,
        request: proto::IssueCertificateRequest,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let leader = address(leader);
        let expect = Expect::ManagerNode(leader.node_id.clone());
        let mut client = CaClient::new(self.0.peers.channel(&leader.address, expect));
        let answer = tokio::time::timeout(limits::COMMIT, client.issue_certificate(request));
        match answer.await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Refusal::TimedOut(format!(
                "the leader of the swarm, {}, did not answer within {:?}",
                leader.address,
                limits::COMMIT
            ))),
        }
    }
}

fn issue(store: &Store, request: &proto::IssueCertificateRequest) -> Issued {
    let Some(cluster) = store.cluster() else {
        return Issued::Not(Refusal::Unavailable(
            "the swarm's state is not there yet".into(),
        ));
    };
    let admission = match admit(cluster, &request.csr, &request.token, &request.availability) {
        Ok(admission) => admission,
        Err(error) => return Issued::Not(not_admitted(&error)),
    };
    match store.node(&admission.node_id) {
        None => Issued::New(Box::new(new_node(&admission))),
        Some(node) => match sign(store, &admission.request, &node.id, node.role) {
            Ok(response) => Issued::Certificate(response),
            Err(refusal) => Issued::Not(refusal),
        },
    }
}

fn not_admitted(error: &AdmissionError) -> Refusal {
    let text = error.to_string();
    match error {
        AdmissionError::Token(_) | AdmissionError::OtherCluster | AdmissionError::Secret => {
            Refusal::Unauthenticated(text)
        }
        AdmissionError::Availability(_) | AdmissionError::Ca(_) => Refusal::Invalid(text),
    }
}

fn new_node(admission: &Admission) -> Node {
    Node {
        id: admission.node_id.clone(),
        spec: NodeSpec {
            role: admission.role,
            availability: admission.availability,
            ..NodeSpec::default()
        },
        role: admission.role,
        ..Node::default()
    }
}

fn sign(
    store: &Store,
    request: &CertificateRequest,
    node_id: &str,
    role: NodeRole,
) -> Result<proto::IssueCertificateResponse, Refusal> {
    let cluster = store
        .cluster()
        .ok_or_else(|| Refusal::Unavailable("the swarm's state is not there yet".into()))?;
    let certificate = certify(cluster, request, node_id, role, wall())
        .map_err(|error| Refusal::Internal(error.to_string()))?;
    Ok(proto::IssueCertificateResponse {
        node_id: node_id.to_owned(),
        certificate: certificate.pem().into(),
        root_certificate: cluster.root_ca.certificate.clone().into(),
    })
}

fn wall() -> Timestamp {
    super::super::Clock::start().now().wall
}
