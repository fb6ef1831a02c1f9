//! `kill`, `pause`, `resume`, `delete`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::args::{DeleteArgs, KillArgs};
use super::log::Log;
use super::state::{Container, Record, Status, Store};
use super::{OciError, failed, hooks};
use crate::cgroup::{CgroupError, Hierarchy};
use crate::sys::kernel::pidfd_send_signal;

/// Sends a signal.
pub(super) fn kill(store: &Store, args: &KillArgs) -> Result<(), OciError> {
    let signal = signal_number(&args.signal)?;
    let container = store.open(&args.id)?;
    if args.all {
        return kill_all(&container, signal);
    }
    let Some(process) = container.process() else {
        return Err(OciError::Status("container not running".into()));
    };
    send(process.as_fd(), signal)?;
    // A frozen process dies only when it runs again.
    if signal == libc::SIGKILL && container.status() == Status::Paused {
        container.cgroup()?.thaw()?;
    }
    Ok(())
}

fn kill_all(container: &Container, signal: i32) -> Result<(), OciError> {
    let cgroup = container.cgroup()?;
    if signal == libc::SIGKILL {
        return Ok(cgroup.kill()?);
    }
    for pid in cgroup.processes()? {
        let Some(pid) = rustix::process::Pid::from_raw(pid) else {
            continue;
        };
        if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            send(pidfd.as_fd(), signal)?;
        }
    }
    Ok(())
}

fn send(process: BorrowedFd<'_>, signal: i32) -> Result<(), OciError> {
    match pidfd_send_signal(process, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Err(OciError::Status("container not running".into()))
        }
        other => other.map_err(failed("send the signal")),
    }
}

/// `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3`.
fn signal_number(text: &str) -> Result<i32, OciError> {
    let invalid = || OciError::Invalid(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| invalid())?
        };
        return if (0..=30).contains(&offset) {
            Ok(34 + offset)
        } else {
            Err(invalid())
        };
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| invalid())?
        };
        return if (-30..=0).contains(&offset) {
            Ok(64 + offset)
        } else {
            Err(invalid())
        };
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| invalid())
}

/// Suspends.
pub(super) fn pause(store: &Store, id: &str) -> Result<(), OciError> {
    let container = store.open(id)?;
    match container.status() {
        Status::Running | Status::Created => Ok(container.cgroup()?.freeze()?),
        other => Err(OciError::Status(format!(
            "cannot pause a {} container",
            other.name()
        ))),
    }
}

/// Resumes.
pub(super) fn resume(store: &Store, id: &str) -> Result<(), OciError> {
    let container = store.open(id)?;
    match container.status() {
        Status::Paused => Ok(container.cgroup()?.thaw()?),
        other => Err(OciError::Status(format!(
            "cannot resume a {} container",
            other.name()
        ))),
    }
}

/// Whether a running container is killed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Force {
    Yes,
    No,
}

/// Removes a stopped container.
pub(super) fn delete(store: &Store, args: &DeleteArgs, log: &Log) -> Result<(), OciError> {
    delete_by_id(
        store,
        &args.id,
        if args.force { Force::Yes } else { Force::No },
        log,
    )
}

pub(super) fn delete_by_id(
    store: &Store,
    id: &str,
    force: Force,
    log: &Log,
) -> Result<(), OciError> {
    let container = match store.open(id) {
        Ok(container) => container,
        Err(OciError::NoSuchContainer(_)) if force == Force::Yes => {
            // What a creation that was cut off left behind, if anything.
            store.remove_unfinished(id)?;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match container.status() {
        Status::Stopped => {}
        // Nothing of the user's has run yet.
        Status::Created => end(&container)?,
        _ if force == Force::Yes => end(&container)?,
        other => {
            return Err(OciError::Status(format!(
                "cannot delete container {id} that is not stopped: {}",
                other.name()
            )));
        }
    }
    // Processes besides the first one may be left when it shared the host's pid namespace.
    let cgroup = container.cgroup()?;
    if cgroup.exists() {
        cgroup.kill()?;
    }
    remove_cgroup(&container.record, log);
    let record = container.record.clone();
    container.remove()?;
    hooks::run_logged(
        "poststop",
        &record.hooks.poststop,
        &record.to_state(Status::Stopped),
        log,
    );
    Ok(())
}

/// Kills the first process and waits for its end.
fn end(container: &Container) -> Result<(), OciError> {
    let Some(process) = container.process() else {
        return Ok(());
    };
    match pidfd_send_signal(process.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            return Err(failed("kill the container")(error));
        }
        _ => {}
    }
    container.cgroup()?.kill()?;
    wait_readable(process.as_fd())
}

fn wait_readable(pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))
        .map(|_| ())
        .map_err(|errno| failed("wait for the container's end")(errno.into()))
}

/// Removes the cgroup; one that is still in use is waited for by waiting for its processes.
pub(super) fn remove_cgroup(record: &Record, log: &Log) {
    let Ok(hierarchy) = Hierarchy::detect() else {
        return;
    };
    let cgroup = hierarchy.open(&record.cgroup);
    let result = match cgroup.remove() {
        Err(CgroupError::Busy { .. }) => {
            for pid in cgroup.processes().unwrap_or_default() {
                let Some(pid) = rustix::process::Pid::from_raw(pid) else {
                    continue;
                };
                if let Ok(pidfd) =
                    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                {
                    let _ = wait_readable(pidfd.as_fd());
                }
            }
            cgroup.remove()
        }
        other => other,
    };
    if let Err(error) = result {
        log.warning(&error.to_string());
    }
}

/// Deletes what was made before an error and gives the error back.
pub(super) fn undo(store: &Store, id: &str, log: &Log, error: OciError) -> Result<(), OciError> {
    if let Err(second) = delete_by_id(store, id, Force::Yes, log) {
        log.warning(&second.to_string());
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigkill", 9),
            ("SIGTERM", 15),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for bad in ["", "65", "-1", "SIGFOO", "RTMIN+99"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }
}
