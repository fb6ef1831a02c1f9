//! `stack rm`: everything of a stack, to the end.

use super::check_name;
use crate::connect::Session;
use crate::failure::Outcome;
use crate::out;
use clap::Args;
use compose::stack::{Removal, RemoveError, Wait, remove};

/// Exit code of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Remove one or more stacks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stack rm app")]
pub(crate) struct RmArgs {
    /// Do not wait for stack removal
    #[arg(short, long)]
    detach: bool,
    #[arg(required = true, value_name = "STACK")]
    stacks: Vec<String>,
}

pub(super) async fn run(session: &Session, args: RmArgs) -> Outcome {
    for stack in &args.stacks {
        check_name(stack)?;
    }
    let client = session.client().await?;
    let wait = match args.detach {
        true => Wait::No,
        false => Wait::UntilGone,
    };
    let mut show = |removal: &Removal| match removal {
        Removal::Removing { kind, name } => {
            let _ = out::line(format!("Removing {kind} {name}"));
        }
        Removal::Waiting { tasks: 1 } => out::note("Waiting for 1 task to end"),
        Removal::Waiting { tasks } => out::note(format!("Waiting for {tasks} tasks to end")),
    };
    let mut code = 0;
    for stack in &args.stacks {
        let removed = remove(client, stack, wait, &mut show);
        let result = tokio::select! {
            result = removed => result,
            _ = tokio::signal::ctrl_c() => {
                out::note("Operation continuing in background: networks may remain, \"muster stack rm\" again removes them.");
                return Ok(INTERRUPTED);
            }
        };
        match result {
            Ok(()) => {}
            // As Docker: what is not there has been removed.
            Err(RemoveError::NoSuchStack { stack }) => {
                out::note(format!("Nothing found in stack: {stack}"));
            }
            Err(error) => {
                out::note(error.to_string());
                code = 1;
            }
        }
    }
    Ok(code)
}
