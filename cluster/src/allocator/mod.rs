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
//! Behaviour: moby/swarmkit `manager/allocator`. Different here: subnets are larger ([`network`]), errors are visible, no
//! retry timer.

mod network;
mod ports;
mod service;
mod space;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent_api::swarm::{Annotations, Driver};
use cluster_api::{
    Cluster, IdSource, Kind, Network, NetworkSpec, Node, Object, Service, Task, TaskState,
};
use ipnet::IpNet;

use crate::batch::Batch;
use crate::control_loop::{Context, ControlLoop, Step};
use crate::store::{Store, StoreAction, StoreEvent};
use network::{addresses, is_allocated, is_overlay};
use ports::Ports;
use space::{Family, Owner, Space};

/// Name of the network that carries published ports.
const INGRESS: &str = "ingress";

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

/// One step: what it decides and what it has taken meanwhile.
struct Trial<'a> {
    store: &'a Store,
    cluster: Option<&'a Arc<Cluster>>,
    now: cluster_api::Now,
    batch: Batch,
    taken: Vec<(String, IpAddr)>,
    subnets: Vec<IpNet>,
    vnis: BTreeSet<u32>,
    ports: BTreeMap<(String, u16), String>,
    /// Networks without a free address; looked for once a step.
    exhausted: BTreeMap<(String, Family), netdriver_ipam::Error>,
    /// Whether a service has all it needs; asked by each of its tasks.
    settled: BTreeMap<String, bool>,
}

