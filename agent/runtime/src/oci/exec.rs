//! `exec`: a further process in a container.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::ExecArgs;
use super::log::Log;
use super::state::{Status, Store};
use super::{OciError, bundle, console, create};
use crate::capabilities::CapabilitySet;
use crate::launch::Stdio;
use crate::spec::{ExecSpec, Process, TerminalSize};

/// Runs it; in the foreground gives its exit code.
pub(super) fn exec(store: &Store, args: &ExecArgs, log: &Log) -> Result<ExitCode, OciError> {
    let container = store.open(&args.id)?;
    let status = container.status();
    match status {
        Status::Created | Status::Running => {}
        Status::Paused => return Err(OciError::Status("cannot exec in a paused container".into())),
        other => {
            return Err(OciError::Status(format!(
                "cannot exec in a {} container",
                other.name()
            )));
        }
    }
    let target = container
        .process()
        .ok_or_else(|| OciError::Status("cannot exec in a stopped container".into()))?;
    let own = bundle::load(&container.record.bundle, &args.id, log)?
        .spec
        .process;
    let mut process = process(args, own, log)?;
    process.preserve_fds = args.preserve_fds;
    process.keep_keyring = container.record.keep_keyring;
    if args.console_socket.is_some() && process.terminal.is_none() {
        return Err(OciError::Invalid(
            "--console-socket is given but no terminal is asked for".into(),
        ));
    }
    if args.detach && process.terminal.is_some() && args.console_socket.is_none() {
        return Err(OciError::Invalid(
            "a terminal needs --console-socket when detached".into(),
        ));
    }
    let spec = ExecSpec {
        target_pid: container.record.pid,
        cgroup: Some(container.record.cgroup.clone()),
        process,
    };
    // Waiting must not keep others from the container.
    drop(container);
    let stdio = Stdio {
        stdin: rustix::stdio::stdin(),
        stdout: rustix::stdio::stdout(),
        stderr: rustix::stdio::stderr(),
    };
    let started = crate::exec::spawn(&spec, target.as_fd(), Some(stdio))?;
    if let (Some(socket), Some(master)) = (&args.console_socket, &started.terminal) {
        console::send(socket, master.as_fd())?;
    }
    if let Some(path) = &args.pid_file {
        create::write_pid_file(path, started.pid)?;
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let terminal = started
        .terminal
        .as_ref()
        .filter(|_| args.console_socket.is_none());
    create::wait_in_foreground(started.pid, started.pidfd.as_fd(), terminal).map(ExitCode::from)
}

/// The process from `--process`, or the container's own with what the flags change.
fn process(args: &ExecArgs, own: Process, log: &Log) -> Result<Process, OciError> {
    if let Some(path) = &args.process {
        let mut value = bundle::read_json(path)?;
        // Some callers leave the member out.
        if value.get("cwd").is_none() {
            value["cwd"] = "/".into();
        }
        let from = serde_json::from_value(value).map_err(|error| {
            OciError::Invalid(format!("process in {}: {error}", path.display()))
        })?;
        let mut process = bundle::translate_process(&from, log)?;
        process.seccomp = own.seccomp;
        return Ok(process);
    }
    if args.command.is_empty() {
        return Err(OciError::Invalid(
            "exec needs a command or --process".into(),
        ));
    }
    let mut process = own;
    process.args = args.command.clone();
    process.terminal = args.tty.then(TerminalSize::default);
    process.env.extend(args.env.iter().cloned());
    process.no_new_privileges |= args.no_new_privs;
    if let Some(cwd) = &args.cwd {
        process.cwd = PathBuf::from(cwd);
    }
    if let Some(user) = &args.user {
        let numeric = user.split(':').all(|id| id.parse::<u32>().is_ok());
        if !numeric {
            return Err(OciError::Invalid(format!("user {user:?} is not UID[:GID]")));
        }
        process.user = if user.contains(':') {
            user.clone()
        } else {
            format!("{user}:0")
        };
    }
    process
        .additional_groups
        .extend(args.additional_gids.iter().map(u32::to_string));
    let more = CapabilitySet::from_names(&args.cap)
        .map_err(|error| OciError::Invalid(error.to_string()))?;
    let sets = &mut process.capabilities;
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        *set = set.union(more);
    }
    Ok(process)
}
