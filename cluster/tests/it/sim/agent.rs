//! The agent of a host: finds the leader, keeps a session with it, and carries out what the worker wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_api::swarm::{NodeDescription, NodeRole, Platform, Resources};
use cluster::core::{AgentAnswer, AgentCall, AgentRefused, Command};
use cluster::dispatcher::{self, Contact, Endpoints, Message, Registration};
use cluster::worker::{Action, Fence, Happened, Input, Worker};

use super::bugs::Bug;
use super::client::Asker;
use super::containers::Later;
use super::world::{Event, Outcome, World};

/// A call not answered for this long ends the session.
const CALL_TIMEOUT_MS: u64 = 1_000;
/// How long a node waits before it asks again to be made a manager.
const JOIN_RETRY_MS: u64 = 2_000;

pub(super) struct Agent {
    pub(super) worker: Worker,
    link: Link,
    /// Where managers are, as far as heard.
    managers: Vec<String>,
    role: Option<NodeRole>,
    join_at: u64,
    /// The next time it looks whether something is due.
    wakes_at: u64,
    /// What the balancers of each network say.
    pub(super) balancers: BTreeMap<String, Arc<Endpoints>>,
    asked: BTreeMap<String, Arc<Endpoints>>,
}

enum Link {
    Idle {
        retry_at: u64,
        hint: Option<usize>,
    },
    Registering {
        connection: u64,
        manager: usize,
        since: u64,
    },
    Open(Session),
}

struct Session {
    connection: u64,
    manager: usize,
    id: String,
    /// When the first state came.
    begun_at: Option<u64>,
    beat_at: u64,
    /// When the leader last answered.
    heard_at: u64,
    /// A heartbeat that is not answered yet.
    waiting_since: Option<u64>,
    period_ms: u64,
}

impl Agent {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker,
            link: Link::Idle {
                retry_at: 0,
                hint: None,
            },
            managers: Vec::new(),
            role: None,
            join_at: 0,
            wakes_at: u64::MAX,
            balancers: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// The connection it is using, and to whom.
    const fn connection(&self) -> Option<(u64, usize)> {
        match &self.link {
            Link::Idle { .. } => None,
            Link::Registering {
                connection,
                manager,
                ..
            } => Some((*connection, *manager)),
            Link::Open(session) => Some((session.connection, session.manager)),
        }
    }

    /// Whether its session has lasted this long, and the leader was heard within as much: one that hangs or is cut off
    /// is not waited for.
    pub(super) fn in_session_for(&self, duration_ms: u64, time: u64) -> bool {
        match &self.link {
            Link::Open(session) => {
                time - session.heard_at < duration_ms
                    && session
                        .begun_at
                        .is_some_and(|begun| time - begun >= duration_ms)
            }
            Link::Idle { .. } | Link::Registering { .. } => false,
        }
    }

    fn due_at(&self) -> u64 {
        match &self.link {
            Link::Idle { retry_at, .. } => *retry_at,
            Link::Registering { since, .. } => *since + CALL_TIMEOUT_MS,
            Link::Open(session) => session
                .waiting_since
                .map_or(session.beat_at, |since| since + CALL_TIMEOUT_MS),
        }
    }
}

impl World {
    fn agent(&mut self, host: usize) -> Option<&mut Agent> {
        Some(&mut self.hosts[host].daemon.as_mut()?.agent)
    }

    pub(super) fn agent_wakes(&mut self, host: usize, daemon: u64) -> Outcome {
        let Some(daemon) = self.daemon(host, daemon) else {
            return Ok(());
        };
        daemon.agent.wakes_at = u64::MAX;
        self.agent_time(host)
    }

    /// Does what is due on the agent.
    pub(super) fn agent_time(&mut self, host: usize) -> Outcome {
        self.worker(host, Input::Time)?;
        let time = self.time;
        let Some(agent) = self.agent(host) else {
            return Ok(());
        };
        if agent.due_at() <= time {
            match &mut agent.link {
                Link::Idle { .. } => self.connect(host),
                Link::Open(session) if session.waiting_since.is_none() => {
                    session.waiting_since = Some(time);
                    session.beat_at = time + session.period_ms;
                    let session_id = session.id.clone();
                    self.call(host, AgentCall::Heartbeat { session_id });
                }
                Link::Registering { .. } | Link::Open(_) => self.hang_up(host, None)?,
            }
        }
        self.follow_role(host)?;
        self.set_agent_alarm(host);
        Ok(())
    }

