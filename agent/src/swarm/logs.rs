//! Logs of services and tasks, gathered from the nodes that have them.

use bytes::Bytes;
use cluster::rpc::Refusal;
use cluster_api::proto;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use agent_api::StreamKind;

use super::Swarm;
use crate::engine::LogOptions;
use crate::error::{Error, Result};

/// Whose logs, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSelector {
    /// Of all tasks of the service, past ones that are still remembered among them.
    Service(String),
    Task(String),
}

/// One line, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub node_id: String,
    pub service_id: String,
    pub task_id: String,
    /// When it was written, by its node's clock.
    pub time: Timestamp,
    pub stream: StreamKind,
    /// What the container's log options put beside each line.
    pub details: Vec<(String, String)>,
    /// With its newline, without time and details.
    pub text: Bytes,
}

impl Swarm {
    /// The lines, in the order they come in; with `follow` without an end of their own. `until`, `timestamps` and
    /// `details` of the options do not matter here. When something could not be read, the last item says what.
    ///
    /// # Errors
    /// This node is no manager, or the managers have no leader.
    pub async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let request = request(selector, &options);
        let batches = self.manager()?.logs(request).await.map_err(failed)?;
        let lines = batches.flat_map(|batch| {
            let lines: Vec<Result<LogLine>> = match batch {
                Ok(batch) => batch.messages.into_iter().map(|m| Ok(line(m))).collect(),
                Err(refusal) => vec![Err(failed(refusal))],
            };
            stream::iter(lines)
        });
        Ok(lines.boxed())
    }
}

fn failed(refusal: Refusal) -> Error {
    Error::Unavailable(format!("rpc error: code = Unknown desc = {refusal}"))
}

fn request(selector: LogSelector, options: &LogOptions) -> proto::SubscribeLogsRequest {
    let selector = match selector {
        LogSelector::Service(id) => proto::LogSelector {
            service_ids: vec![id],
            ..proto::LogSelector::default()
        },
        LogSelector::Task(id) => proto::LogSelector {
            task_ids: vec![id],
            ..proto::LogSelector::default()
        },
    };
    let since = options.since.map_or(0, Timestamp::as_nanosecond);
    let options = proto::LogOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        follow: options.follow,
        tail: options
            .tail
            .map_or(-1, |lines| i64::try_from(lines).unwrap_or(i64::MAX)),
        since: i64::try_from(since).unwrap_or(i64::MAX),
    };
    proto::SubscribeLogsRequest {
        selector: Some(selector),
        options: Some(options),
    }
}

fn line(message: proto::LogMessage) -> LogLine {
    let stream = match message.stream() {
        proto::LogStream::Stderr => StreamKind::Stderr,
        proto::LogStream::Stdout | proto::LogStream::Unspecified => StreamKind::Stdout,
    };
    let time = Timestamp::from_nanosecond(i128::from(message.timestamp)).unwrap_or_default();
    let details = message.attributes.into_iter();
    LogLine {
        node_id: message.node_id,
        service_id: message.service_id,
        task_id: message.task_id,
        time,
        stream,
        details: details.map(|pair| (pair.key, pair.value)).collect(),
        text: message.data,
    }
}
