//! The beginning and the end of a run: a cluster is made; when the faults have ended it must become what it was asked
//! to be, and then do nothing.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::{NodeAvailability, NodeRole, NodeSpec, NodeState, SwarmSpec};
use cluster::control;
use cluster::core::Command;
use cluster::dispatcher::BackendState;
use cluster::raft::Suffrage;
use cluster::store::{Store, Transaction};
use cluster_api::{Cluster, DesiredState, Network, Node, Service, TaskState};

use super::check::replicas;
use super::client::{Asker, CLIENTS};
use super::world::{Outcome, World};

const HOSTS: usize = 6;
const FIRST_MANAGERS: usize = 3;
/// Everything must be as it is wanted this long after the last fault.
const SETTLE_MS: u64 = 180_000;
/// Snapshots and other work of the past end within this time.
const LAST_WRITES_MS: u64 = 3_000;
/// An idle cluster is watched for this long.
const IDLE_MS: u64 = 8_000;

impl World {
    /// Makes the cluster, one manager first.
    pub(super) fn found(&mut self) -> Outcome {
        for _ in 0..HOSTS {
            let host = self.add_host();
            self.start_daemon(host)?;
        }
        self.found_group(0)?;
        self.wait("a first leader", 10_000, |world| {
            world.core(0).is_some_and(|core| core.role().established)
        })?;
        let mut transaction = Transaction::new(self.now(0).wall);
        transaction.create(Cluster {
            id: "cluster".to_owned(),
            spec: control::initial_spec(&SwarmSpec::default())
                .map_err(|refusal| refusal.to_string())?,
            address_pools: vec!["10.0.0.0/8".parse().expect("a subnet")],
            subnet_size: 24,
            data_path_port: 4789,
            ..Cluster::default()
        });
        transaction.create(Network {
            id: "ingress".to_owned(),
            spec: control::ingress_spec(),
            ..Network::default()
        });
        for host in 0..HOSTS {
            let role = if host < FIRST_MANAGERS {
                NodeRole::Manager
            } else {
                NodeRole::Worker
            };
            transaction.create(Node {
                id: self.hosts[host].node_id.clone(),
                spec: NodeSpec {
                    role,
                    availability: NodeAvailability::Active,
                    ..NodeSpec::default()
                },
                role,
                ..Node::default()
            });
        }
        self.request(0, Asker::Setup, Command::Apply(transaction))?;
        self.wait("all managers", 60_000, |world| {
            world.core(0).is_some_and(|core| {
                core.membership()
                    .members
                    .values()
                    .filter(|member| member.suffrage == Suffrage::Voter)
                    .count()
                    == FIRST_MANAGERS
            })
        })?;
        for number in 0..CLIENTS {
            self.next_act(number);
        }
        Ok(())
    }

    fn wait(&mut self, what: &str, limit_ms: u64, done: impl Fn(&Self) -> bool) -> Outcome {
        let limit = self.time + limit_ms;
        while !done(self) {
            self.step()?;
            if self.time > limit {
                return Err(format!("waited for {what} for {limit_ms} ms"));
            }
        }
        Ok(())
    }

    /// Until everything is as it is wanted. How long that took, in milliseconds.
    pub(super) fn settle(&mut self) -> Result<u64, String> {
        let since = self.time;
        let mut look_at = self.time;
        let mut missing = String::new();
        loop {
            if self.time >= look_at {
                if let Some(leader) = self.established() {
                    let store = self.core(leader).map(|core| core.store().clone());
                    self.replace_nodes(leader, &store.unwrap_or_default())?;
                }
                match self.differs() {
                    Ok(()) => return Ok(self.time - since),
                    Err(reason) => missing = reason,
                }
                look_at = self.time + 500;
            }
            if self.time - since > SETTLE_MS {
                return Err(format!(
                    "not settled {SETTLE_MS} ms after the last fault: {missing}"
                ));
            }
            self.step()?;
        }
    }

    /// What is not as it is wanted.
    fn differs(&self) -> Result<(), String> {
        let leader = self.established().ok_or("there is no leader")?;
        let core = self.core(leader).ok_or("there is no leader")?;
        let store = core.store();
        for (host, state) in self.hosts.iter().enumerate() {
            if state.gone {
                if store.node(&state.node_id).is_some() {
                    return Err(format!("host {host} is gone and its node is not"));
                }
                continue;
            }
            let node = store
                .node(&state.node_id)
                .ok_or_else(|| format!("host {host} is not in the cluster"))?;
            if node.status.state != NodeState::Ready {
                return Err(format!("host {host} is {:?}", node.status.state));
            }
            let manages = self.core(host).is_some();
            let member = core.membership().of_node(&node.id);
            let votes = member
                .and_then(|id| core.membership().members.get(&id))
                .is_some_and(|member| member.suffrage == Suffrage::Voter);
            let wanted = node.spec.role == NodeRole::Manager;
            if wanted != manages || wanted != votes || node.role != node.spec.role {
                return Err(format!(
                    "host {host} is to be {:?}: its role is {:?}, it is {} manager and {} voter",
                    node.spec.role,
                    node.role,
                    if manages { "a" } else { "no" },
                    if votes { "a" } else { "no" },
                ));
            }
            if let Some(other) = self.core(host) {
                if other.store().index() != store.index() {
                    return Err(format!("host {host} is behind"));
                }
                if other.store() != store || other.membership() != core.membership() {
                    return Err(format!("host {host} has another state than the leader"));
                }
            }
        }
        if let Some(network) = store.networks().find(|network| network.pending_delete) {
            return Err(format!("network {} is not deleted yet", network.id));
        }
        self.services_differ(store)?;
        self.balancers_differ(store)
    }