    fn set_agent_alarm(&mut self, host: usize) {
        let time = self.time;
        let offset = self.hosts[host].clock.mono_offset_ms;
        let number = self.hosts[host].daemons;
        let Some(agent) = self.agent(host) else {
            return;
        };
        let mut due = agent.due_at();
        if let Some(wake) = agent.worker.wake_at() {
            due = due.min(wake.0.saturating_sub(offset));
        }
        if agent.join_at > 0 {
            due = due.min(agent.join_at);
        }
        let due = due.max(time + 1);
        if due < agent.wakes_at {
            agent.wakes_at = due;
            self.after(
                due - time,
                Event::AgentWake {
                    host,
                    daemon: number,
                },
            );
        }
    }

    fn connect(&mut self, host: usize) {
        self.next_connection += 1;
        let connection = self.next_connection;
        let others = self.hosts.len() as u64;
        let random = self.dice.below(others) as usize;
        let time = self.time;
        let choice = self.dice.below(1 << 16) as usize;
        let addresses: Vec<String> = self.hosts.iter().map(|host| host.address.clone()).collect();
        let description = self.description(host);
        let Some(agent) = self.agent(host) else {
            return;
        };
        let Link::Idle { hint, .. } = agent.link else {
            return;
        };
        let known = match agent.managers.len() {
            0 => None,
            count => addresses
                .iter()
                .position(|address| *address == agent.managers[choice % count]),
        };
        let manager = hint.or(known).unwrap_or(random);
        agent.link = Link::Registering {
            connection,
            manager,
            since: time,
        };
        let registration = Registration {
            description,
            address: addresses[host].clone(),
            data_path_addr: addresses[host]
                .split(':')
                .next()
                .and_then(|ip| ip.parse().ok()),
            seen_at: String::new(),
        };
        self.call(host, AgentCall::Register(Box::new(registration)));
    }

    fn description(&self, host: usize) -> NodeDescription {
        NodeDescription {
            hostname: format!("host{host}"),
            platform: Platform {
                architecture: "x86_64".to_owned(),
                os: "linux".to_owned(),
            },
            resources: Resources {
                nano_cpus: 8_000_000_000,
                memory_bytes: 8 << 30,
                ..Resources::default()
            },
            ..NodeDescription::default()
        }
    }

    fn call(&mut self, from: usize, call: AgentCall) {
        let sent_at = self.time;
        let Some((connection, to)) = self.agent(from).and_then(|agent| agent.connection()) else {
            return;
        };
        self.send(
            connection,
            true,
            Event::Call {
                to,
                from,
                connection,
                call,
                sent_at,
            },
        );
    }

    /// Ends the session, or the attempt to have one, and tries again.
    fn hang_up(&mut self, host: usize, hint: Option<usize>) -> Outcome {
        let sent_at = self.time;
        let delay = self.dice.between(50, 400);
        let Some(agent) = self.agent(host) else {
            return Ok(());
        };
        let idle = Link::Idle {
            retry_at: sent_at + if hint.is_some() { 5 } else { delay },
            hint,
        };
        if let Link::Open(session) = std::mem::replace(&mut agent.link, idle) {
            let closed = Event::Closed {
                to: session.manager,
                from: host,
                session_id: session.id,
                sent_at,
            };
            self.send(session.connection, true, closed);
            self.worker(host, Input::SessionDown)?;
        }
        self.set_agent_alarm(host);
        Ok(())
    }

    /// The process ends: the kernel closes its connections.
    pub(super) fn close_connections(&mut self, host: usize) {
        let sent_at = self.time;
        if let Some(agent) = self.agent(host)
            && let Link::Open(session) = &agent.link
        {
            let (connection, to) = (session.connection, session.manager);
            let session_id = session.id.clone();
            let closed = Event::Closed {
                to,
                from: host,
                session_id,
                sent_at,
            };
            self.send(connection, true, closed);
        }
        self.reset_sessions(host);
    }

    fn uses(&mut self, host: usize, connection: u64) -> bool {
        self.agent(host)
            .and_then(|agent| agent.connection())
            .is_some_and(|(present, _)| present == connection)
    }

    pub(super) fn connection_reset(&mut self, host: usize, connection: u64) -> Outcome {
        if self.uses(host, connection) {
            self.hang_up(host, None)?;
        }
        Ok(())
    }

    pub(super) fn call_answered(
        &mut self,
        host: usize,
        connection: u64,
        result: Result<AgentAnswer, AgentRefused>,
    ) -> Outcome {
        if !self.uses(host, connection) {
            return Ok(());
        }
        let time = self.time;
        let hint = match result {
            Ok(answer) => {
                self.accepted(host, answer);
                self.set_agent_alarm(host);
                return Ok(());
            }
            Err(AgentRefused::NotLeader { leader }) => leader.and_then(|leader| {
                self.hosts
                    .iter()
                    .position(|host| host.node_id == leader.node_id)
            }),
            Err(AgentRefused::Refused(
                refused @ (dispatcher::Refused::NotYours { .. }
                | dispatcher::Refused::NotReportable { .. }),
            )) => return Err(format!("host {host} reports what it must not: {refused}")),
            Err(AgentRefused::Refused(refused)) => {
                self.note(|| format!("host {host}: refused: {refused}"));
                None
            }
        };
        // A hint that leads in a circle must not be followed without a pause.
        let hint = hint.filter(|_| time.is_multiple_of(2));
        self.hang_up(host, hint)
    }

