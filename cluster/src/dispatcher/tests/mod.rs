//! Sessions, liveness, assignments and draining, seen from the agents.

mod assigned;
mod draining;
mod properties;
mod sessions;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster_api::{DesiredState, Service, Subnet, Task, TaskState};

use super::session::Items;
use super::{
    Assignments, AssignmentsKind, Change, Dispatcher, Message, Outgoing, Registration, SessionState,
};
use crate::control_loop::ControlLoop as _;
use crate::stage::{Stage, network, node, service, task};
use crate::store::StoreEvent;

/// A dispatcher on a stage, and what each node's agent has been told.
pub(super) struct World {
    pub(super) stage: Stage,
    pub(super) dispatcher: Dispatcher,
    term: u64,
    pub(super) agents: BTreeMap<String, Agent>,
    /// Transactions the dispatcher made.
    pub(super) writes: usize,
}

/// What an agent does with what it is told.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) session: String,
    pub(super) state: Option<SessionState>,
    pub(super) items: Items,
    pub(super) at: String,
    /// Messages since they were last looked at.
    pub(super) news: Vec<Assignments>,
    pub(super) over: bool,
}

impl Agent {
    fn hear(&mut self, outgoing: Outgoing) {
        if outgoing.session_id != self.session {
            assert_eq!(
                outgoing.message,
                Message::Over,
                "an old session gets nothing else"
            );
            return;
        }
        match outgoing.message {
            Message::State(state) => self.state = Some(state),
            Message::Over => self.over = true,
            Message::Assignments(assignments) => {
                self.follow(&assignments);
                self.news.push(assignments);
            }
        }
    }

    fn follow(&mut self, assignments: &Assignments) {
        match assignments.kind {
            AssignmentsKind::Complete => {
                assert_eq!(assignments.applies_to, "");
                self.items.clear();
            }
            AssignmentsKind::Incremental => assert_eq!(assignments.applies_to, self.at),
        }
        self.at.clone_from(&assignments.results_in);
        for change in &assignments.changes {
            let (kind, id) = change.key();
            let key = (kind, id.to_owned());
            match change {
                Change::Remove { .. } => {
                    assert!(
                        self.items.remove(&key).is_some(),
                        "removed what is not there"
                    );
                }
                _ => {
                    self.items.insert(key, change.clone());
                }
            }
        }
    }

    /// `+kind id` and `-kind id` of the messages since the last look; `=` begins a complete one.
    pub(super) fn told(&mut self) -> String {
        let mut lines = Vec::new();
        for assignments in std::mem::take(&mut self.news) {
            let mut line = match assignments.kind {
                AssignmentsKind::Complete => "=".to_owned(),
                AssignmentsKind::Incremental => String::new(),
            };
            for change in &assignments.changes {
                let (kind, id) = change.key();
                let sign = if matches!(change, Change::Remove { .. }) {
                    "-"
                } else {
                    "+"
                };
                line += &format!(" {sign}{} {id}", format!("{kind:?}").to_lowercase());
            }
            lines.push(line);
        }
        lines.join("\n")
    }
}

impl World {
    /// Nodes `n1`, `n2`, … with VXLAN addresses `172.16.0.1`, …; nobody in session.
    pub(super) fn new(nodes: u8) -> Self {
        let mut stage = Stage::new();
        for number in 1..=nodes {
            let mut node = node(&format!("n{number}"));
            node.status.addr = "192.0.2.1".to_owned();
            node.data_path_addr = Some(vtep(number));
            stage.create(node);
        }
        let mut net = network("net", "net");
        net.vni = Some(4096);
        net.subnets = vec![Subnet {
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            range: None,
        }];
        stage.create(net);
        let mut world = Self {
            stage,
            dispatcher: Dispatcher::new(0),
            term: 6,
            agents: BTreeMap::new(),
            writes: 0,
        };
        world.new_leader();
        world
    }

    /// Another manager leads; nobody has a session.
    pub(super) fn new_leader(&mut self) {
        self.term += 1;
        self.agents.clear();
        self.dispatcher = Dispatcher::new(self.term);
        self.dispatcher.start(&mut self.stage.context());
        self.run();
    }

    /// With nodes `n1`, … in session, and with their assignments.
    pub(super) fn in_session(nodes: u8) -> Self {
        let mut world = Self::new(nodes);
        for number in 1..=nodes {
            world.join(&format!("n{number}"));
        }
        world.writes = 0;
        world
    }

    /// The node opens a session and asks for its assignments.
    pub(super) fn join(&mut self, node_id: &str) {
        let node = self.stage.store.node(node_id).unwrap();
        let registration = Registration {
            description: node.description.clone().unwrap(),
            address: format!("{node_id}:2377"),
            data_path_addr: None,
            seen_at: "192.0.2.1".to_owned(),
        };
        self.register(node_id, registration);
    }

