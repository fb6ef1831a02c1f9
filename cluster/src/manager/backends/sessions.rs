//! Agents in session with the leader.

use cluster_api::proto;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tonic::async_trait;

use super::super::Manager;
use super::super::sessions::QUEUE;
use super::super::thread::Message;
use super::{agent_refused, refused};
use crate::core::{AgentAnswer, AgentCall, AgentRefused};
use crate::dispatcher::{Registration, statuses_from_wire};
use crate::rpc::{DispatcherBackend, Messages, PeerIdentity, Refusal};

pub(in super::super) struct Sessions(pub(in super::super) Manager);

#[async_trait]
impl DispatcherBackend for Sessions {
    async fn session(
        &self,
        peer: &PeerIdentity,
        request: proto::SessionRequest,
    ) -> Result<Messages<proto::SessionMessage>, Refusal> {
        let mut registration = Registration::try_from(request).map_err(|error| {
            Refusal::Invalid(format!("the registration of {}: {error}", peer.node_id))
        })?;
        registration.seen_at = peer.address.ip().to_canonical().to_string();
        let (states, messages) = mpsc::channel(QUEUE);
        let answer = self.ask(|reply| Message::OpenSession {
            node_id: peer.node_id.clone(),
            registration: Box::new(registration),
            states,
            reply,
        });
        let AgentAnswer::Registered { session_id } = answer.await? else {
            return Err(Refusal::Internal("a registration gave no session".into()));
        };
        let open = Open {
            manager: self.0.clone(),
            node_id: peer.node_id.clone(),
            session_id,
        };
        // Readers of logs whose stream from this node broke off.
        for subscription in self.0.logs.resumed(&peer.node_id) {
            let (reply, _) = oneshot::channel();
            let message = Message::Tell {
                node_id: peer.node_id.clone(),
                message: proto::session_message::Message::LogSubscription(subscription),
                reply,
            };
            self.0.send(message).map_err(refused)?;
        }
        Ok(received(messages, open))
    }

    async fn heartbeat(
        &self,
        peer: &PeerIdentity,
        request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Refusal> {
        let call = AgentCall::Heartbeat {
            session_id: request.session_id,
        };
        match self.call(peer, call).await? {
            AgentAnswer::Alive { period_ms } => Ok(proto::HeartbeatResponse { period_ms }),
            other => Err(Refusal::Internal(format!("a strange answer: {other:?}"))),
        }
    }

    async fn assignments(
        &self,
        peer: &PeerIdentity,
        request: proto::AssignmentsRequest,
    ) -> Result<Messages<proto::AssignmentsMessage>, Refusal> {
        let (assignments, messages) = mpsc::channel(QUEUE);
        self.ask(|reply| Message::OpenAssignments {
            node_id: peer.node_id.clone(),
            session_id: request.session_id,
            assignments,
            reply,
        })
        .await?;
        Ok(received(messages, ()))
    }

    async fn update_task_status(
        &self,
        peer: &PeerIdentity,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<(), Refusal> {
        let updates = statuses_from_wire(request.updates)
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let call = AgentCall::Report {
            session_id: request.session_id,
            updates,
        };
        self.call(peer, call).await.map(drop)
    }

    async fn acknowledge(
        &self,
        peer: &PeerIdentity,
        request: proto::AckAssignmentsRequest,
    ) -> Result<(), Refusal> {
        let call = AgentCall::Acknowledge {
            session_id: request.session_id,
            results_in: request.results_in,
        };
        self.call(peer, call).await.map(drop)
    }
}

impl Sessions {
    async fn call(&self, peer: &PeerIdentity, call: AgentCall) -> Result<AgentAnswer, Refusal> {
        self.ask(|reply| Message::Agent {
            node_id: peer.node_id.clone(),
            call,
            reply,
        })
        .await
    }

    async fn ask(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<AgentAnswer, AgentRefused>>) -> Message,
    ) -> Result<AgentAnswer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0.send(message(reply)).map_err(refused)?;
        match answer.await {
            Ok(answer) => answer.map_err(agent_refused),
            Err(_) => Err(Refusal::Unavailable("this manager is being stopped".into())),
        }
    }
}

/// A session's stream. Dropping it is how the other end's going is noticed.
struct Open {
    manager: Manager,
    node_id: String,
    session_id: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        let call = AgentCall::Disconnected {
            session_id: std::mem::take(&mut self.session_id),
        };
        // A full inbox: the session ends by its silence, a little later.
        let _ = self.manager.send(Message::Agent {
            node_id: std::mem::take(&mut self.node_id),
            call,
            reply,
        });
    }
}

fn received<T: Send + 'static>(
    messages: mpsc::Receiver<Result<T, Refusal>>,
    keep: impl Send + 'static,
) -> Messages<T> {
    stream::unfold((messages, keep), |(mut messages, keep)| async {
        let message = messages.recv().await?;
        Some((message, (messages, keep)))
    })
    .boxed()
}
