//! The container engine: containers, execs, volumes, and what ties images and networks to them.
//!
//! ```text
//! Engine (facade: one file per resource) ──message──▶ driver (one task per container, owns the Container)
//!                                                        │ lifecycle::decide   pure
//!                                                        │ steps               layers → sandbox → files → launch
//!                                                        │ records             the only writer of <root>/containers
//!                                                        ▼
//!                              picture (watch channel) ──▶ inspect, list, wait: never behind a busy container
//! ```
//!
//! | files | topic |
//! |---|---|
//! | `archive` `commit` `containers` `execs` `follow` `images` `networks` `overlays` `pull` `system` `transfer` | the facade |
//! | `create` `open` `driver` `steps` `records` `registry` `shared` | containers that are made, found again, run, removed |
//! | `container` `lifecycle` `restart` `health` `names` `mounts` `ports` `endpoint` `spec` `defaults` `validate` `signal` | pure: values and rules |
//! | `inspect` `list` | pure: what clients see |
//! | `build_step` | processes of builds, which are no containers |
//! | `exec` `probe` `logs` `events` `stats` `top` `diff` | beside the life of a container |
//! | `container_path` `volumes` `copy_up` `devices` `disk` `files` `shm` | the host's file systems |
//!
//! Must not: know HTTP, read configuration, or wait for anything by polling.

mod archive;
mod build_step;
mod commit;
mod container;
mod container_path;
mod containers;
mod copy_up;
mod create;
mod defaults;
mod devices;
mod diff;
mod disk;
mod driver;
mod endpoint;
mod events;
mod exec;
mod execs;
mod files;
mod follow;
mod health;
mod images;
mod inspect;
mod keeper;
mod lifecycle;
mod list;
mod logs;
mod mounts;
mod names;
mod networks;
mod open;
mod options;
mod overlays;
mod pipe;
mod ports;
mod preview;
mod probe;
mod pull;
mod push;
mod records;
mod registry;
mod requests;
mod restart;
mod shared;
mod shm;
mod signal;
mod spec;
mod stats;
mod steps;
mod system;
mod top;
mod transfer;
pub(crate) mod transfers;
mod validate;
mod volumes;

use std::sync::Arc;

pub use archive::{ArchiveUpload, Archived};
pub(crate) use build_step::{all_devices, new_id as new_build_step_id};
pub use commit::Commit;
pub(crate) use copy_up::copy_up;
pub use diff::{Change, ChangeKind};
pub use follow::{Follow, Moment};
pub use images::{ImageImport, ImageListing, ProgressStream};
pub(crate) use list::until;
pub(crate) use names::random as random_name;
pub use options::EngineOptions;
pub(crate) use pipe::CHUNK;
pub use pipe::{ByteReceiver, ByteSender, byte_pipe};
pub use preview::PreviewRequest;
pub use requests::{
    AttachOptions, Attached, EventOptions, ExecStarted, ListOptions, LogOptions, Logs,
    RemoveOptions, StartOutcome, StopOptions, StopOutcome, WaitCondition,
};
pub(crate) use shared::{Shared, blocking};
pub use stats::Stats;

use crate::error::Result;

/// The engine. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Opens the engine on its directories, adopts the containers that run, finishes or undoes what a crash cut
    /// short, and applies restart policies (which go on in the background).
    pub async fn open(options: EngineOptions) -> Result<Engine> {
        Ok(Engine {
            shared: open::open(options).await?,
        })
    }

    /// The parts, for what is built on top of the engine.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Ends the engine's tasks. Containers keep running; the next [`Engine::open`] adopts them.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.records.flush().await;
        // Removed only when no container is in it.
        let path = std::path::PathBuf::from(self.shared.cgroup_parent());
        if let Ok(path) = agent_runtime::spec::CgroupPath::try_from(path)
            && let Err(error) = self.shared.hierarchy.open(&path).remove()
        {
            tracing::debug!(%error, "the parent cgroup stays");
        }
        let shared = Arc::clone(&self.shared);
        let retired = shared::blocking(move || {
            shared.images.wait_synced();
            Ok(shared.networks.retire())
        })
        .await;
        for error in retired.into_iter().flatten() {
            tracing::warn!(%error, "a network is not taken down");
        }
    }
}
