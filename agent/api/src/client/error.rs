//! What can go wrong between the client and the daemon.

use std::io;

/// Result of every call of the client.
pub type Result<T> = std::result::Result<T, ClientError>;

/// An error of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the daemon cannot be used.
    #[error("invalid host \"{host}\": {reason}")]
    Host {
        /// What was given.
        host: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// Nobody listens at the address.
    #[error("{}", unreachable_message(host, source))]
    Unreachable {
        /// The daemon's address.
        host: String,
        /// Why the connection failed.
        #[source]
        source: io::Error,
    },
    /// The daemon's newest API is older than the oldest this client speaks.
    #[error(
        "the daemon at {host} speaks API {}.{} at most, {}.{} is the oldest that is understood: upgrade the daemon",
        version.0, version.1, super::CLIENT_MIN_API_VERSION.0, super::CLIENT_MIN_API_VERSION.1
    )]
    TooOld {
        /// The daemon's address.
        host: String,
        /// The daemon's newest version.
        version: (u16, u16),
    },
    /// The daemon refused: its own words.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The daemon's message.
        message: String,
    },
    /// A name or id that cannot be part of a request.
    #[error("cannot make a request of {path:?}")]
    Request {
        /// Path of the request.
        path: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// The connection broke before the reply was complete.
    #[error("lost the connection to the daemon during {what}: did the daemon stop?")]
    Transport {
        /// Method and path, or the stream.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The reply is not what the API promises.
    #[error("cannot read the daemon's reply to {path}")]
    Decode {
        /// Path of the request.
        path: String,
        /// Where the text deviates.
        #[source]
        source: serde_json::Error,
    },
    /// The reply breaks the protocol.
    #[error("unexpected reply of the daemon to {path}: {reason}")]
    Protocol {
        /// Path of the request.
        path: String,
        /// What was unexpected.
        reason: String,
    },
}

impl ClientError {
    /// HTTP status of a refusal, `None` when the daemon did not answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The state or a name of the object is in the way.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// No daemon listens: starting one may help (a refused permission does not count).
    #[must_use]
    pub fn is_daemon_absent(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }
}

fn unreachable_message(host: &str, source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::PermissionDenied {
        return format!(
            "permission denied while connecting to the muster daemon at {host}: run the command as root, or as a \
             member of the group that owns the socket"
        );
    }
    if !host.starts_with("unix://") {
        return format!("cannot connect to the muster daemon at {host}: {source}");
    }
    format!(
        "cannot connect to the muster daemon at {host}: is it running? start it with \"muster daemon\""
    )
}
