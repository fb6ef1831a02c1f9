//! This host while it is a node of a swarm: the listener, the worker, and the manager while it is one.
//!
//! ```text
//!              ┌───────────── listener (one, for everything; backends are swapped)
//! identity ────┤ worker ── state of the session ──▶ follow: role differs, certificate ends
//!              │                                       │ renew ─▶ NodeTls.replace
//!              └ manager ◀── promoted: join, start ────┤
//!                        ◀── demoted: stop, forget ────┘
//! ```

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent_api::swarm::{
    EngineDescription, NodeDescription, NodeRole, Platform, PluginDescription, Resources,
};
use cluster::ca::{Identity, IdentityStore};
use cluster::dispatcher::{Contact, Registration, SessionState};
use cluster::manager::{Beginning, End, Manager, ManagerError, ManagerOptions};
use cluster::raft::Config as RaftConfig;
use cluster::raft::log::Key;
use cluster::rpc::{
    Backends, NodeTls, Peers, Refusal, Renewal, Server, SharedBackends, system_clock,
};
use cluster_api::Timestamp;
use cluster_api::proto::{JoinRequest, JoinResponse, ManagerAddress};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events;
use super::image_source::EngineImages;
use super::record::{NodeRecord, Places};
use super::resume::Resume;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::worker::{self, Node, WorkerHandle, WorkerOptions};

/// Pause after something that must work at some time did not.
const RETRY: Duration = Duration::from_secs(2);
/// How long a promoted node waits to be let into the group before it says so.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// A node of a swarm.
pub(super) struct Member {
    engine: Engine,
    places: Places,
    record: Mutex<NodeRecord>,
    tls: Arc<NodeTls>,
    pub(super) peers: Arc<Peers>,
    backends: Arc<SharedBackends>,
    manager: RwLock<Option<Manager>>,
    /// Why there is no manager where there should be one.
    manager_problem: Mutex<Option<String>>,
    /// Whether `manager` is there, for those who wait for it.
    managing: watch::Sender<bool>,
    server: Mutex<Option<Server>>,
    worker: Mutex<Option<WorkerHandle>>,
    cancel: CancellationToken,
}

/// How the manager of a node begins, if it has one.
pub(super) enum Part {
    Worker,
    Manager(Beginning),
}

