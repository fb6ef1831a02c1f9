//! Messages of other members.

use cluster_api::proto;
use tonic::async_trait;

use super::super::Manager;
use super::super::thread::Message;
use crate::core::Input;
use crate::raft::PeerMessage;
use crate::rpc::{PeerIdentity, RaftInbound, Refusal};

pub(in super::super) struct RaftBackend(pub(in super::super) Manager);

#[async_trait]
impl RaftInbound for RaftBackend {
    /// A message that finds the inbox full is lost: Raft sends again what matters.
    async fn messages(
        &self,
        peer: &PeerIdentity,
        batch: proto::RaftMessages,
    ) -> Result<(), Refusal> {
        if !self.0.members.speaks_for(&peer.node_id, batch.from) {
            return Err(Refusal::Forbidden(format!(
                "node {} is not member {} of the managers",
                peer.node_id, batch.from
            )));
        }
        for bytes in &batch.messages {
            let message = PeerMessage::decode(bytes).map_err(|error| {
                Refusal::Invalid(format!("a message of {}: {error}", peer.node_id))
            })?;
            if (message.from, message.to) != (batch.from, batch.to) {
                return Err(Refusal::Invalid(format!(
                    "a message from member {} to {} came as one from {} to {}",
                    message.from, message.to, batch.from, batch.to
                )));
            }
            let _ = self.0.send(Message::Input(Input::Peer(message)));
        }
        Ok(())
    }
}