    pub(super) fn register(&mut self, node_id: &str, registration: Registration) {
        let session = self
            .dispatcher
            .register(node_id, registration, &mut self.stage.context())
            .unwrap();
        let agent = Agent {
            session: session.clone(),
            ..Agent::default()
        };
        self.agents.insert(node_id.to_owned(), agent);
        self.dispatcher
            .open_assignments(node_id, &session, self.stage.now)
            .unwrap();
        self.run();
    }

    /// Writes and sends until there is nothing more to do now.
    pub(super) fn run(&mut self) {
        loop {
            let (outgoing, _) = self.dispatcher.dispatch(&self.stage.context());
            for message in outgoing {
                if let Some(agent) = self.agents.get_mut(&message.node_id) {
                    agent.hear(message);
                }
            }
            let step = self.dispatcher.step(&mut self.stage.context());
            let Some(transaction) = step.transaction else {
                return;
            };
            self.writes += 1;
            let bytes = serde_json::to_vec(&transaction).unwrap().len();
            assert!(bytes <= crate::raft::Config::default().max_proposal);
            for event in self.stage.apply(&transaction) {
                self.dispatcher.observe(&event);
            }
        }
    }

    pub(super) fn happened(&mut self, events: &[StoreEvent]) {
        for event in events {
            self.dispatcher.observe(event);
        }
        self.run();
    }

    /// Time passes; nodes in `alive` send heartbeats each half second.
    pub(super) fn pass(&mut self, milliseconds: u64, alive: &[&str]) {
        for _ in 0..milliseconds / 100 {
            self.stage.pass(100);
            if self.stage.now.mono.0.is_multiple_of(500) {
                for node_id in alive {
                    let session = self.agents[*node_id].session.clone();
                    self.dispatcher
                        .heartbeat(node_id, &session, self.stage.now)
                        .unwrap();
                }
            }
            self.run();
        }
    }

    pub(super) fn acknowledge(&mut self, node_id: &str) {
        let agent = &self.agents[node_id];
        let (session, at) = (agent.session.clone(), agent.at.clone());
        self.dispatcher
            .acknowledge(node_id, &session, &at, self.stage.now)
            .unwrap();
        self.run();
    }

    /// What an agent was told since the last look.
    pub(super) fn told(&mut self, node_id: &str) -> String {
        self.agents.get_mut(node_id).unwrap().told()
    }

    /// A service on `net` with the virtual address 10.0.0.100.
    pub(super) fn serve(&mut self, id: &str) -> Service {
        self.serve_at(id, "10.0.0.100/24")
    }

    /// A service on `net` with this virtual address.
    pub(super) fn serve_at(&mut self, id: &str, address: &str) -> Service {
        let mut service = service(id, &["net"], &[]);
        service.endpoint.virtual_ips = vec![cluster_api::VirtualIp {
            network_id: "net".to_owned(),
            address: address.parse().unwrap(),
        }];
        let events = self.stage.create(service.clone());
        self.happened(&events);
        service
    }

    /// A task of a service on a node, in a state, with the address 10.0.0.<10 + slot>.
    pub(super) fn put(
        &mut self,
        service: &Service,
        slot: u64,
        node_id: &str,
        state: TaskState,
    ) -> String {
        let mut task = task(service, slot);
        let id = task.id.clone();
        task.node_id = node_id.to_owned();
        task.status.state = state;
        task.networks = vec![cluster_api::Attachment {
            network_id: "net".to_owned(),
            addresses: vec![format!("10.0.0.{}/24", 10 + slot).parse().unwrap()],
            aliases: Vec::new(),
        }];
        let events = self.stage.create(task);
        self.happened(&events);
        id
    }

    pub(super) fn want(&mut self, task_id: &str, desired: DesiredState) {
        let events = self.stage.want(task_id, desired);
        self.happened(&events);
    }

    pub(super) fn report(&mut self, task_id: &str, state: TaskState) {
        let events = self.stage.report(task_id, state);
        self.happened(&events);
    }

    pub(super) fn task(&self, id: &str) -> Task {
        Task::clone(self.stage.store.task(id).unwrap())
    }

    pub(super) fn node_state(&self, id: &str) -> String {
        let node = self.stage.store.node(id).unwrap();
        format!("{:?} {}", node.status.state, node.status.message)
    }

    /// `task state` of the backends of a service, as a node knows them.
    pub(super) fn backends(&self, node_id: &str, service_id: &str) -> String {
        let key = (super::ItemKind::Endpoints, "net".to_owned());
        let Some(Change::Endpoints(endpoints)) = self.agents[node_id].items.get(&key) else {
            return "none".to_owned();
        };
        let service = endpoints
            .services
            .iter()
            .find(|s| s.service_id == service_id);
        let backends = service.map_or(&[][..], |s| &s.backends);
        let backends: Vec<_> = backends
            .iter()
            .map(|b| format!("{} {:?}", b.task_id, b.state).to_lowercase())
            .collect();
        backends.join(", ")
    }
}

fn vtep(number: u8) -> IpAddr {
    IpAddr::from([172, 16, 0, number])
}