    fn services_differ(&self, store: &Store) -> Outcome {
        let mut healthy: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (host, state) in self.hosts.iter().enumerate() {
            for task in state.containers.running() {
                let known = store
                    .task(&task.id)
                    .is_some_and(|task| task.desired <= DesiredState::Running);
                if !known {
                    return Err(format!("task {} still runs on host {host}", task.id));
                }
            }
            for task in state.containers.healthy() {
                healthy
                    .entry(&task.service_id)
                    .or_default()
                    .insert(&task.id);
            }
        }
        let active = store
            .nodes()
            .filter(|node| node.spec.availability == NodeAvailability::Active)
            .count() as u64;
        let paused = store
            .nodes()
            .filter(|node| node.spec.availability == NodeAvailability::Pause)
            .count() as u64;
        for service in store.services() {
            if service.pending_delete {
                return Err(format!("service {} is not deleted yet", service.id));
            }
            if let Some(rollout) = service
                .rollout
                .as_ref()
                .filter(|rollout| rollout.state.is_active())
            {
                return Err(format!(
                    "service {} is still {}: {rollout:?}, {:?}, tasks:{}",
                    service.id,
                    rollout.state.as_str(),
                    service.spec.update_config,
                    tasks_of(store, service)
                ));
            }
            let none = BTreeSet::new();
            let run = healthy.get(service.id.as_str()).unwrap_or(&none);
            // A paused node keeps what it has and gets nothing new.
            let (least, most) = match replicas(service) {
                Some(replicas) => (replicas, replicas),
                None => (active, active + paused),
            };
            let count = run.len() as u64;
            if count < least || count > most {
                return Err(format!(
                    "service {} has {count} healthy containers, wanted are {least} to {most}; tasks:{}",
                    service.id,
                    tasks_of(store, service)
                ));
            }
            for task in store.tasks_of_service(&service.id) {
                // It was placed on its node before the node was paused, and waits.
                let held = task.status.state == TaskState::Pending
                    && store
                        .node(&task.node_id)
                        .is_some_and(|node| node.spec.availability == NodeAvailability::Pause);
                let done = held
                    || task.status.state == TaskState::Running
                        && task.desired == DesiredState::Running
                        && run.contains(task.id.as_str())
                    || task.status.state.is_terminal();
                if !done {
                    return Err(format!(
                        "task {} is {} and is to be {}; service {:?}, tasks:{}",
                        task.id,
                        task.status.state,
                        task.desired,
                        service.rollout,
                        tasks_of(store, service)
                    ));
                }
            }
        }
        if let Some(orphan) = store
            .tasks()
            .find(|task| store.service(&task.service_id).is_none())
        {
            return Err(format!("task {} has no service", orphan.id));
        }
        Ok(())
    }

    /// Each node balances to exactly the tasks that run.
    fn balancers_differ(&self, store: &Store) -> Outcome {
        for (host, state) in self.hosts.iter().enumerate() {
            if state.gone {
                continue;
            }
            let Some(daemon) = &state.daemon else {
                return Err(format!("host {host} is down"));
            };
            for (network, endpoints) in &daemon.agent.balancers {
                let programmed: BTreeSet<&str> = endpoints
                    .services
                    .iter()
                    .flat_map(|service| &service.backends)
                    .chain(endpoints.ports.iter().flat_map(|port| &port.backends))
                    .filter(|backend| backend.state == BackendState::Ready)
                    .map(|backend| backend.task_id.as_str())
                    .collect();
                let running: BTreeSet<&str> = store
                    .tasks()
                    .filter(|task| task.status.state == TaskState::Running)
                    .filter(|task| {
                        task.networks
                            .iter()
                            .any(|attachment| attachment.network_id == *network)
                    })
                    .map(|task| task.id.as_str())
                    .collect();
                if programmed != running {
                    return Err(format!(
                        "host {host} sends to {programmed:?} on network {network}, running are {running:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Nothing acknowledged is lost, and a cluster that has nothing to do writes nothing.
    pub(super) fn check_end(&mut self) -> Outcome {
        for host in 0..self.hosts.len() {
            self.check_beliefs(host)?;
        }
        self.pass(LAST_WRITES_MS)?;
        let written = self.written();
        self.pass(IDLE_MS)?;
        if self.written() != written {
            return Err(format!(
                "an idle cluster writes: (last index, syncs) of the managers were {written:?}, are {:?}",
                self.written()
            ));
        }
        self.differs()
            .map_err(|reason| format!("what had settled did not stay so: {reason}"))
    }

    fn pass(&mut self, duration_ms: u64) -> Outcome {
        let until = self.time + duration_ms;
        while self.time < until {
            self.step()?;
        }
        Ok(())
    }

    fn written(&self) -> Vec<(u64, u64)> {
        (0..self.hosts.len())
            .filter_map(|host| {
                let core = self.core(host)?;
                Some((core.status().last_index, self.hosts[host].disk.syncs()))
            })
            .collect()
    }
}

fn tasks_of(store: &Store, service: &Service) -> String {
    store
        .tasks_of_service(&service.id)
        .map(|task| {
            format!(
                "\n  {} slot {} on {:?} {}/{} {:?} {:?} version {} {:?}",
                task.id,
                task.slot,
                task.node_id,
                task.status.state,
                task.desired,
                task.status.message,
                task.status.error,
                task.spec_version,
                task.restarts,
            )
        })
        .collect()
}
