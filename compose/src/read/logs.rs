//! `compose logs` and the output of an attached `up`: the output of all containers of a project as one stream of
//! whole lines, each with the container it is from. Nothing is formatted here.
//!
//! Following is driven by the engine's events, subscribed to before the containers are listed: a container that is
//! started again, or made later, is followed from where its output was left: a process may write before the engine has
//! stamped its start, so the start's own time would be too late.

use std::collections::BTreeMap;

use agent_api::client::{
    ClientError, EventsOptions, JsonStream, ListContainersOptions, LogsOptions, OutputChunk,
};
use agent_api::{Client, ContainerStatus, EventMessage, Filters, Labels, StreamKind};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, pending};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::labels;

/// Which output.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Services; empty = all.
    pub services: Vec<String>,
    /// Only the container with this number.
    pub index: Option<u32>,
    /// How long.
    pub follow: Follow,
    /// Lines from the end of what there is; `None` = all.
    pub tail: Option<u64>,
    /// Seconds since the epoch with an optional fraction.
    pub since: Option<String>,
    /// Seconds since the epoch with an optional fraction.
    pub until: Option<String>,
    /// The engine puts a time in front of every line.
    pub timestamps: bool,
}

/// When the stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// At the end of what there is.
    #[default]
    No,
    /// When no container of the selection runs any more (`logs -f`).
    WhileRunning,
    /// When the receiver is dropped; for an `up` that has yet to create containers.
    UntilDropped,
}

/// The container an item is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Service.
    pub service: String,
    /// Number within the service.
    pub number: u32,
    /// Name of the container.
    pub container: String,
    /// Its id.
    pub id: String,
}

/// One thing that happened to the output of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A line, without its line end.
    Line {
        /// Who wrote it.
        origin: Origin,
        /// Standard output or standard error.
        stream: StreamKind,
        /// The bytes, at most [`MAX_LINE`]; longer lines come in pieces.
        line: Bytes,
    },
    /// The container ended; only when following. Its last line came before.
    Exited {
        /// Which.
        origin: Origin,
        /// Exit code.
        exit_code: i64,
    },
    /// The container's output cannot be read.
    Unavailable {
        /// Which.
        origin: Origin,
        /// Why.
        reason: String,
    },
}

/// Longest line that is kept together, bytes.
pub const MAX_LINE: usize = 64 << 10;

/// Sends the output of a project's containers to `items`, until [`LogOptions::follow`] says or the receiver is dropped.
/// Cancel safe: dropping the future ends all streams.
///
/// # Errors
/// When the containers cannot be listed or the engine's events cannot be heard any more.
pub async fn follow(
    client: &Client,
    project: &str,
    options: &LogOptions,
    items: mpsc::Sender<LogItem>,
) -> Result<(), ClientError> {
    let mut events = match options.follow {
        Follow::No => None,
        _ => Some(subscribe(client, project).await?),
    };
    let mut reader = Reader {
        client,
        options,
        items,
        streams: FuturesUnordered::new(),
        known: BTreeMap::new(),
    };
    let filters = Filters::new()
        .with("label", format!("{}={project}", labels::PROJECT))
        .with("label", labels::CONFIG_HASH);
    let list = ListContainersOptions {
        all: true,
        filters,
        ..ListContainersOptions::default()
    };
    let listed = seconds(jiff::Timestamp::now().as_nanosecond());
    let mut containers: Vec<(Origin, bool, Option<String>)> = client
        .list_containers(&list)
        .await?
        .into_iter()
        .filter_map(|summary| {
            let name = summary
                .names
                .first()
                .map(|name| name.trim_start_matches('/'))?
                .to_owned();
            let origin = origin(summary.id, name, &summary.labels)?;
            let up = matches!(
                summary.state,
                ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
            );
            let ran = summary.state != ContainerStatus::Created;
            Some((origin, up, (ran && !up).then(|| listed.clone())))
        })
        .filter(|(origin, ..)| reader.wants(origin))
        .collect();
    containers.sort();
    for (origin, up, read_until) in containers {
        let query = reader.query(options.since.clone(), options.tail, up);
        reader.open(origin.clone(), query, up);
        reader.known.entry(origin).or_default().read_until = read_until;
    }
    loop {
        let running = reader.known.values().any(|known| known.up);
        let done = match options.follow {
            Follow::No => reader.streams.is_empty(),
            Follow::WhileRunning => reader.streams.is_empty() && !running,
            Follow::UntilDropped => false,
        };
        if done || reader.items.is_closed() {
            return Ok(());
        }
        let closed = reader.items.clone();
        tokio::select! {
            Some(ended) = reader.streams.next() => reader.ended(ended).await,
            event = next_event(&mut events) => match event {
                Some(event) => reader.heard(event?).await,
                None => {
                    events = None;
                    reader.known.values_mut().for_each(|known| known.up = false);
                }
            },
            () = closed.closed() => return Ok(()),
        }
    }
}

