//! Who takes part in Raft.

use std::net::SocketAddr;

use cluster_api::proto;
use tonic::async_trait;

use super::super::Manager;
use super::super::thread::members;
use super::refused;
use crate::core::{Answer, Command};
use crate::rpc::{MembershipBackend, PeerIdentity, Refusal};

pub(in super::super) struct Members(pub(in super::super) Manager);

#[async_trait]
impl MembershipBackend for Members {
    /// A manager nobody can reach would cost the group its majority: it must answer at its address first.
    async fn join(
        &self,
        peer: &PeerIdentity,
        request: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Refusal> {
        request.address.parse::<SocketAddr>().map_err(|error| {
            Refusal::Invalid(format!(
                "{:?} is no address of a manager: {error}",
                request.address
            ))
        })?;
        if !self.0.standing.borrow().leads {
            let leader = self.0.standing.borrow().leader.clone();
            return Err(Refusal::NotLeader {
                leader: super::leader_address(leader),
            });
        }
        let candidate = proto::ManagerAddress {
            node_id: peer.node_id.clone(),
            address: request.address.clone(),
        };
        if let Err(refusal) = self.0.peers.health(&candidate).await {
            return Err(Refusal::Conflict(format!(
                "manager {} cannot be reached at {}: {refusal}; check its --advertise-addr and the firewall in between",
                peer.node_id, request.address
            )));
        }
        let join = Command::Join {
            node_id: peer.node_id.clone(),
            address: request.address,
        };
        match self.0.command(join).await.map_err(refused)? {
            Answer::Joined {
                raft_id,
                membership,
            } => Ok(proto::JoinResponse {
                raft_id,
                members: members(&membership).collect(),
            }),
            other => Err(Refusal::Internal(format!("a strange answer: {other:?}"))),
        }
    }

    async fn leave(
        &self,
        peer: &PeerIdentity,
        _request: proto::LeaveRequest,
    ) -> Result<proto::LeaveResponse, Refusal> {
        let leave = Command::Leave {
            node_id: peer.node_id.clone(),
        };
        self.0.command(leave).await.map_err(refused)?;
        Ok(proto::LeaveResponse {})
    }

    async fn health(&self, _peer: &PeerIdentity) -> Result<proto::HealthResponse, Refusal> {
        let looked = self.0.look(|core| proto::HealthResponse {
            raft_id: core.status().id,
            term: core.role().term,
        });
        looked.await.map_err(refused)
    }
}
