//! `compose logs` and `compose events`.

use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{filter, time::timestamp};
use crate::out;
use crate::render::json;
use crate::render::prefix::{Prefixes, Style};
use agent_api::client::EventsOptions;
use clap::Args;
use compose::labels;
use compose::read::logs::{Follow, LogItem, LogOptions, follow};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// Lines on their way to the terminal; a slow reader slows the daemon, not the memory.
const QUEUE: usize = 256;

/// View output from containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose logs -f --tail 20 web db")]
pub(crate) struct LogsArgs {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Index of the container if service has multiple replicas
    #[arg(long)]
    index: Option<u32>,
    /// Produce monochrome output
    #[arg(long)]
    no_color: bool,
    /// Don't print prefix in logs
    #[arg(long)]
    no_log_prefix: bool,
    /// Show logs since a time (e.g. "2026-01-02T13:23:37Z") or for a while (e.g. "42m")
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs for each container
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a time
    #[arg(long)]
    until: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn logs(session: &Session, flags: &ProjectFlags, args: LogsArgs) -> Outcome {
    let target = flags.target()?;
    target.require(&args.services)?;
    let now = Timestamp::now();
    let bad = |reason: String| Failure::new(1, reason);
    let time = |flag: &Option<String>| flag.as_deref().map(|text| timestamp(text, now)).transpose();
    let options = LogOptions {
        services: args.services,
        index: args.index,
        follow: if args.follow {
            Follow::WhileRunning
        } else {
            Follow::No
        },
        tail: crate::verbs::logs::tail(&args.tail).map_err(bad)?,
        since: time(&args.since).map_err(bad)?,
        until: time(&args.until).map_err(bad)?,
        timestamps: args.timestamps,
    };
    let client = session.client().await?;
    let style = Style {
        prefix: !args.no_log_prefix,
        colour: !args.no_color && flags.coloured(out::stdout_is_terminal()),
    };
    let mut prefixes = Prefixes::new(style);
    for row in compose::read::ps::containers(client, &target.name, true).await? {
        prefixes.know(&row.service, row.number);
    }
    let (sender, mut items) = mpsc::channel(QUEUE);
    let read = follow(client, &target.name, &options, sender);
    let write = async {
        while let Some(item) = items.recv().await {
            match item {
                LogItem::Line { origin, line, .. } => {
                    out::bytes(&prefixes.line(&origin.service, origin.number, &line))?;
                }
                LogItem::Exited { origin, exit_code } => {
                    out::line(prefixes.exited(&origin.service, origin.number, exit_code))?;
                }
                LogItem::Unavailable { origin, reason } => {
                    out::note(format!(
                        "warning: cannot read the output of {}: {reason}",
                        origin.container
                    ));
                }
            }
        }
        anyhow::Ok(())
    };
    let (read, write) = tokio::join!(read, write);
    write?;
    read?;
    Ok(0)
}

/// Receive real time events from containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose events --json")]
pub(crate) struct EventsArgs {
    /// Output events as a stream of json objects
    #[arg(long)]
    json: bool,
    /// Show all events created since a time
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this time
    #[arg(long)]
    until: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn events(session: &Session, flags: &ProjectFlags, args: EventsArgs) -> Outcome {
    let target = flags.target()?;
    target.require(&args.services)?;
    let now = Timestamp::now();
    let bad = |reason: String| Failure::new(1, reason);
    let time = |flag: &Option<String>| flag.as_deref().map(|text| timestamp(text, now)).transpose();
    let filters = filter::filters(&[
        "type=container".to_owned(),
        format!("label={}={}", labels::PROJECT, target.name),
    ]);
    let options = EventsOptions {
        since: time(&args.since).map_err(bad)?,
        until: time(&args.until).map_err(bad)?,
        filters: filters.map_err(bad)?,
    };
    let mut events = session.client().await?.events(&options).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let service = event
            .actor
            .attributes
            .get(labels::SERVICE)
            .cloned()
            .unwrap_or_default();
        if !args.services.is_empty() && !args.services.contains(&service) {
            continue;
        }
        // Labels of the project itself say nothing new.
        let mut attributes = event.actor.attributes.clone();
        attributes.retain(|name, _| {
            !name.starts_with("com.docker.compose.") && !name.starts_with("dev.muster.")
        });
        let at = Timestamp::from_nanosecond(event.time_nano.into()).unwrap_or_default();
        let at = at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        if args.json {
            out::line(json::compact(&serde_json::json!({
                "time": at, "type": event.kind, "service": service, "id": event.actor.id, "action": event.action,
                "attributes": attributes,
            })))?;
        } else {
            let mut pairs: Vec<_> = attributes
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            pairs.sort_unstable();
            let at = at.replacen('T', " ", 1).replace('Z', "");
            out::line(format!(
                "{at} {} {} {} ({})",
                event.kind,
                event.action,
                event.actor.id,
                pairs.join(", ")
            ))?;
        }
    }
    Ok(0)
}
