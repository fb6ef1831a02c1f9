//! Who is on each network, from what is in the store: kept per network, built again when something in it changed.
//!
//! Versions are `term << 32 | counter`, so they grow across leaders though each counts for itself: a node that has
//! programmed a state of the old leader takes that of the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::{DesiredState, Network, Node, Object, Service, Task, TaskState, Time};

use agent_api::swarm::NodeState;

use super::liveness::Liveness;
use super::message::{
    Backend, BackendState, Balanced, Endpoints, NodeAddress, Peer, PublishedPort,
};
use crate::store::{Store, StoreEvent};

/// Changes of one network within this time make one new state.
const INTERVAL_MS: u64 = 50;

#[derive(Debug)]
pub(super) struct EndpointTable {
    version: u64,
    ingress: Option<String>,
    networks: BTreeMap<String, NetworkState>,
    dirty: BTreeSet<String>,
    dirty_nodes: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct NetworkState {
    /// Tasks that are on the network and on a node.
    tasks: BTreeSet<String>,
    /// Services with a virtual address on it.
    services: BTreeSet<String>,
    built: Option<Arc<Endpoints>>,
    built_at: Option<Time>,
    /// Nodes that need the state.
    nodes: BTreeSet<String>,
}

impl EndpointTable {
    pub(super) fn new(term: u64) -> Self {
        Self {
            version: term << 32,
            ingress: None,
            networks: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_nodes: BTreeSet::new(),
        }
    }

    /// All of the store, as if everything had just been created.
    pub(super) fn start(&mut self, store: &Store) {
        for network in store.networks() {
            self.network_changed(network);
        }
        for service in store.services() {
            self.service_changed(None, Some(service));
        }
        for task in store.tasks() {
            self.task_changed(None, Some(task));
        }
    }

    pub(super) fn observe(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Created(Object::Task(task)) => self.task_changed(None, Some(task)),
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => self.task_changed(Some(old), Some(new)),
            StoreEvent::Removed(Object::Task(task)) => self.task_changed(Some(task), None),
            StoreEvent::Created(Object::Service(service)) => {
                self.service_changed(None, Some(service));
            }
            StoreEvent::Updated {
                old: Object::Service(old),
                new: Object::Service(new),
            } => self.service_changed(Some(old), Some(new)),
            StoreEvent::Removed(Object::Service(service)) => {
                self.service_changed(Some(service), None);
            }
            StoreEvent::Created(Object::Node(node)) | StoreEvent::Removed(Object::Node(node)) => {
                self.dirty_nodes.insert(node.id.clone());
                self.dirty.extend(self.ingress.clone());
            }
            StoreEvent::Updated {
                old: Object::Node(old),
                new: Object::Node(new),
            } => self.node_changed(old, new),
            StoreEvent::Created(Object::Network(network))
            | StoreEvent::Updated {
                new: Object::Network(network),
                ..
            } => self.network_changed(network),
            StoreEvent::Removed(Object::Network(network)) => {
                self.networks.remove(&network.id);
                self.dirty.remove(&network.id);
                if self.ingress.as_ref() == Some(&network.id) {
                    self.ingress = None;
                }
            }
            _ => {}
        }
    }

    /// The state of a network, once it was built.
    pub(super) fn get(&self, network_id: &str) -> Option<&Arc<Endpoints>> {
        self.networks.get(network_id)?.built.as_ref()
    }

    /// Nodes that need the state of a network.
    pub(super) fn nodes(&self, network_id: &str) -> impl Iterator<Item = &String> {
        self.networks
            .get(network_id)
            .into_iter()
            .flat_map(|state| &state.nodes)
    }

    /// Whether the state of a network is that of the store.
    pub(super) fn is_current(&self, network_id: &str) -> bool {
        !self.dirty.contains(network_id)
    }

    /// The ingress network, when something is published and the node has a place on it.
    pub(super) fn ingress_of(&self, node_id: &str, store: &Store) -> Option<&str> {
        let id = self.ingress.as_deref()?;
        let publishes = self.get(id).is_some_and(|state| !state.ports.is_empty());
        let placed = store
            .node(node_id)
            .is_some_and(|node| node.attachments.contains_key(id));
        (publishes && placed).then_some(id)
    }

