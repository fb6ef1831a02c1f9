//! The node's part in a swarm: runs the tasks the managers assign, with the engine.
//!
//! ```text
//!  leader ◀─ session ─▶ Loop ──▶ cluster::worker::Worker (decides, pure)
//!                        │ ◀──── actions
//!                        ├─▶ records      what is begun, on disk before it is
//!                        ├─▶ task         one runner per task ─▶ engine
//!                        └─▶ programmer   one per network ─▶ engine
//! ```
//!
//! What to do is the pure worker's decision; this only carries it out and tells what happened. Containers go on while
//! there is no session, and when the daemon stops.

mod container;
mod files;
mod images;
mod logs;
mod networks;
mod programmer;
mod records;
mod task;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agent_api::{ContainerStatus, ContainerSummary, Filters};
use cluster::dispatcher::{Contact, Registration, SessionState};
use cluster::rpc::{AgentSession, Peers, SessionEvent};
use cluster::worker::{Action, Found, FoundState, Happened, Input, Record};
use cluster_api::{Now, Time, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, ListOptions};
use crate::error::{Error, Result};
pub(crate) use container::Node;
use files::Files;
use images::{Arrivals, Images};
use programmer::{DataPath, Programmer};
use records::Records;
use task::{Handle, Job, Making, Surroundings};

/// Events of the session, and of tasks, that may wait.
const QUEUE: usize = 1024;
/// Time between two comparisons of the kernel's networks with what they should be.
const REPAIR_PERIOD: Duration = Duration::from_secs(10);
/// The label that says which task a container is.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// What a worker is started with.
pub(crate) struct WorkerOptions {
    pub(crate) engine: Engine,
    pub(crate) peers: Arc<Peers>,
    pub(crate) node: Node,
    /// Its records are here.
    pub(crate) root: PathBuf,
    /// What may vanish at a reboot is here.
    pub(crate) run: PathBuf,
    /// Where VXLAN packets to this node go.
    pub(crate) data_path: std::net::IpAddr,
    /// To look for the leader at.
    pub(crate) managers: Vec<Contact>,
    pub(crate) registration: Registration,
}

/// A running worker. Containers go on when it is dropped.
pub(crate) struct WorkerHandle {
    cancel: CancellationToken,
    task: JoinHandle<()>,
    states: watch::Receiver<Option<Arc<SessionState>>>,
    session: Arc<AgentSession>,
}

impl WorkerHandle {
    /// What the leader said last of this node and its surroundings.
    pub(crate) fn states(&self) -> watch::Receiver<Option<Arc<SessionState>>> {
        self.states.clone()
    }

    /// Why there is no session, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        self.session.problem()
    }

    /// Ends it. Containers go on.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the worker ended badly");
        }
    }
}

/// Begins to serve the swarm. What runs already is adopted.
pub(crate) async fn start(options: WorkerOptions) -> Result<WorkerHandle> {
    let files = Files::new(options.run.join("files"));
    let (records, kept) = {
        let root = options.root.clone();
        let opened = move || {
            let records = Records::open(&root)?;
            let kept = records.load()?;
            Ok::<_, records::RecordError>((records, kept))
        };
        blocking(opened).await?
    };
    let (fence, known) = kept;
    let found = containers(&options.engine).await?;
    {
        let (files, known) = (files.clone(), task_ids(&known));
        let swept = tokio::task::spawn_blocking(move || files.sweep(|id| known.contains(id))).await;
        if let Ok(Err(error)) = swept {
            tracing::error!(%error, "secrets of tasks that are gone could not be wiped");
        }
    }
    let (happenings, happened) = mpsc::channel(QUEUE);
    let (programmed, programs) = mpsc::channel(QUEUE);
    let (events, session_events) = mpsc::channel(QUEUE);
    let (contacts, watched) = watch::channel(Vec::new());
    let (states, states_watched) = watch::channel(None);
    let data_path = Arc::new(DataPath::new(options.data_path));
    let surroundings = Arc::new(Surroundings {
        engine: options.engine.clone(),
        files,
        images: Images {
            peers: Arc::clone(&options.peers),
            contacts: watched,
            arriving: Arrivals::default(),
        },
        node: options.node.clone(),
        making: Making::default(),
        happenings,
    });
    let clock = Clock(Instant::now());
    let worker = cluster::worker::Worker::new(
        &options.node.id,
        fence,
        known,
        found.iter().map(|(found, _)| found.clone()).collect(),
        clock.now(),
    );
    let names = found
        .into_iter()
        .map(|(found, container)| (found.task_id, container))
        .collect();
    let logs = logs::Publisher::new(
        options.engine.clone(),
        Arc::clone(&options.peers),
        options.node.id.clone(),
    );
    let session = Arc::new(AgentSession::start(
        options.peers,
        options.managers,
        options.registration,
        events,
    ));
    let cancel = CancellationToken::new();
    let looped = Loop {
        engine: options.engine,
        node_id: options.node.id,
        clock,
        worker,
        records,
        surroundings,
        data_path,
        names,
        tasks: BTreeMap::new(),
        networks: BTreeMap::new(),
        programmed,
        session: Arc::clone(&session),
        logs,
        contacts,
        states,
        cancel: cancel.clone(),
    };
    let task = tokio::spawn(looped.run(session_events, happened, programs));
    Ok(WorkerHandle {
        cancel,
        task,
        states: states_watched,
        session,
    })
}

