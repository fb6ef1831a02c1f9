//! Following one container from outside the engine, without polling and without missing an end.

use std::sync::Arc;

use agent_api::{ContainerStatus, HealthStatus};
use tokio::sync::watch;

use super::Engine;
use super::container::Container;
use crate::error::Result;

/// A container at one moment, as far as a supervisor needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub status: ContainerStatus,
    /// 0 while there is no process.
    pub pid: i32,
    /// Of the last run.
    pub exit_code: i32,
    /// Why the last start failed, empty otherwise.
    pub error: String,
    /// The kernel killed a process of the last run for want of memory.
    pub oom_killed: bool,
    /// Absent while it does not run or nobody checks its health.
    pub health: Option<HealthStatus>,
    /// Output of the last failed probe; empty otherwise.
    pub probe_output: String,
    /// Number of runs that have ended.
    pub exits: u64,
}

/// Sees every change of one container; changes in quick succession may be seen as one.
pub struct Follow {
    picture: watch::Receiver<Arc<Container>>,
}

impl Follow {
    /// As it is now.
    pub fn now(&mut self) -> Moment {
        moment(&self.picture.borrow_and_update())
    }

    /// Waits for a change. `None`: the container has been removed.
    pub async fn next(&mut self) -> Option<Moment> {
        self.picture.changed().await.ok()?;
        Some(self.now())
    }
}

impl Engine {
    /// Follows a container by name or id.
    ///
    /// # Errors
    /// There is no such container.
    pub fn follow_container(&self, reference: &str) -> Result<Follow> {
        let picture = self.shared.registry.find(reference)?.picture;
        Ok(Follow { picture })
    }
}

fn moment(container: &Container) -> Moment {
    let health = container
        .health
        .as_ref()
        .filter(|_| container.is_alive())
        .map(|health| (health.status, health.log.last()));
    Moment {
        status: container.state.status,
        pid: container.state.pid,
        exit_code: container.state.exit_code,
        error: container.state.error.clone(),
        oom_killed: container.state.oom_killed,
        health: health.map(|(status, _)| status),
        probe_output: health
            .and_then(|(_, last)| last)
            .filter(|last| last.exit_code != 0)
            .map(|last| last.output.trim().to_owned())
            .unwrap_or_default(),
        exits: container.state.exits,
    }
}
