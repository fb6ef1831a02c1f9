//! Changes that belong together.

use cluster_api::{DesiredState, Kind, Object, TaskStatus, Timestamp};
use serde::{Deserialize, Serialize};

use super::Guard;

/// Changes that are applied whole or not at all; the payload of a Raft entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// The proposer's wall clock, for the objects' times.
    pub at: Timestamp,
    /// What must hold besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    pub actions: Vec<StoreAction>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreAction {
    /// The object must not exist, nor its name.
    Create(Object),
    /// `meta.version` of the object is the one its writer saw.
    Update(Object),
    Remove {
        kind: Kind,
        id: String,
        /// The one the writer saw.
        version: u64,
    },
    /// What was observed of a task. Merged: an older state than the current one is
    /// ignored, and so is a task that is gone.
    TaskStatus { id: String, status: TaskStatus },
    /// What is wanted of a task. Merged: an earlier desired state than the current one is ignored, and so is
    /// a task that is gone.
    TaskDesired { id: String, desired: DesiredState },
}

impl StoreAction {
    /// The object it is about.
    #[must_use]
    pub fn target(&self) -> (Kind, &str) {
        match self {
            Self::Create(object) | Self::Update(object) => (object.kind(), object.id()),
            Self::Remove { kind, id, .. } => (*kind, id),
            Self::TaskStatus { id, .. } | Self::TaskDesired { id, .. } => (Kind::Task, id),
        }
    }
}

impl Transaction {
    /// Nothing yet.
    #[must_use]
    pub const fn new(at: Timestamp) -> Self {
        Self {
            at,
            guards: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Is applied only if this holds then.
    pub fn expect(&mut self, guard: Guard) {
        self.guards.push(guard);
    }

    /// Makes an object.
    pub fn create(&mut self, object: impl Into<Object>) {
        self.actions.push(StoreAction::Create(object.into()));
    }

    /// Replaces an object that was read at the version it carries.
    pub fn update(&mut self, object: impl Into<Object>) {
        self.actions.push(StoreAction::Update(object.into()));
    }

    /// Removes the object as it was read.
    pub fn remove(&mut self, object: &Object) {
        self.actions.push(StoreAction::Remove {
            kind: object.kind(),
            id: object.id().to_owned(),
            version: object.meta().version,
        });
    }

    /// Reports a task's state.
    pub fn task_status(&mut self, id: impl Into<String>, status: TaskStatus) {
        self.actions.push(StoreAction::TaskStatus {
            id: id.into(),
            status,
        });
    }

    /// Wants a state of a task.
    pub fn task_desired(&mut self, id: impl Into<String>, desired: DesiredState) {
        self.actions.push(StoreAction::TaskDesired {
            id: id.into(),
            desired,
        });
    }

    /// Whether it would change nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// `None` when it would change nothing.
    #[must_use]
    pub fn non_empty(self) -> Option<Self> {
        (!self.is_empty()).then_some(self)
    }
}
