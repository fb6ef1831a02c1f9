//! Output of this node's tasks, for those who read it elsewhere (SwarmKit `agent/worker.go`, `taskLogs`).
//!
//! ```text
//! containers of the tasks ──▶ one reader each ──▶ lines ──▶ one stream to the leader
//!   (there now, and with `follow` those started later)
//! ```
//!
//! A subscription ends when everything was sent, when the leader wants no more, or when it is taken back. Containers of
//! tasks that have ended are read as long as they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_api::{ContainerStatus, ContainerSummary, Filters, StreamKind};
use cluster::rpc::Peers;
use cluster_api::proto::{
    LogMessage, LogOptions as Wanted, LogSelector, LogStream, LogSubscription, ManagerAddress,
    PublishLogsRequest,
};
use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::TASK_LABEL;
use crate::engine::{Engine, EventOptions, ListOptions, LogOptions};
use crate::error::Result;

const SERVICE_LABEL: &str = "com.docker.swarm.service.id";
/// Lines that may wait to be sent.
const LINES: usize = 256;
/// Lines in one message. Each has at most 16 KiB, so that a message stays below the wire's bound.
const BATCH: usize = 128;
/// Readers served at once.
const SUBSCRIPTIONS: usize = 256;
/// Reasons given for what could not be read.
const REASONS: usize = 10;

/// Everything this node publishes.
pub(super) struct Publisher {
    engine: Engine,
    peers: Arc<Peers>,
    node_id: String,
    running: BTreeMap<String, AbortHandle>,
}

impl Publisher {
    pub(super) fn new(engine: Engine, peers: Arc<Peers>, node_id: String) -> Self {
        Self {
            engine,
            peers,
            node_id,
            running: BTreeMap::new(),
        }
    }

    /// Begins to publish. What is published already under that id ends.
    pub(super) fn begin(&mut self, leader: ManagerAddress, subscription: LogSubscription) {
        self.running.retain(|_, task| !task.is_finished());
        self.end(&subscription.id);
        if self.running.len() >= SUBSCRIPTIONS {
            tracing::warn!("too many readers of logs: one more is not served");
            return;
        }
        let id = subscription.id.clone();
        let source = Source {
            engine: self.engine.clone(),
            node_id: self.node_id.clone(),
            selector: subscription.selector.unwrap_or_default(),
            wanted: subscription.options.unwrap_or_default(),
            failures: Mutex::default(),
        };
        let task = tokio::spawn(publish(
            Arc::clone(&self.peers),
            leader,
            subscription.id,
            Arc::new(source),
        ));
        self.running.insert(id, task.abort_handle());
    }