impl Member {
    /// Starts everything a node consists of. What was started is stopped again when something cannot be.
    pub(super) async fn start(
        engine: Engine,
        places: Places,
        record: NodeRecord,
        identity: Identity,
        part: Part,
    ) -> Result<Arc<Self>> {
        let tls = NodeTls::new(identity, system_clock()).map_err(system("set up TLS"))?;
        let peers = Peers::new(Arc::clone(&tls));
        let backends = SharedBackends::new(Backends {
            images: Some(Arc::new(EngineImages(engine.clone()))),
            ..Backends::default()
        });
        let listen = record.addresses.listen;
        let listener = TcpListener::bind(listen)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener)
            })
            .map_err(|error| {
                Error::system(format!(
                    "cannot listen on {listen} for the swarm: {error}; is another program there? choose one with --listen-addr"
                ))
            })?;
        let server = Server::start(listener, Arc::clone(&tls), Arc::clone(&backends))
            .map_err(system("serve the swarm"))?;
        let member = Arc::new(Self {
            engine,
            places,
            record: Mutex::new(record),
            tls,
            peers,
            backends,
            manager: RwLock::new(None),
            manager_problem: Mutex::new(None),
            managing: watch::Sender::new(false),
            server: Mutex::new(Some(server)),
            worker: Mutex::new(None),
            cancel: CancellationToken::new(),
        });
        let started = async {
            if let Part::Manager(beginning) = part {
                member.start_manager(beginning).await?;
            }
            member.start_worker().await
        };
        match started.await {
            Ok(()) => {
                tokio::spawn(Arc::clone(&member).follow());
                Ok(member)
            }
            Err(error) => {
                member.stop().await;
                Err(error)
            }
        }
    }

    /// Stops everything. Containers go on.
    pub(super) async fn stop(&self) {
        self.cancel.cancel();
        let worker = self.worker.lock().take();
        if let Some(worker) = worker {
            worker.stop().await;
        }
        self.stop_manager().await;
        let server = self.server.lock().take();
        if let Some(server) = server {
            server.stop().await;
        }
    }

    /// The manager, while this node is one.
    pub(super) fn manager(&self) -> Option<Manager> {
        self.manager.read().clone()
    }

    pub(super) fn record(&self) -> NodeRecord {
        self.record.lock().clone()
    }

    /// What the leader said last.
    pub(super) fn state(&self) -> Option<Arc<SessionState>> {
        let worker = self.worker.lock();
        worker.as_ref()?.states().borrow().clone()
    }

    /// Waits until the leader knows this node.
    pub(super) async fn registered(&self, patience: Duration) -> Result<()> {
        let states = self.worker.lock().as_ref().map(WorkerHandle::states);
        let Some(mut states) = states else {
            return Err(Error::system("the node was stopped while it joined"));
        };
        let known = states.wait_for(Option::is_some);
        let known = tokio::time::timeout(patience, known).await.is_ok();
        if known {
            return Ok(());
        }
        let problem = self.problem().unwrap_or_else(|| "no answer".to_owned());
        Err(Error::system(format!(
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node: {problem}"
        )))
    }

    /// Why the manager of this node stopped by itself, or else why there is no session; for people.
    pub(super) fn problem(&self) -> Option<String> {
        let manager = self.manager_problem();
        manager.or_else(|| self.worker.lock().as_ref()?.problem())
    }

    /// Why the manager of this node is not there though it should be.
    pub(super) fn manager_problem(&self) -> Option<String> {
        self.manager_problem.lock().clone()
    }

    /// PEM of the root all nodes trust.
    pub(super) fn root_certificate(&self) -> String {
        self.tls.identity().root.pem()
    }

    async fn start_worker(&self) -> Result<()> {
        let record = self.record();
        let description = self.describe(&record).await?;
        let node = Node {
            id: record.node_id.clone(),
            hostname: description.hostname.clone(),
            architecture: description.platform.architecture.clone(),
            os: description.platform.os.clone(),
        };
        let handle = worker::start(WorkerOptions {
            engine: self.engine.clone(),
            peers: Arc::clone(&self.peers),
            node,
            root: self.places.worker(),
            run: self.places.run.clone(),
            data_path: record.addresses.data_path,
            managers: self.managers(&record),
            registration: Registration {
                description,
                address: record.addresses.advertise.to_string(),
                data_path_addr: Some(record.addresses.data_path),
                seen_at: record.addresses.advertise.ip().to_string(),
            },
        })
        .await?;
        *self.worker.lock() = Some(handle);
        Ok(())
    }

    /// Where to look for the leader: here, if this is a manager, then at those known last.
    fn managers(&self, record: &NodeRecord) -> Vec<Contact> {
        let own = self.manager.read().is_some().then(|| Contact {
            node_id: record.node_id.clone(),
            address: record.addresses.advertise.to_string(),
        });
        let others = record.managers.iter().cloned();
        own.into_iter().chain(others).collect()
    }

    async fn describe(&self, record: &NodeRecord) -> Result<NodeDescription> {
        let info = self.engine.info().await?;
        let plugins = [
            ("Log", &["json-file", "local", "none"][..]),
            ("Network", &["bridge", "host", "null", "overlay"]),
            ("Volume", &["local"]),
        ];
        let plugins = plugins.into_iter().flat_map(|(kind, names)| {
            names.iter().map(move |name| PluginDescription {
                kind: kind.to_owned(),
                name: (*name).to_owned(),
            })
        });
        let labels = info.labels.iter().map(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            (key.to_owned(), value.to_owned())
        });
        let tls_info = cluster::control::view::tls_info(&self.root_certificate());
        Ok(NodeDescription {
            hostname: info.name,
            platform: Platform {
                architecture: info.architecture,
                os: info.os_type,
            },
            resources: Resources {
                nano_cpus: info.ncpu * 1_000_000_000,
                memory_bytes: info.mem_total,
                generic_resources: Vec::new(),
            },
            engine: EngineDescription {
                engine_version: info.server_version,
                labels: labels.collect(),
                plugins: plugins.collect(),
            },
            tls_info: tls_info
                .map_err(|refusal| Error::system(format!("node {}: {refusal}", record.node_id)))?,
        })
    }

    async fn start_manager(&self, beginning: Beginning) -> Result<()> {
        let (record, identity) = (self.record(), self.tls.identity());
        let options = ManagerOptions {
            directory: self.places.raft(),
            cluster_id: record.cluster_id,
            node_id: record.node_id,
            key: Key::new(*identity.raft_key.bytes()),
            peers: Arc::clone(&self.peers),
            runtime: Handle::current(),
            raft: RaftConfig::default(),
        };
        let manager = match Manager::start(options, beginning).await {
            Ok(manager) => manager,
            Err(ManagerError::NeverJoined) => {
                // The next look at the role joins again.
                let places = self.places.clone();
                return blocking(move || places.clear_raft()).await;
            }
            Err(error) => return Err(system("start the manager")(error)),
        };
        self.backends
            .update(|backends| manager.add_backends(backends));
        tokio::spawn(events::tell(manager.events(), self.engine.clone()));
        *self.manager.write() = Some(manager);
        *self.manager_problem.lock() = None;
        self.managing.send_replace(true);
        Ok(())
    }

    /// Waits until the manager cannot go on; gives the reason. One that was told to stop or was removed is the business of
    /// who did that.
    async fn manager_failed(&self) -> String {
        let standing = self.manager.read().as_ref().map(Manager::standing);
        if let Some(mut standing) = standing {
            let failed = standing.wait_for(|now| matches!(now.stopped, Some(End::Failed(_))));
            if let Ok(standing) = failed.await
                && let Some(End::Failed(reason)) = &standing.stopped
            {
                return reason.clone();
            }
        }
        std::future::pending().await
    }

    /// The manager ended by itself; another takes its place later, with what is on disk.
    fn lose_manager(&self, reason: &str, pause: Duration) {
        tracing::error!(
            reason,
            ?pause,
            "the manager of this node stopped; it is started again"
        );
        *self.manager_problem.lock() = Some(format!(
            "the manager of this node stopped: {reason}; it is tried again"
        ));
        *self.manager.write() = None;
        self.managing.send_replace(false);
        self.backends.update(Manager::remove_backends);
    }

    async fn stop_manager(&self) {
        let manager = self.manager.write().take();
        *self.manager_problem.lock() = None;
        self.managing.send_replace(false);
        if let Some(manager) = manager {
            manager.stop().await;
            self.backends.update(Manager::remove_backends);
        }
    }

    /// Keeps certificate, role and known managers as the leader says, until the node stops.
    async fn follow(self: Arc<Self>) {
        let states = self.worker.lock().as_ref().map(WorkerHandle::states);
        let Some(mut states) = states else { return };
        let mut generation = self.tls.generation();
        let managers = self.managers(&self.record());
        let renewal = Renewal::start(
            Arc::clone(&self.peers),
            IdentityStore::new(self.places.certificates()),
            managers.iter().map(address_of).collect(),
        );
        let mut resume = Resume::default();
        loop {
            let state = states.borrow_and_update().clone();
            let _ = generation.borrow_and_update();
            let settled = match state {
                // What it was is started again first, at its time.
                _ if resume.is_pending() => Ok(()),
                Some(state) => self.settle(&renewal, &state).await,
                None => Ok(()),
            };
            if let Err(error) = &settled {
                tracing::error!(%error, "this node is not yet what the swarm wants it to be");
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                changed = states.changed() => if changed.is_err() { return },
                _ = generation.changed() => {}
                () = tokio::time::sleep(RETRY), if settled.is_err() => {}
                reason = self.manager_failed() => self.lose_manager(&reason, resume.postpone(Instant::now())),
                () = resume.due() => match self.start_manager(Beginning::Resume).await {
                    Ok(()) => resume.done(),
                    Err(error) => self.lose_manager(&error.to_string(), resume.postpone(Instant::now())),
                },
            }
        }
    }

    async fn settle(&self, renewal: &Renewal, state: &SessionState) -> Result<()> {
        self.remember(state).await?;
        let managers = self.managers(&self.record());
        renewal.set_managers(managers.iter().map(address_of).collect());
        let is = self.tls.identity().certificate.subject.role;
        if is != state.node.role {
            // Its end shows in the generation.
            renewal.renew_now();
            return Ok(());
        }
        let manages = self.manager.read().is_some();
        match (is, manages) {
            (NodeRole::Manager, false) => self.promote().await,
            (NodeRole::Worker, true) => {
                self.stop_manager().await;
                let places = self.places.clone();
                blocking(move || places.clear_raft()).await
            }
            _ => Ok(()),
        }
    }

    /// A node that was off for long must find a manager again.
    async fn remember(&self, state: &SessionState) -> Result<()> {
        let changed = {
            let mut record = self.record.lock();
            let changed = record.managers != state.managers;
            record.managers.clone_from(&state.managers);
            changed.then(|| record.clone())
        };
        let Some(record) = changed else { return Ok(()) };
        let places = self.places.clone();
        blocking(move || places.save(&record)).await
    }

    /// Asks the leader to be a member of the group, then begins to be one.
    async fn promote(&self) -> Result<()> {
        let places = self.places.clone();
        let resumes = blocking(move || Ok::<_, Error>(places.raft().join("meta").exists())).await?;
        if resumes {
            return self.start_manager(Beginning::Resume).await;
        }
        let record = self.record();
        let joined = join_group(&self.peers, &record).await?;
        self.start_manager(Beginning::Join {
            raft_id: joined.raft_id,
            members: joined.members,
        })
        .await
    }
}

