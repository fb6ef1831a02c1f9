//! Processes of build steps: the keeper starts and holds them as it does containers', but they are none. No list shows
//! them, no record is written, and whoever waits for one is told its end once.
//!
//! A step does not outlive the daemon that waits for it: one that the keeper still holds at the next start is killed.
//! Must not: know what a step is for, or prepare or clear away what it runs on (see `builder::run`).

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use agent_runtime::keeper::{AttachOptions, Exit, HeldProcess, Launch, LaunchKind, StdinMode};
use agent_runtime::spec::{CgroupPath, Device, LaunchSpec};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Engine;
use super::keeper::LaunchError;
use super::open::end_all;
use super::shared::{Shared, blocking};
use crate::error::{Error, Result};

/// The id of every build step begins so, and no other does.
const ID_PREFIX: &str = "build-";

/// The steps that run, and who waits for them.
#[derive(Debug, Default)]
pub(crate) struct BuildSteps {
    running: Mutex<HashMap<String, oneshot::Sender<Exit>>>,
}

impl BuildSteps {
    fn expect(&self, id: &str) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.running.lock().insert(id.to_owned(), sender);
        receiver
    }

    fn forget(&self, id: &str) {
        self.running.lock().remove(id);
    }

    /// Tells whoever waits. `false` when the id is no build step's.
    pub(super) fn ended(&self, id: &str, exit: Exit) -> bool {
        let waiting = self.running.lock().remove(id);
        if let Some(waiting) = waiting {
            // Nobody may be left to hear it.
            let _ = waiting.send(exit);
            return true;
        }
        id.starts_with(ID_PREFIX)
    }

    /// The steps that are waited for.
    pub(super) fn running(&self) -> Vec<String> {
        self.running.lock().keys().cloned().collect()
    }
}

/// Whether a process that runs is a step nobody waits for any more: no daemon did anything but start yet.
pub(super) fn is_orphan(process: &HeldProcess) -> bool {
    process.exit.is_none() && process.id.starts_with(ID_PREFIX)
}

/// A new id for a step.
pub(crate) fn new_id() -> String {
    format!("{ID_PREFIX}{}", hex::encode(rand::random::<[u8; 16]>()))
}

impl Engine {
    /// Starts the process of a step; both outputs go to `output` in Docker's frames. The receiver gets the end.
    pub(crate) async fn start_build_step(
        &self,
        id: &str,
        spec: LaunchSpec,
        output: OwnedFd,
    ) -> Result<oneshot::Receiver<Exit>, LaunchError> {
        let steps = &self.shared.build_steps;
        let ended = steps.expect(id);
        let launch = Launch {
            id: id.to_owned(),
            kind: LaunchKind::Container(spec),
            stdin: StdinMode::Null,
            log: None,
            attach: Vec::new(),
        };
        let attach = AttachOptions {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        match self
            .shared
            .keeper
            .launch(launch, vec![(output, attach)])
            .await
        {
            Ok(started) => {
                for warning in &started.warnings {
                    tracing::warn!(step.id = id, warning);
                }
                Ok(ended)
            }
            Err(failure) => {
                steps.forget(id);
                Err(failure)
            }
        }
    }

    /// Kills a step: its first process, and with that everything in its process id namespace.
    pub(crate) async fn kill_build_step(&self, id: &str) -> Result<()> {
        let signal = nix::sys::signal::Signal::SIGKILL;
        self.shared.keeper.signal(id, signal as i32).await
    }

    /// Where the cgroup of a step goes: below `parent`, or below the engine's own when that is empty.
    pub(crate) fn build_step_cgroup(&self, parent: &str, id: &str) -> Result<CgroupPath> {
        let parent = match parent.trim_start_matches('/') {
            "" => self.shared.cgroup_parent(),
            parent => parent,
        };
        CgroupPath::try_from(PathBuf::from(parent).join(id))
            .map_err(|error| Error::invalid(format!("invalid cgroup parent {parent:?}: {error}")))
    }

    /// Kills what is left in a step's cgroup and removes it; one that does not exist is as good as removed.
    pub(crate) async fn end_build_step_cgroup(&self, path: CgroupPath) -> Result<()> {
        let cgroup = self.shared.hierarchy.open(&path);
        blocking(move || match cgroup.exists() {
            true => end_all(&cgroup).map_err(|error| Error::system(error.to_string())),
            false => Ok(()),
        })
        .await
    }
}

/// Every device of the host, for a step that is not confined. Blocks.
pub(crate) fn all_devices() -> Result<Vec<Device>> {
    let privileged = agent_api::HostConfig {
        privileged: true,
        ..agent_api::HostConfig::default()
    };
    Ok(super::devices::resolve(&privileged)?.0)
}

/// Enters the ends of steps that were missed while there was no connection to the keeper, and those nobody saw.
pub(super) async fn enter_missed(
    shared: &Shared,
    ids: &[String],
    held: &[HeldProcess],
    lost: Exit,
) {
    for id in ids {
        match held.iter().find(|process| process.id == *id) {
            Some(HeldProcess { exit: None, .. }) => {}
            Some(HeldProcess {
                exit: Some(exit), ..
            }) => {
                shared.build_steps.ended(id, *exit);
                shared.keeper.forget(id).await;
            }
            None => {
                shared.build_steps.ended(id, lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(exit_code: i32) -> Exit {
        Exit {
            exit_code,
            oom_killed: false,
            finished_at: 0,
        }
    }

    #[test]
    fn ends_reach_who_waits_and_are_never_taken_for_an_execs() {
        let steps = BuildSteps::default();
        let id = new_id();
        let mut waiting = steps.expect(&id);
        assert_eq!(steps.running(), std::slice::from_ref(&id));
        assert!(!steps.ended("e5c6", exit(1)));
        assert!(steps.ended(&id, exit(3)));
        assert_eq!(waiting.try_recv().unwrap().exit_code, 3);
        assert!(steps.ended(&id, exit(4)), "known by its id alone");
        assert_eq!(steps.running(), [] as [String; 0]);
    }
}
