//! The manager of a host: drives its core with a disk, a clock and a network, as the real one is driven by threads.

use std::collections::BTreeMap;

use cluster::core::{
    AgentAnswer, AgentCall, AgentRefused, Answer, Config, Core, Failure, Input, Output, RequestId,
    Stopped,
};
use cluster::dispatcher::{AssignmentsKind, Message};
use cluster::raft::log::{Key, Log, Start};
use cluster::raft::{self, Halt, Membership, PeerMessage, RaftId, Recovered, WriteBatch};
use cluster_api::{IdSource, Time};

use super::bugs::{self, Bug};
use super::disk::Disk;
use super::world::{Event, Outcome, World};

const CLUSTER: &str = "simulated-cluster";
const KEY: [u8; 32] = [7; 32];

pub(super) struct Manager {
    pub(super) raft_id: RaftId,
    pub(super) core: Core,
    log: Log<Disk>,
    /// Not handed to the log yet.
    queue: Vec<WriteBatch>,
    /// Handed to the log, and being made durable.
    writing: bool,
    /// Where the sessions of agents end: host and connection.
    sessions: BTreeMap<String, (usize, u64)>,
    wake_at: Option<Time>,
    /// Of everything in the store; see [`super::check`].
    pub(super) fingerprint: u64,
}

impl World {
    /// The first manager of the cluster.
    pub(super) fn found_group(&mut self, host: usize) -> Outcome {
        let state = &self.hosts[host];
        let membership = Membership::founded_by(1, state.node_id.clone(), state.address.clone());
        self.create_manager(host, 1, Start::Found(membership))
    }

    /// A manager that has just become a member of the group.
    pub(super) fn join_group(&mut self, host: usize, raft_id: RaftId) -> Outcome {
        self.hosts[host].disk.wipe();
        self.create_manager(host, raft_id, Start::Join)
    }

    fn create_manager(&mut self, host: usize, raft_id: RaftId, start: Start) -> Outcome {
        let nonces = IdSource::seeded(self.dice.seed());
        let disk = self.hosts[host].disk.clone();
        let (log, recovered) =
            Log::create(disk, CLUSTER, raft_id, &Key::new(KEY), nonces, start)
                .map_err(|error| format!("host {host} cannot create a log: {error}"))?;
        self.run_manager(host, log, recovered)
    }

    /// Goes on with the log that is on the disk, if there is one.
    pub(super) fn open_manager(&mut self, host: usize) -> Outcome {
        let mut disk = self.hosts[host].disk.clone();
        let exists = Log::exists(&mut disk)
            .map_err(|error| format!("host {host} cannot look for a log: {error}"))?;
        if !exists {
            return Ok(());
        }
        let nonces = IdSource::seeded(self.dice.seed());
        let (log, recovered) = Log::open(disk, CLUSTER, &Key::new(KEY), nonces)
            .map_err(|error| format!("host {host} cannot open its log: {error}"))?;
        self.run_manager(host, log, recovered)
    }

    fn run_manager(&mut self, host: usize, log: Log<Disk>, recovered: Recovered) -> Outcome {
        let raft_id = recovered.id();
        let config = Config {
            raft: raft::Config {
                seed: self.dice.seed(),
                snapshot_entries: 60,
                keep_entries: 20,
                ..raft::Config::default()
            },
            max_requests: 64,
        };
        let core = Core::new(config, recovered, IdSource::seeded(self.dice.seed()));
        self.checks.raft_host(raft_id, host);
        let tick_ms = self.hosts[host].clock.tick_ms;
        let daemon = self.hosts[host]
            .daemon
            .as_mut()
            .expect("a manager is run by a daemon");
        let number = daemon.number;
        daemon.manager = Some(Manager {
            raft_id,
            core,
            log,
            queue: Vec::new(),
            writing: false,
            sessions: BTreeMap::new(),
            wake_at: None,
            fingerprint: 0,
        });
        let delay = self.dice.between(1, tick_ms);
        self.after(
            delay,
            Event::Tick {
                host,
                daemon: number,
            },
        );
        self.drive(host)
    }

    /// The manager is no more: with the process, or because it left the group.
    pub(super) fn manager_lost(&mut self, host: usize) {
        self.save_committed(host);
        let Some(daemon) = &mut self.hosts[host].daemon else {
            return;
        };
        if daemon.manager.take().is_some() {
            self.requests_lost(host);
        }
    }

    /// The manager has left the group.
    pub(super) fn retire_manager(&mut self, host: usize) {
        self.note(|| format!("host {host}: no manager any more"));
        self.reset_sessions(host);
        self.manager_lost(host);
        self.hosts[host].disk.process_ended();
        self.hosts[host].disk.wipe();
    }

    pub(super) fn manager(&mut self, host: usize) -> Option<&mut Manager> {
        self.hosts[host].daemon.as_mut()?.manager.as_mut()
    }

    pub(super) fn core(&self, host: usize) -> Option<&Core> {
        Some(&self.hosts[host].daemon.as_ref()?.manager.as_ref()?.core)
    }

