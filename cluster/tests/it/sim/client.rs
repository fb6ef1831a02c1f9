//! Clients of the cluster, each with services, a network and a secret of its own, and an operator who changes nodes.
//! Every write carries a number of its own in a label, so what the store holds tells which write it was.

use std::collections::{BTreeMap, BTreeSet};

use agent_api::swarm::{
    Annotations, ContainerSpec, Driver, EndpointSpec, GlobalService, NetworkAttachmentConfig,
    NodeAvailability, NodeRole, NodeSpec, NodeState, PortConfig, ReferenceFile, ReplicatedService,
    RestartPolicy, SecretReference, SecretSpec, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};
use cluster::control::{RegistryAuth, Request};
use cluster::core::{Answer, Command, Failure, RequestId};
use cluster::store::{Store, Transaction};
use cluster_api::{Kind, NetworkSpec, Node};

use super::world::{Event, Outcome, World};

/// The first of them is the operator, the last one reads.
pub(super) const CLIENTS: usize = 5;
const READER: usize = CLIENTS - 1;
const LABEL: &str = "write";

#[derive(Default)]
pub(super) struct Clients {
    pending: BTreeMap<RequestId, Pending>,
    next: u64,
    write: u64,
    beliefs: BTreeMap<(Kind, String), Belief>,
    pub(super) acknowledged: u64,
}

struct Pending {
    asker: Asker,
    host: usize,
}

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    Client {
        number: usize,
        object: (Kind, String),
    },
    /// Asked any manager for a state that misses nothing; knows how old each object may be at most.
    Reader {
        floors: BTreeMap<(Kind, String), usize>,
    },
    Joiner {
        host: usize,
        daemon: u64,
    },
    /// The cluster is being made: a refusal is a failure.
    Setup,
    /// Nobody minds.
    Nobody,
}

/// What an object may be, from what was acknowledged and what may have happened.
#[derive(Debug, Default)]
struct Belief {
    /// Numbers of writes; `None` stands for "no such object".
    possible: BTreeSet<Option<u64>>,
    in_flight: Option<Option<u64>>,
    /// Earlier writes the cluster itself may go back to.
    may_return_to: BTreeSet<Option<u64>>,
    /// All it ever was or may have been, in order.
    history: Vec<Option<u64>>,
    /// Nothing older than this place of the history is possible any more.
    floor: usize,
}

impl Belief {
    fn allows(&self, found: Option<u64>) -> bool {
        self.possible.contains(&found)
            || self.in_flight == Some(found)
            || self.may_return_to.contains(&found)
    }

    fn is_now(&mut self, write: Option<u64>) {
        self.possible = BTreeSet::from([write]);
        let place = self.history.iter().rposition(|one| *one == write);
        self.floor = self.floor.max(place.unwrap_or(0));
    }
}

impl World {
    pub(super) fn request(&mut self, host: usize, asker: Asker, command: Command) -> Outcome {
        self.clients.next += 1;
        let id = RequestId(self.clients.next);
        self.note(|| {
            format!(
                "host {host}: request {} of {asker:?}: {}",
                id.0,
                brief(&command)
            )
        });
        self.clients.pending.insert(id, Pending { asker, host });
        self.ask(host, id, command)
    }

