//! Managers of one swarm in this process: real logs in temporary directories, real TLS between them over loopback.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_api::swarm::{Annotations, ConfigSpec, NodeRole, NodeSpec};
use cluster::ca::{CertificateRequest, Identity, NodeKey, RaftKey, RootCa, TrustRoot, certify};
use cluster::control::{self, Reply, Request};
use cluster::core::Command;
use cluster::manager::{Beginning, Manager, ManagerOptions};
use cluster::raft::log::Key;
use cluster::rpc::{
    Backends, ImageSource, Messages, NodeTls, Peers, Refusal, Server, SharedBackends, system_clock,
};
use cluster::store::Transaction;
use cluster_api::{Cluster, Node, Timestamp, proto};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::async_trait;

/// More than any election takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One node that may be a manager.
pub(crate) struct Host {
    directory: TempDir,
    peers: Arc<Peers>,
    tls: Arc<NodeTls>,
    pub(crate) address: String,
    backends: Arc<SharedBackends>,
    server: Option<Server>,
    pub(crate) manager: Option<Manager>,
}

/// The nodes, by node id.
pub(crate) struct Swarm {
    cluster: Cluster,
    pub(crate) hosts: BTreeMap<String, Host>,
}

pub(crate) fn now() -> Timestamp {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp(now.as_nanos() as i64)
}

fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        spec: NodeSpec {
            role: NodeRole::Manager,
            ..NodeSpec::default()
        },
        role: NodeRole::Manager,
        ..Node::default()
    }
}

impl Swarm {
    /// `m1` founds it, `m2` and so on join.
    pub(crate) async fn new(managers: usize) -> Self {
        let root = RootCa::create(now()).unwrap();
        let mut cluster = Cluster {
            id: "swarm".to_owned(),
            ..Cluster::default()
        };
        cluster.spec.annotations.name = "default".to_owned();
        cluster.root_ca.certificate = root.trust().pem();
        cluster.root_ca.key = root.key_pem().to_string();
        let mut swarm = Self {
            cluster,
            hosts: BTreeMap::new(),
        };
        swarm.found().await;
        for number in 2..=managers {
            swarm.join(&format!("m{number}")).await;
        }
        swarm
    }

    async fn host(&mut self, node_id: &str) -> &mut Host {
        let key = NodeKey::generate().unwrap();
        let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
        let identity = Identity {
            root: TrustRoot::from_pem(self.cluster.root_ca.certificate.as_bytes()).unwrap(),
            certificate: certify(&self.cluster, &request, node_id, NodeRole::Manager, now())
                .unwrap(),
            key,
            raft_key: RaftKey::generate().unwrap(),
        };
        let tls = NodeTls::new(identity, system_clock()).unwrap();
        let mut host = Host {
            directory: tempfile::tempdir().unwrap(),
            peers: Peers::new(tls.clone()),
            tls,
            address: "127.0.0.1:0".to_owned(),
            backends: SharedBackends::new(Backends {
                images: Some(Arc::new(NoImages)),
                ..Backends::default()
            }),
            server: None,
            manager: None,
        };
        host.listen().await;
        self.hosts.insert(node_id.to_owned(), host);
        self.hosts.get_mut(node_id).unwrap()
    }

    async fn found(&mut self) {
        let mut objects = Transaction::new(now());
        objects.create(self.cluster.clone());
        objects.create(node("m1"));
        let host = self.host("m1").await;
        let address = host.address.clone();
        host.start("m1", Beginning::Found { address, objects })
            .await;
    }

    /// Another manager, from nothing to a voter.
    pub(crate) async fn join(&mut self, node_id: &str) {
        let leader = self.leader().await;
        let mut objects = Transaction::new(now());
        objects.create(node(node_id));
        self.manager(&leader)
            .command(Command::Apply(objects))
            .await
            .unwrap();
        let leader = proto::ManagerAddress {
            address: self.hosts[&leader].address.clone(),
            node_id: leader,
        };
        let host = self.host(node_id).await;
        let request = proto::JoinRequest {
            address: host.address.clone(),
        };
        let joined = host.peers.join(&leader, request).await.unwrap();
        let beginning = Beginning::Join {
            raft_id: joined.raft_id,
            members: joined.members,
        };
        host.start(node_id, beginning).await;
        let id = joined.raft_id;
        self.eventually(&leader.node_id, "it votes", move |core| {
            core.membership().voters().any(|voter| voter == id)
        })
        .await;
    }

    pub(crate) fn manager(&self, node_id: &str) -> &Manager {
        self.hosts[node_id].manager.as_ref().unwrap()
    }

    /// Calls as this node, as its certificate lets it.
    pub(crate) fn peers(&self, node_id: &str) -> Arc<Peers> {
        self.hosts[node_id].peers.clone()
    }

    pub(crate) fn address(&self, node_id: &str) -> proto::ManagerAddress {
        proto::ManagerAddress {
            node_id: node_id.to_owned(),
            address: self.hosts[node_id].address.clone(),
        }
    }

    /// Wishes that a manager be a worker.
    pub(crate) async fn demote(&self, by: &str, node_id: &str) -> Result<Reply, control::Refusal> {
        let id = node_id.to_owned();
        let node = self
            .manager(by)
            .read(move |store, _| Node::clone(store.node(&id).unwrap()));
        let node = node.await.unwrap();
        let demote = Request::NodeUpdate {
            node: node.id,
            version: node.meta.version,
            spec: NodeSpec {
                role: NodeRole::Worker,
                ..node.spec
            },
        };
        self.manager(by).request(demote).await
    }

