//! A further process in a running container.
//!
//! Order (CVE-2024-21626 and runc's `nsexec.c` are the reasons): cgroup, then all namespaces at once through the pidfd
//! of the container's first process, born in its pid namespace, then user, filter and program as in a launch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::cgroup::Hierarchy;
use crate::launch::message;
use crate::launch::parent::{self, Surroundings, Target};
use crate::launch::{LaunchError, Launched, Stdio, plan};
use crate::spec::ExecSpec;

/// Namespaces an exec joins, by their names in `/proc/PID/ns`.
const SHARED: [(&str, i32); 5] = [
    ("mnt", libc::CLONE_NEWNS),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

/// Starts a process in the container whose first process `target` is. Same rules as [`crate::launch::spawn`].
pub fn spawn(
    spec: &ExecSpec,
    target: BorrowedFd<'_>,
    stdio: Option<Stdio<'_>>,
) -> Result<Launched, LaunchError> {
    let pid = spec.target_pid;
    let failed = |what: &str, error: io::Error| {
        LaunchError::Step(format!(
            "{what} of the container's process {pid}: {}",
            message(&error)
        ))
    };
    let open = |name: &str, flags: OFlags| -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(
            format!("/proc/{pid}/{name}"),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    };
    let pid_namespace =
        open("ns/pid", OFlags::RDONLY).map_err(|error| failed("open the pid namespace", error))?;
    let root = open("root", OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|error| failed("open the root", error))?;
    let flags =
        differing_namespaces(pid).map_err(|error| failed("compare the namespaces", error))?;
    // The number meant the container all along if its process is still alive now.
    if !is_alive(target).map_err(|error| failed("look at the pidfd", error))? {
        return Err(LaunchError::Step(format!(
            "the container's process {pid} has ended"
        )));
    }
    let cgroup = match &spec.cgroup {
        Some(path) => {
            let hierarchy =
                Hierarchy::detect().map_err(|error| LaunchError::Step(error.to_string()))?;
            Some(hierarchy.open(path))
        }
        None => None,
    };
    let plan = plan::exec(&spec.process, spec.cgroup.as_ref(), flags)?;
    let target = Target {
        pidfd: target,
        pid,
        root,
        pid_namespace,
        cgroup,
    };
    parent::launch(
        &plan,
        Surroundings {
            stdio,
            target: Some(target),
            meeting: None,
        },
    )
    .map(Launched::from)
}

/// Namespaces that are not the caller's already. Joining one's own mount namespace would only cost.
fn differing_namespaces(pid: i32) -> io::Result<i32> {
    let mut flags = 0;
    for (name, flag) in SHARED {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}"))?;
        let other = std::fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        if own != other {
            flags |= flag;
        }
    }
    Ok(flags)
}

fn is_alive(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&now))? == 0)
}
