//! The parent's half of a launch: opens everything, clones, and turns the child's report into an answer.
//!
//! Everything that can fail for reasons a user understands happens here, in ordinary Rust, before the clone. A failure
//! afterwards undoes what was made: the child is reaped, the cgroup removed.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};

use super::child::{CgroupView, Context, Report};
use super::failure::{message, verdict};
use super::open::{Opened, open_everything};
use super::plan::{LaunchPlan, ROOT};
use super::{LaunchError, Launched, Stdio};
use crate::cgroup::Cgroup;
use crate::sys::clone::{Child, CloneRequest};
use crate::sys::kernel;

/// What a launch gets from its caller besides the plan.
pub(crate) struct Surroundings<'fd> {
    pub(crate) stdio: Option<Stdio<'fd>>,
    /// The running container an exec goes into.
    pub(crate) target: Option<Target<'fd>>,
    /// Descriptors of the staged start: the child's end of the meeting socket, and the FIFO.
    pub(crate) meeting: Option<(BorrowedFd<'fd>, BorrowedFd<'fd>)>,
}

/// A running container.
pub(crate) struct Target<'fd> {
    pub(crate) pidfd: BorrowedFd<'fd>,
    pub(crate) pid: i32,
    /// Its root directory.
    pub(crate) root: OwnedFd,
    /// Its pid namespace.
    pub(crate) pid_namespace: OwnedFd,
    pub(crate) cgroup: Option<Cgroup>,
}

/// Carries a plan out until the program runs, or until the child waits at its first meeting.
pub(crate) fn launch(plan: &LaunchPlan, around: Surroundings<'_>) -> Result<Running, LaunchError> {
    let opened = Box::new(open_everything(plan, &around)?);
    let outcome = clone_child(plan, &around, &opened);
    if outcome.is_err()
        && let Some(cgroup) = &opened.cgroup
    {
        cgroup.undo();
    }
    let (child, report) = outcome?;
    let terminal = match &opened.terminal {
        Some(terminal) => Some(
            terminal
                .master
                .try_clone()
                .map_err(|e| LaunchError::Step(message(&e)))?,
        ),
        None => None,
    };
    let warnings = opened.warnings.clone();
    if around.meeting.is_some() {
        // The child goes on reading all of this until it executes.
        Box::leak(opened);
    }
    Ok(Running {
        child,
        report,
        terminal,
        warnings,
    })
}

/// A cloned child.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) report: Box<Report>,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

impl From<Running> for Launched {
    fn from(running: Running) -> Launched {
        Launched {
            pid: running.child.pid,
            pidfd: running.child.pidfd,
            terminal: running.terminal,
            warnings: running.warnings,
        }
    }
}

/// Signals this process ignores, asked for once: it decides that at its start.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(kernel::ignored_signals)
}

/// Clones and waits for the program to run, or for the first meeting.
fn clone_child(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
    opened: &Opened,
) -> Result<(Child, Box<Report>), LaunchError> {
    let joined = opened.cgroup.as_ref();
    let born_in = joined
        .and_then(|joined| joined.born_in.as_ref())
        .map(AsRawFd::as_raw_fd);
    match clone_once(plan, around, opened, born_in) {
        // Before 5.7, or a cgroup whose controllers are handed on (an exec joins where the container's process is).
        Err(Attempt::Clone(error))
            if born_in.is_some()
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES)
                ) =>
        {
            clone_once(plan, around, opened, None).map_err(Attempt::into_error)
        }
        other => other.map_err(Attempt::into_error),
    }
}

enum Attempt {
    Clone(io::Error),
    Launch(LaunchError),
}

impl Attempt {
    fn into_error(self) -> LaunchError {
        match self {
            Attempt::Clone(error) => LaunchError::Step(format!(
                "clone the container's process: {}",
                message(&error)
            )),
            Attempt::Launch(error) => error,
        }
    }
}

