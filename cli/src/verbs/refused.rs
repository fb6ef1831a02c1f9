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
    #[command(hide = true)]
    Plugin(Rest),
    /// Signatures of images (not there)
    #[command(hide = true)]
    Trust(Rest),
    /// Lists of manifests in registries (not there)
    #[command(hide = true)]
    Manifest(Rest),
    /// Checkpoints of containers (not there)
    #[command(hide = true)]
    Checkpoint(Rest),
}

pub(crate) fn run(verb: &RefusedVerb) -> Outcome {
    let (name, reason) = match verb {
        RefusedVerb::Context(_) => (
            "context",
            "there are no contexts: choose the daemon with -H or MUSTER_HOST",
        ),
        RefusedVerb::Plugin(_) => ("plugin", "there are no plugins"),
        RefusedVerb::Trust(_) => ("trust", "images are not signed: name them by digest"),
        RefusedVerb::Manifest(_) => (
            "manifest",
            "build for several platforms with -o type=oci, and push the archive with a tool for registries",
        ),
        RefusedVerb::Checkpoint(_) => ("checkpoint", "containers cannot be frozen into files"),
    };
    Err(Failure::new(1, format!("{name} is not supported: {reason}")).into())
}
