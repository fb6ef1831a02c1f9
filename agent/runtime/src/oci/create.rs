//! `create`, `start` and `run`.
//!
//! ```text
//! create                      child                                 start
//!   clone ──────────────────▶ namespaces
//!   prestart, createRuntime ◀─ meeting: namespaces
//!   ─────────────────────────▶ root and mounts
//!   createContainer         ◀─ meeting: mounted
//!   ─────────────────────────▶ pivot, user, program looked for
//!   state, pid file, console◀─ meeting: created
//!   exit                       read(FIFO) ◀────────────────────────  startContainer, one byte, remove the FIFO
//!                              filter, capabilities, exec            poststart
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};

use super::args::{CreateArgs, RunArgs};
use super::bundle::{self, Bundle};
use super::hooks::{self, Place};
use super::log::Log;
use super::state::{Record, Status, Store, process_stat};
use super::{OciError, console, failed, kill};
use crate::launch::{Staged, Stdio};

/// Makes a container whose process waits to be started.
pub(super) fn create(store: &Store, args: &CreateArgs, log: &Log) -> Result<(), OciError> {
    let terminal = make(store, args, log)?;
    debug_assert!(terminal.is_none() || args.console_socket.is_none());
    if terminal.is_some() {
        return kill::undo(
            store,
            &args.id,
            log,
            OciError::Invalid("a terminal needs --console-socket".into()),
        );
    }
    Ok(())
}

/// Creates; gives the terminal back if nobody else takes it.
fn make(store: &Store, args: &CreateArgs, log: &Log) -> Result<Option<OwnedFd>, OciError> {
    let mut bundle = bundle::load(&args.bundle, &args.id, log)?;
    bundle.spec.process.preserve_fds = args.preserve_fds;
    bundle.spec.process.keep_keyring = args.no_new_keyring;
    if args.console_socket.is_some() && bundle.spec.process.terminal.is_none() {
        return Err(OciError::Invalid(
            "--console-socket is given but process.terminal is false".into(),
        ));
    }
    let claim = store.claim(&args.id)?;
    let fifo = claim.fifo();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .map_err(|errno| failed(format!("make {}", fifo.display()))(errno.into()))?;
    // Open for both, reading never sees an end while nobody writes.
    let start = rustix::fs::open(&fifo, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(format!("open {}", fifo.display()))(errno.into()))?;
    let (own_end, child_end) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let stdio = Stdio {
        stdin: rustix::stdio::stdin(),
        stdout: rustix::stdio::stdout(),
        stderr: rustix::stdio::stderr(),
    };
    let staged = Staged::spawn(&bundle.spec, stdio, child_end.as_fd(), start.as_fd())?;
    drop(child_end);
    for warning in staged.warnings() {
        log.warning(warning);
    }
    log.debug(&format!("cloned process {}", staged.pid()));
    let record = record(&args.id, &bundle, staged.pid());
    let outcome = accompany(&own_end, &staged, &bundle, &record);
    let finished = outcome.and_then(|()| {
        let mut terminal = None;
        if let Some(master) = staged.terminal() {
            match &args.console_socket {
                Some(socket) => console::send(socket, master.as_fd())?,
                None => terminal = Some(master.try_clone().map_err(failed("copy the terminal"))?),
            }
        }
        claim.finish(&record)?;
        if let Some(path) = &args.pid_file {
            write_pid_file(path, staged.pid())?;
        }
        Ok(terminal)
    });
    match finished {
        Ok(terminal) => {
            staged.leave();
            Ok(terminal)
        }
        Err(error) => {
            let _ = crate::sys::kernel::pidfd_send_signal(staged.pidfd(), libc::SIGKILL);
            let ended = rustix::process::waitid(
                rustix::process::WaitId::PidFd(staged.pidfd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            log.debug(&format!("undone: {ended:?}"));
            kill::remove_cgroup(&record, log);
            Err(error)
        }
    }
}

/// Goes through the meetings with the child until it is created.
fn accompany(
    stream: &UnixStream,
    staged: &Staged,
    bundle: &Bundle,
    record: &Record,
) -> Result<(), OciError> {
    // In the order of `launch::step::Meeting`.
    const NAMESPACES: u8 = 0;
    const MOUNTED: u8 = 1;
    let creating = record.to_state(Status::Creating);
    loop {
        let mut byte = [0u8; 1];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(stream, &mut byte))
            .map_err(|errno| failed("wait for the container's process")(errno.into()))?;
        if count == 0 {
            return Err(staged.failure().into());
        }
        match byte[0] {
            NAMESPACES => {
                hooks::run(
                    "prestart",
                    &bundle.hooks.prestart,
                    &creating,
                    Place::Runtime,
                )?;
                hooks::run(
                    "createRuntime",
                    &bundle.hooks.create_runtime,
                    &creating,
                    Place::Runtime,
                )?;
            }
            MOUNTED => {
                let place = Place::Container(staged.pidfd());
                hooks::run(
                    "createContainer",
                    &bundle.hooks.create_container,
                    &creating,
                    place,
                )?;
            }
            _ => return Ok(()),
        }
        rustix::io::write(stream, &byte)
            .map_err(|errno| failed("answer the container's process")(errno.into()))?;
    }
}

fn record(id: &str, bundle: &Bundle, pid: i32) -> Record {
    let cgroup = bundle
        .spec
        .cgroup
        .as_ref()
        .map(|cgroup| cgroup.path.clone())
        .expect("a bundle always has a cgroup");
    Record {
        id: id.to_owned(),
        pid,
        start_time: process_stat(pid).map_or(0, |stat| stat.start_time),
        bundle: bundle.directory.clone(),
        rootfs: bundle.rootfs.clone(),
        cgroup,
        created: jiff::Timestamp::now().to_string(),
        annotations: bundle.annotations.clone(),
        hooks: bundle.hooks.clone(),
        keep_keyring: bundle.spec.process.keep_keyring,
    }
}

/// Written beside and renamed: whoever waits for the file never sees it half.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<(), OciError> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let new = path.with_file_name(format!(".{name}"));
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(failed(format!("write {}", path.display())))
}