/// Has the leader make this node a member. The listener must be up: the leader looks whether it can be reached.
pub(super) async fn join_group(peers: &Peers, record: &NodeRecord) -> Result<JoinResponse> {
    let address = record.addresses.advertise.to_string();
    let deadline = Instant::now() + JOIN_PATIENCE;
    let mut candidates: Vec<ManagerAddress> = record
        .managers
        .iter()
        .filter(|manager| manager.node_id != record.node_id)
        .map(address_of)
        .collect();
    let mut failure = Error::Unavailable("no other manager of the swarm is known".into());
    loop {
        let mut leader = None;
        for manager in &candidates {
            let request = JoinRequest {
                address: address.clone(),
            };
            match peers.join(manager, request).await {
                Ok(joined) => return Ok(joined),
                Err(Refusal::NotLeader {
                    leader: Some(known),
                }) => leader = Some(known),
                Err(refusal) => {
                    failure = Error::Unavailable(format!("{}: {refusal}", manager.address));
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(failure);
        }
        if let Some(leader) = leader {
            candidates.retain(|candidate| candidate.address != leader.address);
            candidates.insert(0, leader);
        } else {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn address_of(contact: &Contact) -> ManagerAddress {
    ManagerAddress {
        node_id: contact.node_id.clone(),
        address: contact.address.clone(),
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Error::system(error.to_string())),
        Err(error) => Err(Error::system(error.to_string())),
    }
}

fn system<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Error + use<'_, E> {
    move |error| Error::system(format!("cannot {what}: {error}"))
}

impl Member {
    /// Waits until this node takes part as a manager.
    pub(super) async fn managing(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut managing = self.managing.subscribe();
        match tokio::time::timeout_at(deadline, managing.wait_for(|managing| *managing)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::system(
                "the node is in the swarm, but has not become a manager yet; look at the daemon's log. The attempt continues in the background",
            )),
        }
    }

    /// Asks the others to let this manager go. Goes on without their answer: who leaves by force may be the last.
    pub(super) async fn leave_group(&self, patience: Duration) {
        let Some(manager) = self.manager() else {
            return;
        };
        let record = self.record();
        let leave = async {
            let mut standing = manager.standing();
            if standing.borrow().leads {
                let _ = manager.command(cluster::core::Command::StepDown).await;
                let _ = standing
                    .wait_for(|standing| !standing.leads && standing.leader.is_some())
                    .await;
            }
            let leader = standing.borrow().leader.clone();
            if let Some(leader) = leader.filter(|leader| leader.node_id != record.node_id)
                && let Err(refusal) = self.peers.leave(&address_of(&leader)).await
            {
                tracing::warn!(%refusal, "the other managers did not let this one go");
            }
        };
        let alone = manager
            .look(|core| core.membership().members.len() == 1)
            .await;
        if alone.unwrap_or(true) {
            return;
        }
        if tokio::time::timeout(patience, leave).await.is_err() {
            tracing::warn!("the other managers did not let this one go in time");
        }
    }
}
