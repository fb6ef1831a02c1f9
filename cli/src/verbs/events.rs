//! `events`. Source: docker/cli `cli/command/system/events.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{filter, time::timestamp};
use crate::out;
use crate::render::rows::unescape;
use crate::render::template::{Template, Value};
use agent_api::EventMessage;
use agent_api::client::EventsOptions;
use clap::Args;
use futures_util::StreamExt as _;
use jiff::Timestamp;

/// Get real time events from the server
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster events --since 1h --filter type=container --format json")]
pub(crate) struct EventsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since a time
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this time
    #[arg(long)]
    until: Option<String>,
}

pub(crate) async fn run(session: &Session, args: EventsArgs) -> Outcome {
    let bad = |reason: String| Failure::new(1, reason);
    let now = Timestamp::now();
    let time = |flag: &Option<String>| flag.as_deref().map(|text| timestamp(text, now)).transpose();
    let template = match args.format.as_deref() {
        None | Some("") => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(text) => Some(
            Template::parse(&unescape(text))
                .map_err(|error| Failure::new(64, error.to_string()))?,
        ),
    };
    let options = EventsOptions {
        since: time(&args.since).map_err(bad)?,
        until: time(&args.until).map_err(bad)?,
        filters: filter::filters(&args.filter).map_err(bad)?,
    };
    let mut events = session.client().await?.events(&options).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        match &template {
            None => out::line(line(&event))?,
            Some(template) => {
                let value = serde_json::to_value(&event)?;
                out::line(template.render(&Value::from(&value))?)?;
            }
        }
    }
    Ok(0)
}

/// `2026-01-02T15:04:05.000000000Z container start 0123… (image=busybox, name=web)`
fn line(event: &EventMessage) -> String {
    let nanoseconds = if event.time_nano == 0 {
        i128::from(event.time) * 1_000_000_000
    } else {
        event.time_nano.into()
    };
    let at = Timestamp::from_nanosecond(nanoseconds)
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::system());
    let zone = if at.offset().is_zero() {
        "Z".to_owned()
    } else {
        at.strftime("%:z").to_string()
    };
    let mut line = format!(
        "{}{zone} {} {} {}",
        at.strftime("%Y-%m-%dT%H:%M:%S%.9f"),
        event.kind,
        event.action,
        event.actor.id
    );
    let mut attributes: Vec<_> = event
        .actor
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !attributes.is_empty() {
        attributes.sort_unstable();
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}
