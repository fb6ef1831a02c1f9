//! What a build tells while it goes on, as BuildKit's `SolveStatus`, and how it waits for a client that reads slowly.
//!
//! Steps tell their news to a [`Progress`]; whoever speaks with the client takes them out as they come. Nobody waits for
//! a client: output beyond [`MAX_WAITING`] is dropped, and the step's log says so. Vertices and their ends are never
//! dropped; there are as many as the plan has steps.
//!
//! Source: buildkit `client/graph.go`, `util/progress`.

use std::sync::Arc;

use agent_api::build::{ProgressVertex, SolveStatus, VertexLog, VertexStatus, VertexWarning};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes of output that may wait for the client.
const MAX_WAITING: usize = 4 << 20;
/// Bytes of output in one message, so that it fits a frame.
const MAX_MESSAGE: usize = 1 << 20;

/// Takes the news of one build. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    status: SolveStatus,
    log_bytes: usize,
    /// Output was dropped since the last message.
    clipped: bool,
    /// Nothing more will come.
    closed: bool,
}

impl Progress {
    /// A step is new or has changed.
    pub(crate) fn vertex(&self, vertex: ProgressVertex) {
        self.put(|waiting| waiting.status.vertexes.push(vertex));
    }

    /// A part of a step has changed; of several changes that wait only the last is kept.
    pub(crate) fn status(&self, status: VertexStatus) {
        self.put(|waiting| {
            let same = |old: &&mut VertexStatus| old.id == status.id && old.vertex == status.vertex;
            match waiting.status.statuses.iter_mut().find(same) {
                Some(old) => *old = status,
                None => waiting.status.statuses.push(status),
            }
        });
    }

    /// A step has written something.
    pub(crate) fn log(&self, vertex: &str, stream: i64, data: &[u8]) {
        self.put(|waiting| {
            let log = |stream, data: &[u8]| VertexLog {
                vertex: vertex.to_owned(),
                stream,
                data: data.to_vec(),
                timestamp: Timestamp::now(),
            };
            if waiting.log_bytes + data.len() <= MAX_WAITING {
                waiting.log_bytes += data.len();
                waiting.status.logs.push(log(stream, data));
            } else if !std::mem::replace(&mut waiting.clipped, true) {
                let note = b"\n[output clipped: the client reads too slowly]\n";
                waiting.status.logs.push(log(2, note));
            }
        });
    }

    /// Something is not as it should be.
    pub(crate) fn warning(&self, warning: VertexWarning) {
        self.put(|waiting| waiting.status.warnings.push(warning));
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.put(|waiting| waiting.closed = true);
    }

    /// What has come since the last call; `None` after the end.
    pub(crate) async fn next(&self) -> Option<SolveStatus> {
        loop {
            let came = self.0.came.notified();
            {
                let mut waiting = self.0.waiting.lock();
                if !waiting.status.is_empty() {
                    return Some(waiting.take());
                }
                if waiting.closed {
                    return None;
                }
            }
            came.await;
        }
    }

    fn put(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.0.waiting.lock());
        self.0.came.notify_one();
    }
}

impl Waiting {
    fn take(&mut self) -> SolveStatus {
        let mut taken = std::mem::take(&mut self.status);
        let mut bytes = 0;
        let mut fits = |log: &VertexLog| {
            bytes += log.data.len();
            bytes <= MAX_MESSAGE
        };
        let fitting = taken.logs.iter().take_while(|log| fits(log)).count().max(1);
        if fitting < taken.logs.len() {
            self.status.logs = taken.logs.split_off(fitting);
        }
        self.log_bytes = self.status.logs.iter().map(|log| log.data.len()).sum();
        self.clipped &= !self.status.logs.is_empty();
        taken
    }
}

/// One step of one build, as its client sees it. Clones are the same step.
#[derive(Clone)]
pub(crate) struct Seat {
    progress: Progress,
    digest: Arc<str>,
    vertex: Arc<Mutex<ProgressVertex>>,
}

impl Seat {
    /// Announces a step that has not begun.
    pub(crate) fn announce(
        progress: &Progress,
        digest: &str,
        inputs: Vec<String>,
        name: &str,
    ) -> Self {
        let vertex = ProgressVertex {
            digest: digest.to_owned(),
            inputs,
            name: name.to_owned(),
            ..ProgressVertex::default()
        };
        progress.vertex(vertex.clone());
        Self {
            progress: progress.clone(),
            digest: digest.into(),
            vertex: Arc::new(Mutex::new(vertex)),
        }
    }

    /// Announces a step of the builder's own that begins now.
    pub(crate) fn begin(progress: &Progress, name: &str) -> Self {
        let digest = agent_image::Digest::of(name.as_bytes()).to_string();
        let seat = Self::announce(progress, &digest, Vec::new(), name);
        seat.start();
        seat
    }

