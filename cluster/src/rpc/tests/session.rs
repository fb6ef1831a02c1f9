//! A node's session over real connections, with leaders that come and go.

use std::collections::VecDeque;

use agent_api::swarm::NodeDescription;
use cluster_api::{Node, TaskState, TaskStatus};

use super::*;
use crate::dispatcher::{Assignments, AssignmentsKind, Contact, Registration, SessionState};

/// What a leader under test is asked.
#[derive(Debug)]
enum Asked {
    Session(proto::SessionRequest),
    Assignments,
    Status(Vec<proto::TaskStatusUpdate>),
    Acknowledged(String),
}

/// A manager's dispatcher, told by the test what to answer.
struct Leader {
    asked: mpsc::UnboundedSender<Asked>,
    /// Answers to come to registrations, then `NotLeader`.
    sessions: parking_lot::Mutex<VecDeque<Result<proto::SessionMessage, Refusal>>>,
    /// Streams to come of assignments.
    assignments: parking_lot::Mutex<VecDeque<mpsc::Receiver<proto::AssignmentsMessage>>>,
    heartbeat: parking_lot::Mutex<Option<Refusal>>,
}

impl Leader {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Asked>) {
        let (asked, questions) = mpsc::unbounded_channel();
        let leader = Self {
            asked,
            sessions: parking_lot::Mutex::default(),
            assignments: parking_lot::Mutex::default(),
            heartbeat: parking_lot::Mutex::new(None),
        };
        (Arc::new(leader), questions)
    }

    /// Accepts the next registration, in this term.
    fn accept(
        &self,
        term: u64,
        managers: &[&ManagerAddress],
    ) -> mpsc::Sender<proto::AssignmentsMessage> {
        let contact = |manager: &&ManagerAddress| Contact {
            node_id: manager.node_id.clone(),
            address: manager.address.clone(),
        };
        let state = SessionState {
            session_id: format!("s{term}"),
            term,
            node: Arc::new(Node::default()),
            managers: managers.iter().map(contact).collect(),
            root_certificate: String::new(),
            heartbeat_period_ms: 100,
            peers: Vec::new(),
        };
        let message = proto::session_message::Message::State((&state).into());
        self.sessions.lock().push_back(Ok(proto::SessionMessage {
            message: Some(message),
        }));
        let (sender, receiver) = mpsc::channel(4);
        self.assignments.lock().push_back(receiver);
        sender
    }

    async fn serve(self: &Arc<Self>, swarm: &Swarm, node_id: &str) -> (Server, ManagerAddress) {
        let backends = Backends {
            dispatcher: Some(self.clone()),
            ..Backends::default()
        };
        serve(&swarm.tls(node_id, NodeRole::Manager), backends).await
    }
}

#[async_trait]
impl DispatcherBackend for Leader {
    async fn session(
        &self,
        _peer: &PeerIdentity,
        request: proto::SessionRequest,
    ) -> Result<Messages<proto::SessionMessage>, Refusal> {
        self.asked.send(Asked::Session(request)).unwrap();
        let next = self.sessions.lock().pop_front();
        let state = next.unwrap_or(Err(Refusal::NotLeader { leader: None }))?;
        let stream = futures_util::stream::iter([Ok(state)]);
        Ok(stream.chain(futures_util::stream::pending()).boxed())
    }

    async fn heartbeat(
        &self,
        _peer: &PeerIdentity,
        _request: proto::HeartbeatRequest,
    ) -> Result<proto::HeartbeatResponse, Refusal> {
        match self.heartbeat.lock().clone() {
            Some(refusal) => Err(refusal),
            None => Ok(proto::HeartbeatResponse { period_ms: 100 }),
        }
    }

    async fn assignments(
        &self,
        _peer: &PeerIdentity,
        _request: proto::AssignmentsRequest,
    ) -> Result<Messages<proto::AssignmentsMessage>, Refusal> {
        self.asked.send(Asked::Assignments).unwrap();
        let receiver = self.assignments.lock().pop_front().unwrap();
        let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
            let message = receiver.recv().await?;
            Some((Ok(message), receiver))
        });
        Ok(stream.boxed())
    }

    async fn update_task_status(
        &self,
        _peer: &PeerIdentity,
        request: proto::UpdateTaskStatusRequest,
    ) -> Result<(), Refusal> {
        self.asked.send(Asked::Status(request.updates)).unwrap();
        Ok(())
    }

    async fn acknowledge(
        &self,
        _peer: &PeerIdentity,
        request: proto::AckAssignmentsRequest,
    ) -> Result<(), Refusal> {
        self.asked
            .send(Asked::Acknowledged(request.results_in))
            .unwrap();
        Ok(())
    }
}

