//! Verbs of Docker Compose that have nothing behind them yet.

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
    /// Watch build context (not there yet)
    #[command(hide = true)]
    Watch(Rest),
    /// Attach to a service's container (not there yet)
    #[command(hide = true)]
    Attach(Rest),
    /// Resource usage (not there yet)
    #[command(hide = true)]
    Stats(Rest),
    /// Export, commit, publish, bridge (not there yet)
    #[command(
        alias = "commit",
        alias = "publish",
        alias = "bridge",
        alias = "alpha",
        hide = true
    )]
    Export(Rest),
}

pub(crate) fn run(verb: &RefusedVerb) -> Outcome {
    let (name, reason) = match verb {
        RefusedVerb::Watch(_) => ("watch", "run \"muster compose up --build\" after a change"),
        RefusedVerb::Attach(_) => ("attach", "use \"muster attach CONTAINER\""),
        RefusedVerb::Stats(_) => ("stats", "use \"muster stats CONTAINER\""),
        RefusedVerb::Export(_) => ("this verb", "use \"muster export CONTAINER\""),
    };
    Err(Failure::new(1, format!("compose {name} is not supported: {reason}")).into())
}