    /// Builds what changed, unless it was built just before. The nodes that have to hear of it, and when to come back.
    pub(super) fn refresh(
        &mut self,
        store: &Store,
        liveness: &Liveness,
        suspicions: BTreeSet<String>,
        now: Time,
    ) -> (BTreeSet<String>, Option<Time>) {
        self.dirty_nodes.extend(suspicions);
        for node_id in std::mem::take(&mut self.dirty_nodes) {
            for task in store.tasks_of_node(&node_id).filter(|task| is_placed(task)) {
                let networks = task.networks.iter().map(|a| a.network_id.clone());
                self.dirty.extend(networks);
            }
        }
        let port = store.cluster().map_or(0, |cluster| cluster.data_path_port);
        let mut concerned = BTreeSet::new();
        let mut wake_at: Option<Time> = None;
        for id in std::mem::take(&mut self.dirty) {
            let Some(network) = store.network(&id) else {
                self.networks.remove(&id);
                continue;
            };
            let state = self.networks.entry(id.clone()).or_default();
            if let Some(due) = state.built_at.map(|at| at.after(INTERVAL_MS))
                && due > now
            {
                wake_at = Some(wake_at.map_or(due, |at| at.min(due)));
                self.dirty.insert(id);
                continue;
            }
            state.built_at = Some(now);
            let mut endpoints = build(network, state, store, liveness);
            endpoints.data_path_port = port;
            let nodes = nodes_of(&endpoints, state, store);
            if let Some(built) = &state.built {
                endpoints.version = built.version;
            }
            if state.built.as_deref() != Some(&endpoints) {
                self.version += 1;
                endpoints.version = self.version;
                state.built = Some(Arc::new(endpoints));
                concerned.extend(state.nodes.iter().cloned());
                concerned.extend(nodes.iter().cloned());
            } else if state.nodes != nodes {
                concerned.extend(state.nodes.symmetric_difference(&nodes).cloned());
            }
            state.nodes = nodes;
        }
        (concerned, wake_at)
    }

    fn network_changed(&mut self, network: &Arc<Network>) {
        if network.spec.ingress {
            self.ingress = Some(network.id.clone());
        }
        self.dirty.insert(network.id.clone());
    }

    fn node_changed(&mut self, old: &Node, new: &Node) {
        if old.attachments != new.attachments || old.data_path_addr != new.data_path_addr {
            self.dirty.extend(self.ingress.clone());
        }
        if old.status.state != new.status.state || old.data_path_addr != new.data_path_addr {
            self.dirty_nodes.insert(new.id.clone());
        }
    }

    fn service_changed(&mut self, old: Option<&Arc<Service>>, new: Option<&Arc<Service>>) {
        if let (Some(old), Some(new)) = (old, new)
            && old.endpoint == new.endpoint
        {
            return;
        }
        for (service, there) in [(old, false), (new, true)] {
            let Some(service) = service else { continue };
            for ip in &service.endpoint.virtual_ips {
                let state = self.networks.entry(ip.network_id.clone()).or_default();
                if there {
                    state.services.insert(service.id.clone());
                } else {
                    state.services.remove(&service.id);
                }
                self.dirty.insert(ip.network_id.clone());
            }
        }
    }

    fn task_changed(&mut self, old: Option<&Arc<Task>>, new: Option<&Arc<Task>>) {
        let before = old.and_then(|task| role_of(task));
        let after = new.and_then(|task| role_of(task));
        if before == after {
            return;
        }
        let Some(task) = new.or(old) else { return };
        for attachment in &task.networks {
            let state = self
                .networks
                .entry(attachment.network_id.clone())
                .or_default();
            if after.is_some() {
                state.tasks.insert(task.id.clone());
            } else {
                state.tasks.remove(&task.id);
            }
            self.dirty.insert(attachment.network_id.clone());
        }
    }
}

/// What of a task others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Holds its addresses.
    Present,
    Backend(BackendState),
}

fn role_of(task: &Task) -> Option<Role> {
    if !is_placed(task) {
        None
    } else if task.status.state != TaskState::Running {
        Some(Role::Present)
    } else if task.desired >= DesiredState::Shutdown {
        Some(Role::Backend(BackendState::Draining))
    } else {
        Some(Role::Backend(BackendState::Ready))
    }
}