    fn accepted(&mut self, host: usize, answer: AgentAnswer) {
        let time = self.time;
        let Some(agent) = self.agent(host) else {
            return;
        };
        match (answer, &mut agent.link) {
            (
                AgentAnswer::Registered { session_id },
                Link::Registering {
                    connection,
                    manager,
                    ..
                },
            ) => {
                agent.link = Link::Open(Session {
                    connection: *connection,
                    manager: *manager,
                    id: session_id.clone(),
                    begun_at: None,
                    beat_at: time + 1_000,
                    heard_at: time,
                    waiting_since: None,
                    period_ms: 1_000,
                });
                self.call(host, AgentCall::Open { session_id });
            }
            (AgentAnswer::Alive { period_ms }, Link::Open(session)) => {
                session.waiting_since = None;
                session.heard_at = time;
                session.period_ms = period_ms;
                session.beat_at = session.beat_at.min(time + period_ms);
            }
            _ => {}
        }
    }

    pub(super) fn streamed(&mut self, host: usize, connection: u64, message: Message) -> Outcome {
        let time = self.time;
        let stale = self.options.bug == Some(Bug::StaleAssignments);
        let taken = stale && matches!(message, Message::Assignments(_));
        if !self.uses(host, connection) && !taken {
            return Ok(());
        }
        match message {
            Message::State(state) => {
                let Some(agent) = self.agent(host) else {
                    return Ok(());
                };
                agent.managers = state
                    .managers
                    .iter()
                    .map(|Contact { address, .. }| address.clone())
                    .collect();
                agent.role = Some(state.node.role);
                let Link::Open(session) = &mut agent.link else {
                    return Ok(());
                };
                if session.begun_at.is_none() {
                    session.begun_at = Some(time);
                    self.worker(host, Input::SessionUp { term: state.term })?;
                }
                self.follow_role(host)
            }
            Message::Assignments(mut assignments) => {
                if stale && let Some(agent) = self.agent(host) {
                    let Fence { term, index } = agent.worker.fence();
                    assignments.term = term;
                    assignments.index = assignments.index.max(index);
                }
                self.worker(host, Input::Assignments(assignments))
            }
            Message::Over => self.hang_up(host, None),
        }
    }

    /// A node whose role was changed becomes a manager, or is one no more.
    fn follow_role(&mut self, host: usize) -> Outcome {
        let time = self.time;
        let node_id = self.hosts[host].node_id.clone();
        let address = self.hosts[host].address.clone();
        let Some(daemon) = self.hosts[host].daemon.as_mut() else {
            return Ok(());
        };
        let agent = &mut daemon.agent;
        match (agent.role, &daemon.manager) {
            (Some(NodeRole::Manager), None) => {
                if agent.join_at <= time {
                    agent.join_at = time + JOIN_RETRY_MS;
                    if let Link::Open(session) = &agent.link {
                        let leader = session.manager;
                        let number = daemon.number;
                        let command = Command::Join { node_id, address };
                        let asker = Asker::Joiner {
                            host,
                            daemon: number,
                        };
                        return self.request(leader, asker, command);
                    }
                }
            }
            (Some(NodeRole::Worker), Some(_)) => self.retire_manager(host),
            _ => agent.join_at = 0,
        }
        Ok(())
    }

    pub(super) fn task_happened(
        &mut self,
        host: usize,
        task_id: String,
        happened: Happened,
    ) -> Outcome {
        self.worker(
            host,
            Input::Task {
                id: task_id,
                happened,
            },
        )
    }

    pub(super) fn programmed(
        &mut self,
        host: usize,
        daemon: u64,
        network_id: String,
        version: u64,
    ) -> Outcome {
        let Some(daemon) = self.daemon(host, daemon) else {
            return Ok(());
        };
        let agent = &mut daemon.agent;
        if let Some(asked) = agent.asked.get(&network_id) {
            if asked.version != version {
                return Ok(());
            }
            agent.balancers.insert(network_id.clone(), asked.clone());
        }
        self.worker(
            host,
            Input::Programmed {
                network_id,
                version,
            },
        )
    }