    pub(crate) fn log_directory(&self, node_id: &str) -> PathBuf {
        self.hosts[node_id].raft()
    }

    /// The node id of the manager that leads, when there is one.
    pub(crate) async fn leader(&self) -> String {
        let running = self.hosts.iter().filter_map(|(id, host)| {
            let manager = host.manager.as_ref()?;
            Some(Box::pin(async move {
                let mut standing = manager.standing();
                let leads = standing.wait_for(|standing| standing.leads).await;
                if leads.is_err() {
                    std::future::pending::<()>().await;
                }
                id.clone()
            }))
        });
        let first = futures_util::future::select_all(running);
        tokio::time::timeout(PATIENCE, first)
            .await
            .expect("somebody leads")
            .0
    }

    /// Waits until the core of a manager is as it should be.
    pub(crate) async fn eventually(
        &self,
        node_id: &str,
        what: &str,
        holds: impl Fn(&cluster::core::Core) -> bool + Clone + Send + 'static,
    ) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let holds = holds.clone();
            if self
                .manager(node_id)
                .look(move |core| holds(core))
                .await
                .unwrap()
            {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                for (id, host) in &self.hosts {
                    let Some(manager) = &host.manager else {
                        continue;
                    };
                    let seen =
                        manager.look(|core| format!("{:?} {:?}", core.status(), core.membership()));
                    eprintln!("{id}: {:?}", seen.await);
                }
                panic!("{node_id}: not within {PATIENCE:?}: {what}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As `kill -9`: nothing is handed over, nobody is told.
    pub(crate) async fn kill(&mut self, node_id: &str) {
        let host = self.hosts.get_mut(node_id).unwrap();
        host.backends.replace(Backends::default());
        if let Some(manager) = host.manager.take() {
            manager.abort().await;
        }
        if let Some(server) = host.server.take() {
            server.stop().await;
        }
    }

    /// As a service manager stops it.
    pub(crate) async fn stop(&mut self, node_id: &str) {
        let host = self.hosts.get_mut(node_id).unwrap();
        if let Some(manager) = host.manager.take() {
            manager.stop().await;
        }
        host.backends.replace(Backends::default());
        if let Some(server) = host.server.take() {
            server.stop().await;
        }
    }

    /// With what is on its disk.
    pub(crate) async fn resume(&mut self, node_id: &str) {
        let host = self.hosts.get_mut(node_id).unwrap();
        host.listen().await;
        host.start(node_id, Beginning::Resume).await;
    }

    pub(crate) async fn stop_all(&mut self) {
        for node_id in self.hosts.keys().cloned().collect::<Vec<_>>() {
            self.stop(&node_id).await;
        }
    }
}

impl Host {
    fn raft(&self) -> PathBuf {
        self.directory.path().join("raft")
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let server = Server::start(listener, self.tls.clone(), self.backends.clone()).unwrap();
        self.address = server.address().to_string();
        self.server = Some(server);
    }

    async fn start(&mut self, node_id: &str, beginning: Beginning) {
        let options = ManagerOptions {
            directory: self.raft(),
            cluster_id: "swarm".to_owned(),
            node_id: node_id.to_owned(),
            key: Key::new(*self.tls.identity().raft_key.bytes()),
            peers: self.peers.clone(),
            runtime: Handle::current(),
            raft: cluster::raft::Config {
                // So that tests see snapshots.
                snapshot_entries: 500,
                ..cluster::raft::Config::default()
            },
        };
        let manager = Manager::start(options, beginning).await.unwrap();
        self.backends.update(|backends| {
            manager.add_backends(backends);
            backends.images = Some(Arc::new(NoImages));
        });
        self.manager = Some(manager);
    }
}

/// A small durable write.
pub(crate) fn write(name: &str) -> Request {
    write_data(name, "eA==")
}

/// A durable write of these data, in base64.
pub(crate) fn write_data(name: &str, data: &str) -> Request {
    Request::ConfigCreate {
        spec: ConfigSpec {
            annotations: Annotations {
                name: name.to_owned(),
                ..Annotations::default()
            },
            data: Some(data.to_owned()),
            ..ConfigSpec::default()
        },
    }
}

pub(crate) async fn ask(manager: &Manager, name: &str) -> Result<Reply, control::Refusal> {
    manager.request(write(name)).await
}

/// Names of the configs there are, once everything acknowledged is there.
pub(crate) async fn names(manager: &Manager) -> Vec<String> {
    let names = manager.read(|store, _| {
        let mut names: Vec<String> = store
            .configs()
            .map(|config| config.spec.annotations.name.clone())
            .collect();
        names.sort();
        names
    });
    names.await.unwrap()
}

/// The node has no images.
struct NoImages;

#[async_trait]
impl ImageSource for NoImages {
    async fn resolve(
        &self,
        _: proto::ResolveImageRequest,
    ) -> Result<proto::ResolveImageResponse, Refusal> {
        Ok(proto::ResolveImageResponse::default())
    }

    async fn available(
        &self,
        _: proto::AvailableBlobsRequest,
    ) -> Result<proto::AvailableBlobsResponse, Refusal> {
        Ok(proto::AvailableBlobsResponse::default())
    }

    async fn fetch(
        &self,
        request: proto::FetchBlobRequest,
    ) -> Result<Messages<proto::BlobPiece>, Refusal> {
        Err(Refusal::NotFound(request.digest))
    }
}
