//! While a node is registered: four things at once, and the first that fails ends the session.

use std::fmt;
use std::time::Duration;

use cluster_api::proto;
use proto::dispatcher_client::DispatcherClient;
use proto::session_message::Message;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

use super::search::{Opened, Search};
use super::{Outbox, SessionEvent};
use crate::dispatcher::{Assignments, Registration, SessionState, statuses_to_wire};
use crate::rpc::peers::{ask, request};
use crate::rpc::{Refusal, limits};

/// Whatever a leader says, heartbeats are not sent more or less often than this.
const PERIODS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Why a session is over.
#[derive(Debug)]
pub(super) enum Ended {
    Refused(Refusal),
    Heartbeat(Refusal),
    Report(Refusal),
    Closed,
    Nonsense(String),
    Asked(String),
    Changed,
    /// Nobody takes events any more.
    Unheard,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Heartbeat(refusal) => write!(f, "heartbeat: {refusal}"),
            Self::Report(refusal) => write!(f, "report: {refusal}"),
            Self::Closed => f.write_str("the manager closed the session"),
            Self::Nonsense(what) => write!(f, "the manager sent something strange: {what}"),
            Self::Asked(reason) => f.write_str(reason),
            Self::Changed => f.write_str("the node's description changed"),
            Self::Unheard => f.write_str("the node stops"),
        }
    }
}

/// Until the session ends.
pub(super) async fn serve(
    opened: Opened,
    outbox: &Outbox,
    events: &mpsc::Sender<SessionEvent>,
    search: &mut Search,
) -> Ended {
    let session = Session {
        leader: proto::ManagerAddress {
            node_id: opened.manager.node_id,
            address: opened.manager.address,
        },
        id: opened.state.session_id.clone(),
        client: opened.client,
        outbox,
        events,
    };
    let period = opened.state.heartbeat_period_ms;
    let registration = outbox.registration();
    tokio::select! {
        ended = session.heartbeats(period) => ended,
        ended = session.messages(opened.messages, search) => ended,
        ended = session.assignments() => ended,
        ended = session.reports(&registration) => ended,
    }
}

struct Session<'a> {
    leader: proto::ManagerAddress,
    id: String,
    client: DispatcherClient<Channel>,
    outbox: &'a Outbox,
    events: &'a mpsc::Sender<SessionEvent>,
}

impl Session<'_> {
    async fn heartbeats(&self, mut period_ms: u64) -> Ended {
        let mut client = self.client.clone();
        loop {
            let period = period_ms.clamp(*PERIODS.start(), *PERIODS.end());
            tokio::time::sleep(Duration::from_millis(period)).await;
            let heartbeat = proto::HeartbeatRequest {
                session_id: self.id.clone(),
            };
            let heartbeat = request(heartbeat, limits::HEARTBEAT);
            match ask(limits::HEARTBEAT, client.heartbeat(heartbeat)).await {
                Ok(answer) => period_ms = answer.period_ms,
                Err(refusal @ Refusal::NotLeader { .. }) => return Ended::Refused(refusal),
                Err(refusal) => return Ended::Heartbeat(refusal),
            }
        }
    }

    async fn messages(
        &self,
        mut messages: Streaming<proto::SessionMessage>,
        search: &mut Search,
    ) -> Ended {
        loop {
            let message = match messages.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return Ended::Closed,
                Err(status) => return Ended::Refused(status.into()),
            };
            let event = match message {
                Some(Message::State(state)) => match SessionState::try_from(state) {
                    Ok(state) => {
                        search.learn(&state);
                        SessionEvent::State(Box::new(state))
                    }
                    Err(error) => return Ended::Nonsense(error.to_string()),
                },
                Some(Message::LogSubscription(subscription)) => SessionEvent::LogSubscription {
                    leader: self.leader.clone(),
                    subscription,
                },
                Some(Message::LogUnsubscribe(id)) => SessionEvent::LogUnsubscribe(id),
                // Of a newer manager.
                None => continue,
            };
            if self.events.send(event).await.is_err() {
                return Ended::Unheard;
            }
        }
    }

    async fn assignments(&self) -> Ended {
        let mut client = self.client.clone();
        loop {
            let wanted = proto::AssignmentsRequest {
                session_id: self.id.clone(),
            };
            let stream = match ask(limits::CALL, client.assignments(wanted)).await {
                Ok(stream) => stream,
                Err(refusal) => return Ended::Refused(refusal),
            };
            // Asked for anew, the leader begins with a complete set.
            tokio::select! {
                ended = self.deliver(stream) => return ended,
                () = self.outbox.resync.notified() => {}
            }
        }
    }

    async fn deliver(&self, mut stream: Streaming<proto::AssignmentsMessage>) -> Ended {
        loop {
            let assignments = match stream.message().await {
                Ok(Some(message)) => Assignments::try_from(message),
                Ok(None) => return Ended::Closed,
                Err(status) => return Ended::Refused(status.into()),
            };
            let event = match assignments {
                Ok(assignments) => SessionEvent::Assignments(Box::new(assignments)),
                Err(error) => return Ended::Nonsense(error.to_string()),
            };
            if self.events.send(event).await.is_err() {
                return Ended::Unheard;
            }
        }
    }

    async fn reports(&self, registered: &Registration) -> Ended {
        let mut client = self.client.clone();
        loop {
            let (statuses, acknowledgement) = {
                let mut contents = self.outbox.contents.lock();
                if let Some(reason) = contents.end.take() {
                    return Ended::Asked(reason);
                }
                if contents.registration != *registered {
                    return Ended::Changed;
                }
                (
                    std::mem::take(&mut contents.statuses),
                    contents.acknowledgement.take(),
                )
            };
            for updates in statuses_to_wire(statuses) {
                let report = proto::UpdateTaskStatusRequest {
                    session_id: self.id.clone(),
                    updates,
                };
                let report = request(report, limits::COMMIT);
                if let Err(refusal) = ask(limits::COMMIT, client.update_task_status(report)).await {
                    return Ended::Report(refusal);
                }
            }
            if let Some(results_in) = acknowledgement {
                let acknowledgement = proto::AckAssignmentsRequest {
                    session_id: self.id.clone(),
                    results_in,
                };
                let acknowledgement = request(acknowledgement, limits::CALL);
                if let Err(refusal) =
                    ask(limits::CALL, client.ack_assignments(acknowledgement)).await
                {
                    return Ended::Report(refusal);
                }
            }
            self.outbox.changed.notified().await;
        }
    }
}