    /// Tells the worker, and does what it wants done.
    fn worker(&mut self, host: usize, input: Input) -> Outcome {
        let now = self.now(host);
        let Some(agent) = self.agent(host) else {
            return Ok(());
        };
        let actions = agent.worker.handle(input, now);
        for action in actions {
            if !self.is_up(host) {
                break;
            }
            // The daemon may end between any two side effects.
            if self.stormy && self.dice.below(6_000) == 0 {
                self.kill_daemon(host);
                let delay = self.dice.between(100, 3_000);
                self.after(delay, Event::PowerOn { host });
                return Ok(());
            }
            self.carry_out(host, action)?;
        }
        self.set_agent_alarm(host);
        Ok(())
    }

    fn carry_out(&mut self, host: usize, action: Action) -> Outcome {
        self.note(|| format!("host {host}: {}", brief(&action)));
        match action {
            Action::Save(record) => {
                self.hosts[host]
                    .records
                    .insert(record.task.id.clone(), (*record).clone());
            }
            Action::Forget { task_id } => {
                self.check_order(host, &task_id, "forget")?;
                self.hosts[host].records.remove(&task_id);
            }
            Action::SaveFence(fence) => self.hosts[host].fence = fence,
            Action::Prepare(preparation) => {
                let later = self.hosts[host]
                    .containers
                    .prepare(&preparation.task, &mut self.dice)?;
                self.later(host, later);
            }
            Action::Start { task_id } => {
                let later = self.hosts[host]
                    .containers
                    .start(&task_id, &mut self.dice)?;
                self.later(host, later);
            }
            Action::Adopt { task_id } => {
                if let Some(later) = self.hosts[host].containers.adopt(&task_id, &mut self.dice) {
                    self.later(host, later);
                }
            }
            Action::Stop { task_id } => {
                self.check_order(host, &task_id, "stop")?;
                self.check_unbound(host, &task_id)?;
                let later = self.hosts[host].containers.stop(&task_id, &mut self.dice);
                self.later(host, later);
            }
            Action::Release { task_id } => self.hosts[host].containers.release(&task_id)?,
            Action::Remove { task_id } => {
                self.check_order(host, &task_id, "remove")?;
                let later = self.hosts[host]
                    .containers
                    .remove(&task_id, &mut self.dice)?;
                self.later(host, later);
            }
            Action::Program { network, endpoints } => {
                let daemon = self.hosts[host].daemons;
                let delay = self.dice.between(1, 40);
                let event = Event::Programmed {
                    host,
                    daemon,
                    network_id: network.id.clone(),
                    version: endpoints.version,
                };
                let (network_id, version) = (network.id.clone(), endpoints.version);
                if let Some(agent) = self.agent(host) {
                    agent.asked.insert(network_id.clone(), endpoints);
                }
                self.after(delay, event);
                if self.options.bug == Some(Bug::AcknowledgeBeforeProgrammed) {
                    self.worker(
                        host,
                        Input::Programmed {
                            network_id,
                            version,
                        },
                    )?;
                }
            }
            Action::Unprogram { network_id } => {
                if let Some(agent) = self.agent(host) {
                    agent.asked.remove(&network_id);
                    agent.balancers.remove(&network_id);
                }
            }
            Action::Report(updates) => self.in_session(host, |session_id| AgentCall::Report {
                session_id,
                updates,
            }),
            Action::Acknowledge { results_in } => {
                self.in_session(host, |session_id| AgentCall::Acknowledge {
                    session_id,
                    results_in,
                });
            }
            Action::Resync { .. } => {
                self.in_session(host, |session_id| AgentCall::Open { session_id });
            }
            Action::Leave { .. } => self.hang_up(host, None)?,
        }
        Ok(())
    }

    fn in_session(&mut self, host: usize, call: impl FnOnce(String) -> AgentCall) {
        let Some(agent) = self.agent(host) else {
            return;
        };
        if let Link::Open(session) = &agent.link {
            let session_id = session.id.clone();
            self.call(host, call(session_id));
        }
    }

    fn later(&mut self, host: usize, later: Later) {
        self.after(later.after_ms, Event::Container { host, later });
    }
}

fn brief(action: &Action) -> String {
    match action {
        Action::Save(record) => format!(
            "save {} {:?} {} assigned {}",
            record.task.id, record.intent, record.status.state, record.assigned
        ),
        Action::Prepare(preparation) => format!("prepare {}", preparation.task.id),
        Action::Program { network, endpoints } => {
            format!("program {} version {}", network.id, endpoints.version)
        }
        Action::Report(updates) => {
            let states: Vec<String> = updates
                .iter()
                .map(|(id, status)| format!("{id} {}", status.state))
                .collect();
            format!("report {}", states.join(", "))
        }
        other => format!("{other:?}"),
    }
}
