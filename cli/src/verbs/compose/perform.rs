//! Executes a plan with its progress on stderr, and Ctrl-C as cancellation.

use super::project::{ProgressMode, ProjectFlags};
use crate::failure::Failure;
use crate::out;
use crate::render::progress::Progress;
use agent_api::Client;
use compose::{ExecuteOptions, Plan};
use std::time::Duration;
use tokio::sync::watch;

/// Exit code of an interrupted command.
pub(super) const INTERRUPTED: u8 = 130;

/// How progress is to look.
pub(super) fn progress(flags: &ProjectFlags) -> Progress {
    match flags.progress_mode() {
        ProgressMode::Tty => Progress::live(),
        ProgressMode::Auto if flags.coloured(out::stderr_is_terminal()) => Progress::live(),
        ProgressMode::Auto | ProgressMode::Plain => Progress::Plain,
        ProgressMode::Json => Progress::Json,
        ProgressMode::Quiet => Progress::Quiet,
    }
}

pub(super) fn options(flags: &ProjectFlags, wait_timeout: Option<Duration>) -> ExecuteOptions {
    let limit = match flags.parallel {
        0 => std::env::var("COMPOSE_PARALLEL_LIMIT")
            .ok()
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(0),
        limit => limit,
    };
    let default = ExecuteOptions::default();
    let parallel = match limit {
        0 => default.parallel,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    ExecuteOptions {
        parallel,
        wait_timeout,
    }
}

/// Runs a plan to its end. The first Ctrl-C begins nothing more and lets requests under way finish (exit 130).
pub(super) async fn execute(
    client: &Client,
    plan: &Plan,
    flags: &ProjectFlags,
    wait_timeout: Option<Duration>,
) -> anyhow::Result<()> {
    let (cancel, cancelled) = watch::channel(false);
    let mut progress = progress(flags);
    progress.begin(plan);
    let mut show = |event: compose::Event<'_>| progress.event(&event);
    let options = options(flags, wait_timeout);
    let run = compose::execute(client, plan, &options, cancelled, &mut show);
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = cancel.send(true);
        }
        std::future::pending::<()>().await
    };
    let result = tokio::select! {
        result = run => result,
        () = interrupt => unreachable!("it never ends"),
    };
    let interrupted = *cancel.borrow();
    progress.end();
    match result {
        Ok(()) => Ok(()),
        Err(error) if interrupted => Err(Failure::new(INTERRUPTED, error.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}
