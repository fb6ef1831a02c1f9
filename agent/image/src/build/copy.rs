//! `COPY`, `ADD` and `WORKDIR`.

use agent_build::plan::{CopyOp, MakeDirOp};
use tokio_util::sync::CancellationToken;

use super::error::Result;
use super::{View, Work};

/// Carries out a copy: writes what changes into `work`. `inputs` are the vertex's, in its order.
///
/// # Errors
/// The first problem; `work` is to be dropped then.
pub fn copy(op: &CopyOp, inputs: &[View], work: &Work, cancel: &CancellationToken) -> Result<()> {
    let _ = (op, inputs, work, cancel);
    todo!()
}

/// Makes a directory where there is none: writes what changes into `work`. `inputs` are the vertex's, in its order.
///
/// # Errors
/// The first problem; `work` is to be dropped then.
pub fn make_directory(op: &MakeDirOp, inputs: &[View], work: &Work) -> Result<()> {
    let _ = (op, inputs, work);
    todo!()
}
