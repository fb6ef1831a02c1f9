//! What a container or an exec needs, as plain data: the runtime's input.
//!
//! The engine (or `oci::translate`) fills these types in; nothing in here touches the kernel. Everything is resolved
//! by the caller except what can be known only inside the root: user and group names, the home directory and the
//! executable's path. Field meanings follow the OCI runtime specification 1.2 (`config.md`, `config-linux.md`) and
//! moby `daemon/pkg/oci/defaults.go` for the default sets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::capabilities::{Capabilities, CapabilitySet, UnknownCapability};
pub use crate::cgroup::{CgroupPath, DeviceAccess, DeviceKind, DeviceRule, Resources};
pub use crate::defaults::{
    DefaultMounts, default_device_rules, default_masked_paths, default_mounts,
    default_readonly_paths,
};
pub use crate::seccomp::SeccompPolicy;

/// A container to be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The root file system.
    pub rootfs: Rootfs,
    /// Mount the root file system read-only.
    #[serde(default)]
    pub readonly_rootfs: bool,
    /// Propagation of the root mount itself; `None` is private.
    #[serde(default)]
    pub rootfs_propagation: Option<Propagation>,
    /// One decision per namespace.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Host name, set only in a UTS namespace of the container's own.
    #[serde(default)]
    pub hostname: Option<String>,
    /// NIS domain name, as `hostname`.
    #[serde(default)]
    pub domainname: Option<String>,
    /// Mounts in the order in which they are made. [`default_mounts`] gives Docker's.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Paths hidden behind `/dev/null` or an empty read-only tmpfs; absent ones are skipped.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only by a bind mount on themselves; absent ones are skipped.
    #[serde(default)]
    pub readonly_paths: Vec<PathBuf>,
    /// Device nodes besides null, zero, full, random, urandom and tty, which are always made when `/dev` is a tmpfs.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// `net.ipv4.ip_forward` → `1`. Only namespaced ones are accepted, and only with a namespace of the container's own.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The first process.
    pub process: Process,
    /// Where the container is accounted and what it may use. `None` leaves it in the caller's cgroup.
    #[serde(default)]
    pub cgroup: Option<CgroupSpec>,
    /// Run a small init as PID 1 (`/sbin/docker-init`) that forwards signals and reaps orphans.
    #[serde(default)]
    pub init: bool,
}

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// An overlay mount made for this container alone.
    Overlay {
        /// Read-only layers, uppermost first; at least one.
        lower: Vec<PathBuf>,
        /// The container's writable layer.
        upper: PathBuf,
        /// Overlayfs' work directory, empty and on the file system of `upper`.
        work: PathBuf,
    },
    /// A directory used in place.
    Directory(PathBuf),
}

/// One decision per kind of namespace. The mount namespace is always new. User and time namespaces are not supported yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// Network stack.
    pub net: Namespace,
    /// System V IPC and POSIX message queues.
    pub ipc: Namespace,
    /// Host and domain name.
    pub uts: Namespace,
    /// View of the cgroup hierarchy. [`Namespaces::default`] follows Docker: host's on v1, own on v2 (the caller
    /// decides; the default here is the host's).
    pub cgroup: Namespace,
}

impl Default for Namespaces {
    fn default() -> Self {
        Namespaces {
            pid: Namespace::New,
            net: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            cgroup: Namespace::Host,
        }
    }
}

/// Where one namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// A new one for this container.
    New,
    /// The caller's.
    Host,
    /// The one at a path: `/proc/PID/ns/net`, a bind-mounted namespace file or `/proc/self/fd/N`.
    Join(PathBuf),
}

/// One mount inside the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the root. Links in it are followed inside the root only; missing directories are made, and
    /// for a bind of a file an empty file.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// How.
    #[serde(default)]
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
        /// With everything mounted below it (`rbind`).
        recursive: bool,
    },
    /// A new file system instance: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, or any other type the kernel knows.
    Filesystem {
        /// Kernel name of the type.
        fstype: String,
        /// Device or name shown in `/proc/mounts`.
        source: String,
        /// Options of the file system itself, e.g. `size=65536k`, `mode=1777`.
        data: Vec<String>,
    },
    /// The container's view of its cgroups, v1, v2 or hybrid as the host has it.
    Cgroup,
}

/// Flags of a mount, independent of what is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// No writes through this mount.
    pub readonly: bool,
    /// Also through every mount below it (Docker 25's default for `ro` binds on kernels from 5.12 on).
    pub recursive_readonly: RecursiveReadonly,
    /// Ignore set-uid bits and file capabilities.
    pub nosuid: bool,
    /// Device nodes do not work.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Access times.
    pub atime: Option<Atime>,
    /// No directory access times.
    pub nodiratime: bool,
    /// Symbolic links are not followed.
    pub nosymfollow: bool,
    /// How mount events travel; `None` is `rprivate`.
    pub propagation: Option<Propagation>,
    /// Copy what the image has at the target into the new tmpfs (`tmpcopyup`).
    pub copy_up: bool,
}

/// Whether read-only covers submounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecursiveReadonly {
    /// Only the mount itself.
    #[default]
    No,
    /// Submounts too where the kernel can do it.
    IfPossible,
    /// Submounts too, or the launch fails.
    Force,
}

/// Access time updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Atime {
    /// Never.
    Noatime,
    /// When older than the modification (the kernel's default).
    Relatime,
    /// Always.
    Strictatime,
}

/// Mount propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names are mount(8)'s
pub enum Propagation {
    Private,
    Rprivate,
    Slave,
    Rslave,
    Shared,
    Rshared,
    Unbindable,
    Runbindable,
}

/// A device node to be made in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// Node type.
    pub kind: DeviceKind,
    /// Major number (0 for a FIFO).
    pub major: u32,
    /// Minor number (0 for a FIFO).
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A process in a container: its first one or an exec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. A program without a slash is looked for in the `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// `NAME=value`. `HOME` is added from the image's passwd when missing.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory, absolute; made if missing.
    pub cwd: PathBuf,
    /// Docker's `user[:group]` by name or number (empty: root), resolved in the image's own passwd and group files.
    #[serde(default)]
    pub user: String,
    /// More groups, by name or number.
    #[serde(default)]
    pub additional_groups: Vec<String>,
    /// File mode creation mask; `None` is 0022.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Limits, set before the user changes.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Capability sets.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Forbid gaining privileges through set-uid programs.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// System call filter.
    #[serde(default)]
    pub seccomp: SeccompPolicy,
    /// `/proc/self/oom_score_adj`; `None` leaves the caller's.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Give it a terminal. Its three standard streams are then the pty, whatever the caller passes.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// Descriptors from 3 on that stay open (`LISTEN_FDS` and `--preserve-fds`).
    #[serde(default)]
    pub preserve_fds: u32,
    /// Stay in the caller's session keyring instead of getting a new one (`--no-new-keyring`).
    #[serde(default)]
    pub keep_keyring: bool,
}

/// Initial size of a terminal; zeros leave it unset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// A resource limit of a process, by the name of `setrlimit(2)` in lower case without `RLIMIT_` (`nofile`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, `core`, …
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// The cgroup of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Path below the root of every hierarchy, e.g. `docker/<id>`: parent and own name.
    pub path: CgroupPath,
    /// Limits.
    #[serde(default)]
    pub resources: Resources,
}

/// A further process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's first process as the caller's pid namespace numbers it.
    pub target_pid: i32,
    /// The container's cgroup, joined first. `None` stays in the caller's.
    #[serde(default)]
    pub cgroup: Option<CgroupPath>,
    /// What to run.
    pub process: Process,
}
