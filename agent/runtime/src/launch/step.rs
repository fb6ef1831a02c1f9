//! The steps of a launch: the vocabulary shared by the plan, the interpreter and the error messages.
//!
//! A step is plain data. What only the kernel or the image can tell (descriptors, ids, the seccomp program) is not in
//! here but in the interpreter's `Context`.

use std::ffi::{CStr, CString};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::raw::MountAttr;

/// Index of a descriptor the parent opens before the clone: its place in `LaunchPlan::sources`.
pub(crate) type Slot = usize;

/// One thing the child does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Write itself into every v1 hierarchy (on v2 it is born in its cgroup where the kernel can do that).
    JoinCgroups,
    /// `unshare(CLONE_NEWCGROUP)`: after joining, so that the view starts at the container's own cgroup.
    OwnCgroupNamespace,
    /// `setns` to an opened namespace file, or to several at once by a pidfd.
    JoinNamespaces {
        slot: Slot,
        flags: i32,
        what: String,
    },
    /// Leave the caller's session; with a terminal, take it as the controlling one.
    NewSession,
    /// Leave the caller's session keyring.
    NewKeyring,
    /// Cut or loosen the propagation of every mount copied into the new namespace.
    IsolateMounts { propagation: u64 },
    /// Bring the loopback interface of the new network namespace up.
    LoopbackUp,
    /// Put the detached root where a directory of the host is.
    AttachRoot { slot: Slot, at: CString },
    /// A new instance of a file system.
    MountFilesystem {
        fstype: CString,
        parameters: Vec<Parameter>,
        attr: MountAttr,
        target: CString,
        keep: Keep,
    },
    /// A detached mount made by the parent.
    MountDetached {
        slot: Slot,
        target: CString,
        what: String,
    },
    /// The devpts the parent made for the terminal.
    MountTerminals { target: CString },
    /// The v1 or v2 cgroup view.
    MountCgroups { target: CString, attr: MountAttr },
    /// A node in the `/dev` just mounted, or elsewhere in the root.
    MakeDevice(DeviceNode),
    /// A link in the `/dev` just mounted.
    MakeLink { path: CString, to: CString },
    /// Bind the terminal on `/dev/console`.
    MountConsole,
    /// Hide a path behind `/dev/null` or an empty directory.
    Mask { path: CString },
    /// Make a path read-only by a bind on itself.
    MakeReadonly { path: CString },
    /// Set a mount's attributes once its mount points exist.
    SetAttributes {
        target: CString,
        attr: MountAttr,
        recursive: bool,
    },
    /// Write below `/proc/sys`.
    SetSysctl { path: CString, value: CString },
    /// Host name of the new UTS namespace.
    SetHostname { name: CString },
    /// NIS domain name of the new UTS namespace.
    SetDomainname { name: CString },
    /// Tell the waiting parent how far the child is and wait for its answer (hooks, the OCI start).
    Meet(Meeting),
    /// Make the attached root the root directory and drop the host's.
    PivotRoot,
    /// Propagation of the root mount itself, after the pivot.
    SetRootPropagation { propagation: u64 },
    /// `/proc/self/oom_score_adj`.
    SetOomScore { value: CString },
    /// One resource limit.
    SetRlimit {
        resource: u32,
        name: String,
        soft: u64,
        hard: u64,
    },
    /// Standard streams in place, everything else closed.
    ArrangeDescriptors { preserve: u32 },
    /// Change into the working directory and check that it is inside the root.
    ChangeDirectory {
        path: CString,
        #[serde(default)]
        absent: Absent,
    },
    /// Drop capabilities from the bounding set.
    LimitCapabilities,
    /// Groups, group and user id.
    SetUser,
    /// The remaining capability sets.
    SetCapabilities,
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// Load the system call filter.
    LoadFilter,
    /// Find the program in the root.
    FindProgram,
    /// Default dispositions, empty signal mask, umask.
    ResetProcess { umask: u32 },
    /// Run the program.
    Execute,
}

/// An option of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parameter {
    pub(crate) key: CString,
    pub(crate) value: Option<CString>,
}

/// What the interpreter remembers of a mount for later steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Keep {
    Nothing,
    /// It is the `/dev` in which nodes and links are made.
    Dev,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceNode {
    /// Below `/dev` without that prefix, or absolute when it lies elsewhere.
    pub(crate) path: CString,
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) device: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What becomes of a working directory that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Absent {
    /// It is made: the container's own start.
    #[default]
    Make,
    /// The launch fails: a process that joins a running container finds its files as they are.
    Fail,
}

/// Where child and parent wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Meeting {
    /// Namespaces exist, nothing is mounted: prestart and createRuntime hooks.
    Namespaces,
    /// Everything is mounted, the root not yet pivoted: createContainer hooks.
    Mounted,
    /// Ready to run: the container is "created".
    Created,
}

/// The part of a step that failed, where the step alone does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Part {
    Whole = 0,
    MountPoint = 1,
    Program = 2,
    OutsideRoot = 3,
    NoNullDevice = 4,
    Interpreter = 5,
}

impl Part {
    pub(crate) fn from_number(number: u32) -> Part {
        match number {
            1 => Part::MountPoint,
            2 => Part::Program,
            3 => Part::OutsideRoot,
            4 => Part::NoNullDevice,
            5 => Part::Interpreter,
            _ => Part::Whole,
        }
    }
}

