//! What goes wrong, and its end.

use agent_api::swarm::NodeRole;
use cluster::core::Command;
use cluster::raft::Suffrage;

use super::client::Asker;
use super::world::{Event, Outcome, World};

impl World {
    pub(super) fn fault(&mut self) -> Outcome {
        if !self.stormy {
            return Ok(());
        }
        let hosts = self.hosts.len();
        let host = self.dice.below(hosts as u64) as usize;
        match self.dice.below(20) {
            0 => {
                self.note(|| format!("fault: host {host} is cut off"));
                for other in 0..hosts {
                    self.network.block(host, other);
                    self.network.block(other, host);
                }
            }
            1 => {
                self.note(|| format!("fault: host {host} is heard by nobody"));
                for other in 0..hosts {
                    self.network.block(host, other);
                }
            }
            2 => {
                self.note(|| format!("fault: host {host} hears nobody"));
                for other in 0..hosts {
                    self.network.block(other, host);
                }
            }
            3 => self.split(),
            4 => {
                for _ in 0..4 {
                    let from = self.dice.below(hosts as u64) as usize;
                    let to = self.dice.below(hosts as u64) as usize;
                    self.note(|| format!("fault: nothing gets from host {from} to host {to}"));
                    self.network.block(from, to);
                }
            }
            5..8 => {
                self.note(|| "the network heals".to_owned());
                self.network.heal();
            }
            8 => {
                self.network.loss = self.dice.below(150);
                self.network.duplicates = self.dice.below(100);
                self.network.slow_ms =
                    self.dice.below(250) * [1, 1, 12][self.dice.below(3) as usize];
            }
            9 | 10 => self.fail_leader_or(host),
            11 => {
                self.kill_daemon(host);
                let delay = self.dice.between(50, 4_000);
                self.after(delay, Event::PowerOn { host });
            }
            12 => {
                self.power_off(host);
                let delay = self.dice.between(500, 8_000);
                self.after(delay, Event::PowerOn { host });
            }
            13 if self.dice.one_in(3) => {
                for host in 0..hosts {
                    self.power_off(host);
                    let delay = self.dice.between(100, 3_000);
                    self.after(delay, Event::PowerOn { host });
                }
            }
            14 => {
                let until = self.time + self.dice.between(100, 6_000);
                self.note(|| format!("fault: host {host} is stopped until {until}"));
                self.hosts[host].stopped_until = until;
            }
            16 => self.lose_disk(host),
            17 => self.lose_host(host)?,
            18 => {
                if let Some(leader) = self.established() {
                    self.request(leader, Asker::Nobody, Command::StepDown)?;
                }
            }
            15 => self.hosts[host].disk_ms = self.dice.between(0, 120),
            _ => {
                if let Some(later) = self.hosts[host].containers.kill_one(&mut self.dice) {
                    self.note(|| format!("fault: the container of {} dies", later.task_id));
                    self.after(0, Event::Container { host, later });
                }
            }
        }
        let delay = self.dice.between(200, 3_500);
        self.after(delay, Event::Fault);
        Ok(())
    }

    /// Two sides that do not hear each other.
    fn split(&mut self) {
        let hosts = self.hosts.len();
        let sides: Vec<bool> = (0..hosts).map(|_| self.dice.one_in(2)).collect();
        self.note(|| format!("fault: split {sides:?}"));
        for from in 0..hosts {
            for to in 0..hosts {
                if sides[from] != sides[to] {
                    self.network.block(from, to);
                }
            }
        }
    }

    /// A manager's disk is replaced by an empty one. Only while the group can spare it: a second one before the first
    /// has come back might be the end of the cluster, and that is nobody's mistake.
    fn lose_disk(&mut self, host: usize) {
        let Some(leader) = self.established().and_then(|leader| self.core(leader)) else {
            return;
        };
        let whole = leader.membership().members.iter().all(|(id, member)| {
            member.suffrage == Suffrage::Voter
                && self.hosts.iter().any(|host| {
                    host.daemon
                        .as_ref()
                        .and_then(|daemon| daemon.manager.as_ref())
                        .is_some_and(|manager| manager.raft_id == *id)
                })
        });
        let voters = leader.membership().members.len();
        if !whole || voters < 3 || self.core(host).is_none() {
            return;
        }
        self.power_off(host);
        self.note(|| format!("fault: the disk of host {host} is lost"));
        self.hosts[host].disk.wipe();
        let delay = self.dice.between(500, 4_000);
        self.after(delay, Event::PowerOn { host });
    }

    /// A worker breaks for good; another takes its place.
    fn lose_host(&mut self, host: usize) -> Outcome {
        let lost = self.hosts.iter().filter(|host| host.gone).count();
        let node_id = &self.hosts[host].node_id;
        let worker = self
            .committed()
            .and_then(|store| store.node(node_id))
            .is_some_and(|node| {
                node.role == NodeRole::Worker && node.spec.role == NodeRole::Worker
            });
        if lost >= 2 || !worker || self.core(host).is_some() {
            return Ok(());
        }
        self.power_off(host);
        self.note(|| format!("fault: host {host} is gone for good"));
        self.hosts[host].gone = true;
        let new = self.add_host();
        self.start_daemon(new)
    }

    /// The leader, if there is one whose state is current.
    pub(super) fn established(&self) -> Option<usize> {
        (0..self.hosts.len())
            .find(|host| self.core(*host).is_some_and(|core| core.role().established))
    }

    fn fail_leader_or(&mut self, other: usize) {
        let host = self.established().unwrap_or(other);
        match self.dice.below(4) {
            0 => self.power_off(host),
            1 => {
                self.hosts[host].stopped_until = self.time + self.dice.between(100, 5_000);
                return;
            }
            _ => self.kill_daemon(host),
        }
        let delay = self.dice.between(100, 5_000);
        self.after(delay, Event::PowerOn { host });
    }

    /// Everything works again.
    pub(super) fn calm_down(&mut self) -> Outcome {
        self.note(|| "the storm is over".to_owned());
        self.stormy = false;
        self.network.heal();
        self.network.loss = 0;
        self.network.duplicates = 0;
        self.network.slow_ms = 0;
        for host in 0..self.hosts.len() {
            self.hosts[host].disk_ms = 5;
            self.hosts[host].containers.calm = true;
            self.start_daemon(host)?;
        }
        Ok(())
    }
}
