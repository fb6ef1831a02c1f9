//! News of builds on their way to the display. Whoever reads a build's connection must not wait for the terminal, which
//! may be stopped: news are kept here until they are shown, and no more of them than fits.
//!
//! When the display is late, the news of a build are joined: of steps and their parts the last word counts, of output
//! the last [`MAX_OUTPUT`] bytes, with a line that says what is missing.

use agent_api::build::{SolveStatus, VertexLog};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// News that wait apart from each other.
const MAX_WAITING: usize = 256;
/// Bytes of output that wait.
const MAX_OUTPUT: usize = 8 << 20;
/// What a line of output takes beside its text, about.
const LINE: usize = 128;

/// News that wait, of all builds.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    /// By the builds' names.
    news: VecDeque<(String, SolveStatus)>,
    output: usize,
}

impl Backlog {
    /// Adds news of a build. Never waits.
    pub(super) fn push(&self, build: &str, status: SolveStatus) {
        self.lock().push(build, status);
        self.arrived.notify_one();
    }

    /// The oldest news, as soon as there are some.
    pub(super) async fn next(&self) -> (String, SolveStatus) {
        loop {
            if let Some(news) = self.try_next() {
                return news;
            }
            self.arrived.notified().await;
        }
    }

    /// The oldest news, if there are some.
    pub(super) fn try_next(&self) -> Option<(String, SolveStatus)> {
        let mut waiting = self.lock();
        let news = waiting.news.pop_front()?;
        waiting.output -= size(&news.1);
        Some(news)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds it can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, build: &str, status: SolveStatus) {
        self.output += size(&status);
        let full = self.news.len() >= MAX_WAITING;
        let same = self.news.iter_mut().rev().find(|(name, _)| name == build);
        match same.filter(|_| full) {
            Some((_, last)) => join(last, status),
            None => self.news.push_back((build.to_owned(), status)),
        }
        while self.output > MAX_OUTPUT {
            self.clip();
        }
    }

    /// Drops the older half of the output that has waited longest.
    fn clip(&mut self) {
        let oldest = self.news.iter_mut().map(|(_, status)| status);
        let Some(status) = oldest.into_iter().find(|status| !status.logs.is_empty()) else {
            return;
        };
        let before = size(status);
        let half = status.logs.len().div_ceil(2);
        let last = status.logs[half - 1].clone();
        status.logs.drain(..half);
        if !status.logs.is_empty() {
            status.logs.insert(0, clipped(last));
        }
        self.output = self.output - before + size(status);
    }
}

/// Stands for output that nobody could take in time.
fn clipped(last: VertexLog) -> VertexLog {
    VertexLog {
        data: b"[output clipped: the terminal was too slow]\n".to_vec(),
        ..last
    }
}

/// Puts later news on earlier ones of the same build.
fn join(earlier: &mut SolveStatus, later: SolveStatus) {
    for vertex in later.vertexes {
        let known = earlier.vertexes.iter_mut();
        match known.rev().find(|other| other.digest == vertex.digest) {
            Some(known) => *known = vertex,
            None => earlier.vertexes.push(vertex),
        }
    }
    for part in later.statuses {
        let mut known = earlier.statuses.iter_mut();
        match known.find(|other| (&other.vertex, &other.id) == (&part.vertex, &part.id)) {
            Some(known) => *known = part,
            None => earlier.statuses.push(part),
        }
    }
    earlier.logs.extend(later.logs);
    for warning in later.warnings {
        if !earlier.warnings.contains(&warning) {
            earlier.warnings.push(warning);
        }
    }
}

/// What of news counts against the limit.
fn size(status: &SolveStatus) -> usize {
    let logs = status.logs.iter();
    logs.map(|log| log.data.len() + LINE).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::build::{ProgressVertex, VertexStatus};
    use jiff::Timestamp;

    fn log(text: &[u8]) -> SolveStatus {
        let log = VertexLog {
            vertex: "a".to_owned(),
            stream: 1,
            data: text.to_vec(),
            timestamp: Timestamp::UNIX_EPOCH,
        };
        SolveStatus {
            logs: vec![log],
            ..SolveStatus::default()
        }
    }

    fn progress(current: i64) -> SolveStatus {
        let vertex = ProgressVertex {
            digest: "a".to_owned(),
            name: format!("step {current}"),
            ..ProgressVertex::default()
        };
        let part = VertexStatus {
            id: "layer".to_owned(),
            vertex: "a".to_owned(),
            name: String::new(),
            total: 0,
            current,
            timestamp: Timestamp::UNIX_EPOCH,
            started: None,
            completed: None,
        };
        SolveStatus {
            vertexes: vec![vertex],
            statuses: vec![part],
            ..SolveStatus::default()
        }
    }

    #[tokio::test]
    async fn news_come_in_their_order() {
        let backlog = Backlog::default();
        backlog.push("x", progress(1));
        backlog.push("y", log(b"hello"));
        assert_eq!(backlog.next().await, ("x".to_owned(), progress(1)));
        assert_eq!(backlog.next().await, ("y".to_owned(), log(b"hello")));
        assert_eq!(backlog.try_next(), None);
        let later = async {
            tokio::task::yield_now().await;
            backlog.push("x", progress(2));
        };
        let (news, ()) = tokio::join!(backlog.next(), later);
        assert_eq!(news.1, progress(2));
    }

    #[test]
    fn a_display_that_stands_still_costs_no_more_and_misses_no_ends() {
        let backlog = Backlog::default();
        for current in 0..100_000 {
            backlog.push(if current % 2 == 0 { "x" } else { "y" }, progress(current));
        }
        let mut last = SolveStatus::default();
        let mut count = 0;
        while let Some((_, status)) = backlog.try_next() {
            count += 1;
            last = status;
        }
        assert!(count <= MAX_WAITING + 1, "{count}");
        assert_eq!(last.vertexes.len(), 1);
        assert_eq!(last.statuses[0].current, 99_999);
    }

    #[test]
    fn output_is_bounded_and_says_what_is_missing() {
        let backlog = Backlog::default();
        for line in 0..2_000 {
            backlog.push("x", log(format!("{line}{}", " ".repeat(10_000)).as_bytes()));
        }
        assert!(backlog.lock().output <= MAX_OUTPUT);
        let mut all = Vec::new();
        while let Some((_, status)) = backlog.try_next() {
            all.extend(status.logs.into_iter().map(|log| log.data));
        }
        assert_eq!(backlog.lock().output, 0);
        let text = |data: &[u8]| String::from_utf8_lossy(data).trim().to_owned();
        assert!(
            all.iter()
                .any(|data| text(data).starts_with("[output clipped"))
        );
        // The end is what tells why something failed.
        assert_eq!(text(all.last().unwrap()), "1999");
    }
}
