//! Clients' requests that another manager got.

use cluster_api::proto;
use proto::forward_response::Outcome;
use tonic::async_trait;

use super::super::{Manager, refusal};
use super::refused;
use crate::control;
use crate::core::{Answer, Command, Failure};
use crate::rpc::{ControlBackend, PeerIdentity, Refusal};

pub(in super::super) struct Control(pub(in super::super) Manager);

#[async_trait]
impl ControlBackend for Control {
    async fn forward(
        &self,
        peer: &PeerIdentity,
        request: proto::ForwardRequest,
    ) -> Result<proto::ForwardResponse, Refusal> {
        let request = control::Request::decode(&request.request)
            .map_err(|error| Refusal::Invalid(format!("a forwarded request: {error}")))?;
        let command = Command::Forwarded {
            node_id: peer.node_id.clone(),
            request: Box::new(request),
        };
        let outcome = match self.0.command_of_leader(command).await {
            Ok(Answer::Reply(reply)) => Outcome::Answer(reply.encode().into()),
            Ok(other) => return Err(Refusal::Internal(format!("a strange answer: {other:?}"))),
            // The asker looks for the leader itself.
            Err(failure @ Failure::NotLeader { .. }) => return Err(refused(failure)),
            Err(failure) => Outcome::Error(refusal(failure).encode().into()),
        };
        Ok(proto::ForwardResponse {
            outcome: Some(outcome),
        })
    }
}
