//! The messages in the protocol's form and back. What an agent reads comes from a leader it trusts, what the leader reads
//! does not: both are checked alike, and nothing here grows with what is claimed, only with what was sent.

use bytes::Bytes;
use cluster_api::{TaskStatus, proto};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{
    Assignments, AssignmentsKind, Change, Contact, ItemKind, Registration, SessionState,
};
use super::status;

/// Why a message from the wire makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("read {what} {id:?}")]
    Json {
        what: &'static str,
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} {value:?} is unknown")]
    Unknown { what: &'static str, value: String },
    #[error("the address {value:?} is not an IP address")]
    Address { value: String },
}

impl From<&Assignments> for proto::AssignmentsMessage {
    fn from(assignments: &Assignments) -> Self {
        let kind = match assignments.kind {
            AssignmentsKind::Complete => proto::AssignmentsKind::Complete,
            AssignmentsKind::Incremental => proto::AssignmentsKind::Incremental,
        };
        Self {
            term: assignments.term,
            applies_to: assignments.applies_to.clone(),
            results_in: assignments.results_in.clone(),
            kind: kind.into(),
            changes: assignments.changes.iter().map(change_to_wire).collect(),
            index: assignments.index,
        }
    }
}

impl TryFrom<proto::AssignmentsMessage> for Assignments {
    type Error = WireError;