fn clone_once(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
    opened: &Opened,
    born_in: Option<RawFd>,
) -> Result<(Child, Box<Report>), Attempt> {
    let mut joining: Vec<OwnedFd> = Vec::new();
    let mut cgroup_files: Vec<RawFd> = Vec::new();
    if let Some(joined) = &opened.cgroup {
        cgroup_files.extend(joined.files.iter().map(AsRawFd::as_raw_fd));
        if joined.born_in.is_some() && born_in.is_none() {
            let file = match &around.target {
                Some(target) => joined.cgroup.unified_procs_of(target.pid),
                None => joined.cgroup.unified_procs(),
            };
            joining.extend(file.map_err(|e| Attempt::Launch(LaunchError::Step(e.to_string())))?);
            cgroup_files.extend(joining.iter().map(AsRawFd::as_raw_fd));
        }
    }
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect()
    };
    let argv = pointers(&opened.argv);
    let envp = pointers(&opened.envp);
    let programs: Vec<&CStr> = opened.programs.iter().map(CString::as_c_str).collect();
    let hierarchies: Vec<(&CStr, RawFd)> = opened
        .view
        .hierarchies
        .iter()
        .map(|(name, fd)| (name.as_c_str(), fd.as_raw_fd()))
        .collect();
    let links: Vec<(&CStr, &CStr)> = opened
        .view
        .links
        .iter()
        .map(|(a, b)| (a.as_c_str(), b.as_c_str()))
        .collect();
    let view = CgroupView {
        unified: opened.view.unified,
        hierarchies: &hierarchies,
        links: &links,
    };
    let number = |fd: Option<&OwnedFd>| fd.map_or(-1, AsRawFd::as_raw_fd);
    let (stdio, terminal, devpts) = streams(around, opened);
    let (meeting, start_fifo) = around
        .meeting
        .map_or((-1, -1), |(a, b)| (a.as_raw_fd(), b.as_raw_fd()));
    let program_fd = number(opened.init.as_ref());
    let lowest = plan.process.preserve_fds.saturating_add(3) as RawFd;
    let mut kept: Vec<RawFd> = [meeting, start_fifo, program_fd]
        .into_iter()
        .filter(|fd| *fd >= lowest)
        .collect();
    kept.sort_unstable();
    let report = Box::new(Report::default());
    let root = match &around.target {
        Some(_) => -1,
        None => number(opened.sources.get(ROOT)),
    };
    let context = Box::new(Context {
        steps: &plan.steps,
        report: &report,
        fds: &opened.fds,
        root,
        host_proc: opened.host_proc.as_raw_fd(),
        null: number(opened.null.as_ref()),
        cgroup_files: &cgroup_files,
        cgroup_view: view,
        stdio,
        terminal,
        devpts,
        credentials: &opened.credentials,
        filter: &opened.filter.instructions,
        filter_flags: opened.filter.flags,
        programs: &programs,
        program_fd,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        ignored_signals: ignored_signals(),
        meeting,
        start_fifo,
        kept: &kept,
    });
    let staged = around.meeting.is_some();
    let request = CloneRequest {
        namespaces: plan.namespaces,
        suspend: !staged,
        into_cgroup: born_in,
    };
    let born = match birth_namespace(plan, around) {
        Ok(namespace) => InPidNamespace::enter(namespace).map_err(Attempt::Launch)?,
        Err(error) => return Err(Attempt::Launch(error)),
    };
    let child = super::clone(request, &context);
    drop(born);
    let child = child.map_err(Attempt::Clone)?;
    if staged {
        // The child goes on reading all of this until it executes; the caller keeps the plan and ends without freeing.
        Box::leak(context);
        std::mem::forget((
            argv,
            envp,
            programs,
            hierarchies,
            links,
            kept,
            cgroup_files,
            joining,
        ));
    } else {
        verdict(plan, &report, &child).map_err(Attempt::Launch)?;
    }
    Ok((child, report))
}

fn streams(around: &Surroundings<'_>, opened: &Opened) -> ([RawFd; 3], RawFd, RawFd) {
    match (&opened.terminal, around.stdio) {
        (Some(terminal), _) => {
            let slave = terminal.slave.as_raw_fd();
            (
                [slave; 3],
                slave,
                terminal.devpts.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            )
        }
        (None, Some(stdio)) => (
            [
                stdio.stdin.as_raw_fd(),
                stdio.stdout.as_raw_fd(),
                stdio.stderr.as_raw_fd(),
            ],
            -1,
            -1,
        ),
        (None, None) => ([-1; 3], -1, -1),
    }
}

/// The pid namespace to be born in, when it is an existing one.
fn birth_namespace(
    plan: &LaunchPlan,
    around: &Surroundings<'_>,
) -> Result<Option<OwnedFd>, LaunchError> {
    let failed = |error: io::Error| {
        LaunchError::Step(format!("open the pid namespace: {}", message(&error)))
    };
    match (&plan.join_pid, &around.target) {
        (Some(path), _) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(Some)
            .map_err(|errno| failed(errno.into())),
        (None, Some(target)) => target.pid_namespace.try_clone().map(Some).map_err(failed),
        (None, None) => Ok(None),
    }
}

/// While this lives, children of the calling thread are born in another pid namespace.
struct InPidNamespace(Option<OwnedFd>);

impl InPidNamespace {
    fn enter(namespace: Option<OwnedFd>) -> Result<InPidNamespace, LaunchError> {
        let Some(namespace) = namespace else {
            return Ok(InPidNamespace(None));
        };
        let failed = |error: io::Error| {
            LaunchError::Step(format!("join the pid namespace: {}", message(&error)))
        };
        let own = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| failed(errno.into()))?;
        kernel::enter(namespace.as_fd(), libc::CLONE_NEWPID).map_err(failed)?;
        Ok(InPidNamespace(Some(own)))
    }
}

impl Drop for InPidNamespace {
    fn drop(&mut self) {
        if let Some(own) = &self.0
            && let Err(error) = kernel::enter(own.as_fd(), libc::CLONE_NEWPID)
        {
            // Only possible if the kernel refuses a process its own namespace.
            tracing::error!(%error, "cannot return to the own pid namespace");
        }
    }
}
