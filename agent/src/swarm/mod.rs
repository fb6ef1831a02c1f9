//! This node's membership of a swarm: making one, joining one, leaving it, and what the API may ask of it.
//!
//! ```text
//! http ──▶ Swarm ──▶ cluster::Manager   while this node is a manager
//!            └─────▶ worker             always: runs what the managers assign
//! ```
//!
//! Decides nothing about services or tasks. Knows nothing of HTTP.

mod address;
mod events;
mod founding;
mod image_source;
mod logs;
mod member;
mod record;
mod resume;

use std::sync::Arc;
use std::time::Duration;

use agent_api::swarm::{
    Info, LocalNodeState, NodeAvailability, NodeRole, Peer, SwarmInitRequest, SwarmJoinRequest,
};
use cluster::ca::{IdentityStore, JoinToken};
use cluster::control::{Reply, Request, view};
use cluster::core::Failure;
use cluster::dispatcher::Contact;
use cluster::manager::{Beginning, Manager};
use cluster::rpc::{download_root, request_identity, system_clock};
use cluster::store::{Store, StoreEvent};
use cluster_api::IdSource;
use parking_lot::RwLock;
use tokio::sync::broadcast;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::worker;
use address::Asked;
pub use logs::{LogLine, LogSelector};
use member::{Member, Part, blocking, now};
use record::{NodeRecord, Places};

/// This node as part of a swarm, or of none. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Swarm {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    places: Places,
    place: RwLock<Place>,
    /// One change at a time: init, join, leave.
    changing: tokio::sync::Mutex<()>,
}

/// Where this host stands.
#[derive(Clone)]
enum Place {
    Alone,
    Member(Arc<Member>),
    /// It is in a swarm, and cannot take part.
    Broken(String),
}

