//! The replicated store: tables of objects that change by transactions only.
//!
//! Every manager applies the same transactions in the same order and must come to the same result, so there is no
//! clock, no randomness and no I/O here. A transaction is applied whole or not at all. Whether it may be applied is
//! decided here, at its place in the Raft log, not before it is proposed: that is what lets many proposals be under way
//! at once. An update names the version its writer saw; if that is no longer the object's, the transaction is a
//! [`Conflict`] on every manager alike and its proposer decides again.

mod event;
mod snapshot;
mod table;
mod transaction;

pub use event::StoreEvent;
pub use snapshot::SnapshotError;
pub use transaction::{StoreAction, Transaction};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{
    Cluster, Config, Kind, Meta, Network, Node, Object, Secret, Service, Task, TaskState, Timestamp,
};
use table::Table;

/// All objects of the cluster as of one Raft index.
#[derive(Debug, Clone, Default)]
pub struct Store {
    index: u64,
    clusters: Table<Cluster>,
    nodes: Table<Node>,
    services: Table<Service>,
    tasks: Table<Task>,
    networks: Table<Network>,
    secrets: Table<Secret>,
    configs: Table<Config>,
    names: BTreeMap<(Kind, String), String>,
    tasks_of_service: BTreeMap<String, BTreeSet<String>>,
    tasks_of_node: BTreeMap<String, BTreeSet<String>>,
}

/// Why a transaction had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("{kind} {id} already exists")]
    Exists { kind: Kind, id: String },
    #[error("a {kind} named {name} already exists")]
    NameTaken { kind: Kind, name: String },
    #[error("{kind} {id} does not exist")]
    Missing { kind: Kind, id: String },
    #[error("{kind} {id} was changed meanwhile: version {seen} was seen, {current} is current")]
    Changed {
        kind: Kind,
        id: String,
        seen: u64,
        current: u64,
    },
}