/// Starts a created container.
pub(super) fn start(store: &Store, id: &str, log: &Log) -> Result<(), OciError> {
    let container = store.open(id)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(OciError::Status(
                "cannot start a container that has stopped".into(),
            ));
        }
        other => {
            return Err(OciError::Status(format!(
                "cannot start an already {} container",
                other.name()
            )));
        }
    }
    let fifo = container.fifo();
    let created = container.record.to_state(Status::Created);
    if !container.record.hooks.start_container.is_empty() {
        let pidfd = container
            .process()
            .ok_or_else(|| OciError::Status("the container has stopped".into()))?;
        hooks::run(
            "startContainer",
            &container.record.hooks.start_container,
            &created,
            Place::Container(pidfd.as_fd()),
        )?;
    }
    // Without a reader the process is gone.
    let writer = rustix::fs::open(
        &fifo,
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed("start: the container's process is not waiting")(errno.into()))?;
    rustix::io::write(&writer, b"0").map_err(|errno| failed("start")(errno.into()))?;
    std::fs::remove_file(&fifo).map_err(failed(format!("remove {}", fifo.display())))?;
    let running = container.record.to_state(Status::Running);
    hooks::run_logged(
        "poststart",
        &container.record.hooks.poststart,
        &running,
        log,
    );
    Ok(())
}

/// Creates and starts; in the foreground also waits and deletes.
pub(super) fn run(store: &Store, args: &RunArgs, log: &Log) -> Result<ExitCode, OciError> {
    let id = &args.create.id;
    // The container's processes are ours even when their parents end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| failed("become a subreaper")(e.into()))?;
    let terminal = make(store, &args.create, log)?;
    if args.detach && terminal.is_some() {
        let error = OciError::Invalid("a terminal needs --console-socket when detached".into());
        return kill::undo(store, id, log, error).map(|()| ExitCode::SUCCESS);
    }
    let container = store.open(id)?;
    let pid = container.record.pid;
    let pidfd = container.process();
    drop(container);
    if let Err(error) = start(store, id, log) {
        return kill::undo(store, id, log, error).map(|()| ExitCode::SUCCESS);
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let Some(pidfd) = pidfd else {
        return Err(OciError::Status(
            "the container's process ended at once".into(),
        ));
    };
    let code = wait_in_foreground(pid, pidfd.as_fd(), terminal.as_ref())?;
    if !args.keep {
        kill::delete_by_id(store, id, kill::Force::Yes, log)?;
    }
    Ok(ExitCode::from(code))
}

/// Forwards signals (and the terminal) to a child until it ends; its exit code.
pub(super) fn wait_in_foreground(
    pid: i32,
    pidfd: std::os::fd::BorrowedFd<'_>,
    terminal: Option<&OwnedFd>,
) -> Result<u8, OciError> {
    use nix::sys::signal::{SigSet, Signal};
    let mut forwarded = SigSet::all();
    for own in [
        Signal::SIGCHLD,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGURG,
    ] {
        forwarded.remove(own);
    }
    forwarded
        .thread_block()
        .map_err(|errno| failed("block signals")(errno.into()))?;
    let target = pidfd.try_clone_to_owned().map_err(failed("copy a pidfd"))?;
    let master = terminal
        .map(OwnedFd::try_clone)
        .transpose()
        .map_err(failed("copy the terminal"))?;
    std::thread::spawn(move || {
        while let Ok(signal) = forwarded.wait() {
            match (signal, &master) {
                (Signal::SIGWINCH, Some(master)) => {
                    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
                        let _ = rustix::termios::tcsetwinsize(master, size);
                    }
                }
                _ => {
                    let _ = crate::sys::kernel::pidfd_send_signal(target.as_fd(), signal as i32);
                }
            }
        }
    });
    if let Some(master) = terminal {
        console::pass_through(master.as_fd())?;
    }
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(
            rustix::process::WaitId::PidFd(pidfd),
            rustix::process::WaitIdOptions::EXITED,
        )
    })
    .map_err(|errno| failed(format!("wait for process {pid}"))(errno.into()))?;
    let code = status.and_then(|status| {
        status
            .exit_status()
            .or(status.terminating_signal().map(|s| s + 128))
    });
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