    /// Nobody reads it any more.
    pub(super) fn end(&mut self, id: &str) {
        if let Some(task) = self.running.remove(id) {
            task.abort();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

async fn publish(peers: Arc<Peers>, leader: ManagerAddress, id: String, source: Arc<Source>) {
    let (lines, queue) = mpsc::channel(LINES);
    let gathering = {
        let source = Arc::clone(&source);
        async move {
            if let Err(error) = source.gather(lines).await {
                source.failed(error.to_string());
            }
            // The stream ends now; the call tells when the leader has got it.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        published = peers.publish_logs(&leader, batches(id, queue, source)) => {
            if let Err(refusal) = published {
                tracing::debug!(%refusal, manager.address = leader.address, "logs are not wanted");
            }
        }
        () = gathering => {}
    }
}

/// The lines in messages, and when there are no more the last word.
fn batches(
    subscription_id: String,
    queue: mpsc::Receiver<LogMessage>,
    source: Arc<Source>,
) -> impl Stream<Item = PublishLogsRequest> + Send + 'static {
    stream::unfold(Some(queue), move |queue| {
        let (subscription_id, source) = (subscription_id.clone(), Arc::clone(&source));
        async move {
            let mut queue = queue?;
            let mut messages = Vec::new();
            let more = queue.recv_many(&mut messages, BATCH).await > 0;
            let request = PublishLogsRequest {
                subscription_id,
                messages,
                close: !more,
                error: if more {
                    String::new()
                } else {
                    source.failures.lock().join(", ")
                },
            };
            Some((request, more.then_some(queue)))
        }
    })
}

/// What one subscription is about.
struct Source {
    engine: Engine,
    node_id: String,
    selector: LogSelector,
    wanted: Wanted,
    failures: Mutex<Vec<String>>,
}

/// A container whose output is asked for.
struct Origin {
    container: String,
    task_id: String,
    service_id: String,
}

impl Source {
    /// Reads all there is; with `follow` until nobody wants it.
    async fn gather(self: &Arc<Self>, lines: mpsc::Sender<LogMessage>) -> Result<()> {
        let mut starts = match self.wanted.follow {
            // Listened to before the look, so that no start is missed in between.
            true => self.engine.events(starts()).await?,
            false => stream::empty().boxed(),
        };
        let mut readers = JoinSet::new();
        let mut read = BTreeSet::new();
        for (origin, started) in self.there_now().await? {
            if started || !self.wanted.follow {
                read.insert(origin.container.clone());
                let tail = usize::try_from(self.wanted.tail).ok();
                let source = Arc::clone(self);
                let lines = lines.clone();
                readers.spawn(async move { source.read(origin, tail, lines).await });
            }
        }
        loop {
            tokio::select! {
                Some(event) = starts.next() => {
                    let origin = self.origin(&event.actor.id, |label| {
                        event.actor.attributes.get(label).map(String::as_str)
                    });
                    // The start of one that is read already may be told late.
                    if let Some(origin) = origin
                        && read.insert(origin.container.clone())
                    {
                        let source = Arc::clone(self);
                        let lines = lines.clone();
                        readers.spawn(async move { source.read(origin, None, lines).await });
                    }
                }
                Some(done) = readers.join_next(), if !readers.is_empty() => {
                    if let Err(error) = done {
                        self.failed(error.to_string());
                    }
                }
                else => return Ok(()),
            }
        }
    }

    /// Containers that are there, and whether each was ever started.
    async fn there_now(&self) -> Result<Vec<(Origin, bool)>> {
        let options = ListOptions {
            all: true,
            filters: Filters::new().with("label", TASK_LABEL),
            ..ListOptions::default()
        };
        let listed = self.engine.list_containers(options).await?;
        let origin = |container: &ContainerSummary| {
            let label = |name: &str| container.labels.get(name).map(String::as_str);
            let origin = self.origin(&container.id, label)?;
            Some((origin, container.state != ContainerStatus::Created))
        };
        Ok(listed.iter().filter_map(origin).collect())
    }

    /// The container as a source, if it is one of this subscription's.
    fn origin<'a>(&self, id: &str, label: impl Fn(&str) -> Option<&'a str>) -> Option<Origin> {
        let task_id = label(TASK_LABEL)?;
        let service_id = label(SERVICE_LABEL).unwrap_or_default();
        let names = |ids: &[String], id: &str| ids.iter().any(|other| other == id);
        let wanted = names(&self.selector.task_ids, task_id)
            || names(&self.selector.service_ids, service_id)
            || names(&self.selector.node_ids, &self.node_id);
        wanted.then(|| Origin {
            container: id.to_owned(),
            task_id: task_id.to_owned(),
            service_id: service_id.to_owned(),
        })
    }

    async fn read(&self, origin: Origin, tail: Option<usize>, lines: mpsc::Sender<LogMessage>) {
        let options = LogOptions {
            follow: self.wanted.follow,
            since: since(self.wanted.since),
            tail,
            timestamps: true,
            stdout: self.wanted.stdout,
            stderr: self.wanted.stderr,
            ..LogOptions::default()
        };
        let logs = self.engine.container_logs(&origin.container, options);
        let mut logs = match logs.await {
            Ok(logs) => logs.lines,
            Err(error) => return self.failed(format!("task {}: {error}", origin.task_id)),
        };
        while let Some(line) = logs.next().await {
            let line = match line {
                Ok((kind, text)) => message(&origin, &self.node_id, kind, &text),
                Err(error) => return self.failed(format!("task {}: {error}", origin.task_id)),
            };
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }

    fn failed(&self, reason: String) {
        let mut failures = self.failures.lock();
        if failures.len() < REASONS {
            failures.push(reason);
        }
    }
}

fn starts() -> EventOptions {
    EventOptions {
        filters: Filters::new()
            .with("type", "container")
            .with("event", "start")
            .with("label", TASK_LABEL),
        ..EventOptions::default()
    }
}

/// Zero means from the beginning.
fn since(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0)
        .then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok())
        .flatten()
}

/// A line as the engine gives it, its time in front.
fn message(origin: &Origin, node_id: &str, kind: StreamKind, line: &[u8]) -> LogMessage {
    let stream = match kind {
        StreamKind::Stderr => LogStream::Stderr,
        _ => LogStream::Stdout,
    };
    let time = line.iter().position(|byte| *byte == b' ').and_then(|end| {
        let text = std::str::from_utf8(&line[..end]).ok()?;
        Some((text.parse::<Timestamp>().ok()?, end + 1))
    });
    let (timestamp, text) = match time {
        Some((time, begin)) => (time.as_nanosecond(), &line[begin..]),
        None => (0, line),
    };
    LogMessage {
        service_id: origin.service_id.clone(),
        node_id: node_id.to_owned(),
        task_id: origin.task_id.clone(),
        timestamp: i64::try_from(timestamp).unwrap_or(i64::MAX),
        stream: stream.into(),
        // No log option that adds some is supported.
        attributes: Vec::new(),
        data: text.to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            container: "c".into(),
            task_id: "t".into(),
            service_id: "s".into(),
        }
    }

    #[test]
    fn a_line_is_split_from_its_time() {
        let line = b"2023-11-14T22:13:20.000000001Z hello  world\n";
        let read = message(&origin(), "n", StreamKind::Stderr, line);
        assert_eq!(read.timestamp, 1_700_000_000_000_000_001);
        assert_eq!(&read.data[..], b"hello  world\n");
        assert_eq!(read.stream(), LogStream::Stderr);
        assert_eq!(
            (&read.node_id[..], &read.task_id[..], &read.service_id[..]),
            ("n", "t", "s")
        );

        let read = message(&origin(), "n", StreamKind::Stdout, b"no time\n");
        assert_eq!((read.timestamp, &read.data[..]), (0, &b"no time\n"[..]));
    }

    #[test]
    fn zero_is_no_time_to_begin_at() {
        assert_eq!(since(0), None);
        assert_eq!(since(-1), None);
        assert_eq!(since(1).unwrap().as_nanosecond(), 1);
    }
}
