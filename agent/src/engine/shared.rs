//! What all parts of the engine work with. Parts meet here and nowhere else; none of them holds another.

use std::path::PathBuf;
use std::sync::Arc;

use agent_image::Store;
use agent_runtime::cgroup::{Cgroup, Hierarchy};
use agent_runtime::spec::CgroupPath;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::EngineOptions;
use super::build_step::BuildSteps;
use super::container::Definition;
use super::events::Events;
use super::exec::Execs;
use super::keeper::Keeper;
use super::records::Records;
use super::registry::Registry;
use super::transfers::Transfers;
use super::validate::Host;
use super::volumes::Volumes;
use crate::error::{Error, Result};

/// Parent of the containers' cgroups unless configured.
const CGROUP_PARENT: &str = "muster";

/// Facts that a reload of the configuration changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reloadable {
    pub(crate) debug: bool,
    pub(crate) labels: Vec<String>,
}

/// The parts of one engine.
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    /// What may change while the engine runs, in place of the same fields of `options`.
    pub(crate) reloadable: RwLock<Reloadable>,
    pub(crate) host: Host,
    pub(crate) records: Records,
    pub(crate) registry: Registry,
    pub(crate) volumes: Volumes,
    pub(crate) images: Arc<Store>,
    pub(crate) registries: agent_image::Registry,
    pub(crate) networks: netdriver::Networks,
    pub(crate) keeper: Keeper,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) events: Events,
    pub(crate) execs: Execs,
    pub(crate) build_steps: BuildSteps,
    /// Every task the engine spawns; shutdown waits for them.
    pub(crate) tasks: TaskTracker,
    /// Threads for what waits for a network or a client.
    pub(crate) transfers: Transfers,
    /// Cancelled when the engine shuts down.
    pub(crate) closing: CancellationToken,
}

impl Shared {
    /// Where a container's log is.
    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.records.directory(id).join(format!("{id}-json.log"))
    }

    /// The parent of containers' cgroups.
    pub(crate) fn cgroup_parent(&self) -> &str {
        match self.options.cgroup_parent.trim_start_matches('/') {
            "" => CGROUP_PARENT,
            parent => parent,
        }
    }

    /// Where a container's cgroup is.
    pub(crate) fn cgroup_path(&self, definition: &Definition) -> Result<CgroupPath> {
        let parent = match definition
            .host
            .resources
            .cgroup_parent
            .trim_start_matches('/')
        {
            "" => self.cgroup_parent(),
            parent => parent,
        };
        CgroupPath::try_from(PathBuf::from(parent).join(&definition.id))
            .map_err(|error| Error::invalid(format!("invalid cgroup parent {parent:?}: {error}")))
    }

    /// A container's cgroup.
    pub(crate) fn cgroup(&self, definition: &Definition) -> Result<Cgroup> {
        Ok(self.hierarchy.open(&self.cgroup_path(definition)?))
    }
}

/// Runs blocking work that ends by itself on a thread of the pool; what waits for others is a [`Transfers::run`].
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Unavailable("the daemon is shutting down".to_owned())),
    }
}

impl From<netdriver::Error> for Error {
    fn from(error: netdriver::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            netdriver::ErrorKind::NotFound => Self::NotFound(text),
            netdriver::ErrorKind::InvalidParameter => Self::InvalidParameter(text),
            netdriver::ErrorKind::Conflict => Self::Conflict(text),
            netdriver::ErrorKind::Forbidden => Self::Forbidden(text),
            netdriver::ErrorKind::NotImplemented => Self::NotImplemented(text),
            netdriver::ErrorKind::System => Self::System(text),
        }
    }
}

impl From<agent_image::ImageError> for Error {
    fn from(error: agent_image::ImageError) -> Self {
        let text = error.to_string();
        match error.class() {
            agent_image::ErrorClass::NotFound => Self::NotFound(text),
            agent_image::ErrorClass::InvalidParameter => Self::InvalidParameter(text),
            agent_image::ErrorClass::Conflict => Self::Conflict(text),
            agent_image::ErrorClass::Unauthorized => Self::Unauthorized(text),
            agent_image::ErrorClass::System => Self::System(text),
        }
    }
}
