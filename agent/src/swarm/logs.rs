//! Logs of services and tasks, gathered from the nodes that have them.

use bytes::Bytes;
use futures_util::stream::BoxStream;
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
    /// The lines, in the order they come in; with `follow` without an end of their own. `timestamps` and `details` of the
    /// options do not matter here.
    ///
    /// # Errors
    /// This node is no manager.
    pub async fn logs(
        &self,
        selector: LogSelector,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let _ = (selector, options);
        self.is_manager()?;
        Err(Error::unsupported("gathering logs"))
    }
}
