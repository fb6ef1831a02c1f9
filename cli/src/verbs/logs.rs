//! `logs`.

use crate::attached;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::time::timestamp;
use agent_api::client::LogsOptions;
use clap::Args;
use jiff::Timestamp;

/// Fetch the logs of a container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster logs -f --tail 100 web")]
pub(crate) struct LogsArgs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since a time (e.g. "2026-01-02T13:23:37Z") or for a while (e.g. "42m")
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a time (e.g. "2026-01-02T13:23:37Z") or up to a while ago (e.g. "42m")
    #[arg(long)]
    until: Option<String>,
    container: String,
}

pub(crate) async fn run(session: &Session, args: LogsArgs) -> Outcome {
    let now = Timestamp::now();
    let time = |flag: &Option<String>| flag.as_deref().map(|text| timestamp(text, now)).transpose();
    let bad = |reason: String| Failure::new(1, reason);
    let options = LogsOptions {
        follow: args.follow,
        stdout: true,
        stderr: true,
        since: time(&args.since).map_err(bad)?,
        until: time(&args.until).map_err(bad)?,
        timestamps: args.timestamps,
        tail: tail(&args.tail).map_err(bad)?,
        details: args.details,
    };
    attached::show(
        session
            .client()
            .await?
            .logs(&args.container, &options)
            .await?,
    )
    .await?;
    Ok(0)
}

/// `all` and every negative number are all lines.
pub(crate) fn tail(flag: &str) -> Result<Option<u64>, String> {
    if flag == "all" || flag.parse::<i64>().is_ok_and(|lines| lines < 0) {
        return Ok(None);
    }
    flag.parse()
        .map(Some)
        .map_err(|_| format!("invalid number of lines {flag:?} for --tail: write a number or all"))
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(
            (tail("all"), tail("-1"), tail("0"), tail("10")),
            (Ok(None), Ok(None), Ok(Some(0)), Ok(Some(10)))
        );
        assert!(tail("x").is_err());
    }
}
