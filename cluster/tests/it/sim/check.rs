//! What must hold after every step.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;

use cluster::dispatcher::BackendState;
use cluster::raft::{RaftId, Role, State};
use cluster::store::{Store, StoreEvent};
use cluster::worker::UNBIND_WAIT_MS;
use cluster_api::{DesiredState, Object, Service, Task, TaskState};

use super::world::{Outcome, World};

/// How long a session must have lasted before its node's balancers count as informed.
const INFORMED_AFTER_MS: u64 = 2_000;

#[derive(Default)]
pub(super) struct Checks {
    /// Who led each term.
    leaders: BTreeMap<u64, RaftId>,
    hosts: BTreeMap<RaftId, usize>,
    /// What every manager's state must be at an index.
    fingerprints: BTreeMap<u64, u64>,
    /// The highest index any manager has applied, where, and the state if that manager is no more.
    committed_index: u64,
    committed_at: usize,
    saved: Option<Store>,
    /// Most replicas ever asked for.
    most_replicas: BTreeMap<String, u64>,
    /// When it was first decided that a task stops.
    stopping_since: BTreeMap<String, u64>,
}

impl Checks {
    pub(super) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Where a member runs.
    pub(super) fn host_of(&self, id: RaftId) -> Option<usize> {
        self.hosts.get(&id).copied()
    }

    pub(super) fn raft_host(&mut self, id: RaftId, host: usize) {
        self.hosts.insert(id, host);
    }
}

impl World {
    pub(super) fn check_role(&mut self, host: usize, role: Role) -> Outcome {
        let Some(id) = self.manager(host).map(|manager| manager.raft_id) else {
            return Ok(());
        };
        if role.state == State::Leader {
            let leader = *self.checks.leaders.entry(role.term).or_insert(id);
            if leader != id {
                return Err(format!(
                    "two leaders of term {}: members {leader} and {id}",
                    role.term
                ));
            }
        }
        if role.established {
            self.settle_beliefs(host)?;
        }
        Ok(())
    }

    /// The newest state that is committed, as far as anyone knows.
    pub(super) fn committed(&self) -> Option<&Store> {
        match self.core(self.checks.committed_at) {
            Some(core) if core.store().index() >= self.checks.committed_index => Some(core.store()),
            _ => self.checks.saved.as_ref(),
        }
    }

    /// The manager of a host is about to be no more.
    pub(super) fn save_committed(&mut self, host: usize) {
        if host == self.checks.committed_at
            && let Some(core) = self.core(host)
            && core.store().index() >= self.checks.committed_index
        {
            self.checks.saved = Some(core.store().clone());
        }
    }

    pub(super) fn check_events(
        &mut self,
        host: usize,
        restored: bool,
        events: &[StoreEvent],
    ) -> Outcome {
        if !restored && events.is_empty() {
            return Ok(());
        }
        let Some(manager) = self.hosts[host]
            .daemon
            .as_mut()
            .and_then(|daemon| daemon.manager.as_mut())
        else {
            return Ok(());
        };
        let store = manager.core.store();
        let index = store.index();
        if restored {
            manager.fingerprint = fingerprint(store);
        } else {
            for event in events {
                manager.fingerprint ^= match event {
                    StoreEvent::Created(object) | StoreEvent::Removed(object) => hash(object),
                    StoreEvent::Updated { old, new } => hash(old) ^ hash(new),
                };
            }
        }
        let own = manager.fingerprint ^ hash_of(manager.core.membership());
        let expected = *self.checks.fingerprints.entry(index).or_insert(own);
        if expected != own {
            return Err(format!(
                "host {host}: the state or the group at index {index} is not what another manager has there"
            ));
        }
        if index > self.checks.committed_index {
            self.checks.committed_index = index;
            self.checks.committed_at = host;
            for event in events {
                self.check_event(event)?;
            }
            self.check_state(host)?;
        }
        Ok(())
    }