    /// The manager that would have answered is gone.
    pub(super) fn requests_lost(&mut self, host: usize) {
        let lost: Vec<RequestId> = self
            .clients
            .pending
            .iter()
            .filter(|(_, pending)| pending.host == host)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            if let Some(pending) = self.clients.pending.remove(&id) {
                self.unknown(pending.asker);
            }
        }
    }

    fn unknown(&mut self, asker: Asker) {
        match asker {
            Asker::Client { number, object } => {
                let belief = self.clients.beliefs.entry(object).or_default();
                if let Some(write) = belief.in_flight.take() {
                    belief.possible.insert(write);
                }
                self.next_act(number);
            }
            Asker::Reader { .. } => self.next_act(READER),
            Asker::Joiner { .. } | Asker::Setup | Asker::Nobody => {}
        }
    }

    pub(super) fn answered(
        &mut self,
        host: usize,
        id: RequestId,
        result: Result<Answer, Failure>,
    ) -> Outcome {
        let Some(pending) = self.clients.pending.remove(&id) else {
            return Err(format!("request {} is answered twice", id.0));
        };
        match (pending.asker, result) {
            (asker @ Asker::Client { .. }, Err(Failure::Unknown)) => self.unknown(asker),
            (Asker::Client { number, object }, Err(_)) => {
                if let Some(belief) = self.clients.beliefs.get_mut(&object) {
                    belief.in_flight = None;
                }
                self.next_act(number);
            }
            (Asker::Client { number, object }, Ok(_)) => {
                self.acknowledged(host, object)?;
                self.next_act(number);
            }
            (Asker::Reader { floors }, result) => {
                self.next_act(READER);
                if result.is_ok() {
                    return self.check_read(host, &floors);
                }
            }
            (Asker::Joiner { host, daemon }, Ok(Answer::Joined { raft_id, .. })) => {
                if self
                    .daemon(host, daemon)
                    .is_some_and(|daemon| daemon.manager.is_none())
                {
                    return self.join_group(host, raft_id);
                }
            }
            (Asker::Setup, Err(failure)) => return Err(format!("cannot be set up: {failure}")),
            (Asker::Joiner { .. } | Asker::Setup | Asker::Nobody, _) => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, host: usize, object: (Kind, String)) -> Outcome {
        self.clients.acknowledged += 1;
        let Some(belief) = self.clients.beliefs.get_mut(&object) else {
            return Ok(());
        };
        if let Some(write) = belief.in_flight.take() {
            belief.is_now(write);
            if write.is_none() {
                belief.may_return_to.clear();
            }
        }
        // The manager that answers may lead no longer, so only what it answers for must be there.
        let found = self.core(host).map(|core| written(core.store(), &object));
        let belief = &self.clients.beliefs[&object];
        match found {
            Some(found) if !belief.allows(found) => Err(lost(&object, found, belief)),
            _ => Ok(()),
        }
    }

    /// What was acknowledged must be in the store of every manager whose state is current.
    pub(super) fn check_beliefs(&mut self, host: usize) -> Outcome {
        let Some(core) = self.hosts[host]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.manager.as_ref())
            .map(|manager| &manager.core)
        else {
            return Ok(());
        };
        for (object, belief) in &self.clients.beliefs {
            let found = written(core.store(), object);
            if !belief.allows(found) {
                return Err(lost(object, found, belief));
            }
        }
        Ok(())
    }

    /// A read misses nothing that was acknowledged before it was asked for, whichever manager is asked.
    fn check_read(&self, host: usize, floors: &BTreeMap<(Kind, String), usize>) -> Outcome {
        let Some(core) = self.core(host) else {
            return Ok(());
        };
        for (object, floor) in floors {
            let found = written(core.store(), object);
            let belief = &self.clients.beliefs[object];
            let known = belief.history[*floor..].contains(&found);
            if !known && !belief.may_return_to.contains(&found) {
                return Err(format!(
                    "a read on host {host} is stale: {} {} is as write {found:?} left it, expected {:?}",
                    object.0,
                    object.1,
                    &belief.history[*floor..]
                ));
            }
        }
        Ok(())
    }

    fn read_somewhere(&mut self) -> Outcome {
        let managers: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.core(*host).is_some())
            .collect();
        let Some(host) = self.dice.pick(&managers).copied() else {
            self.next_act(READER);
            return Ok(());
        };
        let floors = self
            .clients
            .beliefs
            .iter()
            .map(|(object, belief)| (object.clone(), belief.floor))
            .collect();
        let id = self.expect_answer(host, Asker::Reader { floors });
        if let Some(manager) = self.manager(host) {
            manager.core.read(id);
        }
        self.drive(host)
    }

    fn expect_answer(&mut self, host: usize, asker: Asker) -> RequestId {
        self.clients.next += 1;
        let id = RequestId(self.clients.next);
        self.clients.pending.insert(id, Pending { asker, host });
        id
    }

    /// A new leader has settled what became of requests whose answers were lost.
    pub(super) fn settle_beliefs(&mut self, host: usize) -> Outcome {
        self.check_beliefs(host)?;
        let Some(core) = self.core(host) else {
            return Ok(());
        };
        let found: Vec<_> = self
            .clients
            .beliefs
            .keys()
            .map(|object| written(core.store(), object))
            .collect();
        for (belief, found) in self.clients.beliefs.values_mut().zip(found) {
            if belief.in_flight.is_none() {
                belief.is_now(found);
            }
        }
        Ok(())
    }

    pub(super) fn next_act(&mut self, number: usize) {
        let delay = self.dice.between(50, 2_500);
        self.after(delay, Event::Client { number });
    }

    pub(super) fn client_acts(&mut self, number: usize) -> Outcome {
        if !self.stormy {
            return Ok(());
        }
        if number == READER {
            return self.read_somewhere();
        }
        let Some(host) = self.likely_leader() else {
            self.next_act(number);
            return Ok(());
        };
        self.clients.write += 1;
        let write = self.clients.write;
        // Cheap to copy: its objects are shared.
        let Some(store) = self.core(host).map(|core| core.store().clone()) else {
            self.next_act(number);
            return Ok(());
        };
        if number == 0 && self.replace_nodes(host, &store)? {
            self.next_act(number);
            return Ok(());
        }
        let act = if number == 0 {
            self.act_on_node(&store, write)
        } else {
            match self.dice.below(10) {
                0 => self.act_on_network(&store, number, write),
                1 => self.act_on_secret(&store, number, write),
                _ => self.act_on_service(&store, number, write),
            }
        };
        let Some(Act {
            object,
            request,
            leaves,
            may_return,
        }) = act
        else {
            self.next_act(number);
            return Ok(());
        };
        let belief = self.clients.beliefs.entry(object.clone()).or_default();
        if belief.history.is_empty() {
            belief.possible.insert(None);
            belief.history.push(None);
        }
        belief.history.push(leaves);
        if may_return {
            let known = belief.possible.iter().copied().collect::<Vec<_>>();
            belief
                .may_return_to
                .extend(known.into_iter().filter(Option::is_some));
        }
        belief.in_flight = Some(leaves);
        self.request(
            host,
            Asker::Client { number, object },
            Command::Control(Box::new(request)),
        )
    }

    /// Mostly the leader; a client does not always know.
    fn likely_leader(&mut self) -> Option<usize> {
        let managers: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.core(*host).is_some())
            .collect();
        let leaders: Vec<usize> = managers
            .iter()
            .copied()
            .filter(|host| self.core(*host).is_some_and(|core| core.role().established))
            .collect();
        if leaders.is_empty() || self.dice.one_in(10) {
            self.dice.pick(&managers).copied()
        } else {
            self.dice.pick(&leaders).copied()
        }
    }

    /// Removes nodes whose hosts are gone and admits those of new hosts. Whether there was any.
    pub(super) fn replace_nodes(&mut self, leader: usize, store: &Store) -> Result<bool, String> {
        let mut any = false;
        for host in 0..self.hosts.len() {
            let node_id = self.hosts[host].node_id.clone();
            let command = match (self.hosts[host].gone, store.node(&node_id)) {
                (true, Some(node)) if node.status.state == NodeState::Down => {
                    Command::Control(Box::new(Request::NodeRemove {
                        node: node_id.clone(),
                        force: false,
                    }))
                }
                (false, None) => {
                    let mut transaction = Transaction::new(self.now(leader).wall);
                    transaction.create(Node {
                        id: node_id.clone(),
                        ..Node::default()
                    });
                    Command::Apply(transaction)
                }
                _ => continue,
            };
            any = true;
            if let Some(belief) = self.clients.beliefs.get_mut(&(Kind::Node, node_id)) {
                belief.may_return_to.insert(None);
            }
            self.request(leader, Asker::Nobody, command)?;
        }
        Ok(any)
    }

    fn act_on_node(&mut self, store: &Store, write: u64) -> Option<Act> {
        let gone: BTreeSet<&str> = self
            .hosts
            .iter()
            .filter(|host| host.gone)
            .map(|host| host.node_id.as_str())
            .collect();
        let nodes: Vec<_> = store
            .nodes()
            .filter(|node| !gone.contains(node.id.as_str()))
            .cloned()
            .collect();
        let node = self.dice.pick(&nodes)?.clone();
        let mut spec = NodeSpec {
            annotations: annotations("", write),
            ..node.spec.clone()
        };
        let idle = nodes
            .iter()
            .filter(|node| node.spec.availability != NodeAvailability::Active)
            .count();
        let managers = nodes
            .iter()
            .filter(|node| node.spec.role == NodeRole::Manager)
            .count();
        if self.dice.one_in(3) {
            spec.role = match spec.role {
                NodeRole::Worker if managers < 5 => NodeRole::Manager,
                NodeRole::Manager if managers > 3 => NodeRole::Worker,
                role => role,
            };
        } else {
            spec.availability = if spec.availability != NodeAvailability::Active {
                NodeAvailability::Active
            } else if idle >= 2 {
                return None;
            } else if self.dice.one_in(3) {
                NodeAvailability::Pause
            } else {
                NodeAvailability::Drain
            };
        }
        Some(Act {
            object: (Kind::Node, node.id.clone()),
            request: Request::NodeUpdate {
                node: node.id.clone(),
                version: node.meta.version,
                spec,
            },
            leaves: Some(write),
            may_return: false,
        })
    }

    fn act_on_network(&mut self, store: &Store, number: usize, write: u64) -> Option<Act> {
        let name = format!("network{number}");
        let object = (Kind::Network, name.clone());
        let exists = store.id_of(Kind::Network, &name).is_some();
        let (request, leaves) = if exists {
            (Request::NetworkRemove { network: name }, None)
        } else {
            let spec = NetworkSpec {
                annotations: annotations(&name, write),
                driver: Driver {
                    name: "overlay".to_owned(),
                    ..Driver::default()
                },
                attachable: true,
                ..NetworkSpec::default()
            };
            let spec = Box::new(spec);
            (Request::NetworkCreate { spec }, Some(write))
        };
        Some(Act {
            object,
            request,
            leaves,
            may_return: false,
        })
    }

    fn act_on_secret(&mut self, store: &Store, number: usize, write: u64) -> Option<Act> {
        let name = format!("secret{number}");
        let object = (Kind::Secret, name.clone());
        let exists = store.id_of(Kind::Secret, &name).is_some();
        let (request, leaves) = if exists {
            (Request::SecretRemove { secret: name }, None)
        } else {
            let spec = SecretSpec {
                annotations: annotations(&name, write),
                data: Some("c2VjcmV0".to_owned()),
                ..SecretSpec::default()
            };
            (Request::SecretCreate { spec }, Some(write))
        };
        Some(Act {
            object,
            request,
            leaves,
            may_return: false,
        })
    }

    fn act_on_service(&mut self, store: &Store, number: usize, write: u64) -> Option<Act> {
        let name = format!("service{number}{}", ["a", "b"][self.dice.below(2) as usize]);
        let object = (Kind::Service, name.clone());
        let present = store
            .id_of(Kind::Service, &name)
            .and_then(|id| store.service(id))
            .cloned();
        let Some(service) = present else {
            let mode = if name.ends_with('b') && self.dice.one_in(3) {
                ServiceMode {
                    global: Some(GlobalService {}),
                    ..ServiceMode::default()
                }
            } else {
                ServiceMode {
                    replicated: Some(ReplicatedService {
                        replicas: Some(self.dice.below(6)),
                    }),
                    ..ServiceMode::default()
                }
            };
            let spec = self.service_spec(store, &name, number, write, mode);
            return Some(Act {
                object,
                request: Request::ServiceCreate {
                    spec: Box::new(spec),
                    auth: None,
                },
                leaves: Some(write),
                may_return: false,
            });
        };
        let service_id = service.id.clone();
        let version = service.meta.version;
        let (request, leaves, may_return) = match self.dice.below(12) {
            0..2 => (
                Request::ServiceRemove {
                    service: service_id,
                },
                None,
                false,
            ),
            2..6 => {
                let mut spec = ServiceSpec::clone(&service.spec);
                spec.annotations = annotations(&name, write);
                if let Some(replicated) = &mut spec.mode.replicated {
                    replicated.replicas = Some(self.dice.below(7));
                }
                (update(service_id, version, spec), Some(write), true)
            }
            _ => {
                let mode = service.spec.mode.clone();
                let spec = self.service_spec(store, &name, number, write, mode);
                (update(service_id, version, spec), Some(write), true)
            }
        };
        Some(Act {
            object,
            request,
            leaves,
            may_return,
        })
    }

    fn service_spec(
        &mut self,
        store: &Store,
        name: &str,
        number: usize,
        write: u64,
        mode: ServiceMode,
    ) -> ServiceSpec {
        let mut networks = Vec::new();
        if let Some(id) = store.id_of(Kind::Network, &format!("network{number}")) {
            networks.push(NetworkAttachmentConfig {
                target: id.to_owned(),
                ..NetworkAttachmentConfig::default()
            });
        }
        let mut secrets = Vec::new();
        let secret_name = format!("secret{number}");
        if let Some(id) = store.id_of(Kind::Secret, &secret_name)
            && self.dice.one_in(2)
        {
            secrets.push(SecretReference {
                file: Some(ReferenceFile {
                    name: secret_name.clone(),
                    uid: "0".to_owned(),
                    gid: "0".to_owned(),
                    mode: 0o444,
                }),
                secret_id: id.to_owned(),
                secret_name,
            });
        }
        // One on each host, so that there is room for all.
        let on_hosts = mode.global.is_some() && self.dice.one_in(2);
        let ports = if on_hosts {
            vec![PortConfig {
                protocol: "tcp".to_owned(),
                target_port: 80,
                published_port: 9_000 + number as u16,
                publish_mode: "host".to_owned(),
                ..PortConfig::default()
            }]
        } else if name.ends_with('a') && self.dice.one_in(2) {
            vec![PortConfig {
                protocol: "tcp".to_owned(),
                target_port: 80,
                published_port: if self.dice.one_in(2) {
                    8_000 + number as u16
                } else {
                    0
                },
                publish_mode: "ingress".to_owned(),
                ..PortConfig::default()
            }]
        } else {
            Vec::new()
        };
        ServiceSpec {
            annotations: annotations(name, write),
            task_template: TaskSpec {
                container_spec: Some(ContainerSpec {
                    image: format!("image:{}", self.dice.below(4)),
                    secrets,
                    ..ContainerSpec::default()
                }),
                networks,
                restart_policy: Some(RestartPolicy {
                    condition: "any".to_owned(),
                    delay: Some(self.dice.between(100, 1_500) as i64 * 1_000_000),
                    ..RestartPolicy::default()
                }),
                ..TaskSpec::default()
            },
            mode,
            update_config: Some(UpdateConfig {
                parallelism: self.dice.below(3),
                delay: 0,
                failure_action: ["pause", "continue", "rollback"][self.dice.below(3) as usize]
                    .to_owned(),
                monitor: self.dice.between(200, 2_000) as i64 * 1_000_000,
                max_failure_ratio: [0.0, 0.5][self.dice.below(2) as usize],
                // With ports of the hosts a successor has no place beside its predecessor.
                order: ["stop-first", "start-first"][usize::from(!on_hosts && self.dice.one_in(2))]
                    .to_owned(),
            }),
            endpoint_spec: Some(EndpointSpec {
                mode: "vip".to_owned(),
                ports,
            }),
            ..ServiceSpec::default()
        }
    }
}