fn text(string: &CStr) -> std::borrow::Cow<'_, str> {
    string.to_string_lossy()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::JoinCgroups => f.write_str("join the container's cgroups"),
            Step::OwnCgroupNamespace => f.write_str("make a cgroup namespace"),
            Step::JoinNamespaces { what, .. } => write!(f, "join {what}"),
            Step::NewSession => f.write_str("start a session"),
            Step::NewKeyring => f.write_str("start a session keyring"),
            Step::IsolateMounts { propagation } => {
                write!(f, "make all mounts {}", propagation_name(*propagation))
            }
            Step::LoopbackUp => f.write_str("bring the loopback interface up"),
            Step::AttachRoot { at, .. } => write!(f, "mount the root on {}", text(at)),
            Step::MountFilesystem {
                fstype,
                parameters,
                attr,
                target,
                ..
            } => {
                write!(f, "mount {} on {}", text(fstype), text(target))?;
                for Parameter { key, value } in parameters {
                    match value {
                        Some(value) => write!(f, " {}={}", text(key), text(value))?,
                        None => write!(f, " {}", text(key))?,
                    }
                }
                write_attr(f, attr)
            }
            Step::MountDetached { target, what, .. } => write!(f, "{what} on {}", text(target)),
            Step::MountTerminals { target } => {
                write!(f, "mount the terminal's devpts on {}", text(target))
            }
            Step::MountCgroups { target, attr } => {
                write!(f, "mount cgroups on {}", text(target))?;
                write_attr(f, attr)
            }
            Step::MakeDevice(node) => write!(
                f,
                "make device {} {}:{} mode {:o}",
                text(&node.path),
                libc::major(node.device),
                libc::minor(node.device),
                node.mode & 0o7777
            ),
            Step::MakeLink { path, to } => write!(f, "link {} to {}", text(path), text(to)),
            Step::MountConsole => f.write_str("bind the terminal on /dev/console"),
            Step::Mask { path } => write!(f, "mask {}", text(path)),
            Step::MakeReadonly { path } => write!(f, "make {} read-only", text(path)),
            Step::SetAttributes { target, attr, .. } => {
                write!(f, "remount {}", text(target))?;
                write_attr(f, attr)
            }
            Step::SetSysctl { path, value } => {
                write!(f, "write {:?} to /proc/{}", text(value), text(path))
            }
            Step::SetHostname { name } => write!(f, "set host name {}", text(name)),
            Step::SetDomainname { name } => write!(f, "set domain name {}", text(name)),
            Step::Meet(Meeting::Namespaces) => {
                f.write_str("wait for prestart and createRuntime hooks")
            }
            Step::Meet(Meeting::Mounted) => f.write_str("wait for createContainer hooks"),
            Step::Meet(Meeting::Created) => f.write_str("wait for the start"),
            Step::PivotRoot => f.write_str("pivot into the root"),
            Step::SetRootPropagation { propagation } => {
                write!(f, "make the root mount {}", propagation_name(*propagation))
            }
            Step::SetOomScore { value } => write!(f, "set oom_score_adj to {}", text(value)),
            Step::SetRlimit {
                name, soft, hard, ..
            } => write!(f, "set rlimit {name} to {soft}:{hard}"),
            Step::ArrangeDescriptors { .. } => f.write_str("arrange file descriptors"),
            Step::ChangeDirectory { path, .. } => write!(f, "change directory to {}", text(path)),
            Step::LimitCapabilities => f.write_str("limit the capability bounding set"),
            Step::SetUser => f.write_str("set user and groups"),
            Step::SetCapabilities => f.write_str("set capabilities"),
            Step::NoNewPrivileges => f.write_str("forbid new privileges"),
            Step::LoadFilter => f.write_str("load the seccomp filter"),
            Step::FindProgram => f.write_str("find the program"),
            Step::ResetProcess { umask } => write!(f, "reset signals, set umask {umask:04o}"),
            Step::Execute => f.write_str("execute"),
        }
    }
}

fn write_attr(f: &mut fmt::Formatter<'_>, attr: &MountAttr) -> fmt::Result {
    const NAMES: [(u64, &str); 8] = [
        (attr::RDONLY, "ro"),
        (attr::NOSUID, "nosuid"),
        (attr::NODEV, "nodev"),
        (attr::NOEXEC, "noexec"),
        (attr::NOATIME, "noatime"),
        (attr::STRICTATIME, "strictatime"),
        (attr::NODIRATIME, "nodiratime"),
        (attr::NOSYMFOLLOW, "nosymfollow"),
    ];
    for (bit, name) in NAMES {
        if attr.set & bit != 0 {
            write!(f, " {name}")?;
        }
    }
    if attr.propagation != 0 {
        write!(f, " {}", propagation_name(attr.propagation))?;
    }
    Ok(())
}

/// mount(8)'s word for `MS_*` propagation flags.
pub(crate) fn propagation_name(flags: u64) -> &'static str {
    let recursive = flags & libc::MS_REC != 0;
    match flags & !libc::MS_REC {
        libc::MS_SHARED if recursive => "rshared",
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE if recursive => "rslave",
        libc::MS_SLAVE => "slave",
        libc::MS_UNBINDABLE if recursive => "runbindable",
        libc::MS_UNBINDABLE => "unbindable",
        _ if recursive => "rprivate",
        _ => "private",
    }
}

/// `MOUNT_ATTR_*` (`include/uapi/linux/mount.h`).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x01;
    pub(crate) const NOSUID: u64 = 0x02;
    pub(crate) const NODEV: u64 = 0x04;
    pub(crate) const NOEXEC: u64 = 0x08;
    pub(crate) const ATIME_MASK: u64 = 0x70;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}
