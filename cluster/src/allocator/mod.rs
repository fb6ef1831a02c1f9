//! Gives networks their subnets and identifiers, services their virtual addresses and published ports, nodes their places
//! on the ingress network and tasks their addresses (`New` → `Pending`). Also makes the ingress network, and removes
//! networks that are to go as soon as nothing uses them.
//!
//! What is taken is what objects in the store have, nothing else: [`ControlLoop::start`] claims all of it before anything
//! new is given, and every commit keeps it so. What a step tries is given back when the step is over and claimed when it
//! was committed, so that a transaction that failed leaves nothing behind. An address is free again when the store says
//! that its task has ended or was given up as orphaned, never because a node does not answer.
//!
//! What cannot be had is said in the object (`error` of networks and services, `status.error` of tasks) in the same step,
//! and tried again when something was freed.
//!
//! Must not: choose nodes, or touch an object for another reason than the above.
//! Behaviour: moby/swarmkit `manager/allocator`. Different here: errors are visible, and there is no
//! retry timer.

mod network;
mod ports;
mod service;
mod space;
mod task;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cluster_api::{Kind, Network, Node, Object, Service, Task, TaskState};
use ipnet::IpNet;

use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreEvent};
use network::{addresses, is_overlay};
use ports::Ports;
use space::{Family, Owner, Space};
use trial::Trial;

/// Why something cannot be had. Shown to users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum AllocationError {
    #[error("network {0} not found")]
    NoNetwork(String),
    #[error("no ingress network found: published ports need one")]
    NoIngress,
    #[error("network {name}: {error}")]
    Network { name: String, error: String },
    #[error("network {name}: {source}")]
    Exhausted {
        name: String,
        source: netdriver_ipam::Error,
    },
    #[error("subnet {subnet}: {source}")]
    Subnet {
        subnet: IpNet,
        source: netdriver_ipam::Error,
    },
    #[error("subnet {subnet} overlaps with {other} of {name}")]
    Overlap {
        subnet: IpNet,
        other: IpNet,
        name: String,
    },
    #[error("no {} subnet is left in the swarm's default address pools", match .family { Family::V4 => "IPv4", Family::V6 => "IPv6" })]
    NoSubnet { family: Family },
    #[error("no network identifier is left")]
    NoVni,
    #[error("port {port}/{protocol} is already in use by service {service_id}")]
    PortTaken {
        port: u16,
        protocol: String,
        service_id: String,
    },
    #[error("port {port}/{protocol} is published twice")]
    PortTwice { port: u16, protocol: String },
    #[error("no {protocol} port is left between 30000 and 32767")]
    NoPort { protocol: String },
    #[error("ports of mode ingress cannot be published with endpoint mode dnsrr")]
    IngressWithoutVip,
}

/// What became of one object in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Has all it needs, or needs nothing (any more).
    Done,
    /// Something is to be written; look at it again afterwards.
    Written,
    /// Cannot go on before something else changes.
    Stuck,
    /// The transaction is full.
    Full,
}

/// Objects to look at, or that were looked at in vain.
#[derive(Debug, Default)]
struct Queue {
    networks: BTreeSet<String>,
    nodes: BTreeSet<String>,
    services: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

impl Queue {
    fn append(&mut self, other: &mut Self) {
        self.networks.append(&mut other.networks);
        self.nodes.append(&mut other.nodes);
        self.services.append(&mut other.services);
        self.tasks.append(&mut other.tasks);
    }
}

/// The loop; see the module.
#[derive(Debug, Default)]
pub struct Allocator {
    spaces: BTreeMap<String, Space>,
    vnis: BTreeSet<u32>,
    highest_vni: u32,
    ports: Ports,
    dirty: Queue,
    stuck: Queue,
    /// Something was freed or became usable: what is stuck may go on.
    retry: bool,
    /// The ingress network may be missing.
    wants_ingress: bool,
    /// Places of all nodes may have to change.
    all_nodes: bool,
}

impl Allocator {
    /// Knows nothing until [`ControlLoop::start`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn network_changed(&mut self, old: Option<&Network>, new: Option<&Network>) {
        if let Some(old) = old
            && new.is_none()
        {
            self.spaces.remove(&old.id);
            self.retry = true;
            self.all_nodes |= old.spec.ingress;
        }
        if let Some(vni) = old.and_then(|old| old.vni) {
            self.vnis.remove(&vni);
        }
        let Some(new) = new else { return };
        self.vnis.extend(new.vni);
        self.highest_vni = self.highest_vni.max(new.vni.unwrap_or(0));
        self.dirty.networks.insert(new.id.clone());
        if is_overlay(new) && !new.subnets.is_empty() && !self.spaces.contains_key(&new.id) {
            self.spaces.insert(new.id.clone(), Space::new(&new.subnets));
            self.retry = true;
            self.all_nodes |= new.spec.ingress;
        }
    }