    /// The step runs, if it does not already.
    pub(crate) fn start(&self) {
        let mut vertex = self.vertex.lock();
        if vertex.started.is_none() {
            vertex.started = Some(Timestamp::now());
            self.progress.vertex(vertex.clone());
        }
    }

    /// The step has ended well: it ran, or its result was there.
    pub(crate) fn done(&self) {
        self.end(|vertex| vertex.cached = vertex.started.is_none());
    }

    /// The step has failed.
    pub(crate) fn failed(&self, error: &str) {
        self.end(|vertex| error.clone_into(&mut vertex.error));
    }

    /// If the step is under way, it is no longer.
    pub(crate) fn given_up(&self) {
        if self.vertex.lock().started.is_some() {
            // Clients know this text.
            self.failed("context canceled");
        }
    }

    /// Whether it has been told that the step runs.
    pub(crate) fn started(&self) -> bool {
        self.vertex.lock().started.is_some()
    }

    /// Whether it has been told that the step has ended.
    pub(crate) fn ended(&self) -> bool {
        self.vertex.lock().completed.is_some()
    }

    fn end(&self, how: impl FnOnce(&mut ProgressVertex)) {
        let mut vertex = self.vertex.lock();
        if vertex.completed.is_some() {
            return;
        }
        how(&mut vertex);
        let now = Timestamp::now();
        vertex.started.get_or_insert(now);
        vertex.completed = Some(now);
        self.progress.vertex(vertex.clone());
    }

    /// The step has written something.
    pub(crate) fn log(&self, stream: i64, data: &[u8]) {
        self.progress.log(&self.digest, stream, data);
    }

    /// Begins a part of the step that is shown by its name: `exporting layers`.
    pub(crate) fn part(&self, id: &str) -> Part {
        let now = Timestamp::now();
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: self.digest.to_string(),
            name: String::new(),
            total: 0,
            current: 0,
            timestamp: now,
            started: Some(now),
            completed: None,
        };
        self.progress.status(status.clone());
        Part {
            progress: self.progress.clone(),
            status,
        }
    }

    /// Something is not as it should be with the step.
    pub(crate) fn warning(&self, warning: VertexWarning) {
        self.progress.warning(VertexWarning {
            vertex: self.digest.to_string(),
            ..warning
        });
    }
}

/// A part of a step that has begun.
pub(crate) struct Part {
    progress: Progress,
    status: VertexStatus,
}

impl Part {
    /// How far it is; 0 for a total that is not known.
    pub(crate) fn at(&mut self, name: &str, current: u64, total: u64) {
        name.clone_into(&mut self.status.name);
        self.status.current = i64::try_from(current).unwrap_or(i64::MAX);
        self.status.total = i64::try_from(total).unwrap_or(i64::MAX);
        self.status.timestamp = Timestamp::now();
        self.progress.status(self.status.clone());
    }

    /// It is complete.
    pub(crate) fn done(mut self) {
        let now = Timestamp::now();
        self.status.timestamp = now;
        self.status.completed = Some(now);
        self.progress.status(self.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_come_together_and_the_end_comes_last() {
        let progress = Progress::default();
        let seat = Seat::announce(&progress, "sha256:1", Vec::new(), "one");
        seat.start();
        seat.log(1, b"text");
        let part = seat.part("exporting");
        part.done();
        seat.done();
        progress.close();
        let news = progress.next().await.unwrap();
        assert_eq!(news.vertexes.len(), 3);
        assert!(news.vertexes[2].completed.is_some());
        assert_eq!(news.logs[0].data, b"text");
        // Only the newest state of a part is of interest.
        assert_eq!(news.statuses.len(), 1);
        assert!(news.statuses[0].completed.is_some());
        assert!(progress.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_client_loses_output_and_no_vertex() {
        let progress = Progress::default();
        let seat = Seat::begin(&progress, "one");
        for _ in 0..100 {
            seat.log(1, &[b'x'; 100_000]);
        }
        seat.failed("failed");
        progress.close();
        let (mut bytes, mut vertices, mut notes) = (0, Vec::new(), 0);
        while let Some(news) = progress.next().await {
            let own: usize = news.logs.iter().map(|log| log.data.len()).sum();
            assert!(own <= MAX_MESSAGE);
            bytes += own;
            notes += news.logs.iter().filter(|log| log.stream == 2).count();
            vertices.extend(news.vertexes);
        }
        assert!(bytes <= MAX_WAITING + 100 && bytes > MAX_WAITING - 100_000);
        assert_eq!(notes, 1);
        assert_eq!(vertices.last().unwrap().error, "failed");
    }
}
