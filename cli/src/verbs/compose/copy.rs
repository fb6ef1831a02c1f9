//! `compose cp`.

use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::verbs::copy::{self, Manner, Place};
use clap::Args;

/// Copy files/folders between a service container and the local filesystem
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose cp web:/etc/nginx/nginx.conf .")]
pub(crate) struct CpArgs {
    /// Include containers created by the run command
    #[arg(long)]
    all: bool,
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Index of the container if service has multiple replicas
    #[arg(long)]
    index: Option<u32>,
    #[arg(value_name = "SERVICE:SRC_PATH|SRC_PATH|-")]
    source: String,
    #[arg(value_name = "SERVICE:DEST_PATH|DEST_PATH|-")]
    destination: String,
}

pub(super) async fn run(session: &Session, flags: &ProjectFlags, args: CpArgs) -> Outcome {
    let target = flags.target()?;
    let manner = Manner {
        archive: args.archive,
        follow_link: args.follow_link,
        quiet: false,
    };
    let source = Place::parse(&args.source);
    let destination = Place::parse(&args.destination);
    let service = match (&source, &destination) {
        (Place::Container { .. }, Place::Container { .. }) => {
            return Err(Failure::new(1, "copying between services is not supported").into());
        }
        (Place::Container { name, .. }, _) | (_, Place::Container { name, .. }) => name.clone(),
        _ => return Err(Failure::new(1, "unknown copy direction: name a SERVICE:PATH").into()),
    };
    target.require(std::slice::from_ref(&service))?;
    let client = session.client().await?;
    // Stopped containers have files, too.
    let rows = compose::read::ps::containers(client, &target.name, true).await?;
    let mut ids: Vec<String> = rows
        .into_iter()
        .filter(|row| row.service == service && (args.all || !row.oneoff))
        .filter(|row| args.index.is_none_or(|index| row.number == index))
        .map(|row| row.summary.id)
        .collect();
    if ids.is_empty() {
        let reason = match args.index {
            Some(index) => format!("service {service} has no container with index {index}"),
            None => format!("no container found for service {service}: bring it up first"),
        };
        return Err(Failure::new(1, reason).into());
    }
    // Out of one; into every container of the service.
    if matches!(source, Place::Container { .. }) {
        ids.truncate(1);
    }
    if ids.len() > 1 && matches!(source, Place::Stream) {
        let reason = "standard input can be copied into one container only: choose it with --index";
        return Err(Failure::new(1, reason).into());
    }
    for id in ids {
        let (source, destination) = (source.in_container(&id), destination.in_container(&id));
        copy::copy(client, &source, &destination, manner).await?;
    }
    Ok(0)
}
