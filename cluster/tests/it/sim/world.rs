//! The whole cluster and its time. One event at a time: a step.
//!
//! Every host has a daemon with an agent and, when its node is a manager, a manager; containers that outlive the daemon;
//! a disk; a clock of its own. All choices come from one seed.

use std::collections::{BTreeMap, VecDeque};

use cluster::core::{AgentAnswer, AgentCall, AgentRefused};
use cluster::dispatcher;
use cluster::raft::PeerMessage;
use cluster_api::{Now, Time, Timestamp};

use super::bugs::Bug;
use super::check::Checks;
use super::client::Clients;
use super::containers::Later;
use super::dice::Dice;
use super::host::Host;
use super::network::Network;

/// 2026-01-01, in nanoseconds.
const WALL_START: i64 = 1_767_225_600_000_000_000;

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) seed: u64,
    /// Faults end after this many steps; then everything must settle.
    pub(super) steps: u64,
    pub(super) bug: Option<Bug>,
    /// How many of the last things that happened a failure shows.
    pub(super) trace_lines: usize,
}

/// Something that is due at some time.
#[derive(Debug)]
pub(super) enum Event {
    Tick {
        host: usize,
        daemon: u64,
    },
    /// A time the manager asked for.
    ManagerWake {
        host: usize,
        daemon: u64,
    },
    Synced {
        host: usize,
        daemon: u64,
        number: u64,
    },
    SnapshotMade {
        host: usize,
        daemon: u64,
        index: u64,
        data: Vec<u8>,
    },
    Raft {
        from: usize,
        to: usize,
        message: Box<PeerMessage>,
    },
    /// The agent looks whether something is due.
    AgentWake {
        host: usize,
        daemon: u64,
    },
    Call {
        to: usize,
        from: usize,
        connection: u64,
        call: AgentCall,
        sent_at: u64,
    },
    Answer {
        to: usize,
        from: usize,
        connection: u64,
        result: Result<AgentAnswer, AgentRefused>,
        sent_at: u64,
    },
    Stream {
        to: usize,
        from: usize,
        connection: u64,
        message: Box<dispatcher::Message>,
        sent_at: u64,
    },
    /// The manager's end of a connection is gone.
    Reset {
        to: usize,
        connection: u64,
    },
    /// The agent's end of a connection is gone.
    Closed {
        to: usize,
        from: usize,
        session_id: String,
        sent_at: u64,
    },
    Container {
        host: usize,
        later: Later,
    },
    Programmed {
        host: usize,
        daemon: u64,
        network_id: String,
        version: u64,
    },
    Client {
        number: usize,
    },
    Fault,
    PowerOn {
        host: usize,
    },
}

/// What must never happen has happened.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) step: u64,
    pub(super) time_ms: u64,
    pub(super) what: String,
    pub(super) trace: Vec<String>,
}

/// How a run went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Report {
    pub(super) steps: u64,
    pub(super) time_ms: u64,
    pub(super) acknowledged: u64,
    pub(super) tasks_run: u64,
    pub(super) elections: u64,
    pub(super) settled_after_ms: u64,
}

pub(super) struct World {
    pub(super) options: Options,
    pub(super) dice: Dice,
    /// Milliseconds since the beginning.
    pub(super) time: u64,
    pub(super) steps: u64,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    pub(super) checks: Checks,
    /// Faults may happen.
    pub(super) stormy: bool,
    pub(super) next_connection: u64,
    /// When the last message of a connection arrives, so that none overtakes another.
    arrivals: BTreeMap<(u64, bool), u64>,
    trace: VecDeque<String>,
}

