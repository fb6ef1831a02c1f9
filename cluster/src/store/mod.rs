//! The replicated store: tables of objects that change by transactions only.
//!
//! Every manager applies the same transactions in the same order and must come to the same result, so there is no
//! clock, no randomness and no I/O here. A transaction is applied whole or not at all. Whether it may be applied is
//! decided here, at its place in the Raft log, not before it is proposed: that is what lets many proposals be under way
//! at once. An update names the version its writer saw; if that is no longer the object's, the transaction is a
//! [`Conflict`] on every manager alike and its proposer decides again.

mod event;
mod guard;
mod index;
mod intern;
mod removed;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod transaction;

pub use event::StoreEvent;
pub use guard::Guard;
pub use snapshot::{Capture, SnapshotError};
pub use transaction::{StoreAction, Transaction};

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::{
    Cluster, Config, Kind, Meta, Network, Node, Object, Secret, Service, Task, TaskState, Timestamp,
};
use index::Indexes;
use intern::Interner;
use removed::RemovedNodes;
use table::Table;

/// All objects of the cluster as of one Raft index.
#[derive(Debug, Clone, Default, PartialEq)]
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
    removed_nodes: RemovedNodes,
    indexes: Indexes,
    interner: Interner,
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
    #[error("something it depends on was changed meanwhile: {guard:?} does not hold any more")]
    Crossed { guard: Guard },
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
        self.listed(self.indexes.tasks_of_service.get(service_id))
    }

    pub fn tasks_of_node(&self, node_id: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.tasks_of_node.get(node_id))
    }

    /// The tasks of one slot of a replicated service, old and new.
    pub fn tasks_of_slot(&self, service_id: &str, slot: u64) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.slot(service_id, slot))
    }

    /// Tasks that are on a network or are to be.
    pub fn tasks_on_network(&self, network_id: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.listed(self.indexes.tasks_on_network.get(network_id))
    }

    /// Services whose spec refers to a network, those that are being removed among them.
    pub fn services_on_network(&self, network_id: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.referring(self.indexes.services_on_network.get(network_id))
    }

    /// Services whose spec refers to a secret, those that are being removed among them.
    pub fn services_with_secret(&self, secret_id: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.referring(self.indexes.services_with_secret.get(secret_id))
    }

    /// Services whose spec refers to a config, those that are being removed among them.
    pub fn services_with_config(&self, config_id: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.referring(self.indexes.services_with_config.get(config_id))
    }

    /// Whether a node was in the cluster and was removed, as long as it may have a valid certificate.
    #[must_use]
    pub fn was_removed(&self, node_id: &str) -> bool {
        self.removed_nodes.until.contains_key(node_id) && self.node(node_id).is_none()
    }

    /// Ids of the nodes that were removed as in [`Self::was_removed`], and of those that came back.
    pub fn removed_nodes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.removed_nodes.until.keys().map(String::as_str)
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
    /// The first guard that does not hold, or the first action that cannot be applied; the objects are then as before.
    pub fn apply(
        &mut self,
        index: u64,
        transaction: &Transaction,
    ) -> Result<Vec<StoreEvent>, Conflict> {
        self.index = index;
        for guard in &transaction.guards {
            self.expect(guard)?;
        }
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
        for event in &events {
            self.removed_nodes.note(transaction.at, event);
        }
        Ok(events)
    }

    /// Advances over an entry that changes no object.
    pub fn skip_to(&mut self, index: u64) {
        self.index = index;
    }

    fn listed<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        ids.filter_map(|id| self.tasks.get(id))
    }

    fn referring<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        ids.filter_map(|id| self.services.get(id))
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
            StoreAction::TaskStatus { id, status } => Ok(self.merge(index, at, id, |task| {
                let next = status.state;
                let grows = task.status.state.may_become(next)
                    || (task.status.state == next && task.status != *status);
                grows.then(|| task.status = status.clone())
            })),
            StoreAction::TaskDesired { id, desired } => Ok(self.merge(index, at, id, |task| {
                (*desired > task.desired).then(|| task.desired = *desired)
            })),
        }
    }

    /// Changes a task where `grow` finds that to be a step forward. A task that is gone needs no change any more.
    fn merge(
        &mut self,
        index: u64,
        at: Timestamp,
        id: &str,
        grow: impl FnOnce(&mut Task) -> Option<()>,
    ) -> Option<StoreEvent> {
        let old = self.tasks.get(id)?;
        let mut task = Task::clone(old);
        grow(&mut task)?;
        let old = Object::Task(Arc::clone(old));
        Some(self.replace(index, at, old, Object::from(task)))
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
        Ok(StoreEvent::Created(self.put(object)))
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
        let new = self.exchange(&old, new);
        StoreEvent::Updated { old, new }
    }

    /// Keeps `new` in place of `old`; gives it as it is kept. Most changes are of tasks, and leave the indexes as they are.
    fn exchange(&mut self, old: &Object, mut new: Object) -> Object {
        match (old, &mut new) {
            (Object::Task(old), Object::Task(task)) if index::same_places(old, task) => {
                self.interner.share(task);
                self.tasks.swap(&task.id, task);
                new
            }
            _ => {
                self.take(old.kind(), old.id());
                self.put(new)
            }
        }
    }

    fn undo(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Created(object) => {
                self.take(object.kind(), object.id());
            }
            StoreEvent::Updated { old, new } => drop(self.exchange(&new, old)),
            StoreEvent::Removed(object) => drop(self.put(object)),
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

    /// Keeps an object; gives it as it is kept.
    fn put(&mut self, mut object: Object) -> Object {
        if let Some(name) = object.unique_name() {
            self.names
                .insert((object.kind(), name.to_owned()), object.id().to_owned());
        }
        match &mut object {
            Object::Cluster(cluster) => drop(self.clusters.put(&cluster.id, cluster)),
            Object::Node(node) => drop(self.nodes.put(&node.id, node)),
            Object::Service(service) => {
                let id = self.services.put(&service.id, service);
                self.indexes.note_service(&id, service);
            }
            Object::Task(task) => {
                self.interner.share(task);
                let id = self.tasks.put(&task.id, task);
                self.indexes.note_task(&id, task);
            }
            Object::Network(network) => drop(self.networks.put(&network.id, network)),
            Object::Secret(secret) => drop(self.secrets.put(&secret.id, secret)),
            Object::Config(config) => drop(self.configs.put(&config.id, config)),
        }
        object
    }

    fn take(&mut self, kind: Kind, id: &str) -> Option<Object> {
        let object = match kind {
            Kind::Cluster => self.clusters.take(id).map(Object::Cluster),
            Kind::Node => self.nodes.take(id).map(Object::Node),
            Kind::Service => self.services.take(id).map(|service| {
                self.indexes.forget_service(&service);
                Object::Service(service)
            }),
            Kind::Task => self.tasks.take(id).map(|task| {
                self.indexes.forget_task(&task);
                if self.tasks_of_service(&task.service_id).next().is_none() {
                    self.interner.forget(&task.service_id);
                }
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
    if matches!(new.status.state, TaskState::Running | TaskState::Complete)
        && new.running_since == Timestamp::default()
    {
        new.running_since = at;
    }
    if new.status.state.is_terminal() && !old.status.state.is_terminal() {
        new.ended_at = at;
    }
}
