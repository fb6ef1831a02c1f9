//! Secondary indexes: which objects have something to do with which key. Ids are shared with the tables, so an entry
//! costs a pointer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{Service, Task};

/// Ids by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index(BTreeMap<Arc<str>, BTreeSet<Arc<str>>>);

impl Index {
    /// In the order of the ids.
    pub(super) fn get(&self, key: &str) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(key).into_iter().flatten()
    }

    fn note(&mut self, key: &str, id: &Arc<str>) {
        if key.is_empty() {
            return;
        }
        if let Some(ids) = self.0.get_mut(key) {
            ids.insert(Arc::clone(id));
        } else {
            self.0.insert(key.into(), BTreeSet::from([Arc::clone(id)]));
        }
    }

    fn forget(&mut self, key: &str, id: &str) {
        if let Some(ids) = self.0.get_mut(key) {
            ids.remove(id);
            if ids.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

/// All indexes of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes {
    pub(super) tasks_of_service: Index,
    pub(super) tasks_of_node: Index,
    /// Attached to the network, or to be.
    pub(super) tasks_on_network: Index,
    pub(super) services_on_network: Index,
    pub(super) services_with_secret: Index,
    pub(super) services_with_config: Index,
    /// Service → slot → tasks, of replicated services.
    slots: BTreeMap<Arc<str>, BTreeMap<u64, Vec<Arc<str>>>>,
}

impl Indexes {
    pub(super) fn note_task(&mut self, id: &Arc<str>, task: &Task) {
        self.tasks_of_service.note(&task.service_id, id);
        self.tasks_of_node.note(&task.node_id, id);
        for network in networks_of(task) {
            self.tasks_on_network.note(network, id);
        }
        if task.slot == 0 {
            return;
        }
        if !self.slots.contains_key(task.service_id.as_str()) {
            self.slots
                .insert(task.service_id.as_str().into(), BTreeMap::new());
        }
        if let Some(slots) = self.slots.get_mut(task.service_id.as_str()) {
            let ids = slots.entry(task.slot).or_default();
            if let Err(place) = ids.binary_search(id) {
                ids.insert(place, Arc::clone(id));
            }
        }
    }

    pub(super) fn forget_task(&mut self, task: &Task) {
        let id = task.id.as_str();
        self.tasks_of_service.forget(&task.service_id, id);
        self.tasks_of_node.forget(&task.node_id, id);
        for network in networks_of(task) {
            self.tasks_on_network.forget(network, id);
        }
        let Some(slots) = self.slots.get_mut(task.service_id.as_str()) else {
            return;
        };
        if let Some(ids) = slots.get_mut(&task.slot) {
            ids.retain(|other| &**other != id);
            if ids.is_empty() {
                slots.remove(&task.slot);
            }
        }
        if slots.is_empty() {
            self.slots.remove(task.service_id.as_str());
        }
    }

    /// The tasks of one slot, in the order of their ids.
    pub(super) fn slot(&self, service: &str, slot: u64) -> impl Iterator<Item = &Arc<str>> {
        self.slots
            .get(service)
            .and_then(|slots| slots.get(&slot))
            .into_iter()
            .flatten()
    }

    pub(super) fn note_service(&mut self, id: &Arc<str>, service: &Service) {
        for (kind, key) in references(service) {
            self.of(kind).note(key, id);
        }
    }

    pub(super) fn forget_service(&mut self, service: &Service) {
        for (kind, key) in references(service) {
            self.of(kind).forget(key, &service.id);
        }
    }

    const fn of(&mut self, reference: Reference) -> &mut Index {
        match reference {
            Reference::Network => &mut self.services_on_network,
            Reference::Secret => &mut self.services_with_secret,
            Reference::Config => &mut self.services_with_config,
        }
    }
}

/// Whether all indexes have the two in the same places.
pub(super) fn same_places(old: &Task, new: &Task) -> bool {
    old.service_id == new.service_id
        && old.slot == new.slot
        && old.node_id == new.node_id
        && networks_of(old).eq(networks_of(new))
}

/// What a service's spec refers to.
#[derive(Clone, Copy)]
enum Reference {
    Network,
    Secret,
    Config,
}

fn references(service: &Service) -> impl Iterator<Item = (Reference, &str)> {
    let template = &service.spec.task_template;
    let container = template.container_spec.iter();
    let networks = service.spec.networks.iter().chain(&template.networks);
    networks
        .map(|network| (Reference::Network, network.target.as_str()))
        .chain(container.clone().flat_map(|container| {
            let secrets = container.secrets.iter();
            secrets.map(|secret| (Reference::Secret, secret.secret_id.as_str()))
        }))
        .chain(container.flat_map(|container| {
            let configs = container.configs.iter();
            configs.map(|config| (Reference::Config, config.config_id.as_str()))
        }))
}

fn networks_of(task: &Task) -> impl Iterator<Item = &str> {
    let wanted = task.spec.networks.iter();
    let attached = task.networks.iter();
    wanted
        .map(|network| network.target.as_str())
        .chain(attached.map(|attachment| attachment.network_id.as_str()))
}
