//! `completion`: scripts for shells.

use crate::failure::Outcome;
use crate::out;
use clap::{Args, Command};
use clap_complete::Shell;

/// Generate the autocompletion script for the specified shell
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster completion bash > /etc/bash_completion.d/muster")]
pub(crate) struct CompletionArgs {
    shell: Shell,
}

pub(crate) fn run(args: &CompletionArgs, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "muster", &mut script);
    out::text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