/// Docker's words.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
const NO_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
const ALREADY: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/// How long `join` waits until the leader knows the node, as in Docker.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// How long a manager that leaves waits for the others to let it go.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Swarm {
    /// Goes on where this node was when the daemon stopped. A node that cannot take part (a damaged log, an expired
    /// certificate) is open all the same, and says so.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn open(
        engine: Engine,
        root: std::path::PathBuf,
        run: std::path::PathBuf,
    ) -> Result<Self> {
        let places = Places {
            root: root.join("swarm"),
            run: run.join("swarm"),
        };
        let loaded = {
            let places = places.clone();
            blocking(move || places.load()).await?
        };
        let place = match loaded {
            None => {
                let attempt = places.clone();
                // What a crash left of an attempt to make or join a swarm.
                blocking(move || attempt.clear()).await?;
                Place::Alone
            }
            Some(record) => match resume(&engine, &places, record).await {
                Ok(member) => Place::Member(member),
                Err(error) => {
                    tracing::error!(%error, "this node cannot take part in its swarm");
                    Place::Broken(error.to_string())
                }
            },
        };
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                places,
                place: RwLock::new(place),
                changing: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Stops to take part; the node stays in the swarm and containers go on. A leader hands leadership over.
    pub async fn stop(&self) {
        let _changing = self.shared.changing.lock().await;
        let place = std::mem::replace(&mut *self.shared.place.write(), Place::Alone);
        if let Place::Member(member) = place {
            member.stop().await;
        }
    }

    /// Makes a swarm with this node as its first manager. Returns the node's id.
    ///
    /// # Errors
    /// The node is in a swarm already, an address makes no sense, or an option is not supported.
    pub async fn init(&self, request: SwarmInitRequest) -> Result<String> {
        let _changing = self.shared.changing.lock().await;
        self.expect_alone()?;
        let asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let addresses = address::resolve(asked, &address::interfaces()?)?;
        let founding = founding::found(&request, &addresses, &mut IdSource::random(), now())?;
        let node_id = founding.identity.certificate.subject.node_id.clone();
        let record = NodeRecord {
            node_id: node_id.clone(),
            cluster_id: founding.cluster_id,
            addresses,
            managers: Vec::new(),
        };
        let identity = self.save_identity(founding.identity).await?;
        let part = Part::Manager(Beginning::Found {
            address: addresses.advertise.to_string(),
            objects: founding.objects,
        });
        self.become_member(record, identity, part).await?;
        Ok(node_id)
    }

    /// Joins a swarm. Returns when the leader knows the node.
    ///
    /// # Errors
    /// The node is in a swarm already, the token is not good, or no manager answers.
    pub async fn join(&self, request: SwarmJoinRequest) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        self.expect_alone()?;
        let token: JoinToken = request
            .join_token
            .parse()
            .map_err(|error| Error::invalid(format!("invalid join token: {error}")))?;
        if request.remote_addrs.is_empty() {
            return Err(Error::invalid("at least 1 RemoteAddr is required to join"));
        }
        let asked = Asked {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        };
        let addresses = address::resolve(asked, &address::interfaces()?)?;
        let availability = match request.availability.unwrap_or_default() {
            NodeAvailability::Active => "active",
            NodeAvailability::Pause => "pause",
            NodeAvailability::Drain => "drain",
        };
        let (identity, managers) = self
            .get_identity(&request.remote_addrs, &token, availability)
            .await?;
        let subject = identity.certificate.subject.clone();
        let record = NodeRecord {
            node_id: subject.node_id,
            cluster_id: subject.cluster_id,
            addresses,
            managers,
        };
        let identity = self.save_identity(identity).await?;
        let member = self.become_member(record, identity, Part::Worker).await?;
        // A manager's part begins as every promotion does: when the leader says that this node is one.
        member.registered(JOIN_PATIENCE).await?;
        if subject.role == NodeRole::Manager {
            member.managing(JOIN_PATIENCE).await?;
        }
        Ok(())
    }

    /// Leaves the swarm and forgets it; its containers here are removed. A manager leaves only with `force`.
    ///
    /// # Errors
    /// The node is in no swarm, or is a manager and not forced.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let _changing = self.shared.changing.lock().await;
        let place = self.shared.place.read().clone();
        match &place {
            Place::Alone => {
                return Err(Error::Unavailable(
                    "This node is not part of a swarm".into(),
                ));
            }
            Place::Member(member) => {
                if let Some(manager) = member.manager() {
                    if !force {
                        return Err(Error::Unavailable(warning_of_leaving(&manager).await));
                    }
                    member.leave_group(LEAVE_PATIENCE).await;
                }
                member.stop().await;
            }
            Place::Broken(_) => {}
        }
        *self.shared.place.write() = Place::Alone;
        let places = self.shared.places.clone();
        let errors = worker::clear(&self.shared.engine, places.worker(), places.run.clone()).await;
        for error in &errors {
            tracing::error!(%error, "something of the swarm is left on this node");
        }
        blocking(move || places.clear()).await
    }

    /// Whether requests about the cluster can be answered here.
    ///
    /// # Errors
    /// Docker's words for why not.
    pub fn is_manager(&self) -> Result<()> {
        self.manager().map(drop)
    }

    /// Looks at the cluster as it is: at least as new as everything acknowledged before the call. The leader's node id
    /// comes with it.
    ///
    /// # Errors
    /// This node is no manager, or the managers have no leader.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store, Option<&str>) -> T + Send + 'static,
    ) -> Result<T> {
        self.manager()?.read(look).await.map_err(failed)
    }

    /// Changes the cluster. Returns when the change is committed.
    ///
    /// # Errors
    /// The request's own, in Docker's classes; or as for [`Swarm::read`].
    pub async fn request(&self, request: Request) -> Result<Reply> {
        Ok(self.manager()?.request(request).await?)
    }

    /// What is committed from now on.
    ///
    /// # Errors
    /// This node is no manager.
    pub fn events(&self) -> Result<broadcast::Receiver<Arc<[StoreEvent]>>> {
        Ok(self.manager()?.events())
    }

    /// What `info` says of the swarm.
    pub async fn info(&self) -> Info {
        let place = self.shared.place.read().clone();
        let member = match place {
            Place::Alone => return Info::default(),
            Place::Broken(error) => {
                return Info {
                    local_node_state: LocalNodeState::Error,
                    error,
                    ..Info::default()
                };
            }
            Place::Member(member) => member,
        };
        let record = member.record();
        let mut info = Info {
            node_id: record.node_id,
            node_addr: record.addresses.advertise.ip().to_string(),
            local_node_state: self.local_state(),
            error: member.problem().unwrap_or_default(),
            remote_managers: record
                .managers
                .into_iter()
                .map(|manager| Peer {
                    node_id: manager.node_id,
                    addr: manager.address,
                })
                .collect(),
            ..Info::default()
        };
        if let Some(manager) = member.manager() {
            info.control_available = true;
            let seen = info.clone();
            let looked = manager.look(move |core| {
                let mut info = seen;
                view::info(core.store(), &mut info);
                info
            });
            match looked.await {
                Ok(looked) => info = looked,
                Err(failure) => info.error = failure.to_string(),
            }
        }
        info
    }

    /// Where this host stands, in the API's words.
    pub fn local_state(&self) -> LocalNodeState {
        match &*self.shared.place.read() {
            Place::Alone => LocalNodeState::Inactive,
            Place::Broken(_) => LocalNodeState::Error,
            Place::Member(member) if member.state().is_some() || member.manager().is_some() => {
                LocalNodeState::Active
            }
            Place::Member(_) => LocalNodeState::Pending,
        }
    }

    fn expect_alone(&self) -> Result<()> {
        match *self.shared.place.read() {
            Place::Alone => Ok(()),
            Place::Member(_) | Place::Broken(_) => Err(Error::Unavailable(ALREADY.into())),
        }
    }

    fn manager(&self) -> Result<Manager> {
        match &*self.shared.place.read() {
            Place::Alone => Err(Error::Unavailable(NO_SWARM.into())),
            Place::Broken(error) => Err(Error::Unavailable(format!(
                "this node cannot take part in its swarm: {error}"
            ))),
            Place::Member(member) => member.manager().ok_or_else(|| {
                let problem = member.manager_problem();
                Error::Unavailable(problem.unwrap_or_else(|| NO_MANAGER.into()))
            }),
        }
    }

    async fn save_identity(
        &self,
        identity: cluster::ca::Identity,
    ) -> Result<cluster::ca::Identity> {
        let store = IdentityStore::new(self.shared.places.certificates());
        blocking(move || store.save(&identity).map(|()| identity)).await
    }

    /// Starts the node and records it. An attempt that fails leaves nothing.
    async fn become_member(
        &self,
        record: NodeRecord,
        identity: cluster::ca::Identity,
        part: Part,
    ) -> Result<Arc<Member>> {
        let (engine, places) = (self.shared.engine.clone(), self.shared.places.clone());
        let started = Member::start(engine, places.clone(), record.clone(), identity, part).await;
        let saved = match started {
            Ok(member) => {
                let places = places.clone();
                let saved = blocking(move || places.save(&record)).await;
                match saved {
                    Ok(()) => Ok(member),
                    Err(error) => {
                        member.stop().await;
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        };
        match saved {
            Ok(member) => {
                *self.shared.place.write() = Place::Member(Arc::clone(&member));
                Ok(member)
            }
            Err(error) => {
                blocking(move || places.clear()).await?;
                Err(error)
            }
        }
    }

    /// A certificate, from whichever of the managers answers first, and where that one is.
    async fn get_identity(
        &self,
        remotes: &[String],
        token: &JoinToken,
        availability: &str,
    ) -> Result<(cluster::ca::Identity, Vec<Contact>)> {
        let clock = system_clock();
        let mut failure = None;
        for remote in remotes {
            let address = address::remote(remote)?;
            let store = IdentityStore::new(self.shared.places.certificates());
            let key = blocking(move || store.pending_key()).await?;
            let identity = async {
                let root = download_root(&address, token, &clock).await?;
                request_identity(&address, root, token, key, availability, &clock).await
            };
            match identity.await {
                Ok(identity) => {
                    let manager = Contact {
                        node_id: String::new(),
                        address,
                    };
                    return Ok((identity, vec![manager]));
                }
                Err(error) => failure = Some(error),
            }
        }
        let places = self.shared.places.clone();
        blocking(move || places.clear()).await?;
        let reason = failure.map_or_else(String::new, |failure| failure.to_string());
        Err(Error::Unavailable(format!(
            "cannot join the swarm: {reason}"
        )))
    }
}

async fn resume(engine: &Engine, places: &Places, record: NodeRecord) -> Result<Arc<Member>> {
    let store = IdentityStore::new(places.certificates());
    let identity = blocking(move || store.load()).await?.ok_or_else(|| {
        Error::system("the certificate of this node is gone: leave the swarm with `swarm leave --force` and join again")
    })?;
    if identity.expired(now()) {
        return Err(Error::system(
            "the certificate of this node has expired: leave the swarm with `swarm leave --force` and join again",
        ));
    }
    let part = match identity.certificate.subject.role {
        NodeRole::Manager if places.raft().join("meta").exists() => {
            Part::Manager(Beginning::Resume)
        }
        _ => Part::Worker,
    };
    Member::start(engine.clone(), places.clone(), record, identity, part).await
}

/// Docker's warning, with what leaving would do to the swarm.
async fn warning_of_leaving(manager: &Manager) -> String {
    let managers =
        manager.look(|core| (core.membership().voters().count(), core.role().established));
    let (count, leads) = managers.await.unwrap_or((1, true));
    let mut text = String::from(
        "You are attempting to leave the swarm on a node that is participating as a manager. ",
    );
    text.push_str(match (count, leads) {
        (1, _) => "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
        (2, _) => "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible. The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message. ",
        _ => "Demote it first with `node demote`, or use `--force` to ignore this message. ",
    });
    text.trim_end().to_owned()
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::NotLeader { .. } | Failure::NoQuorum => Error::Unavailable(NO_LEADER.into()),
        other => Error::Unavailable(other.to_string()),
    }
}
