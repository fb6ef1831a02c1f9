//! Verbs on containers of a project that exist: start, stop, restart, kill, rm, pause, unpause, wait.

use super::project::{ProjectFlags, Target};
use super::{down, session};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::out;
use agent_api::client::WaitCondition;
use clap::Args;
use compose::plan::options::{Dependencies, RemoveOptions, Selection};
use compose::read::ps::{Row, containers};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    #[arg(value_name = "SERVICE")]
    pub(super) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Specify a shutdown timeout in seconds
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Restart service containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose restart -t 5 web")]
pub(crate) struct RestartArgs {
    /// Don't restart dependent services
    #[arg(long)]
    no_deps: bool,
    /// Specify a shutdown timeout in seconds
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Force stop service containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose kill -s SIGHUP web")]
pub(crate) struct KillArgs {
    /// SIGNAL to send to the container
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Removes stopped service containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose rm -fsv web")]
pub(crate) struct RmArgs {
    /// Don't ask to confirm removal
    #[arg(short, long)]
    force: bool,
    /// Stop the containers, if required, before removing
    #[arg(short, long)]
    stop: bool,
    /// Remove any anonymous volumes attached to containers
    #[arg(short, long)]
    volumes: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Block until containers of all (or specified) services stop
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose wait --down-project test")]
pub(crate) struct WaitArgs {
    /// Drops project when the first container stops
    #[arg(long)]
    down_project: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

fn target(flags: &ProjectFlags, services: &[String]) -> anyhow::Result<Target> {
    let target = flags.target()?;
    target.require(services)?;
    Ok(target)
}

fn selection(services: Vec<String>, timeout: Option<u64>) -> Selection {
    Selection {
        services,
        stop_timeout: timeout.map(Duration::from_secs),
        ..Default::default()
    }
}

pub(super) async fn start(session: &Session, flags: &ProjectFlags, args: StartArgs) -> Outcome {
    let target = target(flags, &args.services)?;
    let (project, selection) = (target.project(), selection(args.services, None));
    session::change(session, flags, &target.name, project, "start", |observed| {
        compose::plan::start(&target.name, project, observed, &selection)
    })
    .await
}

pub(super) async fn stop(session: &Session, flags: &ProjectFlags, args: StopArgs) -> Outcome {
    let target = target(flags, &args.services)?;
    let (project, selection) = (target.project(), selection(args.services, args.timeout));
    session::change(session, flags, &target.name, project, "stop", |observed| {
        compose::plan::stop(&target.name, project, observed, &selection)
    })
    .await
}

pub(super) async fn restart(session: &Session, flags: &ProjectFlags, args: RestartArgs) -> Outcome {
    let target = target(flags, &args.services)?;
    let mut selection = selection(args.services, args.timeout);
    if args.no_deps {
        selection.dependencies = Dependencies::Ignore;
    }
    let project = target.project();
    session::change(
        session,
        flags,
        &target.name,
        project,
        "restart",
        |observed| compose::plan::restart(&target.name, project, observed, &selection),
    )
    .await
}

pub(super) async fn kill(session: &Session, flags: &ProjectFlags, args: KillArgs) -> Outcome {
    let target = target(flags, &args.services)?;
    let project = target.project();
    session::change(session, flags, &target.name, project, "kill", |observed| {
        compose::plan::kill(
            &target.name,
            project,
            observed,
            &args.services,
            &args.signal,
        )
    })
    .await
}

pub(super) async fn rm(session: &Session, flags: &ProjectFlags, args: RmArgs) -> Outcome {
    let target = target(flags, &args.services)?;
    let project = target.project();
    if !args.force && !flags.dry_run {
        let of = if args.services.is_empty() {
            "all services".to_owned()
        } else {
            args.services.join(", ")
        };
        let which = if args.stop { "" } else { "stopped " };
        if !crate::verbs::confirm(&format!("Going to remove the {which}containers of {of}."))? {
            return Ok(0);
        }
    }
    let options = RemoveOptions {
        services: args.services,
        stop: args.stop,
        volumes: args.volumes,
    };
    session::change(session, flags, &target.name, project, "rm", |observed| {
        compose::plan::remove(&target.name, project, observed, &options)
    })
    .await
}

/// Containers of the services named, all when none is named; one-off containers are left out.
pub(super) async fn rows(
    session: &Session,
    flags: &ProjectFlags,
    services: &[String],
    all: bool,
) -> anyhow::Result<Vec<Row>> {
    let target = target(flags, services)?;
    let rows = containers(session.client().await?, &target.name, all).await?;
    let wanted =
        |row: &Row| !row.oneoff && (services.is_empty() || services.contains(&row.service));
    Ok(rows.into_iter().filter(wanted).collect())
}

pub(super) async fn pause(session: &Session, flags: &ProjectFlags, args: ServicesArgs) -> Outcome {
    toggle(session, flags, &args.services, true).await
}

pub(super) async fn unpause(
    session: &Session,
    flags: &ProjectFlags,
    args: ServicesArgs,
) -> Outcome {
    toggle(session, flags, &args.services, false).await
}

async fn toggle(
    session: &Session,
    flags: &ProjectFlags,
    services: &[String],
    pause: bool,
) -> Outcome {
    let rows = rows(session, flags, services, false).await?;
    let done = if pause { "Paused" } else { "Unpaused" };
    if flags.dry_run {
        return super::names(rows.iter().map(|row| row.name.as_str()));
    }
    let client = session.client().await?;
    let mut code = 0;
    for row in rows
        .iter()
        .filter(|row| pause != (row.summary.state == agent_api::ContainerStatus::Paused))
    {
        let id = &row.summary.id;
        let result = if pause {
            client.pause_container(id).await
        } else {
            client.unpause_container(id).await
        };
        match result {
            Ok(()) => out::note(format!(" Container {}  {done}", row.name)),
            Err(error) => {
                out::note(describe(&error.into()));
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Ends with the exit code of the container that ends last, or with `--down-project` of the one that ends first.
pub(super) async fn wait(session: &Session, flags: &ProjectFlags, args: WaitArgs) -> Outcome {
    let rows = rows(session, flags, &args.services, true).await?;
    if rows.is_empty() {
        return Err(
            Failure::new(1, format!("no containers for {}", args.services.join(", "))).into(),
        );
    }
    let client = session.client().await?;
    let mut waits: FuturesUnordered<_> = rows
        .iter()
        .map(|row| async move {
            let wait = client
                .wait_container(&row.summary.id, WaitCondition::NotRunning)
                .await?;
            anyhow::Ok((row, wait.result().await?.status_code))
        })
        .collect();
    let mut code = 0;
    while let Some((row, status)) = waits.try_next().await? {
        out::line(format!(
            "container \"{}\" exited with status code {status}",
            row.summary.id
        ))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "exit takes the low byte"
        )]
        let status = status as u8;
        code = status;
        if args.down_project {
            down::everything(session, flags).await?;
            break;
        }
    }
    drop(waits.next());
    Ok(code)
}
