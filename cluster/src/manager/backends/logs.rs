//! Output of tasks, on the leader.

use cluster_api::proto;
use tonic::async_trait;

use super::super::Manager;
use super::leader_address;
use crate::rpc::{LogBackend, Messages, PeerIdentity, Refusal};

pub(in super::super) struct Logs(pub(in super::super) Manager);

impl Logs {
    fn must_lead(&self) -> Result<(), Refusal> {
        let standing = self.0.standing.borrow();
        if standing.leads {
            return Ok(());
        }
        Err(Refusal::NotLeader {
            leader: leader_address(standing.leader.clone()),
        })
    }
}

#[async_trait]
impl LogBackend for Logs {
    async fn subscribe(
        &self,
        _peer: &PeerIdentity,
        request: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal> {
        self.must_lead()?;
        self.0.logs.subscribe(&self.0, request)
    }

    async fn publish(
        &self,
        peer: &PeerIdentity,
        batches: Messages<proto::PublishLogsRequest>,
    ) -> Result<(), Refusal> {
        self.must_lead()?;
        self.0.logs.publish(peer, batches).await
    }
}
