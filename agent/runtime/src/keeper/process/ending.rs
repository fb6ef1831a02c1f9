//! The end of a process: reaped, drained, told.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::process::WaitOptions;

use super::{Keeper, nanoseconds, report};
use crate::cgroup::Cgroup;
use crate::keeper::attach::Attached;
use crate::keeper::held::{DRAIN_LIMIT, Phase};
use crate::keeper::protocol::{Event, Exit, FromKeeper};

/// First pause before a cgroup that is still busy is removed again; it doubles.
const DOOMED_PAUSE: Duration = Duration::from_millis(1);
/// The pause at which that is given up.
const DOOMED_LIMIT: Duration = Duration::from_secs(4);

/// A cgroup whose container has ended. The kernel counts a process as a member a moment longer than its parent does, and
/// nothing tells when the last one has gone (cgroup v1).
pub(super) struct Doomed {
    pub(super) cgroup: Cgroup,
    pause: Duration,
    next: Instant,
}

impl Keeper {
    pub(super) fn take_signals(&mut self) {
        let mut children = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => children = true,
                Ok(signal) => report(format_args!("{signal} ignored: containers are held here")),
                Err(_) => {}
            }
        }
        if children {
            self.reap();
        }
    }

    pub(super) fn reap(&mut self) {
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(rustix::io::Errno::CHILD) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    report(format_args!("wait for children: {error}"));
                    break;
                }
            };
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            let Some(code) = status.exit_status().or(signal) else {
                continue;
            };
            let pid = pid.as_raw_nonzero().get();
            match self.keys_by_pid.remove(&pid) {
                Some(key) => self.process_ended(key, code),
                None => self.launches.ended_early(pid, code),
            }
        }
    }

    /// Tries again to remove cgroups; gives up on one after some seconds.
    pub(super) fn remove_doomed(&mut self) {
        let now = Instant::now();
        self.doomed_cgroups.retain_mut(|doomed| {
            if doomed.next > now {
                return true;
            }
            let Err(error) = doomed.cgroup.remove() else {
                return false;
            };
            doomed.pause *= 2;
            doomed.next = now + doomed.pause;
            let goes_on = doomed.pause < DOOMED_LIMIT;
            if !goes_on {
                report(format_args!("remove a cgroup: {error}"));
            }
            goes_on
        });
    }

    pub(super) fn process_ended(&mut self, key: u32, exit_code: i32) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        let oom_killed = held
            .cgroup
            .as_ref()
            .is_some_and(|cgroup| cgroup.oom_kills().unwrap_or(0) > 0);
        if let (true, Some(cgroup)) = (held.shares_pids, &held.cgroup)
            && let Err(error) = cgroup.kill()
        {
            report(format_args!("end what {} left behind: {error}", held.id));
        }
        let exit = Exit {
            exit_code,
            oom_killed,
            finished_at: nanoseconds(jiff::Timestamp::now()),
        };
        held.phase = Phase::Draining {
            exit,
            until: Instant::now() + DRAIN_LIMIT,
        };
        held.close_input(&self.epoll);
        if held.outputs_ended() {
            self.end(key, exit);
        }
    }

    pub(super) fn end(&mut self, key: u32, exit: Exit) {
        let Some(held) = self.held.get_mut(&key) else {
            return;
        };
        if let Err(error) = held.end(&self.epoll, exit, jiff::Timestamp::now()) {
            report(format_args!("finish the log of {}: {error}", held.id));
        }
        if let Some(cgroup) = held.cgroup.take()
            && cgroup.remove().is_err()
        {
            self.doomed_cgroups.push(Doomed {
                cgroup,
                pause: DOOMED_PAUSE,
                next: Instant::now() + DOOMED_PAUSE,
            });
        }
        let attached = std::mem::take(&mut held.attached);
        let described = held.describe();
        if let Err(error) = self.journal.append(&described) {
            report(format_args!(
                "write the exit of {} to the journal: {error}",
                described.id
            ));
        }
        for client in attached {
            let delivery = self.clients.get_mut(&client).map(Attached::close);
            self.after_delivery(client, delivery);
        }
        self.send(FromKeeper::Event(Event::Exited {
            id: described.id,
            exit,
        }));
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let doomed = self.doomed_cgroups.iter().map(|doomed| doomed.next);
        let deadline = self.held.values().filter_map(|held| match held.phase {
            Phase::Draining { until, .. } => Some(until),
            Phase::Running | Phase::Ended(_) => None,
        });
        deadline
            .chain(doomed)
            .min()
            .map(|until| until.saturating_duration_since(Instant::now()))
    }

    pub(super) fn end_overdue(&mut self) {
        let now = Instant::now();
        let overdue: Vec<(u32, Exit)> = self
            .held
            .iter()
            .filter_map(|(key, held)| match held.phase {
                Phase::Draining { exit, until } if until <= now => Some((*key, exit)),
                _ => None,
            })
            .collect();
        for (key, exit) in overdue {
            self.end(key, exit);
        }
    }
}
