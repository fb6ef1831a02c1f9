//! Progress of long operations, in the shape the Engine API streams it: one JSON object per line.

use serde::Serialize;

/// One line of a progress stream. Exactly the fields that are set are serialised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProgressMessage {
    /// Free text for the user, with its line ending: `Loaded image: busybox:latest\n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What is happening to `id`: `Loading layer`; or, without `id`, a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Short id of the layer meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// What a program that reads along wants to know: the digest of what was pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// Bytes done and to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// Bytes read so far; not there for a step that has no length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes in all, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Where progress goes. Called from several threads; must not block for long.
pub type ProgressSink<'a> = &'a (dyn Fn(ProgressMessage) + Sync);

impl ProgressMessage {
    /// A line of text; the newline is added.
    pub fn text(text: impl std::fmt::Display) -> Self {
        Self {
            stream: Some(format!("{text}\n")),
            ..Self::default()
        }
    }

    /// A result, without a layer.
    pub fn status(text: impl Into<String>) -> Self {
        Self {
            status: Some(text.into()),
            ..Self::default()
        }
    }

    /// A step of layer `id` that has no length.
    pub fn of_layer(id: &str, status: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail::default()),
            ..Self::status(status)
        }
    }

    /// `current` of `total` bytes of layer `id` are through.
    pub fn layer(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self {
            status: Some(status.to_owned()),
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..Self::default()
        }
    }
}

/// A sink that drops everything, for `quiet` operations.
pub fn silent(_: ProgressMessage) {}
