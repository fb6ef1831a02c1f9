//! Control groups: v1, v2 and every mixture of them, decided per controller.
//!
//! A [`Hierarchy`] says once per process where each controller lives; a [`Cgroup`] is one container's directory in all
//! of them. Nothing here decides limits or keeps state: the kernel's directories are the state. Everything blocks only
//! as long as the kernel does.
//!
//! ```text
//! v1      /sys/fs/cgroup/memory/<path>   /sys/fs/cgroup/pids/<path>  …   one directory per hierarchy
//! v2      /sys/fs/cgroup/<path>                                          one directory, controllers in subtree_control
//! hybrid  v1 hierarchies and /sys/fs/cgroup/unified/<path>               each controller where it is
//! ```
//!
//! Sources: kernel `Documentation/admin-guide/cgroup-v1/*` and `cgroup-v2.rst`; conversions as in
//! `opencontainers/cgroups` (shares ↔ weight, swap).

mod resources;
mod stats;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use resources::{BlkioRate, BlkioThrottle, DeviceAccess, DeviceKind, DeviceRule, Resources};
pub use stats::{BlkioStats, CpuStats, MemoryStats, PidsStats, Stats};

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Reading the layout failed.
    #[error("read the cgroup layout from {path}")]
    Detect {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory could not be used.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted, e.g. `write "100" to`.
        action: String,
        /// The cgroup file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A limit was asked for whose controller does not exist here.
    #[error("cannot set {limit}: the kernel offers no cgroup controller {controller} on this host")]
    NoController {
        /// The option.
        limit: &'static str,
        /// The missing controller.
        controller: &'static str,
    },
    /// A value that makes no sense.
    #[error("{what}: {reason}")]
    Invalid {
        /// The value.
        what: String,
        /// What would be right.
        reason: String,
    },
    /// Processes are still in it.
    #[error("cgroup {path} is still in use")]
    Busy {
        /// The directory.
        path: PathBuf,
    },
}

/// A path below the root of every hierarchy: relative, without `.` and `..`, at most 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct CgroupPath(PathBuf);

impl CgroupPath {
    /// The path without a leading slash.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for CgroupPath {
    type Error = CgroupError;

    fn try_from(path: PathBuf) -> Result<Self, CgroupError> {
        todo!("{path:?}")
    }
}

impl From<CgroupPath> for PathBuf {
    fn from(path: CgroupPath) -> PathBuf {
        path.0
    }
}

/// Which generation the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Only v1 hierarchies.
    V1,
    /// Only the unified hierarchy.
    V2,
    /// Controllers on v1 with a v2 hierarchy beside them.
    Hybrid,
}

/// Where every controller of this host lives.
#[derive(Debug, Clone)]
pub struct Hierarchy;

impl Hierarchy {
    /// Reads `/proc/self/cgroup` and `/proc/self/mountinfo`.
    pub fn detect() -> Result<Hierarchy, CgroupError> {
        todo!()
    }

    /// Generation.
    pub fn version(&self) -> Version {
        todo!()
    }

    /// Names of the controllers in use (`memory`, `pids`, …), sorted.
    pub fn controllers(&self) -> Vec<&str> {
        todo!()
    }

    /// Makes the directories of `path` in every hierarchy in use. Existing ones are taken over.
    pub fn create(&self, path: &CgroupPath) -> Result<Cgroup, CgroupError> {
        todo!("{path:?}")
    }

    /// The cgroup at `path`, whether or not it exists.
    pub fn open(&self, path: &CgroupPath) -> Cgroup {
        todo!("{path:?}")
    }
}

/// One container's cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup;

impl Cgroup {
    /// Writes limits. What the host cannot do at all is an error; the returned texts are warnings about values the kernel
    /// ignores here (as Docker prints them).
    pub fn apply(&self, resources: &Resources) -> Result<Vec<String>, CgroupError> {
        todo!("{resources:?}")
    }

    /// Changes limits of a running container, in the order the kernel needs.
    pub fn update(&self, resources: &Resources) -> Result<Vec<String>, CgroupError> {
        todo!("{resources:?}")
    }

    /// Moves a process in.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        todo!("{pid}")
    }

    /// Suspends every process; returns when all of them are.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        todo!()
    }

    /// Resumes them.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        todo!()
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        todo!()
    }

    /// Kills every process, also in cgroups below, and thaws it so that they can die.
    pub fn kill(&self) -> Result<(), CgroupError> {
        todo!()
    }

    /// All processes in it and below.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        todo!()
    }

    /// Usage now.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        todo!()
    }

    /// How many processes the kernel killed for want of memory. Read it before [`Cgroup::remove`].
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        todo!()
    }

    /// A descriptor to wait on for out-of-memory events, to be drained and then checked with [`Cgroup::oom_kills`]:
    /// an eventfd on v1, an inotify descriptor on v2.
    pub fn oom_events(&self) -> Result<Option<OwnedFd>, CgroupError> {
        todo!()
    }

    /// Removes the directories, deepest first. An absent one is fine; [`CgroupError::Busy`] when processes are left.
    pub fn remove(&self) -> Result<(), CgroupError> {
        todo!()
    }
}
