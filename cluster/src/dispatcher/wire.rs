//! The messages in the protocol's form and back.
/// Why a message from the wire makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("read {what}")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} {value:?} is unknown")]
    Unknown { what: &'static str, value: String },
}