struct Act {
    object: (Kind, String),
    request: Request,
    /// What the object is after it.
    leaves: Option<u64>,
    /// The cluster may go back to what the object was before.
    may_return: bool,
}

fn lost(object: &(Kind, String), found: Option<u64>, belief: &Belief) -> String {
    format!(
        "an acknowledged write is lost: {} {} is as write {found:?} left it, expected {belief:?}",
        object.0, object.1
    )
}

fn update(service: String, version: u64, spec: ServiceSpec) -> Request {
    Request::ServiceUpdate {
        service,
        version,
        spec: Box::new(spec),
        auth: RegistryAuth::default(),
    }
}

fn annotations(name: &str, write: u64) -> Annotations {
    Annotations {
        name: name.to_owned(),
        labels: [(LABEL.to_owned(), write.to_string())]
            .into_iter()
            .collect(),
    }
}

/// The write an object was left by.
fn written(store: &Store, (kind, name): &(Kind, String)) -> Option<u64> {
    let annotations = match kind {
        Kind::Node => &store.node(name)?.spec.annotations,
        Kind::Service => &store.service(store.id_of(*kind, name)?)?.spec.annotations,
        Kind::Network => &store.network(store.id_of(*kind, name)?)?.spec.annotations,
        Kind::Secret => &store.secret(store.id_of(*kind, name)?)?.spec.annotations,
        Kind::Cluster | Kind::Task | Kind::Config => return None,
    };
    annotations.labels.get(LABEL)?.parse().ok()
}

fn brief(command: &Command) -> String {
    match command {
        Command::Control(request) => match &**request {
            Request::ServiceCreate { spec, .. } => {
                format!("create service {} {:?}", spec.annotations.name, spec.mode)
            }
            Request::ServiceUpdate { service, spec, .. } => {
                format!("update service {service} {:?}", spec.mode)
            }
            other => format!("{other:?}"),
        },
        Command::Apply(_) => "apply".to_owned(),
        other => format!("{other:?}"),
    }
}
