//! `compose down`.

use super::project::ProjectFlags;
use super::session;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use clap::Args;
use compose::plan::options::{DownOptions, Orphans, RemoveImages};
use std::time::Duration;

/// Stop and remove containers, networks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster down
  muster compose -p demo down -v --remove-orphans")]
pub(crate) struct DownArgs {
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    remove_orphans: bool,
    /// Remove images used by services: 'local' only those without a name of their own, or 'all'
    #[arg(long, value_name = "TYPE")]
    rmi: Option<String>,
    /// Specify a shutdown timeout in seconds
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Remove named volumes declared in the "volumes" section and anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(crate) async fn run(session: &Session, flags: &ProjectFlags, args: DownArgs) -> Outcome {
    let target = flags.target()?;
    target.require(&args.services)?;
    let images = match args.rmi.as_deref() {
        None | Some("") => RemoveImages::None,
        Some("local") => RemoveImages::Local,
        Some("all") => RemoveImages::All,
        Some(other) => {
            return Err(Failure::new(
                1,
                format!("invalid value for --rmi: {other:?}: there are local and all"),
            )
            .into());
        }
    };
    let options = DownOptions {
        services: args.services,
        volumes: args.volumes,
        images,
        orphans: super::up::orphans(args.remove_orphans, Orphans::Warn),
        stop_timeout: args.timeout.map(Duration::from_secs),
    };
    let project = target.project();
    session::change(session, flags, &target.name, project, "down", |observed| {
        compose::plan::down(&target.name, project, observed, &options)
    })
    .await
}

/// `down` without flags, for `wait --down-project`.
pub(super) async fn everything(session: &Session, flags: &ProjectFlags) -> Outcome {
    let args = DownArgs {
        remove_orphans: false,
        rmi: None,
        timeout: None,
        volumes: false,
        services: Vec::new(),
    };
    run(session, flags, args).await
}
