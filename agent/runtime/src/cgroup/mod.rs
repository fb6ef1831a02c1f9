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

mod bpf;
mod detect;
mod files;
mod observe;
mod resources;
mod stats;
mod v1;
mod v2;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use detect::{Hierarchy, Version};
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
        let relative = path.strip_prefix("/").unwrap_or(&path);
        let plain = relative
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() || relative.as_os_str().len() > 3072 {
            return Err(CgroupError::Invalid {
                what: format!("cgroup path {path:?}"),
                reason:
                    "give a path below the hierarchy's root without `.` and `..`, e.g. docker/ID"
                        .into(),
            });
        }
        Ok(CgroupPath(relative.to_owned()))
    }
}

impl From<CgroupPath> for PathBuf {
    fn from(path: CgroupPath) -> PathBuf {
        path.0
    }
}

/// One container's cgroup: a directory in every hierarchy in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// v1 directories with their controllers.
    v1: Vec<V1Directory>,
    /// The directory in the unified hierarchy.
    v2: Option<PathBuf>,
    /// Where the unified hierarchy is mounted, and whether it carries the controllers.
    v2_root: Option<PathBuf>,
    version: Version,
}

/// A cgroup's directory in one v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct V1Directory {
    controllers: Vec<String>,
    mount: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// The directory that has a controller: on v1 its own, on v2 the one there is.
    fn v1_directory(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|d| d.controllers.iter().any(|c| c == controller))
            .map(|d| d.path.as_path())
    }

    /// Every directory.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1
            .iter()
            .map(|d| d.path.as_path())
            .chain(self.v2.as_deref())
    }

    /// Whether it exists (in any hierarchy).
    pub fn exists(&self) -> bool {
        self.directories().any(Path::exists)
    }

    /// Makes the directories. Existing ones are taken over.
    pub fn create(&self) -> Result<(), CgroupError> {
        for directory in &self.v1 {
            files::make_directory(&directory.path)?;
            if directory.controllers.iter().any(|c| c == "cpuset") {
                v1::fill_cpuset(&directory.mount, &directory.path)?;
            }
        }
        if let (Some(path), Some(root)) = (&self.v2, &self.v2_root) {
            v2::make_directories(root, path, self.version == Version::V2)?;
        }
        Ok(())
    }

    /// Writes limits. What the host cannot do at all is an error; the returned texts are warnings about values the kernel
    /// ignores here (as Docker prints them).
    pub fn apply(&self, resources: &Resources) -> Result<Vec<String>, CgroupError> {
        match self.version {
            Version::V2 => v2::apply(self.v2_or_missing()?, resources),
            Version::V1 | Version::Hybrid => v1::apply(self, resources),
        }
    }

    /// Changes limits of a running container, in the order the kernel needs.
    pub fn update(&self, resources: &Resources) -> Result<Vec<String>, CgroupError> {
        self.apply(resources)
    }

    fn v2_or_missing(&self) -> Result<&Path, CgroupError> {
        self.v2.as_deref().ok_or(CgroupError::Invalid {
            what: "cgroup".into(),
            reason: "the host has no unified cgroup hierarchy".into(),
        })
    }

    /// Moves a process in.
    pub fn attach(&self, pid: i32) -> Result<(), CgroupError> {
        for directory in self.directories() {
            files::write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Files into which a single-threaded process writes `0` to move itself. On v1 that is `tasks`, which spares the
    /// kernel the global lock that `cgroup.procs` takes (Linux 5.18).
    pub(crate) fn join_files(&self) -> Result<Vec<OwnedFd>, CgroupError> {
        self.v1
            .iter()
            .map(|directory| files::open_for_writing(&directory.path.join("tasks")))
            .collect()
    }

    /// The directory a process can be born in, if the host has a unified hierarchy.
    pub(crate) fn clone_target(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.v2.as_deref().map(files::open_directory).transpose()
    }

    /// The unified hierarchy's `cgroup.procs`, for a process that could not be born in it.
    pub(crate) fn unified_procs(&self) -> Result<Option<OwnedFd>, CgroupError> {
        self.v2
            .as_deref()
            .map(|path| files::open_for_writing(&path.join("cgroup.procs")))
            .transpose()
    }

    /// As [`Cgroup::unified_procs`], of the cgroup in which a process is: a container that has made cgroups of its own
    /// lets nobody into the one above them.
    pub(crate) fn unified_procs_of(&self, pid: i32) -> Result<Option<OwnedFd>, CgroupError> {
        let Some(root) = &self.v2_root else {
            return Ok(None);
        };
        let text = files::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Ok(None);
        };
        let inside = self
            .v2
            .as_deref()
            .is_some_and(|own| root.join(path).starts_with(own));
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !inside || !plain {
            return self.unified_procs();
        }
        files::open_for_writing(&root.join(path).join("cgroup.procs")).map(Some)
    }

    /// Removes the directories, deepest first. An absent one is fine; [`CgroupError::Busy`] when processes are left.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut first = None;
        for directory in self.directories() {
            if let Err(error) = files::remove_tree(directory) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        for good in ["docker/abc", "/docker/abc", "a.slice/b"] {
            assert!(CgroupPath::try_from(PathBuf::from(good)).is_ok(), "{good}");
        }
        for bad in ["", "/", "..", "a/../..", "a/../b"] {
            assert!(CgroupPath::try_from(PathBuf::from(bad)).is_err(), "{bad}");
        }
        assert!(CgroupPath::try_from(PathBuf::from("x".repeat(5000))).is_err());
    }
}
