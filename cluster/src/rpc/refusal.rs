//! Why a node does not do what it was asked, on both ends of the wire. The only place that knows gRPC's codes.
//!
//! ```text
//! backend → Refusal ─▶ tonic::Status (code, message, metadata) ─▶ wire ─▶ Status ─▶ Refusal → caller
//! ```

use cluster_api::proto::ManagerAddress;
use prost::Message as _;
use tonic::metadata::{BinaryMetadataKey, MetadataValue};
use tonic::{Code, Status};

/// A leader's address travels here.
const LEADER: &str = "muster-leader-bin";

/// Why a call was refused or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Only the leader does this; who that is, if known.
    #[error("this manager does not lead{}", leader.as_ref().map_or_else(String::new, |l| format!(", {} does", l.address)))]
    NotLeader { leader: Option<ManagerAddress> },
    /// It cannot be done now; it may be later, or elsewhere.
    #[error("{0}")]
    Unavailable(String),
    /// There was no connection: it certainly was not asked.
    #[error("{0}")]
    Unreached(String),
    /// No answer in time.
    #[error("{0}")]
    TimedOut(String),
    /// The session is not, or no longer, the node's: it registers again.
    #[error("session {0:?} is not valid")]
    UnknownSession(String),
    /// The caller may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The caller shows no certificate, or a worthless token.
    #[error("{0}")]
    Unauthenticated(String),
    /// What was asked is wrong and stays wrong.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    /// Not in the state the cluster is in.
    #[error("{0}")]
    Conflict(String),
    /// More than is allowed was sent or asked.
    #[error("{0}")]
    TooMuch(String),
    /// Something is broken.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// Whether the same call may succeed later, or with another manager.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::Unavailable(_)
                | Self::Unreached(_)
                | Self::TimedOut(_)
                | Self::TooMuch(_)
        )
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NotLeader { leader } => {
                let mut status = Self::failed_precondition(message);
                let leader = leader.unwrap_or_default().encode_to_vec();
                let key = BinaryMetadataKey::from_static(LEADER);
                status
                    .metadata_mut()
                    .insert_bin(key, MetadataValue::from_bytes(&leader));
                status
            }
            Refusal::Unavailable(_) | Refusal::Unreached(_) => Self::unavailable(message),
            Refusal::TimedOut(_) => Self::deadline_exceeded(message),
            // The id alone: it is read back.
            Refusal::UnknownSession(session) => Self::aborted(session),
            Refusal::Forbidden(_) => Self::permission_denied(message),
            Refusal::Unauthenticated(_) => Self::unauthenticated(message),
            Refusal::Invalid(_) => Self::invalid_argument(message),
            Refusal::NotFound(_) => Self::not_found(message),
            Refusal::Conflict(_) => Self::failed_precondition(message),
            Refusal::TooMuch(_) => Self::resource_exhausted(message),
            Refusal::Internal(_) => Self::internal(message),
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let message = describe(&status);
        match status.code() {
            Code::FailedPrecondition => match status.metadata().get_bin(LEADER) {
                Some(leader) => Self::NotLeader {
                    leader: leader
                        .to_bytes()
                        .ok()
                        .and_then(|bytes| ManagerAddress::decode(bytes).ok())
                        .filter(|leader| !leader.address.is_empty()),
                },
                None => Self::Conflict(message),
            },
            Code::Unavailable if unconnected(&status) => Self::Unreached(message),
            Code::Unavailable | Code::Cancelled | Code::Unknown => Self::Unavailable(message),
            Code::DeadlineExceeded => Self::TimedOut(message),
            Code::Aborted => Self::UnknownSession(status.message().to_owned()),
            Code::PermissionDenied => Self::Forbidden(message),
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::InvalidArgument => Self::Invalid(message),
            Code::NotFound => Self::NotFound(message),
            Code::AlreadyExists => Self::Conflict(message),
            Code::ResourceExhausted | Code::OutOfRange => Self::TooMuch(message),
            Code::Ok | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Self::Internal(message)
            }
        }
    }
}

/// Whether the call ended before there was a connection to send it on.
fn unconnected(status: &Status) -> bool {
    std::iter::successors(std::error::Error::source(status), |cause| cause.source())
        .any(|cause| cause.is::<tonic::ConnectError>())
}

/// What the other side said, or why it could not be reached: the whole chain of causes, but for those that say nothing.
fn describe(status: &Status) -> String {
    const EMPTY: [&str; 2] = ["transport error", ""];
    let mut parts = vec![status.message().to_owned()];
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    parts.retain(|part| !EMPTY.contains(&part.as_str()));
    if parts.is_empty() {
        return status.code().description().to_owned();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_same_on_the_other_side() {
        let leader = ManagerAddress {
            node_id: "n1".into(),
            address: "10.0.0.1:2377".into(),
        };
        let refusals = [
            Refusal::NotLeader {
                leader: Some(leader),
            },
            Refusal::NotLeader { leader: None },
            Refusal::Unavailable("later".into()),
            Refusal::TimedOut("slow".into()),
            Refusal::UnknownSession("abc".into()),
            Refusal::Forbidden("no".into()),
            Refusal::Unauthenticated("who".into()),
            Refusal::Invalid("what".into()),
            Refusal::NotFound("where".into()),
            Refusal::Conflict("state".into()),
            Refusal::TooMuch("much".into()),
            Refusal::Internal("bug".into()),
        ];
        for refusal in refusals {
            let status = Status::from(refusal.clone());
            let mut headers = http::HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let received = Status::from_header_map(&headers).unwrap();
            assert_eq!(Refusal::from(received), refusal);
        }
    }
}
