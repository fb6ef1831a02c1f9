//! `compose logs` and the output of an attached `up`: the output of all containers of a project as one stream of
//! whole lines, each with the container it is from. Nothing is formatted here.

use agent_api::client::ClientError;
use agent_api::{Client, StreamKind};
use tokio::sync::mpsc;

/// Which output.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Services; empty = all.
    pub services: Vec<String>,
    /// Only the container with this number.
    pub index: Option<u32>,
    /// Go on: new output, restarted containers, and containers that are created later.
    pub follow: bool,
    /// Lines from the end of what there is; `None` = all.
    pub tail: Option<u64>,
    /// Seconds since the epoch with an optional fraction.
    pub since: Option<String>,
    /// Seconds since the epoch with an optional fraction.
    pub until: Option<String>,
    /// The engine puts a time in front of every line.
    pub timestamps: bool,
}

/// One thing that happened to the output of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A line, without its line end.
    Line {
        /// Name of the container.
        container: String,
        /// Its service.
        service: String,
        /// Its number.
        number: u32,
        /// Standard output or standard error.
        stream: StreamKind,
        /// The bytes, at most [`MAX_LINE`]; longer lines come in pieces.
        line: bytes::Bytes,
    },
    /// The container ended; only when following.
    Exited {
        /// Name of the container.
        container: String,
        /// Its service.
        service: String,
        /// Its number.
        number: u32,
        /// Exit code.
        exit_code: i64,
    },
}

/// Longest line that is kept together, bytes.
pub const MAX_LINE: usize = 64 << 10;

/// Sends the output of a project's containers to `items` until there is no more (or, when following, until the
/// receiver is dropped or no container of the project is left).
///
/// # Errors
/// When the engine cannot be asked or the connection is lost.
pub async fn follow(
    client: &Client,
    project: &str,
    options: &LogOptions,
    items: mpsc::Sender<LogItem>,
) -> Result<(), ClientError> {
    todo!()
}