    fn check_event(&mut self, event: &StoreEvent) -> Outcome {
        match event {
            StoreEvent::Updated {
                old: Object::Task(old),
                new: Object::Task(new),
            } => {
                check_transition(old, new)?;
                if old.desired < DesiredState::Shutdown && new.desired >= DesiredState::Shutdown {
                    self.checks.stopping_since.insert(new.id.clone(), self.time);
                }
            }
            StoreEvent::Created(Object::Task(task)) if task.status.state != TaskState::New => {
                return Err(format!("task {} begins as {}", task.id, task.status.state));
            }
            StoreEvent::Removed(Object::Task(task)) => {
                let unplaced = task.status.state < TaskState::Assigned;
                if !unplaced && !task.status.state.is_terminal() {
                    return Err(format!(
                        "task {} is deleted while it is {} on node {}",
                        task.id, task.status.state, task.node_id
                    ));
                }
                self.checks.stopping_since.remove(&task.id);
            }
            StoreEvent::Created(Object::Service(service))
            | StoreEvent::Updated {
                new: Object::Service(service),
                ..
            } => {
                let most = self
                    .checks
                    .most_replicas
                    .entry(service.id.clone())
                    .or_default();
                *most = (*most).max(replicas(service).unwrap_or(u64::MAX));
            }
            _ => {}
        }
        Ok(())
    }

    fn check_state(&self, host: usize) -> Outcome {
        let Some(core) = self.core(host) else {
            return Ok(());
        };
        let store = core.store();
        check_addresses_of(store)?;
        for service in store.services() {
            let slots: BTreeSet<u64> = store
                .tasks_of_service(&service.id)
                .filter(|task| {
                    task.desired <= DesiredState::Running && !task.status.state.is_terminal()
                })
                .map(|task| task.slot)
                .collect();
            let most = self
                .checks
                .most_replicas
                .get(&service.id)
                .copied()
                .unwrap_or(u64::MAX);
            if slots.len() as u64 > most {
                return Err(format!(
                    "service {} has {} slots and never asked for more than {most}",
                    service.id,
                    slots.len()
                ));
            }
        }
        Ok(())
    }

    /// A node may stop or remove only what the cluster has decided to be stopped.
    pub(super) fn check_order(&self, host: usize, task_id: &str, what: &str) -> Outcome {
        let Some(store) = self.committed() else {
            return Err(format!(
                "host {host}: {what} task {task_id} before anything was decided"
            ));
        };
        let Some(task) = store.task(task_id) else {
            return Ok(());
        };
        let ordered = task.desired >= DesiredState::Shutdown
            || task.status.state.is_terminal()
            || task.node_id != self.hosts[host].node_id;
        if ordered || what == "stop" && self.hosts[host].containers.failed_itself(task_id) {
            return Ok(());
        }
        Err(format!(
            "host {host}: {what} task {task_id}, which is to be {} and is {}",
            task.desired, task.status.state
        ))
    }

    /// A container gets its stop signal only when no node sends it connections any more.
    pub(super) fn check_unbound(&self, host: usize, task_id: &str) -> Outcome {
        let containers = &self.hosts[host].containers;
        if !containers.is_running(task_id) || containers.failed_itself(task_id) {
            return Ok(());
        }
        let since = self.checks.stopping_since.get(task_id);
        if since.is_none_or(|since| self.time - since >= UNBIND_WAIT_MS) {
            return Ok(());
        }
        for (number, other) in self.hosts.iter().enumerate() {
            let Some(daemon) = &other.daemon else {
                continue;
            };
            if !daemon.agent.in_session_for(INFORMED_AFTER_MS, self.time) {
                continue;
            }
            for endpoints in daemon.agent.balancers.values() {
                let services = endpoints.services.iter().flat_map(|one| &one.backends);
                let ports = endpoints.ports.iter().flat_map(|one| &one.backends);
                let mut ready = services
                    .chain(ports)
                    .filter(|backend| backend.state == BackendState::Ready);
                if ready.any(|backend| backend.task_id == task_id) {
                    return Err(format!(
                        "host {host}: task {task_id} is stopped while host {number} still sends to it"
                    ));
                }
            }
        }
        Ok(())
    }

