//! How a build goes on: BuildKit's `SolveStatus`, member by member, so that `--progress rawjson` can be handed on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// News of a build: vertices by their digest, each sent again whenever it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SolveStatus {
    /// Steps that are new or have changed.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub vertexes: Vec<ProgressVertex>,
    /// Parts of steps that have a progress of their own (a layer that is fetched).
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub statuses: Vec<VertexStatus>,
    /// Output of steps.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub logs: Vec<VertexLog>,
    /// What lints and steps warn of.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub warnings: Vec<VertexWarning>,
}

impl SolveStatus {
    /// Nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vertexes.is_empty()
            && self.statuses.is_empty()
            && self.logs.is_empty()
            && self.warnings.is_empty()
    }
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressVertex {
    /// `sha256:…`, the step's identity within the build.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Digests of the steps it waits for.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub inputs: Vec<String>,
    /// `[builder 2/4] RUN make`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absent until it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Absent until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// Its result was there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Steps that are shown as one.
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    pub progress_group: Option<ProgressGroup>,
}

/// Steps that are shown as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressGroup {
    /// Identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Name shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Shown only when something goes wrong.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weak: bool,
}

/// A part of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VertexStatus {
    /// What is shown: `sha256:…`, `exporting layers`, `transferring context:` …
    pub id: String,
    /// The step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    /// What is done (`downloading`, `extract` …).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Bytes, 0 when not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub total: i64,
    /// Bytes done.
    #[serde(default)]
    pub current: i64,
    /// When this was so.
    pub timestamp: Timestamp,
    /// Absent until it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Absent until it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
}

/// Output of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VertexLog {
    /// The step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    /// 1 standard output, 2 standard error.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stream: i64,
    /// Bytes as they were written, base64 in JSON.
    #[serde(default, with = "base64_bytes")]
    pub data: Vec<u8>,
    /// When they were read.
    pub timestamp: Timestamp,
}

/// A warning that belongs to a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VertexWarning {
    /// The step, or the one that loaded the Dockerfile.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: String,
    /// 1 is the most urgent.
    #[serde(skip_serializing_if = "is_zero")]
    pub level: i64,
    /// One line: `FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)`; base64 in JSON.
    #[serde(with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub short: Vec<u8>,
    /// Further lines, each base64 in JSON.
    #[serde(with = "base64_list", skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<Vec<u8>>,
    /// Where the rule is described.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The file it is about.
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    pub source_info: Option<SourceInfo>,
    /// Where in the file.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub range: Vec<SourceRange>,
}

/// A file that messages refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceInfo {
    /// `Dockerfile`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Its text, base64 in JSON.
    #[serde(with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<u8>,
    /// `Dockerfile`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub language: String,
}

/// A part of a file, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceRange {
    /// First place.
    pub start: SourcePosition,
    /// Last place.
    pub end: SourcePosition,
}

/// A place of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourcePosition {
    /// From 1.
    #[serde(skip_serializing_if = "is_zero_line")]
    pub line: u32,
    /// From 0.
    #[serde(skip_serializing_if = "is_zero_line")]
    pub character: u32,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_zero_line(number: &u32) -> bool {
    *number == 0
}

/// Go writes `[]byte` as base64.
pub(super) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(bytes, &STANDARD))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

/// Go writes `[][]byte` as a list of base64.
pub(super) mod base64_list {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(
        list: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let list = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
        let decode = |text: String| STANDARD.decode(text).map_err(D::Error::custom);
        list.into_iter().map(decode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `docker buildx build --progress rawjson` (0.29.1) wrote, line by line: nothing is lost or added by reading
    /// and writing it.
    #[test]
    fn progress_is_written_as_buildx_writes_it() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in include_str!("testdata/rawjson.jsonl").lines() {
            let theirs: serde_json::Value = serde_json::from_str(line).unwrap();
            let status: SolveStatus = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_value(&status).unwrap(), theirs);
            kinds.extend(theirs.as_object().unwrap().keys().cloned());
        }
        let kinds: Vec<String> = kinds.into_iter().collect();
        assert_eq!(kinds, ["logs", "statuses", "vertexes"]);
    }

    #[test]
    fn buildkits_json_is_read_and_written_again() {
        // Written by buildx 0.29 with --progress rawjson.
        let line = r#"{"vertexes":[{"digest":"sha256:aa","inputs":["sha256:bb"],"name":"[2/2] RUN echo hi","started":"2026-11-22T07:51:20.123456789Z","completed":"2026-11-22T07:51:21.5Z","cached":true,"error":"exit code: 1"}],"statuses":[{"id":"transferring context:","vertex":"sha256:aa","current":2,"timestamp":"2026-11-22T07:51:20.1Z","started":"2026-11-22T07:51:20Z"}],"logs":[{"vertex":"sha256:aa","stream":1,"data":"aGkK","timestamp":"2026-11-22T07:51:20.2Z"}],"warnings":[{"vertex":"sha256:aa","level":1,"short":"aGk=","detail":["YQ==","Yg=="],"url":"https://x/","sourceInfo":{"filename":"Dockerfile","data":"RlJPTSBh","language":"Dockerfile"},"range":[{"start":{"line":1},"end":{"line":1,"character":4}}]}]}"#;
        let status: SolveStatus = serde_json::from_str(line).unwrap();
        assert_eq!(status.logs[0].data, b"hi\n");
        assert_eq!(serde_json::to_string(&status).unwrap(), line);
        let empty: SolveStatus = serde_json::from_str(r#"{"vertexes":null}"#).unwrap();
        assert!(empty.is_empty());
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
    }
}
