//! What each node has and what is taken of it, kept up with every commit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use agent_api::swarm::{NodeAvailability, NodeState};
use cluster_api::{DesiredState, Node, Task, TaskState, Timestamp};

/// Failures are remembered for this long.
const FAILURE_WINDOW_MS: u64 = 5 * 60 * 1_000;

/// This many failures of one version of a service within the window make a node the last choice for it.
const FAULTY: usize = 5;

/// Protocol and number of a port on the host.
pub(super) type HostPort = (String, u16);

/// Service and version of its spec; tasks of one group are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) service_id: String,
    pub(super) spec_version: u64,
}

impl Group {
    pub(super) fn of(task: &Task) -> Self {
        Self {
            service_id: task.service_id.clone(),
            spec_version: task.spec_version,
        }
    }
}

/// What a task takes from its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Load {
    service_id: String,
    nano_cpus: i64,
    memory_bytes: i64,
    host_ports: Vec<HostPort>,
    /// Wanted; a task that is only still there takes resources and does not count as a replica.
    active: bool,
}

impl Load {
    pub(super) fn of(task: &Task) -> Self {
        let reservations = task
            .spec
            .resources
            .as_ref()
            .and_then(|resources| resources.reservations.as_ref());
        Self {
            service_id: task.service_id.clone(),
            nano_cpus: reservations.map_or(0, |r| r.nano_cpus),
            memory_bytes: reservations.map_or(0, |r| r.memory_bytes),
            host_ports: host_ports(task),
            active: task.desired < DesiredState::Shutdown,
        }
    }
}

/// Ports a task needs on its own node.
pub(super) fn host_ports(task: &Task) -> Vec<HostPort> {
    let ports = task.endpoint.ports.iter();
    ports
        .filter(|port| port.publish_mode == "host" && port.published_port != 0)
        .map(|port| {
            let protocol = if port.protocol.is_empty() {
                "tcp"
            } else {
                &port.protocol
            };
            (protocol.to_owned(), port.published_port)
        })
        .collect()
}

/// Whether a task takes something from its node.
pub(super) fn is_held(task: &Task) -> bool {
    !task.node_id.is_empty()
        && task.status.state >= TaskState::Assigned
        && !task.status.state.is_terminal()
}

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub(super) node: Arc<Node>,
    pub(super) ready: bool,
    pub(super) free_nano_cpus: i64,
    pub(super) free_memory_bytes: i64,
    loads: BTreeMap<String, Load>,
    active: u64,
    active_of: BTreeMap<String, u64>,
    host_ports: BTreeMap<HostPort, u64>,
    failures: BTreeMap<Group, VecDeque<Timestamp>>,
}

impl Usage {
    pub(super) fn new(node: Arc<Node>) -> Self {
        let mut usage = Self {
            node: node.clone(),
            ready: false,
            free_nano_cpus: 0,
            free_memory_bytes: 0,
            loads: BTreeMap::new(),
            active: 0,
            active_of: BTreeMap::new(),
            host_ports: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        usage.update(node);
        usage
    }

    /// The node is like this now. Whether it may take tasks it could not take before.
    pub(super) fn update(&mut self, node: Arc<Node>) -> bool {
        let old = std::mem::replace(&mut self.node, node);
        let node = &self.node;
        self.ready = node.status.state == NodeState::Ready
            && node.spec.availability == NodeAvailability::Active;
        let resources = node.description.as_ref().map(|d| &d.resources);
        let loads = self.loads.values();
        let (cpus, memory) = loads.fold((0, 0), |(cpus, memory), load| {
            (cpus + load.nano_cpus, memory + load.memory_bytes)
        });
        self.free_nano_cpus = resources.map_or(0, |r| r.nano_cpus) - cpus;
        self.free_memory_bytes = resources.map_or(0, |r| r.memory_bytes) - memory;
        self.ready
            && (old.status.state != node.status.state
                || old.spec != node.spec
                || old.role != node.role
                || old.description != node.description
                || old.status.addr != node.status.addr)
    }

    /// The task takes what it takes. One that is known already is replaced.
    pub(super) fn hold(&mut self, task_id: &str, load: Load) {
        self.let_go(task_id);
        self.free_nano_cpus -= load.nano_cpus;
        self.free_memory_bytes -= load.memory_bytes;
        if load.active {
            self.active += 1;
            *self.active_of.entry(load.service_id.clone()).or_default() += 1;
        }
        for port in &load.host_ports {
            *self.host_ports.entry(port.clone()).or_default() += 1;
        }
        self.loads.insert(task_id.to_owned(), load);
    }

    /// The task takes nothing any more.
    pub(super) fn let_go(&mut self, task_id: &str) {
        let Some(load) = self.loads.remove(task_id) else {
            return;
        };
        self.free_nano_cpus += load.nano_cpus;
        self.free_memory_bytes += load.memory_bytes;
        if load.active {
            self.active -= 1;
            decrement(&mut self.active_of, &load.service_id);
        }
        for port in &load.host_ports {
            decrement(&mut self.host_ports, port);
        }
    }

    /// Replicas of a service that are wanted here.
    pub(super) fn replicas(&self, service_id: &str) -> u64 {
        self.active_of.get(service_id).copied().unwrap_or(0)
    }

    /// Tasks that are wanted here.
    pub(super) const fn tasks(&self) -> u64 {
        self.active
    }

    pub(super) fn is_port_taken(&self, port: &HostPort) -> bool {
        self.host_ports.contains_key(port)
    }

    pub(super) fn failed(&mut self, group: Group, at: Timestamp) {
        let failures = self.failures.entry(group).or_default();
        failures.push_back(at);
        // Older ones add nothing.
        while failures.len() > FAULTY * 20 {
            failures.pop_front();
        }
    }

    /// Forgets failures of long ago.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.failures.retain(|_, failures| {
            failures.retain(|at| now.millis_since(*at) < FAILURE_WINDOW_MS);
            !failures.is_empty()
        });
    }

    /// Recent failures of a version of a service here; zero while they are too few to mean anything.
    pub(super) fn faults(&self, group: &Group, now: Timestamp) -> usize {
        let Some(failures) = self.failures.get(group) else {
            return 0;
        };
        let recent = failures
            .iter()
            .filter(|at| now.millis_since(**at) < FAILURE_WINDOW_MS)
            .count();
        if recent >= FAULTY { recent } else { 0 }
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
