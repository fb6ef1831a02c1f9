//! Starting a container: a pure plan, then one clone that carries it out.
//!
//! ```text
//! prepare(spec) → plan            pure; what to open, what to do, in order           plan, values, step, sysctl
//! spawn(plan)   parent            opens root and binds as detached mounts, resolves
//!                                 the user, compiles the filter, makes the cgroup    open
//!               child             shares the parent's memory, does the steps with
//!                                 bare system calls, executes                        child
//!               parent, resumed   success, or (step, errno) → message and undo       parent, failure
//! ```
//!
//! The calling thread is suspended while the child works (`CLONE_VFORK`), so there is no handshake and nothing to time
//! out. A staged launch, for the OCI life cycle, meets its parent over a socket instead.

mod child;
mod failure;
mod missing;
mod open;
pub(crate) mod parent;
pub(crate) mod plan;
pub(crate) mod remount;
pub(crate) mod step;
mod sysctl;
#[cfg(test)]
mod tests;
mod values;

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::spec::LaunchSpec;

pub(crate) use failure::message;
pub use plan::LaunchPlan;

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program does not exist in the container: Docker's exit code 127.
    #[error("{0}")]
    NotFound(String),
    /// The program cannot be executed: Docker's exit code 126.
    #[error("{0}")]
    NotExecutable(String),
    /// The specification asks for what makes no sense or is not supported.
    #[error("{0}")]
    Invalid(String),
    /// A step failed: Docker's exit code 125.
    #[error("{0}")]
    Step(String),
}

impl LaunchError {
    /// The exit code Docker gives a container that could not start.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::NotFound(_) => 127,
            LaunchError::NotExecutable(_) => 126,
            LaunchError::Invalid(_) | LaunchError::Step(_) => 125,
        }
    }
}

/// The three standard streams of a process without a terminal. The descriptors stay the caller's.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'fd> {
    /// Descriptor 0.
    pub stdin: BorrowedFd<'fd>,
    /// Descriptor 1.
    pub stdout: BorrowedFd<'fd>,
    /// Descriptor 2.
    pub stderr: BorrowedFd<'fd>,
}

/// A process that runs its program: the caller's child, to be waited for by the caller.
#[derive(Debug)]
pub struct Launched {
    /// Process id as the caller's pid namespace numbers it.
    pub pid: i32,
    /// Becomes readable when the process ends; wait with `waitid(P_PIDFD)`.
    pub pidfd: OwnedFd,
    /// Master side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// Things the user should know, e.g. limits the kernel ignores.
    pub warnings: Vec<String>,
}

/// Decides every step. Pure: no file is opened, no system call made.
pub fn prepare(spec: &LaunchSpec) -> Result<LaunchPlan, LaunchError> {
    plan::container(spec, plan::Start::Immediate)
}

/// Carries a plan out. Returns when the program runs or the launch failed and is undone (cgroup removed, child reaped).
///
/// Call it from a small process; the calling thread alone is suspended meanwhile. `stdio` is needed unless the process
/// has a terminal.
pub fn spawn(plan: &LaunchPlan, stdio: Option<Stdio<'_>>) -> Result<Launched, LaunchError> {
    parent::launch(
        plan,
        parent::Surroundings {
            stdio,
            target: None,
            meeting: None,
        },
    )
    .map(Launched::from)
}

/// A child that meets its parent on its way, for the OCI life cycle.
pub(crate) struct Staged {
    plan: &'static LaunchPlan,
    running: parent::Running,
}

impl Staged {
    /// Clones a child that tells of its meetings through `meeting` and starts when a byte comes out of `start`. What it
    /// reads stays in this process' memory until it executes: never call this from a process that lives on.
    pub(crate) fn spawn(
        spec: &LaunchSpec,
        stdio: Stdio<'_>,
        meeting: BorrowedFd<'_>,
        start: BorrowedFd<'_>,
    ) -> Result<Staged, LaunchError> {
        let plan: &'static LaunchPlan =
            Box::leak(Box::new(plan::container(spec, plan::Start::Staged)?));
        let around = parent::Surroundings {
            stdio: Some(stdio),
            target: None,
            meeting: Some((meeting, start)),
        };
        Ok(Staged {
            plan,
            running: parent::launch(plan, around)?,
        })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.child.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.running.child.pidfd)
    }

    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        self.running.terminal.as_ref()
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.running.warnings
    }

    /// Why the child ended before it was created.
    pub(crate) fn failure(&self) -> LaunchError {
        match failure::verdict(self.plan, &self.running.report, &self.running.child) {
            Err(error) => error,
            Ok(()) => {
                LaunchError::Step("the container's process ended before it was created".into())
            }
        }
    }

    /// The child waits for its start: its memory and stack are left to it.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

/// Clones a child that interprets the context's steps.
#[allow(unsafe_code)]
fn clone(
    request: crate::sys::clone::CloneRequest,
    context: &child::Context<'_>,
) -> std::io::Result<crate::sys::clone::Child> {
    // SAFETY: `child::run` keeps the rules of the clone. The context and what it borrows outlive the child's use: the
    // caller is suspended until the child executes or ends, or keeps everything (see `parent`).
    unsafe {
        crate::sys::clone::clone_onto_stack(
            request,
            child::run,
            std::ptr::from_ref(context).cast_mut(),
        )
    }
}
