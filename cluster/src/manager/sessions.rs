//! The streams of agents in session with this manager.

use std::collections::BTreeMap;

use cluster_api::proto;
use tokio::sync::mpsc;

use crate::dispatcher::{Message as Told, Outgoing};
use crate::rpc::Refusal;

/// Messages waiting for one agent; one that is further behind has to begin anew.
pub(super) const QUEUE: usize = 256;

pub(super) type States = mpsc::Sender<Result<proto::SessionMessage, Refusal>>;
pub(super) type Assignments = mpsc::Sender<Result<proto::AssignmentsMessage, Refusal>>;

/// Streams by session id.
#[derive(Default)]
pub(super) struct Sessions(BTreeMap<String, Streams>);

struct Streams {
    node_id: String,
    states: States,
    assignments: Option<Assignments>,
}

impl Sessions {
    /// A session was opened.
    pub(super) fn open(&mut self, session_id: String, node_id: String, states: States) {
        self.0.insert(
            session_id,
            Streams {
                node_id,
                states,
                assignments: None,
            },
        );
    }

    /// Its assignments go here from now on. `false`: there is no such session.
    pub(super) fn open_assignments(&mut self, session_id: &str, assignments: Assignments) -> bool {
        match self.0.get_mut(session_id) {
            Some(streams) => {
                streams.assignments = Some(assignments);
                true
            }
            None => false,
        }
    }

    pub(super) fn close(&mut self, session_id: &str) {
        self.0.remove(session_id);
    }

    /// Leadership is lost: all sessions are over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Hands a message to its stream. A stream that is full ends, and with it the session: the agent begins anew.
    pub(super) fn deliver(&mut self, outgoing: Outgoing) {
        let Outgoing {
            session_id,
            message,
            ..
        } = outgoing;
        let Some(streams) = self.0.get_mut(&session_id) else {
            return;
        };
        let sent = match message {
            Told::State(state) => {
                let state = proto::session_message::Message::State((&state).into());
                streams
                    .states
                    .try_send(Ok(proto::SessionMessage {
                        message: Some(state),
                    }))
                    .is_ok()
            }
            Told::Assignments(assignments) => streams
                .assignments
                .as_ref()
                .is_some_and(|stream| stream.try_send(Ok((&assignments).into())).is_ok()),
            Told::Over => false,
        };
        if !sent {
            self.0.remove(&session_id);
        }
    }

    /// Tells a node something that is not the dispatcher's. `false`: it is not in session, or too far behind.
    pub(super) fn tell(&self, node_id: &str, message: proto::session_message::Message) -> bool {
        let message = proto::SessionMessage {
            message: Some(message),
        };
        self.0
            .values()
            .find(|streams| streams.node_id == node_id)
            .is_some_and(|streams| streams.states.try_send(Ok(message)).is_ok())
    }
}