struct Agent {
    session: AgentSession,
    events: mpsc::Receiver<SessionEvent>,
}

fn agent(swarm: &Swarm, managers: &[&ManagerAddress]) -> Agent {
    let (sender, events) = mpsc::channel(1);
    // As after a join: addresses alone are known.
    let contact = |manager: &&ManagerAddress| Contact {
        node_id: String::new(),
        address: manager.address.clone(),
    };
    let managers = managers.iter().map(contact).collect();
    let peers = swarm.peers("w1", NodeRole::Worker);
    Agent {
        session: AgentSession::start(peers, managers, registration("host-1"), sender),
        events,
    }
}

fn registration(hostname: &str) -> Registration {
    Registration {
        description: NodeDescription {
            hostname: hostname.to_owned(),
            ..NodeDescription::default()
        },
        ..Registration::default()
    }
}

impl Agent {
    async fn up(&mut self) -> u64 {
        match self.events.recv().await.unwrap() {
            SessionEvent::Up(state) => state.term,
            other => panic!("{other:?}"),
        }
    }

    async fn down(&mut self) -> String {
        match self.events.recv().await.unwrap() {
            SessionEvent::Down { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn assignments(&mut self) -> Assignments {
        match self.events.recv().await.unwrap() {
            SessionEvent::Assignments(assignments) => *assignments,
            other => panic!("{other:?}"),
        }
    }
}

fn assignments(kind: AssignmentsKind, results_in: &str) -> proto::AssignmentsMessage {
    let assignments = Assignments {
        term: 1,
        index: 1,
        applies_to: String::new(),
        results_in: results_in.to_owned(),
        kind,
        changes: Vec::new(),
    };
    (&assignments).into()
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        ..TaskStatus::default()
    }
}

#[tokio::test]
async fn the_leader_is_found_through_those_that_are_not() {
    let swarm = Swarm::new("c1");
    let (leader, _asked) = Leader::new();
    let (follower, _asked_too) = Leader::new();
    let (_first, leads) = leader.serve(&swarm, "m1").await;
    let (_second, follows) = follower.serve(&swarm, "m2").await;
    let _assignments = leader.accept(7, &[&leads, &follows]);
    follower.sessions.lock().push_back(Err(Refusal::NotLeader {
        leader: Some(leads),
    }));

    // The leader's own address is not among those known, and one of them does not answer.
    let gone = ManagerAddress {
        node_id: String::new(),
        address: "127.0.0.1:1".into(),
    };
    let mut agent = agent(&swarm, &[&gone, &follows]);
    assert_eq!(agent.up().await, 7);
    assert_eq!(agent.session.problem(), None);
}

#[tokio::test]
async fn assignments_come_in_order_and_reports_go_out_once() {
    let swarm = Swarm::new("c1");
    let (leader, mut asked) = Leader::new();
    let (_server, manager) = leader.serve(&swarm, "m1").await;
    let feed = leader.accept(1, &[&manager]);
    let mut agent = agent(&swarm, &[&manager]);
    assert_eq!(agent.up().await, 1);
    let Some(Asked::Session(request)) = asked.recv().await else {
        panic!("a registration comes first");
    };
    let description: NodeDescription = serde_json::from_slice(&request.description).unwrap();
    assert_eq!(description.hostname, "host-1");
    assert!(matches!(asked.recv().await, Some(Asked::Assignments)));

    feed.send(assignments(AssignmentsKind::Complete, "a"))
        .await
        .unwrap();
    for name in ["b", "c", "d"] {
        feed.send(assignments(AssignmentsKind::Incremental, name))
            .await
            .unwrap();
    }
    for name in ["a", "b", "c", "d"] {
        assert_eq!(agent.assignments().await.results_in, name);
    }

    // What a task was matters less than what it is, and an older state is no news.
    agent.session.report([
        ("t1".to_owned(), status(TaskState::Starting)),
        ("t1".to_owned(), status(TaskState::Running)),
        ("t1".to_owned(), status(TaskState::Preparing)),
        ("t2".to_owned(), status(TaskState::Failed)),
    ]);
    let Some(Asked::Status(updates)) = asked.recv().await else {
        panic!("a report was expected");
    };
    let updates = crate::dispatcher::statuses_from_wire(updates).unwrap();
    let updates: Vec<_> = updates
        .iter()
        .map(|(id, status)| (id.as_str(), status.state))
        .collect();
    assert_eq!(
        updates,
        [("t1", TaskState::Running), ("t2", TaskState::Failed)]
    );
    agent.session.acknowledge("d".into());
    assert!(matches!(asked.recv().await, Some(Asked::Acknowledged(state)) if state == "d"));

    // Out of step: the same session, a new stream.
    let (feed, receiver) = mpsc::channel(1);
    leader.assignments.lock().push_back(receiver);
    agent.session.resync();
    assert!(matches!(asked.recv().await, Some(Asked::Assignments)));
    feed.send(assignments(AssignmentsKind::Complete, "e"))
        .await
        .unwrap();
    assert_eq!(agent.assignments().await.results_in, "e");
}

#[tokio::test]
async fn a_lost_leader_is_replaced_by_the_next() {
    let swarm = Swarm::new("c1");
    let (first, mut first_asked) = Leader::new();
    let (second, mut second_asked) = Leader::new();
    let (first_server, m1) = first.serve(&swarm, "m1").await;
    let (_second_server, m2) = second.serve(&swarm, "m2").await;
    let _one = first.accept(1, &[&m1, &m2]);
    // Only the first is known, until it names the second.
    let mut agent = agent(&swarm, &[&m1]);
    assert_eq!(agent.up().await, 1);
    assert!(matches!(first_asked.recv().await, Some(Asked::Session(_))));

    // Nothing that was meant for the old session reaches the new one.
    let _two = second.accept(2, &[&m1, &m2]);
    first_server.stop().await;
    agent.down().await;
    assert_eq!(agent.up().await, 2);
    assert!(matches!(second_asked.recv().await, Some(Asked::Session(_))));
    assert!(matches!(
        second_asked.recv().await,
        Some(Asked::Assignments)
    ));

    // A leader that steps down while the connection stands.
    let _three = second.accept(3, &[&m2]);
    *second.heartbeat.lock() = Some(Refusal::NotLeader { leader: None });
    assert_eq!(agent.down().await, "this manager does not lead");
    *second.heartbeat.lock() = None;
    assert_eq!(agent.up().await, 3);
}

#[tokio::test]
async fn a_session_ends_when_it_is_told_to_or_the_node_changed() {
    let swarm = Swarm::new("c1");
    let (leader, mut asked) = Leader::new();
    let (_server, manager) = leader.serve(&swarm, "m1").await;
    let _feeds: Vec<_> = (1..=4)
        .map(|term| leader.accept(term, &[&manager]))
        .collect();
    let mut agent = agent(&swarm, &[&manager]);
    assert_eq!(agent.up().await, 1);

    agent.session.end("it knows less than this node".into());
    assert_eq!(agent.down().await, "it knows less than this node");
    assert_eq!(agent.up().await, 2);

    agent.session.describe(registration("host-2"));
    assert_eq!(agent.down().await, "the node's description changed");
    assert_eq!(agent.up().await, 3);
    // The same again changes nothing: the next thing that happens is what comes after it.
    agent.session.describe(registration("host-2"));

    *leader.heartbeat.lock() = Some(Refusal::UnknownSession("s3".into()));
    assert_eq!(agent.down().await, "heartbeat: session \"s3\" is not valid");
    *leader.heartbeat.lock() = None;
    assert_eq!(agent.up().await, 4);

    let mut hostnames = Vec::new();
    while let Ok(question) = asked.try_recv() {
        if let Asked::Session(request) = question {
            let description: NodeDescription =
                serde_json::from_slice(&request.description).unwrap();
            hostnames.push(description.hostname);
        }
    }
    assert_eq!(hostnames, ["host-1", "host-1", "host-2", "host-2"]);
}
