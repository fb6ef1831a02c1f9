//! Stacks: projects on a cluster. Source: docker/cli `cli/command/stack`.

mod deploy;
mod look;
mod remove;

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use agent_api::Filters;
use clap::Subcommand;
use compose::stack::labels;

/// Manage Swarm stacks
#[derive(Debug, Subcommand)]
pub(crate) enum StackVerb {
    Config(look::ConfigArgs),
    #[command(alias = "up")]
    Deploy(Box<deploy::DeployArgs>),
    #[command(alias = "list")]
    Ls(look::LsArgs),
    Ps(look::PsArgs),
    #[command(alias = "remove", alias = "down")]
    Rm(remove::RmArgs),
    Services(look::ServicesArgs),
}

pub(crate) async fn run(session: &Session, verb: StackVerb) -> Outcome {
    match verb {
        StackVerb::Config(args) => look::config(&args),
        StackVerb::Deploy(args) => deploy::run(session, *args).await,
        StackVerb::Ls(args) => look::ls(session, args).await,
        StackVerb::Ps(args) => look::ps(session, args).await,
        StackVerb::Rm(args) => remove::run(session, args).await,
        StackVerb::Services(args) => look::services(session, args).await,
    }
}

/// Refuses names that would be something else in a filter or a name.
fn check_name(stack: &str) -> Result<(), Failure> {
    let bad = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'');
    if stack.is_empty() || stack.chars().any(bad) {
        return Err(Failure::new(1, format!("invalid stack name: {stack:?}")));
    }
    Ok(())
}

/// What belongs to a stack.
fn of_stack(filters: Filters, stack: &str) -> Filters {
    filters.with("label", format!("{}={stack}", labels::NAMESPACE))
}
