//! What the engine knows about one container: its definition, which the user wrote and only explicit requests change,
//! and its state, which the container's driver writes as things happen.
//!
//! Values only. A [`Container`] is cheap to clone; every clone is a consistent picture of one moment.

use std::sync::Arc;

use agent_api::{
    ContainerConfig, ContainerStatus, EndpointSettings, Health, HostConfig, MountPoint,
};
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::mounts::MountPlan;

/// Hexadecimal digits of a short id.
pub(crate) const SHORT_ID: usize = 12;

/// A container at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) definition: Arc<Definition>,
    pub(crate) state: State,
    /// What it has on the network while it runs; rebuilt from netdriver after a restart of the engine.
    pub(crate) attachment: Option<Arc<Attachment>>,
    /// Only while it runs and has a health check; kept after the exit for inspection.
    pub(crate) health: Option<Arc<Health>>,
}

/// What was asked for, with every default filled in: `config.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Version of this format.
    pub(crate) format: u32,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Without slash.
    pub(crate) name: String,
    /// When `create` was called.
    pub(crate) created: Timestamp,
    /// Id of the image, `sha256:…`; the name it was called by is `config.image`.
    pub(crate) image: String,
    /// What runs: program, then arguments (entrypoint and command joined).
    pub(crate) command: Vec<String>,
    /// The request's configuration merged with the image's.
    pub(crate) config: ContainerConfig,
    /// The request's host configuration with the engine's defaults.
    pub(crate) host: HostConfig,
    /// Everything mounted for the user, in the order of mounting.
    pub(crate) mounts: Vec<MountPlan>,
    /// Networks to connect to by name, with what was asked of each. Operational fields stay empty here.
    pub(crate) endpoints: IndexMap<String, EndpointSettings>,
}

/// Version of `config.json` that this engine writes.
pub(crate) const DEFINITION_FORMAT: u32 = 1;

/// What has become of it: `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) status: ContainerStatus,
    /// Process id of the first process, 0 when there is none.
    pub(crate) pid: i32,
    /// Of the last run; 0 while running and before the first one.
    pub(crate) exit_code: i32,
    /// Why the last start failed.
    pub(crate) error: String,
    /// The kernel killed a process of the last run for want of memory.
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    /// The last exit was asked for, so that `unless-stopped` leaves it alone.
    pub(crate) stopped_by_user: bool,
    /// Restarts by policy since the last start by hand.
    pub(crate) restart_count: u32,
    /// With `Removing`: whether its anonymous volumes go too.
    pub(crate) remove_volumes: bool,
    /// Number of runs that have ended; lets a waiter tell one exit from the next.
    pub(crate) exits: u64,
    /// The boot in which this was written: a process of another boot is gone.
    pub(crate) boot: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: ContainerStatus::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            stopped_by_user: false,
            restart_count: 0,
            remove_volumes: false,
            exits: 0,
            boot: String::new(),
        }
    }
}

/// A running container's place on the network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachment {
    /// Path of the network namespace, empty with the host's.
    pub(crate) netns: String,
    pub(crate) endpoints: Vec<netdriver::Endpoint>,
    pub(crate) ports: Vec<netdriver::PortBinding>,
}

impl Definition {
    pub(crate) fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// Signal that asks it to stop.
    pub(crate) fn stop_signal(&self) -> &str {
        match self.config.stop_signal.as_str() {
            "" => "SIGTERM",
            signal => signal,
        }
    }

    /// The mounts as `inspect` shows them.
    pub(crate) fn mount_points(&self) -> Vec<MountPoint> {
        self.mounts
            .iter()
            .filter_map(MountPlan::mount_point)
            .collect()
    }
}

impl Container {
    pub(crate) fn new(definition: Definition, state: State) -> Self {
        Self {
            definition: Arc::new(definition),
            state,
            attachment: None,
            health: None,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.definition.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.definition.name
    }

    /// Whether it has a first process: running or paused.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(
            self.state.status,
            ContainerStatus::Running | ContainerStatus::Paused
        )
    }
}

/// The first twelve digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// A new random id of 64 hexadecimal digits, never all decimal in its short form: `docker` users could not tell such
/// an id from a number.
pub(crate) fn new_id() -> String {
    loop {
        let bytes: [u8; 32] = rand::random();
        let id = hex::encode(bytes);
        if !short(&id).bytes().all(|byte| byte.is_ascii_digit()) {
            return id;
        }
    }
}
