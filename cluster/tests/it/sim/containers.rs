//! The containers of one host: they take time, fail, crash, and go on when the daemon is gone. Counts how often the
//! container of a task was started, over the whole run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::worker::{Found, FoundState, Happened};
use cluster_api::{ContainerStatus, Task};

use super::dice::Dice;

#[derive(Default)]
pub(super) struct Containers {
    /// None fails any more.
    pub(super) calm: bool,
    present: BTreeMap<String, Container>,
    runs: BTreeMap<String, u32>,
}

struct Container {
    task: Arc<Task>,
    state: State,
    /// Has its addresses.
    attached: bool,
    unhealthy: bool,
    /// Counts what was begun, so that the end of something given up does not count.
    step: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Preparing,
    Created,
    Starting,
    Running { healthy: bool },
    Stopping,
    Exited { exit_code: i64 },
}

/// Something a container will do later.
#[derive(Debug, Clone)]
pub(super) struct Later {
    pub(super) after_ms: u64,
    pub(super) task_id: String,
    pub(super) step: u64,
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Prepared,
    NotPrepared,
    Started,
    NotStarted,
    Healthy,
    Unhealthy,
    Crashed,
    Finished,
    Stopped,
    Removed,
    NotRemoved,
}

/// What the daemon hears, or what must never be.
pub(super) type Heard = Result<Vec<(String, Happened)>, String>;

impl Containers {
    pub(super) fn prepare(&mut self, task: &Arc<Task>, dice: &mut Dice) -> Result<Later, String> {
        let container = self
            .present
            .entry(task.id.clone())
            .or_insert_with(|| Container {
                task: task.clone(),
                state: State::Preparing,
                attached: true,
                unhealthy: false,
                step: 0,
            });
        if !matches!(container.state, State::Preparing | State::Created) {
            return Err(format!(
                "task {} is prepared while its container is {:?}",
                task.id, container.state
            ));
        }
        container.attached = true;
        container.step += 1;
        let what = if !self.calm && dice.per_mille(15) {
            What::NotPrepared
        } else {
            What::Prepared
        };
        Ok(later(
            task.id.clone(),
            container,
            dice.between(5, 800),
            what,
        ))
    }

    pub(super) fn start(&mut self, task_id: &str, dice: &mut Dice) -> Result<Later, String> {
        let container = self
            .present
            .get_mut(task_id)
            .ok_or_else(|| format!("task {task_id} is started without a container"))?;
        if container.state != State::Created {
            return Err(format!(
                "task {task_id} is started while its container is {:?}",
                container.state
            ));
        }
        container.state = State::Starting;
        container.step += 1;
        let what = if !self.calm && dice.per_mille(15) {
            What::NotStarted
        } else {
            What::Started
        };
        Ok(later(
            task_id.to_owned(),
            container,
            dice.between(2, 200),
            what,
        ))
    }

    /// The daemon was started anew and watches the container again.
    pub(super) fn adopt(&mut self, task_id: &str, dice: &mut Dice) -> Option<Later> {
        let container = self.present.get_mut(task_id)?;
        let what = match container.state {
            State::Running { .. } => What::Healthy,
            _ => What::Stopped,
        };
        Some(later(
            task_id.to_owned(),
            container,
            dice.between(1, 50),
            what,
        ))
    }

    pub(super) fn stop(&mut self, task_id: &str, dice: &mut Dice) -> Later {
        let Some(container) = self.present.get_mut(task_id) else {
            return Later {
                after_ms: 1,
                task_id: task_id.to_owned(),
                step: 0,
                what: What::Stopped,
            };
        };
        container.step += 1;
        match container.state {
            State::Starting | State::Running { .. } => container.state = State::Stopping,
            State::Preparing | State::Created | State::Stopping | State::Exited { .. } => {}
        }
        let after = dice.between(1, 1200);
        later(task_id.to_owned(), container, after, What::Stopped)
    }