/// Takes everything of the swarm away from this node: containers, secrets, networks, records. Goes on past errors.
pub(crate) async fn clear(engine: &Engine, root: PathBuf, run: PathBuf) -> Vec<Error> {
    let mut errors = Vec::new();
    let force = crate::engine::RemoveOptions {
        force: true,
        volumes: true,
    };
    match containers(engine).await {
        Ok(found) => {
            let removals = found
                .iter()
                .map(|(_, container)| engine.remove_container(container, force));
            for removed in futures_util::future::join_all(removals).await {
                errors.extend(removed.err());
            }
        }
        Err(error) => errors.push(error),
    }
    errors.extend(engine.set_ingress(None).await.err());
    for id in engine.overlay_ids() {
        errors.extend(engine.remove_overlay(&id).await.err());
    }
    let files = Files::new(run.join("files"));
    let wiped = blocking(move || {
        files
            .sweep(|_| false)
            .map_err(|error| Error::system(error.to_string()))
    });
    errors.extend(wiped.await.err());
    let forgotten = blocking(move || Records::open(&root)?.clear());
    errors.extend(forgotten.await.err());
    errors
}

fn task_ids(records: &[Record]) -> std::collections::BTreeSet<String> {
    records
        .iter()
        .map(|record| record.task.id.clone())
        .collect()
}

/// The containers of tasks on this host, each with its id.
async fn containers(engine: &Engine) -> Result<Vec<(Found, String)>> {
    let options = ListOptions {
        all: true,
        filters: Filters::new().with("label", TASK_LABEL),
        ..ListOptions::default()
    };
    let listed = engine.list_containers(options).await?;
    Ok(listed
        .iter()
        .filter_map(|summary| found(engine, summary))
        .collect())
}

fn found(engine: &Engine, summary: &ContainerSummary) -> Option<(Found, String)> {
    let task_id = summary.labels.get(TASK_LABEL)?.clone();
    let now = engine.follow_container(&summary.id).ok()?.now();
    let state = match now.status {
        ContainerStatus::Created => FoundState::Created,
        ContainerStatus::Running | ContainerStatus::Paused => FoundState::Running,
        _ => FoundState::Exited {
            exit_code: now.exit_code.into(),
            error: now.error,
        },
    };
    Some((Found { task_id, state }, summary.id.clone()))
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Error::system(error.to_string())),
        Err(error) => Err(Error::system(error.to_string())),
    }
}

#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Now {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono: Time(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)),
            wall: Timestamp(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// The moment of a time, for the runtime's timers.
    fn instant(self, time: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + Duration::from_millis(time.0))
    }
}

struct Loop {
    engine: Engine,
    node_id: String,
    clock: Clock,
    worker: cluster::worker::Worker,
    records: Records,
    surroundings: Arc<Surroundings>,
    data_path: Arc<DataPath>,
    /// Containers found at the start, by task.
    names: BTreeMap<String, String>,
    tasks: BTreeMap<String, Handle>,
    networks: BTreeMap<String, Programmer>,
    programmed: mpsc::Sender<(String, u64)>,
    session: Arc<AgentSession>,
    logs: logs::Publisher,
    contacts: watch::Sender<Vec<Contact>>,
    states: watch::Sender<Option<Arc<SessionState>>>,
    cancel: CancellationToken,
}