impl<'a> Trial<'a> {
    fn new(context: &Context<'a>) -> Self {
        Self {
            store: context.store,
            cluster: context.store.cluster(),
            now: context.now,
            batch: Batch::new(context.now.wall),
            taken: Vec::new(),
            subnets: Vec::new(),
            vnis: BTreeSet::new(),
            ports: BTreeMap::new(),
            exhausted: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    /// Makes the ingress network where there is none. Whether it has to be looked at again. A user who removed it to
    /// make another one has until the leader changes.
    fn ingress(&mut self, ids: &mut IdSource) -> bool {
        let exists = self.ingress_network().is_some();
        let taken = self.store.id_of(Kind::Network, INGRESS).is_some();
        if self.cluster.is_none() || exists || taken {
            return false;
        }
        let network = Network {
            id: ids.id(),
            spec: NetworkSpec {
                annotations: Annotations {
                    name: INGRESS.to_owned(),
                    ..Annotations::default()
                },
                driver: Driver {
                    name: "overlay".to_owned(),
                    ..Driver::default()
                },
                ingress: true,
                ..NetworkSpec::default()
            },
            ..Network::default()
        };
        let _ = self.batch.push(StoreAction::Create(network.into()));
        true
    }

    fn ingress_network(&self) -> Option<&'a Arc<Network>> {
        self.store.networks().find(|network| network.spec.ingress)
    }

    fn network(
        &mut self,
        id: &str,
        (highest, vnis): (u32, &BTreeSet<u32>),
        spaces: &BTreeMap<String, Space>,
    ) -> Outcome {
        let Some(network) = self.store.network(id) else {
            return Outcome::Done;
        };
        if network.pending_delete {
            return self.remove_network(network, spaces);
        }
        let Some(cluster) = self.cluster else {
            return Outcome::Stuck;
        };
        if is_allocated(network) {
            return Outcome::Done;
        }
        let mut wanted = Network::clone(network);
        let taken: BTreeSet<u32> = vnis.union(&self.vnis).copied().collect();
        let highest = self.vnis.last().map_or(highest, |last| highest.max(*last));
        let chosen =
            network::choose_subnets(network, cluster, self.store, &self.subnets).and_then(|s| {
                Ok((
                    s,
                    network::next_vni(highest, &taken).ok_or(AllocationError::NoVni)?,
                ))
            });
        match chosen {
            Ok((subnets, vni)) => {
                wanted.subnets = subnets;
                wanted.vni = Some(vni);
                wanted.error = String::new();
            }
            Err(error) => wanted.error = error.to_string(),
        }
        if wanted == **network {
            return Outcome::Stuck;
        }
        let (subnets, vni) = (wanted.subnets.clone(), wanted.vni);
        if !self.batch.update(wanted) {
            return Outcome::Full;
        }
        self.subnets.extend(subnets.iter().map(|s| s.subnet));
        self.vnis.extend(vni);
        Outcome::Written
    }

    /// A network goes when no service names it and no task or service has an address on it.
    fn remove_network(
        &mut self,
        network: &Arc<Network>,
        spaces: &BTreeMap<String, Space>,
    ) -> Outcome {
        let named = |service: &&Arc<Service>| {
            service::targets(&service.spec)
                .iter()
                .any(|t| t.target == network.id || t.target == network.spec.annotations.name)
        };
        let used = spaces.get(&network.id).is_some_and(Space::is_used)
            || self.store.services().any(|service| named(&service));
        if used {
            return Outcome::Stuck;
        }
        let action = StoreAction::Remove {
            kind: Kind::Network,
            id: network.id.clone(),
            version: network.meta.version,
        };
        if self.batch.push(action) {
            Outcome::Written
        } else {
            Outcome::Full
        }
    }

    /// A node has one address of each family on the ingress network.
    fn node(&mut self, id: &str, spaces: &mut BTreeMap<String, Space>) -> Outcome {
        let Some(node) = self.store.node(id) else {
            return Outcome::Done;
        };
        let mut attachments = BTreeMap::new();
        let mut short = false;
        if let Some(ingress) = self.ingress_network().filter(|n| is_allocated(n)) {
            let current = node.attachments.get(&ingress.id);
            let current = current.map_or(&[][..], Vec::as_slice);
            let mut nets = Vec::new();
            for family in families(spaces, &ingress.id) {
                match self.keep_or_take(ingress, family, current, spaces) {
                    Ok(net) => nets.push(net),
                    Err(_) => short = true,
                }
            }
            if !nets.is_empty() {
                attachments.insert(ingress.id.clone(), nets);
            }
        }
        if attachments != node.attachments {
            let mut wanted = Node::clone(node);
            wanted.attachments = attachments;
            return if self.batch.update(wanted) {
                Outcome::Written
            } else {
                Outcome::Full
            };
        }
        if short { Outcome::Stuck } else { Outcome::Done }
    }

    /// The address of the family among `current`, if it is one of the network's, or a new one.
    fn keep_or_take(
        &mut self,
        network: &Network,
        family: Family,
        current: &[IpNet],
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<IpNet, AllocationError> {
        let space = spaces.get(&network.id);
        let kept = current.iter().find(|net| {
            Family::of(net.addr()) == family && space.is_some_and(|s| s.contains(net.addr()))
        });
        match kept {
            Some(net) => Ok(*net),
            None => self.take(network, family, spaces),
        }
    }

    fn take(
        &mut self,
        network: &Network,
        family: Family,
        spaces: &mut BTreeMap<String, Space>,
    ) -> Result<IpNet, AllocationError> {
        let name = &network.spec.annotations.name;
        let key = (network.id.clone(), family);
        if let Some(source) = self.exhausted.get(&key) {
            return Err(AllocationError::Exhausted {
                name: name.clone(),
                source: source.clone(),
            });
        }
        let taken = match spaces.get_mut(&network.id) {
            Some(space) => space.take(family),
            None => Err(None),
        };
        match taken {
            Ok(net) => {
                self.taken.push((network.id.clone(), net.addr()));
                Ok(net)
            }
            Err(Some(source)) => {
                self.exhausted.insert(key, source.clone());
                Err(AllocationError::Exhausted {
                    name: name.clone(),
                    source,
                })
            }
            Err(None) => Err(AllocationError::Network {
                name: name.clone(),
                error: "it has no subnet".to_owned(),
            }),
        }
    }
}

fn families(spaces: &BTreeMap<String, Space>, network_id: &str) -> Vec<Family> {
    spaces
        .get(network_id)
        .map_or_else(Vec::new, Space::families)
}