pub(super) type Outcome = Result<(), String>;

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self {
            dice: Dice::seeded(options.seed),
            options,
            time: 0,
            steps: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: Vec::new(),
            network: Network::default(),
            clients: Clients::default(),
            checks: Checks::default(),
            stormy: false,
            next_connection: 0,
            arrivals: BTreeMap::new(),
            trace: VecDeque::new(),
        }
    }

    /// Storms for the steps asked for, then calms down and waits until everything is as it is wanted.
    pub(super) fn run(options: Options) -> Result<Report, Box<Violation>> {
        let mut world = Self::new(options);
        let result = world.run_through();
        result.map_err(|what| {
            Box::new(Violation {
                step: world.steps,
                time_ms: world.time,
                what,
                trace: world.trace.drain(..).collect(),
            })
        })
    }

    fn run_through(&mut self) -> Result<Report, String> {
        self.found()?;
        self.stormy = true;
        self.after(2_000, Event::Fault);
        while self.steps < self.options.steps {
            self.step()?;
        }
        self.calm_down()?;
        let settled_after_ms = self.settle()?;
        self.check_end()?;
        Ok(Report {
            steps: self.steps,
            time_ms: self.time,
            acknowledged: self.clients.acknowledged,
            tasks_run: self.hosts.iter().map(|host| host.tasks_run).sum(),
            elections: self.checks.elections(),
            settled_after_ms,
        })
    }

    pub(super) fn now(&self, host: usize) -> Now {
        let host = &self.hosts[host];
        Now {
            mono: Time(self.time + host.clock.mono_offset_ms),
            wall: Timestamp(
                WALL_START + (self.time as i64) * 1_000_000 + host.clock.wall_skew_ms * 1_000_000,
            ),
        }
    }

    pub(super) fn after(&mut self, delay_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue
            .insert((self.time + delay_ms, self.sequence), event);
    }

    /// On a connection nothing is lost or overtaken while it lasts.
    pub(super) fn send(&mut self, connection: u64, to_manager: bool, event: Event) {
        let arrival = self.time + self.network.delay(&mut self.dice);
        let last = self.arrivals.entry((connection, to_manager)).or_default();
        *last = arrival.max(*last);
        let delay = *last - self.time;
        self.after(delay, event);
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.options.trace_lines > 0 {
            if self.trace.len() >= self.options.trace_lines {
                self.trace.pop_front();
            }
            let line = format!(
                "{:>8} {:>9.3} s  {}",
                self.steps,
                self.time as f64 / 1000.0,
                text()
            );
            self.trace.push_back(line);
        }
    }

    pub(super) fn step(&mut self) -> Outcome {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Err("nothing will ever happen again".to_owned());
        };
        self.time = at;
        self.steps += 1;
        if let Some(event) = self.hold_back(event) {
            self.happen(event)?;
        }
        Ok(())
    }

    /// A host that is stopped does nothing until it goes on; what was sent on a connection waits while its link is down.
    fn hold_back(&mut self, event: Event) -> Option<Event> {
        let (host, link) = match &event {
            Event::Tick { host, .. }
            | Event::ManagerWake { host, .. }
            | Event::Synced { host, .. }
            | Event::SnapshotMade { host, .. }
            | Event::AgentWake { host, .. }
            | Event::Programmed { host, .. } => (*host, None),
            Event::Raft { to, .. } => (*to, None),
            Event::Call {
                to, from, sent_at, ..
            }
            | Event::Answer {
                to, from, sent_at, ..
            }
            | Event::Stream {
                to, from, sent_at, ..
            }
            | Event::Closed {
                to, from, sent_at, ..
            } => (*to, Some((*from, *to, *sent_at))),
            Event::Reset { to, .. } => (*to, None),
            Event::Container { .. }
            | Event::Client { .. }
            | Event::Fault
            | Event::PowerOn { .. } => return Some(event),
        };
        let resumes = self.hosts[host].stopped_until;
        if resumes > self.time {
            self.after(resumes - self.time, event);
            return None;
        }
        if let Some((from, to, sent_at)) = link
            && !self.network.is_open(from, to)
        {
            if self.time - sent_at < 15_000 {
                self.after(150, event);
            }
            return None;
        }
        Some(event)
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Tick { host, daemon } => self.tick(host, daemon),
            Event::ManagerWake { host, daemon } => self.manager_wakes(host, daemon),
            Event::Synced {
                host,
                daemon,
                number,
            } => self.synced(host, daemon, number),
            Event::SnapshotMade {
                host,
                daemon,
                index,
                data,
            } => self.snapshot_made(host, daemon, index, data),
            Event::Raft { from, to, message } => self.raft_message(from, to, *message),
            Event::AgentWake { host, daemon } => self.agent_wakes(host, daemon),
            Event::Call {
                to,
                from,
                connection,
                call,
                ..
            } => self.agent_calls(to, from, connection, call),
            Event::Answer {
                to,
                connection,
                result,
                ..
            } => self.call_answered(to, connection, result),
            Event::Stream {
                to,
                connection,
                message,
                ..
            } => self.streamed(to, connection, *message),
            Event::Reset { to, connection } => self.connection_reset(to, connection),
            Event::Closed {
                to,
                from,
                session_id,
                ..
            } => self.connection_closed(to, from, session_id),
            Event::Container { host, later } => self.container(host, &later),
            Event::Programmed {
                host,
                daemon,
                network_id,
                version,
            } => self.programmed(host, daemon, network_id, version),
            Event::Client { number } => self.client_acts(number),
            Event::Fault => self.fault(),
            Event::PowerOn { host } => self.power_on(host),
        }
    }
}