    fn service_changed(&mut self, old: Option<&Service>, new: Option<&Service>) {
        let held = |service: Option<&Service>| -> Vec<(String, IpAddr)> {
            let ips = service.into_iter().flat_map(|s| &s.endpoint.virtual_ips);
            ips.map(|ip| (ip.network_id.clone(), ip.address.addr()))
                .collect()
        };
        let Some(id) = new.or(old).map(|service| service.id.clone()) else {
            return;
        };
        self.exchange(held(old), held(new), &Owner::Service(id.clone()));
        let endpoint = |service: Option<&Service>| {
            service.map_or_else(Vec::new, |service| service.endpoint.ports.clone())
        };
        let (before, after) = (endpoint(old), endpoint(new));
        if before != after {
            self.retry |= self.ports.release(&id, &before);
            self.ports.claim(&id, &after);
        }
        if new.is_some() {
            self.dirty.services.insert(id);
            // Its tasks may have waited for it.
            self.retry |=
                old.map(|s| (&s.endpoint, &s.error)) != new.map(|s| (&s.endpoint, &s.error));
        } else {
            self.retry = true;
        }
    }

    fn node_changed(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let held = |node: Option<&Node>| -> Vec<(String, IpAddr)> {
            let attachments = node.into_iter().flat_map(|node| &node.attachments);
            attachments
                .flat_map(|(id, nets)| addresses(nets).map(|a| (id.clone(), a)))
                .collect()
        };
        let Some(id) = new.or(old).map(|node| node.id.clone()) else {
            return;
        };
        self.exchange(held(old), held(new), &Owner::Node(id.clone()));
        if new.is_some() {
            self.dirty.nodes.insert(id);
        }
    }

    fn task_changed(&mut self, old: Option<&Task>, new: Option<&Task>) {
        let held = |task: Option<&Task>| -> Vec<(String, IpAddr)> {
            let task = task.filter(|task| !task.status.state.is_terminal());
            let attachments = task.into_iter().flat_map(|task| &task.networks);
            attachments
                .flat_map(|a| addresses(&a.addresses).map(|ip| (a.network_id.clone(), ip)))
                .collect()
        };
        let Some(id) = new.or(old).map(|task| task.id.clone()) else {
            return;
        };
        let (before, after) = (held(old), held(new));
        if before != after {
            self.exchange(before, after, &Owner::Task(id.clone()));
        }
        if new.is_some_and(|task| task.status.state == TaskState::New) {
            self.dirty.tasks.insert(id);
        }
    }

    /// The owner has these addresses instead of those.
    fn exchange(
        &mut self,
        before: Vec<(String, IpAddr)>,
        after: Vec<(String, IpAddr)>,
        owner: &Owner,
    ) {
        for (network_id, address) in before {
            if !after.contains(&(network_id.clone(), address))
                && let Some(space) = self.spaces.get_mut(&network_id)
            {
                self.retry |= space.release(address, owner);
            }
        }
        for (network_id, address) in after {
            if let Some(space) = self.spaces.get_mut(&network_id) {
                space.claim(address, owner.clone());
            }
        }
    }

    fn claim_all(&mut self, store: &Store) {
        for network in store.networks() {
            self.network_changed(None, Some(network));
        }
        for service in store.services() {
            self.service_changed(None, Some(service));
        }
        for node in store.nodes() {
            self.node_changed(None, Some(node));
        }
        for task in store.tasks() {
            self.task_changed(None, Some(task));
        }
    }

