//! Docker's verbs that have nothing behind them yet: each says what is missing and what to do meanwhile.

use crate::failure::{Failure, Outcome};
use clap::{Args, Subcommand};

/// Whatever follows the verb.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RefusedVerb {
    /// Docker's contexts (not there)
    #[command(hide = true)]
    Context(Rest),
    /// Docker's plugins (not there)
    #[command(alias = "trust", alias = "manifest", alias = "checkpoint", hide = true)]
    Plugin(Rest),
}

pub(crate) fn run(verb: &RefusedVerb) -> Outcome {
    let (name, reason) = match verb {
        RefusedVerb::Context(_) => (
            "context",
            "there are no contexts: choose the daemon with -H or MUSTER_HOST",
        ),
        RefusedVerb::Plugin(_) => ("plugin", "there are no plugins"),
    };
    Err(Failure::new(1, format!("{name} is not supported: {reason}")).into())
}
