//! One host: what outlives its daemon, and the daemon while there is one.

use std::collections::BTreeMap;

use cluster::worker::{Fence, Record, Worker};

use super::agent::Agent;
use super::bugs::Bug;
use super::containers::Containers;
use super::disk::Disk;
use super::manager::Manager;
use super::world::{Event, Outcome, World};

pub(super) struct Host {
    pub(super) node_id: String,
    pub(super) address: String,
    pub(super) clock: Clock,
    /// Of the manager's log.
    pub(super) disk: Disk,
    /// What the agent saved; saving is instantaneous here.
    pub(super) records: BTreeMap<String, Record>,
    pub(super) fence: Fence,
    pub(super) containers: Containers,
    pub(super) daemon: Option<Daemon>,
    /// Counts the daemons there were, so that what belonged to a former one is not taken for the present one's.
    pub(super) daemons: u64,
    /// Frozen (SIGSTOP) until then.
    pub(super) stopped_until: u64,
    /// A write takes up to this long.
    pub(super) disk_ms: u64,
    pub(super) tasks_run: u64,
    /// Broken for good.
    pub(super) gone: bool,
}

/// The daemon's process.
pub(super) struct Daemon {
    pub(super) number: u64,
    pub(super) agent: Agent,
    pub(super) manager: Option<Manager>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) mono_offset_ms: u64,
    pub(super) wall_skew_ms: i64,
    /// What this host takes for 50 ms.
    pub(super) tick_ms: u64,
}

impl World {
    pub(super) fn add_host(&mut self) -> usize {
        let number = self.hosts.len();
        let clock = Clock {
            mono_offset_ms: self.dice.below(1_000_000),
            wall_skew_ms: self.dice.below(240_000) as i64 - 120_000,
            tick_ms: self.dice.between(45, 56),
        };
        let node_id = self.dice.id();
        self.hosts.push(Host {
            node_id,
            address: format!("10.1.0.{}:2377", number + 1),
            clock,
            disk: Disk::default(),
            records: BTreeMap::new(),
            fence: Fence::default(),
            containers: Containers::default(),
            daemon: None,
            daemons: 0,
            stopped_until: 0,
            disk_ms: 5,
            tasks_run: 0,
            gone: false,
        });
        number
    }

    /// Starts the daemon with what is on the disk.
    pub(super) fn start_daemon(&mut self, host: usize) -> Outcome {
        if self.hosts[host].daemon.is_some() || self.hosts[host].gone {
            return Ok(());
        }
        self.note(|| format!("host {host}: the daemon starts"));
        let now = self.now(host);
        let blind = self.options.bug == Some(Bug::ContainersNotFound);
        let state = &mut self.hosts[host];
        state.daemons += 1;
        let worker = Worker::new(
            &state.node_id,
            state.fence,
            state.records.values().cloned().collect(),
            if blind {
                Vec::new()
            } else {
                state.containers.found()
            },
            now,
        );
        state.daemon = Some(Daemon {
            number: state.daemons,
            agent: Agent::new(worker),
            manager: None,
        });
        self.open_manager(host)?;
        self.agent_time(host)
    }

    /// The process ends; the kernel and the containers go on.
    pub(super) fn kill_daemon(&mut self, host: usize) {
        self.note(|| format!("host {host}: the daemon is killed"));
        self.close_connections(host);
        self.manager_lost(host);
        let state = &mut self.hosts[host];
        state.daemon = None;
        state.stopped_until = 0;
        state.disk.process_ended();
        state.containers.daemon_gone(&mut self.dice);
    }

    /// Everything ends, and nobody is told.
    pub(super) fn power_off(&mut self, host: usize) {
        self.note(|| format!("host {host}: the power fails"));
        self.manager_lost(host);
        let state = &mut self.hosts[host];
        state.daemon = None;
        state.stopped_until = 0;
        state.disk.power_failed(&mut self.dice);
        state.containers.power_gone(&mut self.dice);
    }

    pub(super) fn power_on(&mut self, host: usize) -> Outcome {
        self.start_daemon(host)
    }

    pub(super) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].daemon.is_some()
    }

    /// The present daemon, if it is the one that something was meant for.
    pub(super) fn daemon(&mut self, host: usize, number: u64) -> Option<&mut Daemon> {
        self.hosts[host]
            .daemon
            .as_mut()
            .filter(|daemon| daemon.number == number)
    }

    pub(super) fn container(&mut self, host: usize, later: &super::containers::Later) -> Outcome {
        let state = &mut self.hosts[host];
        let (heard, follow) = state.containers.happen(later, &mut self.dice);
        if let Some(follow) = follow {
            self.after(
                follow.after_ms,
                Event::Container {
                    host,
                    later: follow,
                },
            );
        }
        for (task_id, happened) in heard? {
            self.note(|| format!("host {host}: task {task_id}: {happened:?}"));
            if matches!(happened, cluster::worker::Happened::Started { .. }) {
                self.hosts[host].tasks_run += 1;
                self.check_addresses(host, &task_id)?;
            }
            self.task_happened(host, task_id, happened)?;
        }
        Ok(())
    }
}
