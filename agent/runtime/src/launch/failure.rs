//! What a child's report means: the error of a failed step, in Docker's words where Docker has some.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::LaunchError;
use super::child::Report;
use super::plan::LaunchPlan;
use super::step::{Part, Step};
use crate::sys::clone::Child;

/// Reads the report of a child that has executed or ended; reaps one that failed.
pub(crate) fn verdict(
    plan: &LaunchPlan,
    report: &Report,
    child: &Child,
) -> Result<(), LaunchError> {
    let errno = report.errno.load(Ordering::Acquire);
    if errno == 0 && report.executing.load(Ordering::Acquire) == 1 {
        return Ok(());
    }
    let status = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    let step = plan.steps.get(report.step.load(Ordering::Acquire) as usize);
    if errno == 0 {
        let how = match status
            .ok()
            .flatten()
            .and_then(|status| status.terminating_signal())
        {
            Some(signal) => format!("was killed by signal {signal}"),
            None => "ended".to_owned(),
        };
        let where_ = step.map_or_else(|| "at its start".to_owned(), |step| format!("at: {step}"));
        return Err(LaunchError::Step(format!(
            "the container's process {how} {where_}"
        )));
    }
    let part = Part::from_number(report.part.load(Ordering::Acquire));
    Err(explain(plan, step, part, errno))
}

/// The error of a step, in Docker's words where Docker has some.
fn explain(plan: &LaunchPlan, step: Option<&Step>, part: Part, errno: i32) -> LaunchError {
    let reason = message(&io::Error::from_raw_os_error(errno));
    let program = plan.process.args.first().map_or("", String::as_str);
    match (part, errno) {
        (Part::Program, libc::ENOENT | libc::ENOTDIR) if !program.contains('/') => {
            return LaunchError::NotFound(format!(
                "exec: {program:?}: executable file not found in $PATH"
            ));
        }
        (Part::Program, libc::ENOENT) => {
            return LaunchError::NotFound(format!("exec: {program:?}: stat {program}: {reason}"));
        }
        (Part::Program, _) => {
            return LaunchError::NotExecutable(format!("exec: {program:?}: {reason}"));
        }
        (Part::Interpreter, _) => {
            return LaunchError::NotFound(format!("exec {program}: {reason}"));
        }
        _ => {}
    }
    let what = step.map_or_else(|| "launch".to_owned(), Step::to_string);
    match part {
        Part::MountPoint => LaunchError::Step(format!("{what}: make the mount point: {reason}")),
        Part::OutsideRoot => {
            LaunchError::Step(format!("{what}: it is outside the container's root"))
        }
        Part::NoNullDevice => {
            LaunchError::Step(format!("{what}: there is no null device to cover it with"))
        }
        Part::Whole | Part::Program | Part::Interpreter => match (step, errno) {
            (Some(Step::MountDetached { .. }), libc::ENOTDIR | libc::EINVAL) => {
                LaunchError::Step(format!(
                    "{what}: are you trying to mount a directory onto a file (or vice-versa)? check that \
                 the host path exists and is the expected type"
                ))
            }
            (Some(Step::ChangeDirectory { .. }), libc::ENOENT) => {
                LaunchError::NotFound(format!("{what}: {reason}"))
            }
            (Some(Step::ChangeDirectory { .. }), libc::ENOTDIR | libc::EACCES) => {
                LaunchError::NotExecutable(format!("{what}: {reason}"))
            }
            _ => LaunchError::Step(format!("{what}: {reason}")),
        },
    }
}

/// A kernel error in lower case without Rust's error number.
pub(crate) fn message(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