    fn manager_of(&mut self, host: usize, daemon: u64) -> Option<&mut Manager> {
        self.daemon(host, daemon)?.manager.as_mut()
    }

    pub(super) fn tick(&mut self, host: usize, daemon: u64) -> Outcome {
        let tick_ms = self.hosts[host].clock.tick_ms;
        let Some(manager) = self.manager_of(host, daemon) else {
            return Ok(());
        };
        manager.core.handle(Input::Tick);
        self.after(tick_ms, Event::Tick { host, daemon });
        self.drive(host)
    }

    pub(super) fn manager_wakes(&mut self, host: usize, daemon: u64) -> Outcome {
        let now = self.now(host);
        let Some(manager) = self.manager_of(host, daemon) else {
            return Ok(());
        };
        if manager.wake_at.is_some_and(|at| at <= now.mono) {
            manager.wake_at = None;
            manager.core.handle(Input::Time);
            return self.drive(host);
        }
        Ok(())
    }

    pub(super) fn synced(&mut self, host: usize, daemon: u64, number: u64) -> Outcome {
        let Some(manager) = self.manager_of(host, daemon) else {
            return Ok(());
        };
        manager
            .log
            .sync()
            .map_err(|error| format!("host {host} cannot sync its log: {error}"))?;
        manager.writing = false;
        manager.core.handle(Input::Written(number));
        self.drive(host)
    }

    pub(super) fn snapshot_made(
        &mut self,
        host: usize,
        daemon: u64,
        index: u64,
        data: Vec<u8>,
    ) -> Outcome {
        let late = self.options.bug == Some(Bug::SnapshotOfLaterState);
        let Some(manager) = self.manager_of(host, daemon) else {
            return Ok(());
        };
        let data = if late {
            manager.core.store().snapshot()
        } else {
            data
        };
        manager.core.handle(Input::SnapshotMade { index, data });
        self.drive(host)
    }

    pub(super) fn raft_message(&mut self, from: usize, to: usize, message: PeerMessage) -> Outcome {
        if !self.network.is_open(from, to) {
            return Ok(());
        }
        // What arrives is bytes.
        let mut bytes = message.encode();
        if self.stormy && self.options.bug == Some(Bug::SnapshotWithoutMembership) {
            bugs::forget_members(&mut bytes);
        }
        let message = PeerMessage::decode(&bytes)
            .map_err(|error| format!("a message of host {from} cannot be read: {error}"))?;
        let Some(manager) = self.manager(to).filter(|one| one.raft_id == message.to) else {
            return Ok(());
        };
        manager.core.handle(Input::Peer(message));
        self.drive(to)
    }

    pub(super) fn agent_calls(
        &mut self,
        to: usize,
        from: usize,
        connection: u64,
        call: AgentCall,
    ) -> Outcome {
        let now = self.now(to);
        let node_id = self.hosts[from].node_id.clone();
        let sent_at = self.time;
        let Some(manager) = self.manager(to) else {
            if self.is_up(to) {
                let result = Err(AgentRefused::NotLeader { leader: None });
                let answer = Event::Answer {
                    to: from,
                    from: to,
                    connection,
                    result,
                    sent_at,
                };
                self.send(connection, false, answer);
            }
            return Ok(());
        };
        let result = manager.core.agent(&node_id, call, now);
        if let Ok(AgentAnswer::Registered { session_id }) = &result {
            manager
                .sessions
                .insert(session_id.clone(), (from, connection));
        }
        let answer = Event::Answer {
            to: from,
            from: to,
            connection,
            result,
            sent_at,
        };
        self.send(connection, false, answer);
        self.drive(to)
    }

    pub(super) fn connection_closed(
        &mut self,
        to: usize,
        from: usize,
        session_id: String,
    ) -> Outcome {
        let now = self.now(to);
        let node_id = self.hosts[from].node_id.clone();
        let Some(manager) = self.manager(to) else {
            return Ok(());
        };
        if manager.sessions.remove(&session_id).is_some() {
            // A session that has ended meanwhile has nothing to be told.
            let _ = manager
                .core
                .agent(&node_id, AgentCall::Disconnected { session_id }, now);
        }
        self.drive(to)
    }

    /// Does what the manager wants done.
    pub(super) fn drive(&mut self, host: usize) -> Outcome {
        let now = self.now(host);
        let Some(manager) = self.manager(host) else {
            return Ok(());
        };
        let Output {
            messages,
            writes,
            snapshot,
            answers,
            agents,
            events,
            restored,
            role,
            members_changed: _,
            stopped,
            wake_at,
        } = manager.core.take(now);
        manager.queue.extend(writes);
        if let Some(wake_at) = wake_at.filter(|at| manager.wake_at.is_none_or(|due| *at < due)) {
            manager.wake_at = Some(wake_at);
            let daemon = self.daemon_number(host);
            self.after(wake_at.since(now.mono), Event::ManagerWake { host, daemon });
        }
        for message in messages {
            self.post(host, message);
        }
        self.write(host)?;
        if let Some(job) = snapshot {
            self.note(|| format!("host {host}: a snapshot of index {}", job.index));
            let daemon = self.daemon_number(host);
            let data = job.state.encode();
            let delay = self.dice.between(1, 300);
            self.after(
                delay,
                Event::SnapshotMade {
                    host,
                    daemon,
                    index: job.index,
                    data,
                },
            );
        }
        self.check_events(host, restored, &events)?;
        if let Some(role) = role {
            self.note(|| format!("host {host}: {role:?}"));
            if !role.established {
                self.reset_sessions(host);
            }
            self.check_role(host, role)?;
        }
        for outgoing in agents {
            self.stream_to_agent(host, &outgoing.session_id, outgoing.message);
        }
        for (id, result) in answers {
            self.request_answered(host, id, result)?;
        }
        if let Some(stopped) = stopped {
            return self.manager_stopped(host, stopped);
        }
        Ok(())
    }

