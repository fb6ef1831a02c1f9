//! A further process in a running container.

use std::os::fd::BorrowedFd;

use crate::launch::{LaunchError, Launched, Stdio};
use crate::spec::ExecSpec;

/// Starts a process in the container whose first process `target` is. Same rules as [`crate::launch::spawn`].
pub fn spawn(
    spec: &ExecSpec,
    target: BorrowedFd<'_>,
    stdio: Option<Stdio<'_>>,
) -> Result<Launched, LaunchError> {
    todo!("{spec:?} {target:?} {stdio:?}")
}