    fn work(&mut self, trial: &mut Trial<'_>) {
        if std::mem::take(&mut self.retry) {
            self.dirty.append(&mut self.stuck);
        }
        if std::mem::take(&mut self.all_nodes) {
            let nodes = trial.store.nodes().map(|node| node.id.clone());
            self.dirty.nodes.extend(nodes);
        }
        if trial.batch.is_full() {
            return;
        }
        let Queue {
            networks,
            nodes,
            services,
            tasks,
        } = &mut self.dirty;
        let stuck = &mut self.stuck;
        let spaces = &mut self.spaces;
        let vnis = (self.highest_vni, &self.vnis);
        let ports = &self.ports;
        let ingress = trial.ingress_network().map(|network| network.id.clone());
        let mut first: BTreeSet<String> =
            ingress.iter().filter_map(|id| networks.take(id)).collect();
        drain(&mut first, &mut stuck.networks, |id| {
            trial.network(id, vnis, spaces)
        });
        drain(networks, &mut stuck.networks, |id| {
            trial.network(id, vnis, spaces)
        });
        networks.append(&mut first);
        drain(services, &mut stuck.services, |id| {
            trial.service(id, ports, spaces)
        });
        drain(nodes, &mut stuck.nodes, |id| trial.node(id, spaces));
        drain(tasks, &mut stuck.tasks, |id| trial.task(id, spaces));
    }
}

/// Looks at each object of `dirty` until the transaction is full.
fn drain(
    dirty: &mut BTreeSet<String>,
    stuck: &mut BTreeSet<String>,
    mut look: impl FnMut(&str) -> Outcome,
) {
    let mut rest = BTreeSet::new();
    let mut full = false;
    for id in std::mem::take(dirty) {
        let outcome = if full { Outcome::Full } else { look(&id) };
        match outcome {
            Outcome::Done => {}
            Outcome::Written => {
                rest.insert(id);
            }
            Outcome::Stuck => {
                stuck.insert(id);
            }
            Outcome::Full => {
                full = true;
                rest.insert(id);
            }
        }
    }
    *dirty = rest;
}

impl ControlLoop for Allocator {
    fn name(&self) -> &'static str {
        "allocator"
    }

    fn start(&mut self, context: &mut Context<'_>) {
        *self = Self::new();
        self.claim_all(context.store);
        self.wants_ingress = true;
    }

    fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Created(object) => self.changed(None, Some(object)),
            StoreEvent::Updated { old, new } => self.changed(Some(old), Some(new)),
            StoreEvent::Removed(object) => self.changed(Some(object), None),
        }
    }

    fn step(&mut self, context: &mut Context<'_>) -> Step {
        let mut trial = Trial::new(context);
        if std::mem::take(&mut self.wants_ingress) {
            self.wants_ingress = trial.ingress(context.ids);
        }
        // Where it is just being made nothing else is given yet: it comes first in the pools.
        if !self.wants_ingress {
            self.work(&mut trial);
        }
        for (network_id, address) in trial.taken {
            if let Some(space) = self.spaces.get_mut(&network_id) {
                space.give_back(address);
            }
        }
        Step {
            transaction: trial.batch.finish(),
            wake_at: None,
        }
    }
}

impl Allocator {
    fn changed(&mut self, old: Option<&Object>, new: Option<&Object>) {
        match new.or(old).map(Object::kind) {
            Some(Kind::Network) => self.network_changed(
                old.and_then(network_of).map(Arc::as_ref),
                new.and_then(network_of).map(Arc::as_ref),
            ),
            Some(Kind::Service) => self.service_changed(
                old.and_then(service_of).map(Arc::as_ref),
                new.and_then(service_of).map(Arc::as_ref),
            ),
            Some(Kind::Node) => self.node_changed(
                old.and_then(node_of).map(Arc::as_ref),
                new.and_then(node_of).map(Arc::as_ref),
            ),
            Some(Kind::Task) => self.task_changed(
                old.and_then(task_of).map(Arc::as_ref),
                new.and_then(task_of).map(Arc::as_ref),
            ),
            Some(Kind::Cluster) => {
                self.wants_ingress |= old.is_none();
                self.retry = true;
            }
            _ => {}
        }
    }
}

const fn network_of(object: &Object) -> Option<&Arc<Network>> {
    match object {
        Object::Network(network) => Some(network),
        _ => None,
    }
}

const fn service_of(object: &Object) -> Option<&Arc<Service>> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}

const fn node_of(object: &Object) -> Option<&Arc<Node>> {
    match object {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

const fn task_of(object: &Object) -> Option<&Arc<Task>> {
    match object {
        Object::Task(task) => Some(task),
        _ => None,
    }
}
