//! `service logs`: lines of all tasks, each with the task and node it comes from in front.
//! Source: docker/cli `cli/command/service/logs.go`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::time::timestamp;
use crate::out;
use crate::verbs::tasks::Names;
use agent_api::Client;
use agent_api::StreamKind;
use agent_api::client::{LogsOf, LogsOptions};
use clap::Args;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::io::Write as _;

/// Letters of a task's id.
const ID_WIDTH: usize = 12;
/// Longest line that is kept together, bytes.
const MAX_LINE: usize = 1 << 20;

/// Fetch the logs of a service or task
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service logs -f --tail 100 web")]
pub(crate) struct LogsArgs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Do not map IDs to Names in output
    #[arg(long)]
    no_resolve: bool,
    /// Do not include task IDs in output
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    /// Show logs since a time (e.g. "2026-01-02T13:23:37Z") or for a while (e.g. "42m")
    #[arg(long)]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    #[arg(value_name = "SERVICE|TASK")]
    target: String,
}

pub(super) async fn run(session: &Session, args: LogsArgs) -> Outcome {
    let bad = |reason: String| Failure::new(1, reason);
    let since = args
        .since
        .as_deref()
        .map(|text| timestamp(text, Timestamp::now()));
    let options = LogsOptions {
        follow: args.follow,
        stdout: true,
        stderr: true,
        since: since.transpose().map_err(bad)?,
        until: None,
        timestamps: args.timestamps,
        tail: crate::verbs::logs::tail(&args.tail).map_err(bad)?,
        // They tell which task a line is from.
        details: args.details || !args.raw,
    };
    let client = session.client().await?;
    let target = Target::find(client, &args.target).await?;
    if target.tty && !args.raw {
        return Err(Failure::new(1, "tty service logs only supported with --raw").into());
    }
    let mut stream = client.cluster_logs(target.of, &target.id, &options).await?;
    if args.raw {
        crate::attached::show(stream).await?;
        return Ok(0);
    }
    let names = match args.no_resolve {
        true => Names::default(),
        false => Names::of(client).await?,
    };
    let mut prefixes = Prefixes {
        client,
        args: &args,
        names,
        width: target.width,
        known: BTreeMap::new(),
    };
    let (mut stdout, mut stderr) = (Lines::default(), Lines::default());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let is_error = chunk.kind == StreamKind::Stderr;
        let lines = if is_error { &mut stderr } else { &mut stdout };
        for line in lines.take(&chunk.data) {
            let shown = prefixes.line(&line).await?;
            if is_error {
                std::io::stderr().lock().write_all(&shown)?;
            } else {
                out::bytes(&shown)?;
            }
        }
    }
    Ok(0)
}

/// Whose logs are read.
struct Target {
    of: LogsOf,
    id: String,
    tty: bool,
    /// Digits of the highest slot.
    width: usize,
}

impl Target {
    async fn find(client: &Client, name: &str) -> anyhow::Result<Self> {
        let digits = |number: u64| number.to_string().len();
        match client.inspect_service(name).await {
            Ok(service) => {
                let replicated = &service.spec.mode.replicated;
                let replicas = replicated.as_ref().and_then(|mode| mode.replicas);
                let container = &service.spec.task_template.container_spec;
                Ok(Self {
                    of: LogsOf::Service,
                    id: service.id,
                    tty: container.as_ref().is_some_and(|container| container.tty),
                    width: replicas.map_or(1, digits),
                })
            }
            Err(error) if error.is_not_found() => match client.inspect_task(name).await {
                Ok(task) => Ok(Self {
                    of: LogsOf::Task,
                    id: task.id,
                    tty: task
                        .spec
                        .container_spec
                        .is_some_and(|container| container.tty),
                    width: digits(task.slot),
                }),
                Err(error) if error.is_not_found() => {
                    Err(Failure::new(1, format!("no such task or service: {name}")).into())
                }
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// Puts lines together that came in pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let tail = self.rest.split_off(end + 1);
            lines.push(std::mem::replace(&mut self.rest, tail));
        }
        if self.rest.len() > MAX_LINE {
            lines.push(std::mem::take(&mut self.rest));
        }
        lines
    }
}

/// What stands in front of lines.
struct Prefixes<'a> {
    client: &'a Client,
    args: &'a LogsArgs,
    names: Names,
    width: usize,
    /// By task: its slot, or 0 when it is not there any more.
    known: BTreeMap<String, u64>,
}

impl Prefixes<'_> {
    /// `[TIME ]task@node    | [details ]line`
    async fn line(&mut self, line: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut parts = line.splitn(if self.args.timestamps { 3 } else { 2 }, |byte| {
            *byte == b' '
        });
        let time = match self.args.timestamps {
            true => parts.next().map(<[u8]>::to_vec),
            false => None,
        };
        let (Some(details), Some(text)) = (parts.next(), parts.next()) else {
            return Ok(line.to_vec());
        };
        let mut details = pairs(&String::from_utf8_lossy(details));
        let mut part = |name: &str| {
            let key = format!("com.docker.swarm.{name}.id");
            details.remove(&key).unwrap_or_default()
        };
        let (node, service, task) = (part("node"), part("service"), part("task"));
        if task.is_empty() {
            return Ok(line.to_vec());
        }
        let slot = self.slot(&task).await?;
        let mut name = format!("{}.{slot}", self.names.service(&service));
        if !self.args.no_task_ids {
            let width = if self.args.no_trunc {
                task.len()
            } else {
                ID_WIDTH
            };
            name.push('.');
            name.extend(task.chars().take(width));
        }
        let padding = self.width.saturating_sub(slot.to_string().len());
        let mut shown = Vec::with_capacity(line.len() + 32);
        if let Some(time) = time {
            shown.extend_from_slice(&time);
            shown.push(b' ');
        }
        let node = self.names.node(&node);
        shown.extend_from_slice(format!("{name}@{node}{}    | ", " ".repeat(padding)).as_bytes());
        if self.args.details {
            let rest: Vec<_> = details
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            shown.extend_from_slice(rest.join(",").as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(text);
        Ok(shown)
    }

    async fn slot(&mut self, task: &str) -> anyhow::Result<u64> {
        if let Some(slot) = self.known.get(task) {
            return Ok(*slot);
        }
        let slot = match self.client.inspect_task(task).await {
            Ok(task) => task.slot,
            Err(error) if error.is_not_found() => 0,
            Err(error) => return Err(error.into()),
        };
        self.known.insert(task.to_owned(), slot);
        Ok(slot)
    }
}

/// `a=1,b=2`, percent-encoded.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((decode(key), decode(value)))
    };
    text.split(',').filter_map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3);
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 3;
            }
            (byte, _) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_read_as_they_are_written() {
        let found = pairs("com.docker.swarm.task.id=t1,a=b%2Cc%3D,x");
        assert_eq!(found["com.docker.swarm.task.id"], "t1");
        assert_eq!(found["a"], "b,c=");
        assert_eq!(found.len(), 2);
        assert_eq!(decode("100%"), "100%");
    }

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        assert!(lines.take(b"one").is_empty());
        assert_eq!(
            lines.take(b" two\nthree\nfo"),
            [b"one two\n".to_vec(), b"three\n".to_vec()]
        );
        assert_eq!(lines.take(&vec![b'x'; MAX_LINE]).len(), 1);
    }
}