/// On a node, and not ended.
fn is_placed(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

/// Nodes with tasks on the network; for published ports all that have a place on it.
fn nodes_of(endpoints: &Endpoints, state: &NetworkState, store: &Store) -> BTreeSet<String> {
    let tasks = state.tasks.iter().filter_map(|id| store.task(id));
    let mut nodes: BTreeSet<String> = tasks.map(|task| task.node_id.clone()).collect();
    if !endpoints.ports.is_empty() {
        let attached = |node: &&Arc<Node>| node.attachments.contains_key(&endpoints.network_id);
        nodes.extend(store.nodes().filter(attached).map(|node| node.id.clone()));
    }
    nodes
}

fn build(network: &Network, state: &NetworkState, store: &Store, liveness: &Liveness) -> Endpoints {
    let mut endpoints = Endpoints {
        network_id: network.id.clone(),
        ..Endpoints::default()
    };
    let mut services: BTreeMap<&str, Members<'_>> = BTreeMap::new();
    for id in &state.services {
        services.entry(id).or_default();
    }
    for task in state.tasks.iter().filter_map(|id| store.task(id)) {
        let Some(attachment) = task.networks.iter().find(|a| a.network_id == network.id) else {
            continue;
        };
        let node = store.node(&task.node_id);
        let addresses: Vec<_> = attachment
            .addresses
            .iter()
            .map(ipnet::IpNet::addr)
            .collect();
        if let Some(vtep) = node.and_then(|node| node.data_path_addr) {
            endpoints.peers.push(Peer {
                node_id: task.node_id.clone(),
                addresses: addresses.clone(),
                vtep,
            });
        }
        let members = services.entry(&task.service_id).or_default();
        members.service_name = &task.service.name;
        let aliases = attachment.aliases.iter().map(String::as_str);
        members.aliases.extend(aliases);
        if let Some(Role::Backend(state)) = role_of(task) {
            let doubtful = node.is_none_or(|node| node.status.state == NodeState::Down)
                || liveness.is_suspected(&task.node_id);
            members
                .backends
                .push((backend(task, addresses, state), doubtful));
        }
    }
    if network.spec.ingress {
        endpoints.nodes = node_addresses(network, store);
        endpoints.ports = ports(services, store);
    } else {
        endpoints.services = services
            .into_iter()
            .filter(|(service_id, _)| !service_id.is_empty())
            .map(|(service_id, members)| balanced(&network.id, service_id, members, store))
            .collect();
    }
    endpoints
}

/// Of one service on one network.
#[derive(Default)]
struct Members<'a> {
    service_name: &'a str,
    aliases: BTreeSet<&'a str>,
    /// With whether its node may be gone.
    backends: Vec<(Backend, bool)>,
}

impl Members<'_> {
    /// Backends on nodes that may be gone get no new connections as long as another one can have them.
    fn settled(self) -> Vec<Backend> {
        let elsewhere = self
            .backends
            .iter()
            .any(|(backend, doubtful)| backend.state == BackendState::Ready && !doubtful);
        let settle = |(mut backend, doubtful): (Backend, bool)| {
            if doubtful && elsewhere {
                backend.state = BackendState::Draining;
            }
            backend
        };
        self.backends.into_iter().map(settle).collect()
    }
}

fn backend(task: &Task, addresses: Vec<std::net::IpAddr>, state: BackendState) -> Backend {
    Backend {
        task_id: task.id.clone(),
        node_id: task.node_id.clone(),
        names: vec![format!("{}.{}", task.name(), task.id)],
        addresses,
        state,
    }
}

fn balanced(network_id: &str, service_id: &str, members: Members<'_>, store: &Store) -> Balanced {
    let service = store.service(service_id);
    let name = service.map_or(members.service_name, |s| s.spec.annotations.name.as_str());
    let aliases = members.aliases.iter().filter(|alias| **alias != name);
    let names = std::iter::once(&name).chain(aliases);
    let virtual_ips = service
        .into_iter()
        .flat_map(|service| &service.endpoint.virtual_ips)
        .filter(|ip| ip.network_id == network_id)
        .map(|ip| ip.address.addr());
    Balanced {
        service_id: service_id.to_owned(),
        names: names.map(|name| (*name).to_owned()).collect(),
        backend_names: vec![format!("tasks.{name}")],
        virtual_ips: virtual_ips.collect(),
        backends: members.settled(),
    }
}

fn node_addresses(network: &Network, store: &Store) -> Vec<NodeAddress> {
    store
        .nodes()
        .filter_map(|node| {
            Some(NodeAddress {
                node_id: node.id.clone(),
                addresses: node.attachments.get(&network.id)?.clone(),
                vtep: node.data_path_addr?,
            })
        })
        .collect()
}

fn ports(services: BTreeMap<&str, Members<'_>>, store: &Store) -> Vec<PublishedPort> {
    let mut ports = Vec::new();
    for (service_id, members) in services {
        let Some(service) = store.service(service_id) else {
            continue;
        };
        let backends = members.settled();
        let published = service
            .endpoint
            .ports
            .iter()
            .filter(|port| port.publish_mode != "host" && port.published_port != 0);
        for port in published {
            ports.push(PublishedPort {
                service_id: service_id.to_owned(),
                published: port.published_port,
                protocol: if port.protocol.is_empty() {
                    "tcp".to_owned()
                } else {
                    port.protocol.clone()
                },
                target: port.target_port,
                backends: backends.clone(),
            });
        }
    }
    ports
}
