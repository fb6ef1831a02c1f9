//! For tests of the loops: a store with loops on it and no Raft between them. What a loop decides is applied at once, or
//! refused as if something else had been committed first.

use std::sync::Arc;

use agent_api::swarm::{
    Annotations, EndpointSpec, NetworkAttachmentConfig, NodeDescription, NodeState, Platform,
    PortConfig, Resources, ServiceSpec, TaskSpec,
};
use cluster_api::{
    Cluster, DesiredState, IdSource, Network, NetworkSpec, Node, Now, Object, Service, Task,
    TaskState, TaskStatus, Time, Timestamp,
};

use crate::control_loop::{Context, ControlLoop};
use crate::store::{Store, StoreAction, StoreEvent, Transaction};

pub(crate) struct Stage {
    pub(crate) store: Store,
    pub(crate) ids: IdSource,
    pub(crate) now: Now,
    index: u64,
}

impl Stage {
    /// With a cluster object and nothing else.
    pub(crate) fn new() -> Self {
        let mut stage = Self {
            store: Store::default(),
            ids: IdSource::seeded(1),
            now: Now {
                mono: Time(1_000_000),
                wall: Timestamp(1_700_000_000_000_000_000),
            },
            index: 0,
        };
        let cluster = Cluster {
            id: "c1".to_owned(),
            address_pools: vec!["10.0.0.0/8".parse().unwrap()],
            subnet_size: 20,
            data_path_port: 4789,
            ..Cluster::default()
        };
        stage.create(cluster);
        stage
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now.mono = self.now.mono.after(milliseconds);
        self.now.wall.0 += i64::try_from(milliseconds).unwrap() * 1_000_000;
    }

    /// Applies, or nothing.
    pub(crate) fn apply(&mut self, transaction: &Transaction) -> Vec<StoreEvent> {
        self.index += 1;
        self.store
            .apply(self.index, transaction)
            .unwrap_or_default()
    }

    pub(crate) fn action(&mut self, action: StoreAction) -> Vec<StoreEvent> {
        let mut transaction = Transaction::new(self.now.wall);
        transaction.actions.push(action);
        let events = self.apply(&transaction);
        assert!(!events.is_empty(), "no effect: {transaction:?}");
        events
    }

    pub(crate) fn create(&mut self, object: impl Into<Object>) -> Vec<StoreEvent> {
        self.action(StoreAction::Create(object.into()))
    }

    pub(crate) fn update(&mut self, object: impl Into<Object>) -> Vec<StoreEvent> {
        self.action(StoreAction::Update(object.into()))
    }

    pub(crate) fn change_node(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Node),
    ) -> Vec<StoreEvent> {
        let mut node = Node::clone(self.store.node(id).unwrap());
        change(&mut node);
        self.update(node)
    }

    pub(crate) fn change_service(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Service),
    ) -> Vec<StoreEvent> {
        let mut service = Service::clone(self.store.service(id).unwrap());
        change(&mut service);
        self.update(service)
    }

    pub(crate) fn remove(&mut self, object: Object) -> Vec<StoreEvent> {
        let mut transaction = Transaction::new(self.now.wall);
        transaction.remove(&object);
        self.action(transaction.actions.remove(0))
    }

    pub(crate) fn report(&mut self, task_id: &str, state: TaskState) -> Vec<StoreEvent> {
        let status = TaskStatus {
            state,
            since: self.now.wall,
            ..TaskStatus::default()
        };
        let id = task_id.to_owned();
        self.action(StoreAction::TaskStatus { id, status })
    }

    pub(crate) fn want(&mut self, task_id: &str, desired: DesiredState) -> Vec<StoreEvent> {
        let id = task_id.to_owned();
        self.action(StoreAction::TaskDesired { id, desired })
    }

    pub(crate) fn context(&mut self) -> Context<'_> {
        Context {
            store: &self.store,
            now: self.now,
            ids: &mut self.ids,
        }
    }

    pub(crate) fn start(&mut self, control_loop: &mut dyn ControlLoop) {
        control_loop.start(&mut self.context());
    }

    /// Asks the loop until it wants nothing more. How many transactions it made.
    pub(crate) fn settle(&mut self, control_loop: &mut dyn ControlLoop) -> usize {
        for transactions in 0..100_000 {
            let step = control_loop.step(&mut self.context());
            let Some(transaction) = step.transaction else {
                return transactions;
            };
            assert!(transaction.actions.len() <= crate::batch::MAX_ACTIONS);
            for event in self.apply(&transaction) {
                control_loop.observe(&event);
            }
        }
        panic!("{} never settles", control_loop.name());
    }

    /// As [`Self::settle`], after it was told what happened.
    pub(crate) fn settle_after(
        &mut self,
        events: Vec<StoreEvent>,
        control_loop: &mut dyn ControlLoop,
    ) -> usize {
        for event in events {
            control_loop.observe(&event);
        }
        self.settle(control_loop)
    }
}

/// A ready node with 4 CPUs and 8 GiB.
pub(crate) fn node(id: &str) -> Node {
    let mut node = Node {
        id: id.to_owned(),
        description: Some(NodeDescription {
            hostname: id.to_owned(),
            platform: Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            resources: Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8 << 30,
                ..Resources::default()
            },
            ..NodeDescription::default()
        }),
        ..Node::default()
    };
    node.status.state = NodeState::Ready;
    node
}

/// A network nobody has allocated anything for.
pub(crate) fn network(id: &str, name: &str) -> Network {
    Network {
        id: id.to_owned(),
        spec: NetworkSpec {
            annotations: named(name),
            ..NetworkSpec::default()
        },
        ..Network::default()
    }
}

/// A service on these networks that publishes these ports (published, target).
pub(crate) fn service(id: &str, networks: &[&str], ports: &[(u16, u16)]) -> Service {
    let attachment = |target: &&str| NetworkAttachmentConfig {
        target: (*target).to_owned(),
        ..NetworkAttachmentConfig::default()
    };
    let port = |(published_port, target_port): &(u16, u16)| PortConfig {
        protocol: "tcp".to_owned(),
        published_port: *published_port,
        target_port: *target_port,
        ..PortConfig::default()
    };
    let spec = ServiceSpec {
        annotations: named(id),
        task_template: TaskSpec {
            networks: networks.iter().map(attachment).collect(),
            ..TaskSpec::default()
        },
        endpoint_spec: (!ports.is_empty()).then(|| EndpointSpec {
            ports: ports.iter().map(port).collect(),
            ..EndpointSpec::default()
        }),
        ..ServiceSpec::default()
    };
    Service {
        id: id.to_owned(),
        spec: Arc::new(spec),
        spec_version: 1,
        ..Service::default()
    }
}

/// A new task of a slot of a service.
pub(crate) fn task(service: &Service, slot: u64) -> Task {
    Task {
        id: format!("{}.{slot}", service.id),
        service_id: service.id.clone(),
        service: Arc::new(service.spec.annotations.clone()),
        slot,
        spec: Arc::new(service.spec.task_template.clone()),
        spec_version: service.spec_version,
        ..Task::default()
    }
}

/// A task that waits for a node.
pub(crate) fn pending(service: &Service, slot: u64) -> Task {
    let mut task = task(service, slot);
    task.status.state = TaskState::Pending;
    task
}

fn named(name: &str) -> Annotations {
    Annotations {
        name: name.to_owned(),
        ..Annotations::default()
    }
}