    /// No address is used by two containers that run, no port of a host by two of its.
    pub(super) fn check_addresses(&self, host: usize, task_id: &str) -> Outcome {
        let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
        for task in self.hosts[host].containers.running() {
            for port in &task.endpoint.ports {
                if port.publish_mode == "host"
                    && let Some(owner) = ports.insert(port.published_port, &task.id)
                {
                    return Err(format!(
                        "port {} of host {host} is used by tasks {owner} and {}",
                        port.published_port, task.id
                    ));
                }
            }
        }
        let mut owners: BTreeMap<(&str, IpAddr), (usize, &str)> = BTreeMap::new();
        for (number, other) in self.hosts.iter().enumerate() {
            for (network, address, task) in other.containers.addresses() {
                if let Some((first, owner)) = owners.insert((network, address), (number, task)) {
                    return Err(format!(
                        "{address} is used by task {owner} on host {first} and by task {task} on host {number} \
                         (task {task_id} was just started on host {host})"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Replicas asked for; `None` for a global service.
pub(super) fn replicas(service: &Service) -> Option<u64> {
    service
        .spec
        .mode
        .replicated
        .as_ref()
        .map(|replicated| replicated.replicas.unwrap_or(1))
}

/// SwarmKit's table (`design/tla/Tasks.tla`): a task is allocated, placed, taken on by its agent, and ends once.
fn check_transition(old: &Task, new: &Task) -> Outcome {
    let (from, to) = (old.status.state, new.status.state);
    let legal = from == to
        || match from {
            TaskState::New => matches!(
                to,
                TaskState::Pending
                    | TaskState::Shutdown
                    | TaskState::Rejected
                    | TaskState::Orphaned
            ),
            TaskState::Pending => matches!(
                to,
                TaskState::Assigned
                    | TaskState::Shutdown
                    | TaskState::Rejected
                    | TaskState::Orphaned
            ),
            _ => from.may_become(to),
        };
    if !legal {
        return Err(format!("task {} goes from {from} to {to}", new.id));
    }
    if new.desired < old.desired {
        return Err(format!(
            "task {} is to be {} after it was to be {}",
            new.id, new.desired, old.desired
        ));
    }
    if !old.node_id.is_empty() && old.node_id != new.node_id {
        return Err(format!(
            "task {} moves from node {} to node {}",
            new.id, old.node_id, new.node_id
        ));
    }
    Ok(())
}

fn check_addresses_of(store: &Store) -> Outcome {
    let mut addresses: BTreeMap<(&str, IpAddr), String> = BTreeMap::new();
    let mut own = |network: &'_ str, address: IpAddr, owner: String| -> Outcome {
        let network = store.network(network).map_or("", |network| &network.id);
        match addresses.insert((network, address), owner.clone()) {
            Some(other) => Err(format!("{address} belongs to {other} and to {owner}")),
            None => Ok(()),
        }
    };
    for task in store.tasks() {
        if task.status.state.is_terminal() {
            continue;
        }
        for attachment in &task.networks {
            for address in &attachment.addresses {
                own(
                    &attachment.network_id,
                    address.addr(),
                    format!("task {}", task.id),
                )?;
            }
        }
    }
    for node in store.nodes() {
        for (network, ranges) in &node.attachments {
            for address in ranges {
                own(network, address.addr(), format!("node {}", node.id))?;
            }
        }
    }
    let mut ports: BTreeMap<(u16, &str), &str> = BTreeMap::new();
    for service in store.services() {
        for address in &service.endpoint.virtual_ips {
            own(
                &address.network_id,
                address.address.addr(),
                format!("service {}", service.id),
            )?;
        }
        if service.pending_delete {
            continue;
        }
        for port in &service.endpoint.ports {
            if port.publish_mode == "host" || port.published_port == 0 {
                continue;
            }
            let key = (port.published_port, port.protocol.as_str());
            if let Some(other) = ports.insert(key, &service.id) {
                return Err(format!(
                    "port {}/{} belongs to services {other} and {}",
                    key.0, key.1, service.id
                ));
            }
        }
    }
    Ok(())
}

/// Independent of the order in which the state came about.
pub(super) fn fingerprint(store: &Store) -> u64 {
    let objects = store
        .nodes()
        .cloned()
        .map(Object::Node)
        .chain(store.cluster().cloned().map(Object::Cluster))
        .chain(store.networks().cloned().map(Object::Network))
        .chain(store.secrets().cloned().map(Object::Secret))
        .chain(store.configs().cloned().map(Object::Config))
        .chain(store.services().cloned().map(Object::Service))
        .chain(store.tasks().cloned().map(Object::Task));
    objects.fold(0, |sum, object| sum ^ hash(&object))
}

fn hash(object: &Object) -> u64 {
    hash_of(object)
}

fn hash_of(value: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(value)
        .expect("maps of the objects have text keys")
        .hash(&mut hasher);
    hasher.finish()
}
