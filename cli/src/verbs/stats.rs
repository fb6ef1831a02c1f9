//! `stats`. Source: docker/cli `cli/command/container/stats.go`, `stats_helpers.go`.

use super::ps::short_id;
use crate::connect::Session;
use crate::failure::Outcome;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::render::units::{bytes_size, human_size_3};
use agent_api::client::{EventsOptions, Follow, JsonStream, ListContainersOptions};
use agent_api::{Client, EventMessage, Filters};
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::future::{join_all, pending};
use serde_json::Value;

/// Display a live stream of container(s) resource usage statistics
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stats --no-stream --format '{{.Name}} {{.MemUsage}}'")]
pub(crate) struct StatsArgs {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: StatsArgs) -> Outcome {
    let client = session.client().await?;
    if args.no_stream {
        let samples = join_all(
            names(client, &args)
                .await?
                .into_iter()
                .map(|name| async move {
                    let mut stream = client.container_stats(&name, Follow::No).await?;
                    anyhow::Ok(stream.next().await.transpose()?)
                }),
        );
        let samples = samples
            .await
            .into_iter()
            .collect::<anyhow::Result<Vec<_>>>()?;
        out::text(&table(&args, samples.iter().flatten())?)?;
        return Ok(0);
    }
    // Subscribed before the list is made: a container that starts in between is not missed.
    let mut starts = match args.containers.is_empty() {
        true => {
            let filters = Filters::new()
                .with("type", "container")
                .with("event", "start");
            Some(
                client
                    .events(&EventsOptions {
                        filters,
                        ..Default::default()
                    })
                    .await?,
            )
        }
        false => None,
    };
    let mut streams = Vec::new();
    for name in names(client, &args).await? {
        streams.push(client.container_stats(&name, Follow::Yes).await?);
    }
    loop {
        tokio::select! {
            biased;
            id = started(&mut starts) => streams.push(client.container_stats(&id?, Follow::Yes).await?),
            samples = round(&mut streams), if !streams.is_empty() => {
                let text = table(&args, samples.iter())?;
                // The terminal is cleared for every round, as top(1) does.
                let clear = if out::stdout_is_terminal() { "\x1b[2J\x1b[H" } else { "" };
                out::text(&format!("{clear}{text}"))?;
            }
        }
        if streams.is_empty() && starts.is_none() {
            return Ok(0);
        }
    }
}

async fn names(client: &Client, args: &StatsArgs) -> anyhow::Result<Vec<String>> {
    if !args.containers.is_empty() {
        return Ok(args.containers.clone());
    }
    let options = ListContainersOptions {
        all: args.all,
        ..Default::default()
    };
    Ok(client
        .list_containers(&options)
        .await?
        .into_iter()
        .map(|container| container.id)
        .collect())
}

async fn started(starts: &mut Option<JsonStream<EventMessage>>) -> anyhow::Result<String> {
    match starts {
        Some(events) => match events.next().await {
            Some(event) => Ok(event?.actor.id),
            None => anyhow::bail!("the daemon ended the stream of events"),
        },
        None => pending().await,
    }
}

/// One sample of every container; streams that have ended are taken out.
async fn round(streams: &mut Vec<JsonStream<Value>>) -> Vec<Value> {
    let samples = join_all(streams.iter_mut().map(|stream| stream.next())).await;
    let mut ended = samples
        .iter()
        .map(|sample| !matches!(sample, Some(Ok(_))))
        .collect::<Vec<_>>()
        .into_iter();
    streams.retain(|_| !ended.next().unwrap_or(true));
    samples.into_iter().flatten().flatten().collect()
}

fn table<'a>(args: &StatsArgs, samples: impl Iterator<Item = &'a Value>) -> anyhow::Result<String> {
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "ID",
        table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
        titles: &[
            ("Container", "CONTAINER"),
            ("ID", "CONTAINER ID"),
            ("Name", "NAME"),
            ("CPUPerc", "CPU %"),
            ("MemUsage", "MEM USAGE / LIMIT"),
            ("MemPerc", "MEM %"),
            ("NetIO", "NET I/O"),
            ("BlockIO", "BLOCK I/O"),
            ("PIDs", "PIDS"),
        ],
    };
    Ok(rows::render(
        &format,
        samples.map(|sample| row(sample, args.no_trunc)).collect(),
    )?)
}