impl Store {
    /// Raft index of the last entry applied.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The cluster; absent before the first manager has made it.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.clusters.values().next()
    }

    #[must_use]
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    #[must_use]
    pub fn task(&self, id: &str) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    #[must_use]
    pub fn network(&self, id: &str) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    #[must_use]
    pub fn secret(&self, id: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(id)
    }

    #[must_use]
    pub fn config(&self, id: &str) -> Option<&Arc<Config>> {
        self.configs.get(id)
    }

    /// In the order of their ids, like every list below.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    pub fn configs(&self) -> impl Iterator<Item = &Arc<Config>> {
        self.configs.values()
    }

    pub fn tasks_of_service(&self, service_id: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.tasks_of_service.get(service_id))
    }

    pub fn tasks_of_node(&self, node_id: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.tasks_of_node.get(node_id))
    }

    /// Id of the object of `kind` that has this name.
    #[must_use]
    pub fn id_of(&self, kind: Kind, name: &str) -> Option<&str> {
        self.names.get(&(kind, name.to_owned())).map(String::as_str)
    }

    /// Any object.
    #[must_use]
    pub fn object(&self, kind: Kind, id: &str) -> Option<Object> {
        match kind {
            Kind::Cluster => self.clusters.get(id).cloned().map(Object::Cluster),
            Kind::Node => self.nodes.get(id).cloned().map(Object::Node),
            Kind::Service => self.services.get(id).cloned().map(Object::Service),
            Kind::Task => self.tasks.get(id).cloned().map(Object::Task),
            Kind::Network => self.networks.get(id).cloned().map(Object::Network),
            Kind::Secret => self.secrets.get(id).cloned().map(Object::Secret),
            Kind::Config => self.configs.get(id).cloned().map(Object::Config),
        }
    }

    /// Applies the transaction at this place of the Raft log, whole or not at all. The index advances either way.
    ///
    /// # Errors
    ///
    /// The first action that cannot be applied; the objects are then as before.
    pub fn apply(
        &mut self,
        index: u64,
        transaction: &Transaction,
    ) -> Result<Vec<StoreEvent>, Conflict> {
        self.index = index;
        let mut events = Vec::with_capacity(transaction.actions.len());
        for action in &transaction.actions {
            match self.perform(index, transaction.at, action) {
                Ok(event) => events.extend(event),
                Err(conflict) => {
                    for event in events.into_iter().rev() {
                        self.undo(event);
                    }
                    return Err(conflict);
                }
            }
        }
        Ok(events)
    }

    /// Advances over an entry that changes no object.
    pub fn skip_to(&mut self, index: u64) {
        self.index = index;
    }

    fn listed<'a>(
        &'a self,
        ids: Option<&'a BTreeSet<String>>,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.tasks.get(id))
    }

    fn perform(
        &mut self,
        index: u64,
        at: Timestamp,
        action: &StoreAction,
    ) -> Result<Option<StoreEvent>, Conflict> {
        match action {
            StoreAction::Create(object) => self.create(index, at, object.clone()).map(Some),
            StoreAction::Update(object) => self.update(index, at, object.clone()).map(Some),
            StoreAction::Remove { kind, id, version } => {
                self.expect_version(*kind, id, *version)?;
                Ok(self.take(*kind, id).map(StoreEvent::Removed))
            }
            StoreAction::TaskStatus { id, status } => {
                let old = self.existing_task(id)?;
                if !old.status.state.may_become(status.state)
                    && !(old.status.state == status.state && old.status != *status)
                {
                    return Ok(None);
                }
                let mut task = Task::clone(&old);
                task.status = status.clone();
                Ok(Some(self.replace(
                    index,
                    at,
                    Object::Task(old),
                    Object::from(task),
                )))
            }
            StoreAction::TaskDesired { id, desired } => {
                let old = self.existing_task(id)?;
                if *desired <= old.desired {
                    return Ok(None);
                }
                let mut task = Task::clone(&old);
                task.desired = *desired;
                Ok(Some(self.replace(
                    index,
                    at,
                    Object::Task(old),
                    Object::from(task),
                )))
            }
        }
    }

    fn existing_task(&self, id: &str) -> Result<Arc<Task>, Conflict> {
        self.tasks
            .get(id)
            .cloned()
            .ok_or_else(|| Conflict::Missing {
                kind: Kind::Task,
                id: id.to_owned(),
            })
    }

    fn create(
        &mut self,
        index: u64,
        at: Timestamp,
        mut object: Object,
    ) -> Result<StoreEvent, Conflict> {
        let kind = object.kind();
        if self.object(kind, object.id()).is_some() {
            return Err(Conflict::Exists {
                kind,
                id: object.id().to_owned(),
            });
        }
        self.expect_free_name(&object)?;
        object.set_meta(Meta {
            version: index,
            created_at: at,
            updated_at: at,
        });
        self.put(object.clone());
        Ok(StoreEvent::Created(object))
    }

    fn update(
        &mut self,
        index: u64,
        at: Timestamp,
        object: Object,
    ) -> Result<StoreEvent, Conflict> {
        let old = self.expect_version(object.kind(), object.id(), object.meta().version)?;
        self.expect_free_name(&object)?;
        Ok(self.replace(index, at, old, object))
    }

    fn replace(&mut self, index: u64, at: Timestamp, old: Object, mut new: Object) -> StoreEvent {
        new.set_meta(Meta {
            version: index,
            created_at: old.meta().created_at,
            updated_at: at,
        });
        if let (Object::Task(old), Object::Task(new)) = (&old, &mut new) {
            stamp(old, Arc::make_mut(new), at);
        }
        self.take(old.kind(), old.id());
        self.put(new.clone());
        StoreEvent::Updated { old, new }
    }

    fn undo(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Created(object) => {
                self.take(object.kind(), object.id());
            }
            StoreEvent::Updated { old, new } => {
                self.take(new.kind(), new.id());
                self.put(old);
            }
            StoreEvent::Removed(object) => self.put(object),
        }
    }

    fn expect_version(&self, kind: Kind, id: &str, seen: u64) -> Result<Object, Conflict> {
        let Some(object) = self.object(kind, id) else {
            return Err(Conflict::Missing {
                kind,
                id: id.to_owned(),
            });
        };
        let current = object.meta().version;
        if current == seen {
            Ok(object)
        } else {
            Err(Conflict::Changed {
                kind,
                id: id.to_owned(),
                seen,
                current,
            })
        }
    }

    fn expect_free_name(&self, object: &Object) -> Result<(), Conflict> {
        match object.unique_name() {
            Some(name)
                if self
                    .id_of(object.kind(), name)
                    .is_some_and(|id| id != object.id()) =>
            {
                Err(Conflict::NameTaken {
                    kind: object.kind(),
                    name: name.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, object: Object) {
        if let Some(name) = object.unique_name() {
            self.names
                .insert((object.kind(), name.to_owned()), object.id().to_owned());
        }
        match object {
            Object::Cluster(cluster) => self.clusters.put(cluster.id.clone(), cluster),
            Object::Node(node) => self.nodes.put(node.id.clone(), node),
            Object::Service(service) => self.services.put(service.id.clone(), service),
            Object::Task(task) => {
                note(&mut self.tasks_of_service, &task.service_id, &task.id);
                note(&mut self.tasks_of_node, &task.node_id, &task.id);
                self.tasks.put(task.id.clone(), task);
            }
            Object::Network(network) => self.networks.put(network.id.clone(), network),
            Object::Secret(secret) => self.secrets.put(secret.id.clone(), secret),
            Object::Config(config) => self.configs.put(config.id.clone(), config),
        }
    }

    fn take(&mut self, kind: Kind, id: &str) -> Option<Object> {
        let object = match kind {
            Kind::Cluster => self.clusters.take(id).map(Object::Cluster),
            Kind::Node => self.nodes.take(id).map(Object::Node),
            Kind::Service => self.services.take(id).map(Object::Service),
            Kind::Task => self.tasks.take(id).map(|task| {
                forget(&mut self.tasks_of_service, &task.service_id, id);
                forget(&mut self.tasks_of_node, &task.node_id, id);
                Object::Task(task)
            }),
            Kind::Network => self.networks.take(id).map(Object::Network),
            Kind::Secret => self.secrets.take(id).map(Object::Secret),
            Kind::Config => self.configs.take(id).map(Object::Config),
        }?;
        if let Some(name) = object.unique_name() {
            self.names.remove(&(kind, name.to_owned()));
        }
        Some(object)
    }
}

/// Notes when a task came to its states, by the clock of the leader that proposed the change: the clocks of nodes are
/// not to be trusted for decisions.
fn stamp(old: &Task, new: &mut Task, at: Timestamp) {
    if new.desired != old.desired {
        new.desired_since = at;
    }
    if new.status.state == old.status.state {
        return;
    }
    if matches!(
        new.status.state,
        TaskState::Running | TaskState::Complete
    ) && new.running_since == Timestamp::default()
    {
        new.running_since = at;
    }
    if new.status.state.is_terminal() && !old.status.state.is_terminal() {
        new.ended_at = at;
    }
}

fn note(index: &mut BTreeMap<String, BTreeSet<String>>, key: &str, id: &str) {
    if !key.is_empty() {
        index
            .entry(key.to_owned())
            .or_default()
            .insert(id.to_owned());
    }
}

fn forget(index: &mut BTreeMap<String, BTreeSet<String>>, key: &str, id: &str) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
