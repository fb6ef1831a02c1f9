//! OCI hooks: programs of the caller's run at points of the life cycle, with the state on their standard input.
//!
//! A hook that fails before the start fails the verb; one that fails afterwards is logged (runtime-spec `lifecycle`).

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{OciError, failed, log::Log};

/// The hooks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<Hook>,
    pub(crate) create_runtime: Vec<Hook>,
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hook {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub(crate) timeout: Option<u64>,
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'fd> {
    /// The caller's namespaces.
    Runtime,
    /// The container's, joined through the pidfd of its process.
    Container(BorrowedFd<'fd>),
}

/// Runs hooks in order until one fails.
pub(crate) fn run(
    name: &str,
    hooks: &[Hook],
    state: &serde_json::Value,
    place: Place<'_>,
) -> Result<(), OciError> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state, place).map_err(|reason| {
            OciError::Status(format!(
                "error running {name} hook #{number} {}: {reason}",
                hook.path.display()
            ))
        })?;
    }
    Ok(())
}

/// Runs all hooks; failures are only logged.
pub(crate) fn run_logged(name: &str, hooks: &[Hook], state: &serde_json::Value, log: &Log) {
    for hook in hooks {
        if let Err(reason) = run_one(hook, state, Place::Runtime) {
            log.warning(&format!("{name} hook {}: {reason}", hook.path.display()));
        }
    }
}

fn run_one(hook: &Hook, state: &serde_json::Value, place: Place<'_>) -> Result<(), OciError> {
    if !hook.path.is_absolute() {
        return Err(OciError::Invalid("the path is not absolute".into()));
    }
    if hook.timeout == Some(0) {
        return Err(OciError::Invalid(
            "the timeout is not greater than zero".into(),
        ));
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    command.envs(
        hook.env
            .iter()
            .filter_map(|variable| variable.split_once('=')),
    );
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Place::Container(pidfd) = place {
        enter(
            &mut command,
            pidfd.try_clone_to_owned().map_err(failed("copy a pidfd"))?,
        );
    }
    let mut child = command.spawn().map_err(failed("start"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    let status = wait(&mut child, hook.timeout.map(Duration::from_secs))?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        use std::io::Read;
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    Err(OciError::Status(format!(
        "{status}, stderr: {}",
        text.trim()
    )))
}

/// Joins every namespace of the container but the pid namespace, whose processes a hook is not among.
#[allow(unsafe_code)]
fn enter(command: &mut Command, pidfd: std::os::fd::OwnedFd) {
    let flags = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: the closure makes one system call and does not allocate.
    unsafe {
        command.pre_exec(move || crate::sys::kernel::enter(pidfd.as_fd(), flags));
    }
}

/// Waits without polling: the pidfd becomes readable, or the time is over and the hook is killed.
fn wait(
    child: &mut Child,
    timeout: Option<Duration>,
) -> Result<std::process::ExitStatus, OciError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let (Some(timeout), Some(pid)) = (timeout, pid) {
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|errno| failed("watch")(errno.into()))?;
        let limit = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit));
        if matches!(ready, Ok(0)) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(OciError::Status(format!(
                "timed out after {}s",
                timeout.as_secs()
            )));
        }
    }
    child.wait().map_err(failed("wait"))
}
