//! x
use crate::connect::Session;
use crate::failure::Outcome;
use clap::Args;

/// Check whether this machine can run containers, and say what is missing
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {}

pub(crate) async fn run(_session: &Session, _args: &DoctorArgs) -> Outcome {
    Ok(0)
}