async fn subscribe(
    client: &Client,
    project: &str,
) -> Result<JsonStream<EventMessage>, ClientError> {
    let filters = Filters::new()
        .with("type", "container")
        .with("event", "start")
        .with("event", "die")
        .with("label", format!("{}={project}", labels::PROJECT));
    client
        .events(&EventsOptions {
            filters,
            ..EventsOptions::default()
        })
        .await
}

async fn next_event(
    events: &mut Option<JsonStream<EventMessage>>,
) -> Option<Result<EventMessage, ClientError>> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}

/// The container in labels of a list or an event; `None` for one-off containers and those of no service.
fn origin(id: String, container: String, labels: &Labels) -> Option<Origin> {
    let oneoff = labels
        .get(labels::ONEOFF)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let service = labels.get(labels::SERVICE).filter(|_| !oneoff)?.clone();
    let number = labels.get(labels::CONTAINER_NUMBER)?.parse().ok()?;
    Some(Origin {
        service,
        number,
        container,
        id,
    })
}

/// Nanoseconds since the epoch as the API takes times.
fn seconds(nanos: i128) -> String {
    const SECOND: i128 = 1_000_000_000;
    format!(
        "{}.{:09}",
        nanos.div_euclid(SECOND),
        nanos.rem_euclid(SECOND)
    )
}

/// What is known of a container that is followed.
#[derive(Debug, Default)]
struct Known {
    up: bool,
    streams: usize,
    exit_code: Option<i64>,
    /// Everything before this time was read; `None`: nothing was.
    read_until: Option<String>,
}

/// How a stream ended.
struct Ended {
    origin: Origin,
    error: Option<ClientError>,
}

struct Reader<'a> {
    client: &'a Client,
    options: &'a LogOptions,
    items: mpsc::Sender<LogItem>,
    streams: FuturesUnordered<BoxFuture<'a, Ended>>,
    known: BTreeMap<Origin, Known>,
}

impl<'a> Reader<'a> {
    fn wants(&self, origin: &Origin) -> bool {
        let service =
            self.options.services.is_empty() || self.options.services.contains(&origin.service);
        service
            && self
                .options
                .index
                .is_none_or(|index| index == origin.number)
    }

    fn query(&self, since: Option<String>, tail: Option<u64>, up: bool) -> LogsOptions {
        LogsOptions {
            follow: up && self.options.follow != Follow::No,
            stdout: true,
            stderr: true,
            since,
            until: self.options.until.clone(),
            timestamps: self.options.timestamps,
            tail,
            details: false,
        }
    }

    fn open(&mut self, origin: Origin, query: LogsOptions, up: bool) {
        let known = self.known.entry(origin.clone()).or_default();
        known.up = up;
        known.streams += 1;
        let stream = read(self.client, origin, query, self.items.clone());
        self.streams.push(Box::pin(stream));
    }

    async fn ended(&mut self, ended: Ended) {
        if let Some(known) = self.known.get_mut(&ended.origin) {
            known.streams -= 1;
        }
        // A container that is gone has no more output; anything else is worth knowing.
        if let Some(error) = ended.error.filter(|error| !error.is_not_found()) {
            let item = LogItem::Unavailable {
                origin: ended.origin.clone(),
                reason: error.to_string(),
            };
            // A dropped receiver is noticed by the loop.
            drop(self.items.send(item).await);
        }
        self.report_exit(&ended.origin).await;
    }

    async fn heard(&mut self, event: EventMessage) {
        let name = event
            .actor
            .attributes
            .get("name")
            .cloned()
            .unwrap_or_default();
        let Some(origin) = origin(event.actor.id, name, &event.actor.attributes) else {
            return;
        };
        if !self.wants(&origin) {
            return;
        }
        let known = self.known.entry(origin.clone()).or_default();
        if event.action == "start" {
            // One that started between subscribing and listing is followed already.
            if !known.up {
                let since = known
                    .read_until
                    .take()
                    .or_else(|| self.options.since.clone());
                let query = self.query(since, None, true);
                self.open(origin, query, true);
            }
            return;
        }
        known.read_until = Some(seconds(i128::from(event.time_nano) + 1));
        let exit_code = event
            .actor
            .attributes
            .get("exitCode")
            .and_then(|code| code.parse().ok());
        known.up = false;
        known.exit_code = exit_code.or(Some(0));
        self.report_exit(&origin).await;
    }