impl Loop {
    async fn run(
        mut self,
        mut session: mpsc::Receiver<SessionEvent>,
        mut happened: mpsc::Receiver<(String, Happened)>,
        mut programs: mpsc::Receiver<(String, u64)>,
    ) {
        let cancel = self.cancel.clone();
        let mut repair = tokio::time::interval(REPAIR_PERIOD);
        repair.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was under way when the daemon stopped.
        self.handle(Input::Time).await;
        loop {
            let wake_at = self.worker.wake_at().map(|at| self.clock.instant(at));
            let woken = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(event) = session.recv() => self.session_event(event).await,
                Some((id, happened)) = happened.recv() => {
                    self.handle(Input::Task { id, happened }).await;
                }
                Some((network_id, version)) = programs.recv() => {
                    self.handle(Input::Programmed { network_id, version }).await;
                }
                () = woken => self.handle(Input::Time).await,
                _ = repair.tick(), if !self.networks.is_empty() => self.repair(),
            }
        }
    }

    async fn session_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Up(state) => {
                let term = state.term;
                self.learn(*state);
                self.handle(Input::SessionUp { term }).await;
            }
            SessionEvent::State(state) => self.learn(*state),
            SessionEvent::Assignments(assignments) => {
                self.handle(Input::Assignments(*assignments)).await;
            }
            SessionEvent::Down { .. } => self.handle(Input::SessionDown).await,
            SessionEvent::LogSubscription {
                leader,
                subscription,
            } => self.logs.begin(leader, subscription),
            SessionEvent::LogUnsubscribe(id) => self.logs.end(&id),
        }
    }

    fn learn(&self, state: SessionState) {
        self.contacts.send_replace(state.peers.clone());
        self.states.send_replace(Some(Arc::new(state)));
    }

    /// Compares the kernel with what it should be, without being waited for.
    fn repair(&self) {
        let engine = self.engine.clone();
        tokio::spawn(async move {
            match engine.repair_networks().await {
                Ok(done) => {
                    for what in done.repaired {
                        tracing::warn!(what, "repaired");
                    }
                    for error in done.problems {
                        tracing::error!(%error, "a network cannot be repaired");
                    }
                }
                Err(error) => tracing::error!(%error, "networks cannot be looked at"),
            }
        });
    }

    async fn handle(&mut self, input: Input) {
        let actions = self.worker.handle(input, self.clock.now());
        let mut writes = Vec::new();
        for action in actions {
            match action {
                Action::Save(_) | Action::Forget { .. } | Action::SaveFence(_) => {
                    writes.push(action);
                }
                action => {
                    self.write(&mut writes).await;
                    self.begin(action);
                }
            }
        }
        self.write(&mut writes).await;
    }

    /// Makes records durable. Without them nothing may be begun, so a failing disk holds the worker up.
    async fn write(&self, writes: &mut Vec<Action>) {
        if writes.is_empty() {
            return;
        }
        let writes = Arc::new(std::mem::take(writes));
        loop {
            let (records, writes) = (self.records.clone(), Arc::clone(&writes));
            let written = blocking(move || {
                writes.iter().try_for_each(|write| match write {
                    Action::Save(record) => records.save(record),
                    Action::Forget { task_id } => records.forget(task_id),
                    Action::SaveFence(fence) => records.save_fence(fence),
                    _ => Ok(()),
                })
            });
            let Err(error) = written.await else { return };
            tracing::error!(%error, "the worker cannot write its records and waits");
            tokio::time::sleep(REPAIR_PERIOD).await;
        }
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::Save(_) | Action::Forget { .. } | Action::SaveFence(_) => {}
            Action::Prepare(preparation) => {
                let id = preparation.task.id.clone();
                let present = preparation.networks.iter().map(|network| {
                    let id = network.id.clone();
                    self.programmer(id).require(network)
                });
                let present = present.collect();
                self.ask(&id, Job::Prepare(preparation, present));
            }
            Action::Start { task_id } => self.ask(&task_id, Job::Start),
            Action::Adopt { task_id } => self.ask(&task_id, Job::Adopt),
            Action::Stop { task_id } => self.ask(&task_id, Job::Stop),
            Action::Release { task_id } => self.ask(&task_id, Job::Release),
            Action::Remove { task_id } => {
                self.ask(&task_id, Job::Remove);
                // Its runner ends when the job is done; a second try makes a new one.
                self.tasks.remove(&task_id);
            }
            Action::Program { network, endpoints } => {
                self.data_path.set_port(endpoints.data_path_port);
                let id = network.id.clone();
                self.programmer(id).program(network, endpoints);
            }
            Action::Unprogram { network_id } => {
                let id = network_id.clone();
                self.programmer(id).remove(network_id);
            }
            Action::Report(statuses) => self.session.report(statuses),
            Action::Acknowledge { results_in } => {
                self.session.acknowledge(results_in);
            }
            Action::Resync { reason } => {
                tracing::warn!(reason, "assignments are asked for anew");
                self.session.resync();
            }
            Action::Leave { reason } => self.session.end(reason),
        }
    }

    /// Of this network; it stays, because a network that goes may be wanted again before it has gone.
    fn programmer(&mut self, network_id: String) -> &Programmer {
        self.networks.entry(network_id).or_insert_with(|| {
            Programmer::start(
                self.engine.clone(),
                self.node_id.clone(),
                Arc::clone(&self.data_path),
                self.programmed.clone(),
            )
        })
    }

    fn ask(&mut self, task_id: &str, job: Job) {
        let handle = self.tasks.entry(task_id.to_owned()).or_insert_with(|| {
            Handle::spawn(
                Arc::clone(&self.surroundings),
                task_id.to_owned(),
                self.names.get(task_id).cloned(),
            )
        });
        handle.ask(job);
    }
}
