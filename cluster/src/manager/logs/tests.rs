//! A whole manager over a real listener, and a node in session with it.

use agent_api::swarm::{NodeRole, ServiceMode, ServiceSpec};
use cluster_api::{Cluster, DesiredState, Node, Service, Task, TaskState, TaskStatus, Timestamp};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::super::{Beginning, ManagerOptions};
use super::*;
use crate::ca::{CertificateRequest, Identity, NodeKey, RaftKey, RootCa, TrustRoot, certify};
use crate::dispatcher::{Contact, Registration};
use crate::raft::log::Key;
use crate::rpc::{
    AgentSession, Backends, NodeTls, Peers, Server, SessionEvent, SharedBackends, system_clock,
};
use crate::store::Transaction;

const WALL: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// A swarm of one manager; task `t1` of service `s1` runs on `w1`, task `t2` of `s2` on `w2`.
struct Swarm {
    manager: Manager,
    server: Server,
    cluster: Cluster,
    folder: tempfile::TempDir,
}

fn tls(cluster: &Cluster, node_id: &str, role: NodeRole) -> Arc<NodeTls> {
    let key = NodeKey::generate().unwrap();
    let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
    let now = Timestamp(jiff::Timestamp::now().as_nanosecond().try_into().unwrap());
    let identity = Identity {
        root: TrustRoot::from_pem(cluster.root_ca.certificate.as_bytes()).unwrap(),
        certificate: certify(cluster, &request, node_id, role, now).unwrap(),
        key,
        raft_key: RaftKey::generate().unwrap(),
    };
    NodeTls::new(identity, system_clock()).unwrap()
}

fn node(id: &str, role: NodeRole) -> Node {
    let mut node = Node {
        id: id.into(),
        role,
        ..Node::default()
    };
    node.spec.role = role;
    node
}

fn first_objects(cluster: &Cluster) -> Transaction {
    let mut objects = Transaction::new(WALL);
    objects.create(cluster.clone());
    objects.create(node("m1", NodeRole::Manager));
    for (service_id, task_id, node_id) in [("s1", "t1", "w1"), ("s2", "t2", "w2")] {
        objects.create(node(node_id, NodeRole::Worker));
        let mut spec = ServiceSpec::default();
        spec.annotations.name = service_id.to_owned();
        // One task, on that node, whether it is there or not.
        spec.task_template.placement = Some(agent_api::swarm::Placement {
            constraints: vec![format!("node.id=={node_id}")],
            ..Default::default()
        });
        spec.mode = ServiceMode {
            global: Some(Default::default()),
            ..ServiceMode::default()
        };
        let spec = Arc::new(spec);
        objects.create(Service {
            id: service_id.into(),
            spec: Arc::clone(&spec),
            ..Service::default()
        });
        objects.create(Task {
            id: task_id.into(),
            service_id: service_id.into(),
            node_id: node_id.into(),
            spec: Arc::new(spec.task_template.clone()),
            desired: DesiredState::Running,
            status: TaskStatus {
                state: TaskState::Running,
                ..TaskStatus::default()
            },
            ..Task::default()
        });
    }
    objects
}

impl Swarm {
    async fn start() -> Self {
        let now = Timestamp(jiff::Timestamp::now().as_nanosecond().try_into().unwrap());
        let root = RootCa::create(now).unwrap();
        let mut cluster = Cluster {
            id: "c1".into(),
            ..Cluster::default()
        };
        cluster.spec.annotations.name = "default".into();
        cluster.root_ca.certificate = root.trust().pem();
        cluster.root_ca.key = root.key_pem().to_string();

        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = tls(&cluster, "m1", NodeRole::Manager);
        let backends = SharedBackends::new(Backends::default());
        let server = Server::start(listener, Arc::clone(&tls), Arc::clone(&backends)).unwrap();
        let options = ManagerOptions {
            directory: folder.path().to_owned(),
            cluster_id: "c1".into(),
            node_id: "m1".into(),
            key: Key::new([7; 32]),
            peers: Peers::new(tls),
            runtime: Handle::current(),
            raft: crate::raft::Config::default(),
        };
        let objects = first_objects(&cluster);
        let manager = Manager::start(options, Beginning::Found { address, objects })
            .await
            .unwrap();
        backends.update(|backends| manager.add_backends(backends));
        Self {
            manager,
            server,
            cluster,
            folder,
        }
    }