    /// Tells of an exit once all output is through.
    async fn report_exit(&mut self, origin: &Origin) {
        let Some(known) = self
            .known
            .get_mut(origin)
            .filter(|known| known.streams == 0)
        else {
            return;
        };
        if let Some(exit_code) = known.exit_code.take() {
            let item = LogItem::Exited {
                origin: origin.clone(),
                exit_code,
            };
            // A dropped receiver is noticed by the loop.
            drop(self.items.send(item).await);
        }
    }
}

/// One container's output, line by line, to its end.
async fn read(
    client: &Client,
    origin: Origin,
    query: LogsOptions,
    items: mpsc::Sender<LogItem>,
) -> Ended {
    let mut output = match client.logs(&origin.id, &query).await {
        Ok(output) => output,
        Err(error) => {
            return Ended {
                origin,
                error: Some(error),
            };
        }
    };
    let mut lines = Lines::default();
    let mut error = None;
    loop {
        let (ready, over) = match output.next().await {
            Some(Ok(chunk)) => (lines.push(&chunk), false),
            Some(Err(cause)) => {
                error = Some(cause);
                (lines.finish(), true)
            }
            None => (lines.finish(), true),
        };
        for (stream, line) in ready {
            if items
                .send(LogItem::Line {
                    origin: origin.clone(),
                    stream,
                    line,
                })
                .await
                .is_err()
            {
                return Ended {
                    origin,
                    error: None,
                };
            }
        }
        if over {
            return Ended { origin, error };
        }
    }
}

/// Puts lines together; the two streams do not mix.
#[derive(Default)]
struct Lines {
    stdout: BytesMut,
    stderr: BytesMut,
}

impl Lines {
    fn push(&mut self, chunk: &OutputChunk) -> Vec<(StreamKind, Bytes)> {
        let buffer = if chunk.kind == StreamKind::Stderr {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        buffer.extend_from_slice(&chunk.data);
        let mut lines = Vec::new();
        loop {
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let line = match end {
                Some(end) if end <= MAX_LINE => {
                    let mut line = buffer.split_to(end + 1);
                    line.truncate(end);
                    if line.last() == Some(&b'\r') {
                        line.truncate(end - 1);
                    }
                    line
                }
                _ if buffer.len() > MAX_LINE => buffer.split_to(MAX_LINE),
                _ => return lines,
            };
            lines.push((chunk.kind, line.freeze()));
        }
    }

    /// What is left without a line end.
    fn finish(&mut self) -> Vec<(StreamKind, Bytes)> {
        let rest = [
            (StreamKind::Stdout, &mut self.stdout),
            (StreamKind::Stderr, &mut self.stderr),
        ];
        let rest = rest.into_iter().filter(|(_, buffer)| !buffer.is_empty());
        rest.map(|(kind, buffer)| (kind, buffer.split().freeze()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lines: &mut Lines, kind: StreamKind, text: &str) -> Vec<String> {
        let chunk = OutputChunk {
            kind,
            data: Bytes::copy_from_slice(text.as_bytes()),
        };
        lines
            .push(&chunk)
            .into_iter()
            .map(|(_, line)| String::from_utf8(line.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_whole_and_streams_do_not_mix() {
        let mut lines = Lines::default();
        assert_eq!(push(&mut lines, StreamKind::Stdout, "one\ntw"), ["one"]);
        assert_eq!(push(&mut lines, StreamKind::Stderr, "error\r\n"), ["error"]);
        assert_eq!(
            push(&mut lines, StreamKind::Stdout, "o\n\nthree"),
            ["two", ""]
        );
        let rest: Vec<_> = lines.finish();
        assert_eq!(rest, [(StreamKind::Stdout, Bytes::from_static(b"three"))]);
        assert!(lines.finish().is_empty());
    }

    #[test]
    fn times_have_nine_decimals() {
        assert_eq!(seconds(1_700_000_000_000_000_005), "1700000000.000000005");
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let mut lines = Lines::default();
        let long = "x".repeat(MAX_LINE + 10);
        let pieces = push(&mut lines, StreamKind::Stdout, &long);
        assert_eq!(
            pieces.iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE]
        );
        assert_eq!(push(&mut lines, StreamKind::Stdout, "\n"), ["x".repeat(10)]);
    }
}
