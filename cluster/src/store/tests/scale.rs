//! How fast, and how large. Not a test of anything: prints what it measures.

use std::sync::Arc;
use std::time::Instant;

use agent_api::swarm::{
    Annotations, ContainerSpec, PortConfig, ReplicatedService, ServiceSpec, TaskSpec,
};
use cluster_api::{
    Attachment, ContainerStatus, DesiredState, Endpoint, IdSource, Node, Service, Task, TaskState,
    TaskStatus, Timestamp,
};

use super::super::{Store, Transaction};

const NODES: usize = 1_000;
const TASKS: usize = 50_000;
const SERVICES: usize = 100;
/// Actions of one transaction, the most a loop writes.
const BATCH: usize = 200;

fn resident_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096 / (1 << 20)
}

fn template(number: usize) -> TaskSpec {
    TaskSpec {
        container_spec: Some(ContainerSpec {
            image: format!("registry.example/team/app{number}:1.2.3"),
            env: (0..12).map(|n| format!("SETTING_{n}=value {n}")).collect(),
            args: vec!["serve".into(), "--port=8080".into()],
            ..ContainerSpec::default()
        }),
        ..TaskSpec::default()
    }
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        since: Timestamp(1_700_000_000_000_000_000),
        message: "started".into(),
        container: Some(ContainerStatus {
            id: "5".repeat(64),
            pid: 12345,
            exit_code: 0,
        }),
        ..TaskStatus::default()
    }
}

struct Run {
    store: Store,
    index: u64,
    bytes: usize,
}

impl Run {
    /// Each transaction through bytes, as the log gives it.
    fn apply(
        &mut self,
        what: &str,
        actions: usize,
        transactions: impl Iterator<Item = Transaction>,
    ) {
        let entries: Vec<_> = transactions
            .map(|transaction| serde_json::to_vec(&transaction).unwrap())
            .collect();
        let bytes: usize = entries.iter().map(Vec::len).sum();
        let start = Instant::now();
        for entry in entries {
            let transaction: Transaction = serde_json::from_slice(&entry).unwrap();
            self.index += 1;
            self.store.apply(self.index, &transaction).unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        self.bytes += bytes;
        #[expect(clippy::cast_precision_loss, reason = "printed with few digits")]
        {
            eprintln!(
                "{what}: {actions} in {seconds:.2} s, {:.0}/s; {} bytes each in the log; {} MiB resident",
                actions as f64 / seconds,
                bytes / actions,
                resident_mib()
            );
        }
    }
}

#[test]
#[ignore = "prints rates, checks nothing a machine could fail"]
fn apply_and_snapshot_at_a_thousand_nodes() {
    let mut ids = IdSource::seeded(1);
    let mut run = Run {
        store: Store::default(),
        index: 0,
        bytes: 0,
    };
    let at_start = resident_mib();
    let nodes: Vec<_> = (0..NODES).map(|_| ids.id()).collect();
    run.apply(
        "create nodes",
        NODES,
        nodes.chunks(BATCH).map(|chunk| {
            let mut transaction = Transaction::new(Timestamp(1));
            for id in chunk {
                transaction.create(Node {
                    id: id.clone(),
                    ..Node::default()
                });
            }
            transaction
        }),
    );
    let services: Vec<_> = (0..SERVICES)
        .map(|number| {
            let mut spec = ServiceSpec {
                annotations: Annotations {
                    name: format!("app{number}"),
                    ..Annotations::default()
                },
                task_template: template(number),
                ..ServiceSpec::default()
            };
            spec.mode.replicated = Some(ReplicatedService {
                replicas: Some(500),
            });
            Service {
                id: ids.id(),
                spec: Arc::new(spec),
                ..Service::default()
            }
        })
        .collect();
    run.apply(
        "create services",
        SERVICES,
        services.chunks(BATCH).map(|chunk| {
            let mut transaction = Transaction::new(Timestamp(1));
            for service in chunk {
                transaction.create(service.clone());
            }
            transaction
        }),
    );
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let service = &services[number % SERVICES];
            Task {
                id: ids.id(),
                service_id: service.id.clone(),
                service: Arc::new(service.spec.annotations.clone()),
                slot: (number / SERVICES) as u64 + 1,
                spec: Arc::new(service.spec.task_template.clone()),
                ..Task::default()
            }
        })
        .collect();
    let task_ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
    run.apply(
        "create tasks",
        TASKS,
        tasks.chunks(BATCH).map(|chunk| {
            let mut transaction = Transaction::new(Timestamp(1));
            for task in chunk {
                transaction.create(task.clone());
            }
            transaction
        }),
    );
    drop(tasks);
    let store = run.store.clone();
    run.apply(
        "allocate and assign tasks",
        TASKS,
        task_ids.chunks(BATCH).enumerate().map(|(batch, chunk)| {
            let mut transaction = Transaction::new(Timestamp(1));
            for (number, id) in chunk.iter().enumerate() {
                let mut task = Task::clone(store.task(id).unwrap());
                task.node_id
                    .clone_from(&nodes[(batch * BATCH + number) % NODES]);
                task.status.state = TaskState::Assigned;
                task.networks = vec![Attachment {
                    network_id: "3zs6m0bu0dl2ot0t4q9gsmvk1".into(),
                    addresses: vec!["10.0.1.7/24".parse().unwrap()],
                    aliases: Vec::new(),
                }];
                task.endpoint = Endpoint {
                    ports: vec![PortConfig {
                        target_port: 80,
                        ..PortConfig::default()
                    }],
                    ..Endpoint::default()
                };
                transaction.update(task);
            }
            transaction
        }),
    );
    drop(store);
    run.apply(
        "report tasks running",
        TASKS,
        task_ids.chunks(BATCH).map(|chunk| {
            let mut transaction = Transaction::new(Timestamp(1));
            for id in chunk {
                transaction.task_status(id.clone(), status(TaskState::Running));
            }
            transaction
        }),
    );
    run.apply(
        "want tasks to stop",
        TASKS,
        task_ids.chunks(BATCH).map(|chunk| {
            let mut transaction = Transaction::new(Timestamp(1));
            for id in chunk {
                transaction.task_desired(id.clone(), DesiredState::Shutdown);
            }
            transaction
        }),
    );
    let grown = resident_mib().saturating_sub(at_start);
    let start = Instant::now();
    let capture = run.store.capture();
    let captured = start.elapsed();
    let start = Instant::now();
    let bytes = capture.encode();
    let encoded = start.elapsed();
    drop(capture);
    let start = Instant::now();
    let restored = Store::restore(&bytes).unwrap();
    let read = start.elapsed();
    assert_eq!(restored, run.store);
    eprintln!(
        "{NODES} nodes, {TASKS} tasks: {grown} MiB; snapshot of {} KiB captured in {captured:.1?}, encoded in {encoded:.1?}, restored in {read:.1?}; log {} MiB",
        bytes.len() / 1024,
        run.bytes / (1 << 20),
    );
}
