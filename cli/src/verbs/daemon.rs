//! `daemon`: the engine itself, in the foreground. Its flags are dockerd's and belong to `agent::config`.

use crate::failure::Outcome;
use crate::out;
use anyhow::Context as _;
use clap::Args;

/// Run the engine in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster daemon
  muster daemon --data-root /srv/muster -H unix:///run/other.sock --exec-root /run/other")]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    flags: agent::config::Flags,
    /// Leave the caller's session: a terminal that closes does not take the daemon with it
    #[arg(long, hide = true)]
    new_session: bool,
}

/// Blocks until the daemon ends; it makes a runtime of its own.
pub(crate) fn run(args: DaemonArgs) -> Outcome {
    if args.new_session {
        rustix::process::setsid().context("cannot begin a new session")?;
    }
    let config = agent::config::Config::load(&args.flags)?;
    if args.flags.validate_only() {
        out::line("configuration OK")?;
        return Ok(0);
    }
    agent::daemon::run(config, args.flags)?;
    Ok(0)
}