    pub(super) fn release(&mut self, task_id: &str) -> Result<(), String> {
        let Some(container) = self.present.get_mut(task_id) else {
            return Ok(());
        };
        container.attached = false;
        if container.may_run() {
            return Err(format!("task {task_id} loses its addresses while it runs"));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, task_id: &str, dice: &mut Dice) -> Result<Later, String> {
        let what = if dice.per_mille(30) {
            What::NotRemoved
        } else {
            What::Removed
        };
        let after_ms = dice.between(1, 100);
        let Some(container) = self.present.get_mut(task_id) else {
            return Ok(Later {
                after_ms,
                task_id: task_id.to_owned(),
                step: 0,
                what: What::Removed,
            });
        };
        if container.may_run() {
            return Err(format!(
                "the container of task {task_id} is removed while it runs"
            ));
        }
        container.step += 1;
        Ok(later(task_id.to_owned(), container, after_ms, what))
    }

    /// Carries out what was to happen now, with what follows it.
    pub(super) fn happen(&mut self, due: &Later, dice: &mut Dice) -> (Heard, Option<Later>) {
        let id = due.task_id.clone();
        let Some(container) = self.present.get_mut(&id) else {
            let heard = match due.what {
                What::Removed => vec![(id, Happened::Removed)],
                What::Stopped => vec![(id, ended(0))],
                _ => Vec::new(),
            };
            return (Ok(heard), None);
        };
        if container.step != due.step {
            return (Ok(Vec::new()), None);
        }
        let runs = matches!(container.state, State::Running { .. });
        let by_itself = matches!(due.what, What::Unhealthy | What::Crashed | What::Finished);
        if by_itself && (!runs || self.calm) {
            return (Ok(Vec::new()), None);
        }
        let mut follow = None;
        let heard = match due.what {
            What::Prepared => {
                container.state = State::Created;
                Happened::Prepared
            }
            What::NotPrepared => Happened::NotPrepared {
                error: "no such image".to_owned(),
            },
            What::Started => {
                let runs = self.runs.entry(id.clone()).or_default();
                *runs += 1;
                if *runs > 1 {
                    return (Err(format!("task {id} runs a second time")), None);
                }
                container.state = State::Running { healthy: false };
                follow = Some(later(
                    id.clone(),
                    container,
                    dice.between(0, 600),
                    What::Healthy,
                ));
                Happened::Started {
                    container: ContainerStatus {
                        id: format!("container-of-{id}"),
                        pid: 1,
                        exit_code: 0,
                    },
                }
            }
            What::NotStarted => {
                container.state = State::Exited { exit_code: 127 };
                Happened::Ended {
                    exit_code: 127,
                    error: "no such program".to_owned(),
                }
            }
            What::Healthy => {
                if !matches!(container.state, State::Running { .. }) {
                    return (Ok(Vec::new()), None);
                }
                container.state = State::Running { healthy: true };
                let what = match dice.below(40) {
                    0 => Some(What::Unhealthy),
                    1 => Some(What::Finished),
                    2..5 => Some(What::Crashed),
                    _ => None,
                };
                follow =
                    what.map(|what| later(id.clone(), container, dice.between(500, 20_000), what));
                Happened::Healthy
            }
            What::Unhealthy => {
                container.unhealthy = true;
                Happened::Unhealthy {
                    error: "no answer".to_owned(),
                }
            }
            What::Crashed | What::Finished => {
                let exit_code = i64::from(due.what == What::Crashed);
                container.state = State::Exited { exit_code };
                ended(exit_code)
            }
            What::Stopped => {
                if container.may_run() {
                    container.state = State::Exited { exit_code: 143 };
                }
                match container.state {
                    State::Exited { exit_code } => ended(exit_code),
                    _ => ended(0),
                }
            }
            What::Removed => {
                self.present.remove(&id);
                Happened::Removed
            }
            What::NotRemoved => Happened::NotRemoved {
                error: "device is busy".to_owned(),
            },
        };
        (Ok(vec![(id, heard)]), follow)
    }

    /// The daemon is gone: what it was doing is half done, what runs goes on.
    pub(super) fn daemon_gone(&mut self, dice: &mut Dice) {
        let mut never_made = Vec::new();
        for (id, container) in &mut self.present {
            match container.state {
                State::Preparing => {
                    container.step += 1;
                    if dice.one_in(2) {
                        container.state = State::Created;
                    } else {
                        never_made.push(id.clone());
                    }
                }
                State::Starting => {
                    container.step += 1;
                    if dice.one_in(2) {
                        container.state = State::Created;
                    } else {
                        *self.runs.entry(id.clone()).or_default() += 1;
                        container.state = State::Running { healthy: false };
                    }
                }
                State::Stopping => {
                    container.step += 1;
                    container.state = State::Exited { exit_code: 143 };
                }
                State::Created | State::Running { .. } | State::Exited { .. } => {}
            }
        }
        for id in never_made {
            self.present.remove(&id);
        }
    }

    /// The host lost its power: nothing runs, what was made is still there.
    pub(super) fn power_gone(&mut self, dice: &mut Dice) {
        self.daemon_gone(dice);
        for container in self.present.values_mut() {
            if container.may_run() {
                container.step += 1;
                container.state = State::Exited { exit_code: 255 };
            }
            container.attached = false;
        }
    }

    /// A running container, to be killed behind everyone's back.
    pub(super) fn kill_one(&mut self, dice: &mut Dice) -> Option<Later> {
        let running: Vec<&String> = self
            .present
            .iter()
            .filter(|(_, container)| matches!(container.state, State::Running { .. }))
            .map(|(id, _)| id)
            .collect();
        let id = (*dice.pick(&running)?).clone();
        let container = self.present.get(&id)?;
        Some(later(id, container, 0, What::Crashed))
    }

    /// What the daemon finds when it starts.
    pub(super) fn found(&self) -> Vec<Found> {
        self.present
            .iter()
            .map(|(id, container)| Found {
                task_id: id.clone(),
                state: match container.state {
                    State::Preparing | State::Created => FoundState::Created,
                    State::Starting | State::Running { .. } | State::Stopping => {
                        FoundState::Running
                    }
                    State::Exited { exit_code } => FoundState::Exited {
                        exit_code,
                        error: String::new(),
                    },
                },
            })
            .collect()
    }

    /// Whether the container ended, or was found unhealthy, without being told to.
    pub(super) fn failed_itself(&self, task_id: &str) -> bool {
        self.present.get(task_id).is_none_or(|container| {
            container.unhealthy || matches!(container.state, State::Exited { .. })
        })
    }

    pub(super) fn is_running(&self, task_id: &str) -> bool {
        self.present
            .get(task_id)
            .is_some_and(|container| matches!(container.state, State::Running { .. }))
    }

    /// Tasks whose containers run and are healthy.
    pub(super) fn healthy(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.present
            .values()
            .filter(|container| container.state == State::Running { healthy: true })
            .map(|container| &container.task)
    }

    /// Tasks whose processes run in whatever condition.
    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.present
            .values()
            .filter(|container| container.may_run())
            .map(|container| &container.task)
    }

    /// Addresses in use, each with its network and task.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, IpAddr, &str)> {
        self.present
            .values()
            .filter(|container| container.attached && container.may_run())
            .flat_map(|container| {
                container.task.networks.iter().flat_map(|attachment| {
                    attachment.addresses.iter().map(|address| {
                        (
                            attachment.network_id.as_str(),
                            address.addr(),
                            container.task.id.as_str(),
                        )
                    })
                })
            })
    }
}

impl Container {
    const fn may_run(&self) -> bool {
        matches!(
            self.state,
            State::Starting | State::Running { .. } | State::Stopping
        )
    }
}

const fn ended(exit_code: i64) -> Happened {
    Happened::Ended {
        exit_code,
        error: String::new(),
    }
}

const fn later(task_id: String, container: &Container, after_ms: u64, what: What) -> Later {
    Later {
        after_ms,
        task_id,
        step: container.step,
        what,
    }
}
