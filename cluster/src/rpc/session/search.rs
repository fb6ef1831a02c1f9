//! Which manager leads. A round asks the one believed to lead, then the others in random order, and follows what they
//! say; after a round without success it pauses, longer each time, so that managers that start are not trampled.

use std::sync::Arc;
use std::time::Duration;

use cluster_api::proto::dispatcher_client::DispatcherClient;
use cluster_api::proto::session_message::Message;
use cluster_api::{IdSource, proto};
use tonic::Streaming;
use tonic::transport::Channel;

use super::Outbox;
use super::registered::Ended;
use crate::dispatcher::{Contact, SessionState};
use crate::rpc::peers::{ask, node_channel};
use crate::rpc::{Expect, Peers, Refusal, limits};

/// Pauses between rounds (SwarmKit `agent/agent.go`, `initialSessionFailureBackoff`, `maxSessionFailureBackoff`).
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(8);
/// Leaders named by others that are followed in one round: two managers may each believe that the other leads.
const HOPS: usize = 4;
/// A session that was shorter counts as a failed attempt.
const SETTLED: Duration = Duration::from_secs(2);

/// A session that was opened.
pub(super) struct Opened {
    pub(super) manager: Contact,
    pub(super) client: DispatcherClient<Channel>,
    pub(super) messages: Streaming<proto::SessionMessage>,
    pub(super) state: SessionState,
}

/// Who is asked next, and when.
pub(super) struct Search {
    peers: Arc<Peers>,
    managers: Vec<Contact>,
    leader: Option<Contact>,
    pause: Option<Duration>,
    ids: IdSource,
}

impl Search {
    pub(super) fn new(peers: Arc<Peers>, managers: Vec<Contact>) -> Self {
        Self {
            peers,
            managers,
            leader: None,
            pause: None,
            ids: IdSource::random(),
        }
    }

    /// Remembers the managers a leader names. An empty list is not believed: it would leave nobody to ask.
    pub(super) fn learn(&mut self, state: &SessionState) {
        if !state.managers.is_empty() {
            self.managers.clone_from(&state.managers);
        }
    }

    /// A session was lost after `lasted`.
    pub(super) fn lost(&mut self, lasted: Duration, ended: &Ended) {
        if lasted >= SETTLED {
            self.pause = None;
        }
        self.leader = match ended {
            Ended::Refused(Refusal::NotLeader { leader }) => leader.as_ref().map(contact),
            _ => None,
        };
    }

    /// Asks until a manager accepts.
    pub(super) async fn find(&mut self, outbox: &Outbox) -> Opened {
        loop {
            if let Some(pause) = self.pause {
                // Between half and all of it, so that nodes do not come together.
                let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let wait = millis / 2 + self.ids.below(millis / 2 + 1);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            self.pause = Some(longer(self.pause));
            match self.round(outbox).await {
                Ok(opened) => return opened,
                Err(problem) => {
                    tracing::debug!(problem, "no manager accepts this node");
                    *outbox.problem.lock() = Some(problem);
                }
            }
        }
    }

    async fn round(&mut self, outbox: &Outbox) -> Result<Opened, String> {
        let mut problem = "no manager is known".to_owned();
        let mut hops = HOPS;
        let mut queue = self.shuffled();
        queue.extend(self.leader.take());
        while let Some(manager) = queue.pop() {
            match self.open(&manager, outbox).await {
                Ok(opened) => return Ok(opened),
                Err(refusal) => {
                    if let Refusal::NotLeader {
                        leader: Some(leader),
                    } = &refusal
                        && hops > 0
                    {
                        hops -= 1;
                        queue.push(contact(leader));
                    }
                    problem = format!("manager {}: {refusal}", manager.address);
                }
            }
        }
        Err(problem)
    }

    fn shuffled(&mut self) -> Vec<Contact> {
        let mut managers = self.managers.clone();
        for at in (1..managers.len()).rev() {
            let other = self.ids.below(at as u64 + 1);
            managers.swap(at, usize::try_from(other).unwrap_or(at));
        }
        managers
    }

    async fn open(&self, manager: &Contact, outbox: &Outbox) -> Result<Opened, Refusal> {
        let expect = if manager.node_id.is_empty() {
            Expect::Manager
        } else {
            Expect::ManagerNode(manager.node_id.clone())
        };
        // A connection of its own: one that hangs takes nothing else with it, and the next attempt is a new one.
        let channel = node_channel(
            self.peers.tls(),
            &manager.address,
            &expect,
            limits::CONNECT_SESSION,
        );
        let mut client = DispatcherClient::new(channel)
            .max_decoding_message_size(limits::ASSIGNMENTS_BYTES)
            .max_encoding_message_size(limits::MESSAGE_BYTES);
        let request = proto::SessionRequest::from(&outbox.registration());
        let mut messages = ask(limits::CALL, client.session(request)).await?;
        let first = tokio::time::timeout(limits::CALL, messages.message()).await;
        let Ok(first) = first else {
            return Err(Refusal::TimedOut("it says nothing".into()));
        };
        let Some(Message::State(state)) = first?.and_then(|message| message.message) else {
            return Err(Refusal::Internal("it does not begin with a state".into()));
        };
        let state =
            SessionState::try_from(state).map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(Opened {
            manager: manager.clone(),
            client,
            messages,
            state,
        })
    }
}

fn contact(address: &proto::ManagerAddress) -> Contact {
    Contact {
        node_id: address.node_id.clone(),
        address: address.address.clone(),
    }
}

/// The pause after this one.
fn longer(pause: Option<Duration>) -> Duration {
    pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_tenth_of_a_second_to_eight() {
        let pauses = std::iter::successors(Some(longer(None)), |pause| Some(longer(Some(*pause))));
        let millis: Vec<u128> = pauses.take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
    }
}