    fn address(&self) -> proto::ManagerAddress {
        proto::ManagerAddress {
            node_id: "m1".into(),
            address: self.server.address().to_string(),
        }
    }

    async fn read(&self, service_ids: &[&str], follow: bool) -> Messages<proto::LogBatch> {
        let selector = proto::LogSelector {
            service_ids: service_ids.iter().map(ToString::to_string).collect(),
            ..proto::LogSelector::default()
        };
        let options = proto::LogOptions {
            stdout: true,
            follow,
            tail: 10,
            ..proto::LogOptions::default()
        };
        let request = proto::SubscribeLogsRequest {
            selector: Some(selector),
            options: Some(options),
        };
        self.manager.logs(request).await.unwrap()
    }

    async fn stop(self) {
        self.manager.stop().await;
        self.server.stop().await;
        drop(self.folder);
    }
}

/// A worker that is registered.
struct Worker {
    peers: Arc<Peers>,
    session: AgentSession,
    events: mpsc::Receiver<SessionEvent>,
}

impl Worker {
    async fn start(swarm: &Swarm, node_id: &str) -> Self {
        let peers = Peers::new(tls(&swarm.cluster, node_id, NodeRole::Worker));
        let (sender, events) = mpsc::channel(16);
        let managers = vec![Contact {
            node_id: "m1".into(),
            address: swarm.address().address,
        }];
        let registration = Registration::default();
        let session = AgentSession::start(Arc::clone(&peers), managers, registration, sender);
        let mut worker = Self {
            peers,
            session,
            events,
        };
        worker
            .until(|event| matches!(event, SessionEvent::Up(_)).then_some(()))
            .await;
        worker
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(SessionEvent) -> Option<T>) -> T {
        loop {
            let event = self.events.recv().await.unwrap();
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    async fn subscription(&mut self) -> (proto::ManagerAddress, proto::LogSubscription) {
        self.until(|event| match event {
            SessionEvent::LogSubscription {
                leader,
                subscription,
            } => Some((leader, subscription)),
            _ => None,
        })
        .await
    }

    fn publish(
        &self,
        leader: proto::ManagerAddress,
    ) -> (
        mpsc::Sender<proto::PublishLogsRequest>,
        tokio::task::JoinHandle<Result<(), Refusal>>,
    ) {
        let (sender, receiver) = mpsc::channel(4);
        let batches = stream::unfold(receiver, async |mut receiver| {
            let batch = receiver.recv().await?;
            Some((batch, receiver))
        });
        let peers = Arc::clone(&self.peers);
        let publishing = tokio::spawn(async move { peers.publish_logs(&leader, batches).await });
        (sender, publishing)
    }
}

fn line(subscription: &proto::LogSubscription, timestamp: i64) -> proto::PublishLogsRequest {
    proto::PublishLogsRequest {
        subscription_id: subscription.id.clone(),
        messages: vec![proto::LogMessage {
            // Not its own.
            node_id: "m1".into(),
            task_id: "t1".into(),
            timestamp,
            ..proto::LogMessage::default()
        }],
        ..proto::PublishLogsRequest::default()
    }
}

/// Timestamps of the next batch, all of which came from `w1`.
async fn next(logs: &mut Messages<proto::LogBatch>) -> Vec<i64> {
    let batch = logs.next().await.unwrap().unwrap();
    assert!(batch.messages.iter().all(|line| line.node_id == "w1"));
    batch.messages.iter().map(|line| line.timestamp).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_reaches_the_reader_and_ends() {
    let swarm = Swarm::start().await;
    let mut worker = Worker::start(&swarm, "w1").await;
    let mut logs = swarm.read(&["s1"], false).await;
    let (leader, subscription) = worker.subscription().await;
    assert_eq!(leader, swarm.address());
    assert_eq!(subscription.selector.as_ref().unwrap().service_ids, ["s1"]);
    assert_eq!(subscription.options.unwrap().tail, 10);

    let (lines, publishing) = worker.publish(leader);
    lines.send(line(&subscription, 1)).await.unwrap();
    let last = proto::PublishLogsRequest {
        close: true,
        ..line(&subscription, 2)
    };
    lines.send(last).await.unwrap();
    assert_eq!(next(&mut logs).await, [1]);
    assert_eq!(next(&mut logs).await, [2]);
    assert!(logs.next().await.is_none());
    publishing.await.unwrap().unwrap();
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_there_is_named_when_the_rest_was_read() {
    let swarm = Swarm::start().await;
    let mut worker = Worker::start(&swarm, "w1").await;
    let mut logs = swarm.read(&["s1", "s2"], false).await;
    let (leader, subscription) = worker.subscription().await;
    let (lines, _publishing) = worker.publish(leader);
    let last = proto::PublishLogsRequest {
        close: true,
        error: "its log driver cannot be read".into(),
        ..line(&subscription, 1)
    };
    lines.send(last).await.unwrap();
    assert_eq!(next(&mut logs).await, [1]);
    let error = logs.next().await.unwrap().unwrap_err().to_string();
    assert_eq!(
        error,
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: \
         node w1: its log driver cannot be read, node w2: it is not available"
    );
    assert!(logs.next().await.is_none());
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_where_a_node_stopped_and_frees_it_when_it_leaves() {
    let swarm = Swarm::start().await;
    let mut worker = Worker::start(&swarm, "w1").await;
    let mut logs = swarm.read(&["s1"], true).await;
    let (leader, subscription) = worker.subscription().await;
    let (lines, old) = worker.publish(leader);
    lines.send(line(&subscription, 5)).await.unwrap();
    assert_eq!(next(&mut logs).await, [5]);

    // A new session of the same node: what it sent need not come again, and its old stream counts no more.
    worker.session.end("for the test".into());
    let (leader, again) = worker.subscription().await;
    assert_eq!(again.id, subscription.id);
    assert_eq!(again.options.unwrap().since, 6);
    assert_eq!(again.options.unwrap().tail, -1);
    let (new_lines, new) = worker.publish(leader);
    new_lines.send(line(&again, 6)).await.unwrap();
    assert_eq!(next(&mut logs).await, [6]);
    lines.send(line(&subscription, 7)).await.unwrap();
    old.await.unwrap().unwrap();

    drop(logs);
    let unsubscribed = worker
        .until(|event| match event {
            SessionEvent::LogUnsubscribe(id) => Some(id),
            _ => None,
        })
        .await;
    assert_eq!(unsubscribed, subscription.id);
    new.await.unwrap().unwrap();
    swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_publish_what_they_were_asked_for_and_nothing_else() {
    let swarm = Swarm::start().await;
    let mut worker = Worker::start(&swarm, "w1").await;
    let _logs = swarm.read(&["s1"], true).await;
    let (leader, subscription) = worker.subscription().await;

    let stranger = Worker::start(&swarm, "w2").await;
    let (lines, publishing) = stranger.publish(leader.clone());
    lines.send(line(&subscription, 1)).await.unwrap();
    let refusal = publishing.await.unwrap().unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Forbidden("this node was not asked for these logs".into())
    );

    let (lines, publishing) = worker.publish(leader.clone());
    lines
        .send(line(&proto::LogSubscription::default(), 1))
        .await
        .unwrap();
    assert!(matches!(
        publishing.await.unwrap(),
        Err(Refusal::NotFound(_))
    ));

    let nothing = swarm
        .manager
        .logs(proto::SubscribeLogsRequest::default())
        .await;
    assert!(matches!(nothing, Err(Refusal::Invalid(_))));
    swarm.stop().await;
}