    fn manager_stopped(&mut self, host: usize, stopped: Stopped) -> Outcome {
        if let Stopped::Raft(Halt::Removed { .. }) = stopped {
            self.retire_manager(host);
            return Ok(());
        }
        Err(format!("host {host}: the manager gives up: {stopped}"))
    }

    fn daemon_number(&self, host: usize) -> u64 {
        self.hosts[host].daemons
    }

    /// Datagrams: lost, doubled, late, out of order.
    fn post(&mut self, from: usize, message: PeerMessage) {
        let Some(to) = self.checks.host_of(message.to) else {
            return;
        };
        if !self.network.is_open(from, to) || !self.is_up(to) {
            if self.dice.one_in(4)
                && let Some(manager) = self.manager(from)
            {
                manager.core.handle(Input::Unreachable(message.to));
            }
            return;
        }
        if self.dice.per_mille(self.network.loss) {
            return;
        }
        if self.dice.per_mille(self.network.duplicates) {
            let delay = self.network.delay(&mut self.dice);
            let message = Box::new(message.clone());
            self.after(delay, Event::Raft { from, to, message });
        }
        let delay = self.network.delay(&mut self.dice);
        let message = Box::new(message);
        self.after(delay, Event::Raft { from, to, message });
    }

    /// Writes what has gathered, as one group.
    fn write(&mut self, host: usize) -> Outcome {
        let early = self.options.bug == Some(Bug::AcknowledgeBeforeSync);
        let disk_ms = self.hosts[host].disk_ms;
        let delay = self.dice.between(0, disk_ms);
        let daemon = self.daemon_number(host);
        let Some(manager) = self.manager(host) else {
            return Ok(());
        };
        if manager.writing || manager.queue.is_empty() {
            return Ok(());
        }
        let mut number = 0;
        for batch in std::mem::take(&mut manager.queue) {
            number = batch.number();
            manager
                .log
                .append(&batch)
                .map_err(|error| format!("host {host} cannot write its log: {error}"))?;
        }
        manager.writing = true;
        if early {
            manager.core.handle(Input::Written(number));
        }
        self.after(
            delay,
            Event::Synced {
                host,
                daemon,
                number,
            },
        );
        if early {
            return self.drive(host);
        }
        Ok(())
    }

    fn stream_to_agent(&mut self, from: usize, session_id: &str, message: Message) {
        let sent_at = self.time;
        let Some(manager) = self.manager(from) else {
            return;
        };
        let Some((to, connection)) = manager.sessions.get(session_id).copied() else {
            return;
        };
        if message == Message::Over {
            manager.sessions.remove(session_id);
            self.send(connection, false, Event::Reset { to, connection });
            return;
        }
        let complete = matches!(
            &message,
            Message::Assignments(assignments) if assignments.kind == AssignmentsKind::Complete
        );
        let message = Box::new(message);
        if complete && self.stormy && self.dice.one_in(6) {
            // A proxy on the way sends it once more when it is long out of date.
            let late = self.dice.between(50, 10_000);
            let again = Event::Stream {
                to,
                from,
                connection,
                message: message.clone(),
                sent_at,
            };
            self.after(late, again);
        }
        let event = Event::Stream {
            to,
            from,
            connection,
            message,
            sent_at,
        };
        self.send(connection, false, event);
    }

    /// The manager's ends of its sessions are gone.
    pub(super) fn reset_sessions(&mut self, host: usize) {
        let Some(manager) = self.manager(host) else {
            return;
        };
        for (to, connection) in std::mem::take(&mut manager.sessions).into_values() {
            self.send(connection, false, Event::Reset { to, connection });
        }
    }

    /// Asks the manager of a host for something only a leader can do.
    pub(super) fn ask(
        &mut self,
        host: usize,
        id: RequestId,
        command: cluster::core::Command,
    ) -> Outcome {
        let now = self.now(host);
        match self.manager(host) {
            Some(manager) => manager.core.request(id, command, now),
            None => {
                let failure = Failure::NotLeader { leader: None };
                return self.request_answered(host, id, Err(failure));
            }
        }
        self.drive(host)
    }

    fn request_answered(
        &mut self,
        host: usize,
        id: RequestId,
        result: Result<Answer, Failure>,
    ) -> Outcome {
        self.note(|| format!("host {host}: request {}: {result:?}", id.0));
        self.answered(host, id, result)
    }
}