fn row(sample: &Value, no_trunc: bool) -> Row {
    let text = |name: &str| sample[name].as_str().unwrap_or_default();
    let id = if no_trunc {
        text("id")
    } else {
        short_id(text("id"))
    };
    let memory = &sample["memory_stats"];
    let limit = memory["limit"].as_i64().unwrap_or(0);
    let used = used_memory(memory);
    let (received, sent) = network(&sample["networks"]);
    let (read, written) = block(&sample["blkio_stats"]["io_service_bytes_recursive"]);
    Row::new()
        .with("Container", id)
        .with("ID", id)
        .with("Name", text("name").trim_start_matches('/'))
        .with("CPUPerc", format!("{:.2}%", cpu_percent(sample)))
        .with(
            "MemUsage",
            format!("{} / {}", bytes_size(used), bytes_size(limit)),
        )
        .with("MemPerc", format!("{:.2}%", percent(used, limit)))
        .with(
            "NetIO",
            format!("{} / {}", human_size_3(received), human_size_3(sent)),
        )
        .with(
            "BlockIO",
            format!("{} / {}", human_size_3(read), human_size_3(written)),
        )
        .with(
            "PIDs",
            sample["pids_stats"]["current"]
                .as_u64()
                .unwrap_or(0)
                .to_string(),
        )
}

/// Without the page cache that could be dropped at once (v1 and v2 name it differently).
fn used_memory(memory: &Value) -> i64 {
    let usage = memory["usage"].as_i64().unwrap_or(0);
    let stats = &memory["stats"];
    let cache = stats["total_inactive_file"]
        .as_i64()
        .or_else(|| stats["inactive_file"].as_i64())
        .unwrap_or(0);
    if cache < usage { usage - cache } else { usage }
}

/// Share of one processor between the sample and its predecessor; two busy processors are 200.
fn cpu_percent(sample: &Value) -> f64 {
    let number = |stats: &str, path: &[&str]| {
        path.iter()
            .fold(&sample[stats], |value, name| &value[*name])
            .as_f64()
            .unwrap_or(0.0)
    };
    let difference = |path: &[&str]| number("cpu_stats", path) - number("precpu_stats", path);
    let used = difference(&["cpu_usage", "total_usage"]);
    let system = difference(&["system_cpu_usage"]);
    let processors = number("cpu_stats", &["online_cpus"]).max(1.0);
    if used > 0.0 && system > 0.0 {
        used / system * processors * 100.0
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(part: i64, whole: i64) -> f64 {
    if whole > 0 {
        part as f64 / whole as f64 * 100.0
    } else {
        0.0
    }
}

fn network(interfaces: &Value) -> (i64, i64) {
    let sum = |name: &str| {
        let all = interfaces.as_object().into_iter().flatten();
        all.map(|(_, counters)| counters[name].as_i64().unwrap_or(0))
            .sum()
    };
    (sum("rx_bytes"), sum("tx_bytes"))
}

fn block(entries: &Value) -> (i64, i64) {
    let sum = |operation: &str| {
        let all = entries.as_array().into_iter().flatten();
        let wanted = all.filter(|entry| {
            entry["op"]
                .as_str()
                .is_some_and(|op| op.eq_ignore_ascii_case(operation))
        });
        wanted
            .map(|entry| entry["value"].as_i64().unwrap_or(0))
            .sum()
    };
    (sum("read"), sum("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_shown_as_docker_does() {
        let sample = serde_json::json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3 << 20, "limit": 64 << 20, "stats": {"inactive_file": 1 << 20}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 1500}, {"op": "write", "value": 10}]},
            "pids_stats": {"current": 3}
        });
        let value = crate::render::template::Value::from(row(&sample, false)).to_json();
        assert_eq!(
            crate::render::json::compact(&value),
            r#"{"BlockIO":"1.5kB / 10B","CPUPerc":"20.00%","Container":"0123456789ab","ID":"0123456789ab","MemPerc":"3.12%","MemUsage":"2MiB / 64MiB","Name":"web","NetIO":"1kB / 2kB","PIDs":"3"}"#
        );
    }
}