    fn try_from(message: proto::AssignmentsMessage) -> Result<Self, WireError> {
        let kind = match message.kind() {
            proto::AssignmentsKind::Complete => AssignmentsKind::Complete,
            proto::AssignmentsKind::Incremental => AssignmentsKind::Incremental,
            proto::AssignmentsKind::Unspecified => {
                return Err(unknown("kind of assignments", message.kind));
            }
        };
        let changes = message.changes.into_iter().map(change_from_wire);
        Ok(Self {
            term: message.term,
            index: message.index,
            applies_to: message.applies_to,
            results_in: message.results_in,
            kind,
            changes: changes.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&SessionState> for proto::SessionState {
    fn from(state: &SessionState) -> Self {
        Self {
            session_id: state.session_id.clone(),
            term: state.term,
            node: json(&*state.node),
            managers: state.managers.iter().map(contact_to_wire).collect(),
            root_certificate: state.root_certificate.clone().into(),
            heartbeat_period_ms: state.heartbeat_period_ms,
            peers: state.peers.iter().map(contact_to_wire).collect(),
        }
    }
}

impl TryFrom<proto::SessionState> for SessionState {
    type Error = WireError;

    fn try_from(state: proto::SessionState) -> Result<Self, WireError> {
        Ok(Self {
            term: state.term,
            node: parse("node of session", &state.session_id, &state.node)?,
            managers: state.managers.into_iter().map(contact_from_wire).collect(),
            root_certificate: String::from_utf8_lossy(&state.root_certificate).into_owned(),
            heartbeat_period_ms: state.heartbeat_period_ms,
            peers: state.peers.into_iter().map(contact_from_wire).collect(),
            session_id: state.session_id,
        })
    }
}

impl From<&Registration> for proto::SessionRequest {
    fn from(registration: &Registration) -> Self {
        Self {
            description: json(&registration.description),
            address: registration.address.clone(),
            data_path_address: registration
                .data_path_addr
                .map_or_else(String::new, |address| address.to_string()),
        }
    }
}

impl TryFrom<proto::SessionRequest> for Registration {
    type Error = WireError;

    /// `seen_at` is left empty: the message does not know it.
    fn try_from(request: proto::SessionRequest) -> Result<Self, WireError> {
        let data_path_addr = match request.data_path_address.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| WireError::Address {
                value: text.to_owned(),
            })?),
        };
        Ok(Self {
            description: parse("description of node", "", &request.description)?,
            address: request.address,
            data_path_addr,
            seen_at: String::new(),
        })
    }
}

/// Statuses of one report.
const REPORT_STATUSES: usize = 1000;

/// Bytes of the statuses of one report; far below what a message may have.
const REPORT_BYTES: usize = 1 << 20;

/// Tasks' statuses in the protocol's form, in reports of bounded size. What the leader would not keep is left out.
#[must_use]
pub fn statuses_to_wire(
    updates: impl IntoIterator<Item = (String, TaskStatus)>,
) -> Vec<Vec<proto::TaskStatusUpdate>> {
    let (mut reports, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for (task_id, status) in updates {
        let update = proto::TaskStatusUpdate {
            status: json(&status::bounded(status)),
            task_id,
        };
        bytes += update.status.len() + update.task_id.len();
        match reports.last_mut() {
            Some(last) if last.len() < REPORT_STATUSES && bytes <= REPORT_BYTES => {
                last.push(update);
            }
            _ => {
                bytes = update.status.len() + update.task_id.len();
                reports.push(vec![update]);
            }
        }
    }
    reports
}

/// A report of tasks' statuses as it came.
///
/// # Errors
///
/// A status that cannot be read.
pub fn statuses_from_wire(
    updates: Vec<proto::TaskStatusUpdate>,
) -> Result<Vec<(String, TaskStatus)>, WireError> {
    let read = |update: proto::TaskStatusUpdate| {
        let status = parse("status of task", &update.task_id, &update.status)?;
        Ok((update.task_id, status))
    };
    updates.into_iter().map(read).collect()
}

fn change_to_wire(change: &Change) -> proto::AssignmentChange {
    let (kind, id) = change.key();
    let object = match change {
        Change::Network(network) => json(network),
        Change::Endpoints(endpoints) => json(endpoints),
        Change::Secret(secret) => json(secret),
        Change::Config(config) => json(config),
        Change::Task(task) => json(task),
        Change::Unbound { .. } | Change::Remove { .. } => Bytes::new(),
    };
    let action = if matches!(change, Change::Remove { .. }) {
        proto::AssignmentAction::Remove
    } else {
        proto::AssignmentAction::Update
    };
    proto::AssignmentChange {
        action: action.into(),
        kind: word(kind).to_owned(),
        id: id.to_owned(),
        object,
    }
}

fn change_from_wire(change: proto::AssignmentChange) -> Result<Change, WireError> {
    let kind = ITEM_KINDS
        .into_iter()
        .find(|kind| word(*kind) == change.kind)
        .ok_or_else(|| unknown("kind of assignment", &change.kind))?;
    let (id, object) = (&change.id, &change.object);
    match change.action() {
        proto::AssignmentAction::Remove => Ok(Change::Remove {
            kind,
            id: change.id,
        }),
        proto::AssignmentAction::Update => Ok(match kind {
            ItemKind::Network => Change::Network(parse("network", id, object)?),
            ItemKind::Endpoints => Change::Endpoints(parse("endpoints of network", id, object)?),
            ItemKind::Secret => Change::Secret(parse("secret", id, object)?),
            ItemKind::Config => Change::Config(parse("config", id, object)?),
            ItemKind::Task => Change::Task(parse("task", id, object)?),
            ItemKind::Unbound => Change::Unbound { task_id: change.id },
        }),
        proto::AssignmentAction::Unspecified => {
            Err(unknown("action of an assignment", change.action))
        }
    }
}

const ITEM_KINDS: [ItemKind; 6] = [
    ItemKind::Network,
    ItemKind::Endpoints,
    ItemKind::Secret,
    ItemKind::Config,
    ItemKind::Task,
    ItemKind::Unbound,
];

const fn word(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Network => "network",
        ItemKind::Endpoints => "endpoints",
        ItemKind::Secret => "secret",
        ItemKind::Config => "config",
        ItemKind::Task => "task",
        ItemKind::Unbound => "unbound",
    }
}

fn contact_to_wire(contact: &Contact) -> proto::ManagerAddress {
    proto::ManagerAddress {
        node_id: contact.node_id.clone(),
        address: contact.address.clone(),
    }
}

fn contact_from_wire(address: proto::ManagerAddress) -> Contact {
    Contact {
        node_id: address.node_id,
        address: address.address,
    }
}

/// Bytes of a value as it travels and is stored.
pub(super) fn size_of(value: &impl Serialize) -> usize {
    json(value).len()
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("maps of the objects have text keys")
        .into()
}

fn parse<T: DeserializeOwned>(what: &'static str, id: &str, bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|source| WireError::Json {
        what,
        id: id.to_owned(),
        source,
    })
}

fn unknown(what: &'static str, value: impl ToString) -> WireError {
    WireError::Unknown {
        what,
        value: value.to_string(),
    }
}
