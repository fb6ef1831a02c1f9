//! How a build ended, and what the daemon asks of the client meanwhile.

use super::progress::{SolveStatus, SourceInfo, SourceRange, base64_list};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the daemon says on channel 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", content = "value")]
pub enum Message {
    /// News of the build.
    Progress(SolveStatus),
    /// The daemon has opened a channel and wants the client to serve it.
    Open {
        /// Its number, from 1.
        channel: u32,
        /// What it is for.
        what: ChannelPurpose,
    },
    /// The build is complete; nothing follows.
    Done(Box<BuildResult>),
    /// The build has failed; nothing follows.
    Failed(Box<BuildFailure>),
}

/// What a channel carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ChannelPurpose {
    /// To the daemon: the context of this name (the main one's is empty) as a tar.
    Context {
        /// Name.
        name: String,
    },
    /// To the daemon: the bytes of a secret, at most [`MAX_SECRET`](super::MAX_SECRET).
    Secret {
        /// Its id.
        id: String,
    },
    /// Both ways: one connection to an SSH agent.
    Ssh {
        /// Its id.
        id: String,
    },
    /// To the daemon: a cache of the client, an OCI layout as a tar.
    Cache {
        /// [`CacheImport::Local::id`](super::CacheImport::Local::id)
        id: String,
    },
    /// To the daemon: who the user is at a registry, as JSON of one
    /// [`RegistryCredentials`](super::RegistryCredentials) of at most [`MAX_DATA`](super::MAX_DATA) bytes; no bytes when
    /// nobody has logged in there. A reset says why the client could not find out: it goes on without.
    Credentials {
        /// `host[:port]`, or `https://index.docker.io/v1/` for Docker Hub.
        server: String,
    },
    /// From the daemon: a tar that the client stores.
    Output {
        /// The output's id.
        id: String,
    },
}

/// A build that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuildResult {
    /// Id of the image in the daemon's store; empty when there is none (other outputs, cache only, several platforms).
    pub image_id: String,
    /// Names the image got.
    pub names: Vec<String>,
    /// What `--metadata-file` gets: `containerimage.digest`, `containerimage.config.digest`,
    /// `containerimage.descriptor`, `image.name` …
    pub metadata: IndexMap<String, Value>,
    /// What a [`Call`](super::Call) other than `build` was answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<CallAnswer>,
}

/// A build that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BuildFailure {
    /// The whole reason as one sentence, as BuildKit words it: `failed to solve: process "/bin/sh -c false" did not
    /// complete successfully: exit code: 1`.
    pub message: String,
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The step that failed, `[2/3] RUN false`; empty when none did.
    pub step: String,
    /// Exit code of the step's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The places of the Dockerfile it is about.
    pub sources: Vec<FailureSource>,
    /// The last lines the step wrote, at most [`MAX_TAIL`](super::MAX_TAIL) of them.
    pub tail: Vec<String>,
}

/// Kinds of failures a client tells apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureKind {
    /// A step failed.
    #[default]
    Step,
    /// The Dockerfile or the request is wrong.
    Invalid,
    /// It was cancelled.
    Cancelled,
    /// The daemon itself failed.
    System,
}

/// Lines of a file that a failure is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailureSource {
    /// `Dockerfile`
    pub file: String,
    /// The lines that are shown, the failing ones and some around them.
    pub lines: Vec<SourceLine>,
}

/// One line of an excerpt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceLine {
    /// From 1.
    pub number: u32,
    /// Without its end.
    pub text: String,
    /// The failure is about it.
    pub marked: bool,
}

/// The answer to a call that builds nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "call", content = "answer")]
pub enum CallAnswer {
    /// To [`Call::Check`](super::Call::Check).
    Check(LintResults),
    /// To [`Call::Outline`](super::Call::Outline).
    Outline(Outline),
    /// To [`Call::Targets`](super::Call::Targets).
    Targets(TargetList),
}

/// All lints of a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LintResults {
    /// In the order of their places.
    #[serde(deserialize_with = "crate::types::lenient::null_default")]
    pub warnings: Vec<LintWarning>,
    /// The files the places are in.
    #[serde(deserialize_with = "crate::types::lenient::null_default")]
    pub sources: Vec<SourceInfo>,
    /// The Dockerfile cannot be built at all.
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    pub error: Option<LintError>,
}

/// One lint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LintWarning {
    /// `FromAsCasing`
    pub rule_name: String,
    /// What the rule is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where the rule is described.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// What is wrong here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// Why a Dockerfile cannot be built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LintError {
    /// One sentence.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// Places in one of several files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Location {
    /// Which of the files, from 0.
    #[serde(skip_serializing_if = "is_first")]
    pub source_index: u32,
    /// Where in it.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::types::lenient::null_default"
    )]
    pub ranges: Vec<SourceRange>,
}

fn is_first(index: &u32) -> bool {
    *index == 0
}

/// What a target takes from outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outline {
    /// Name of the stage.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Comment above the stage that begins with its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Build arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// Secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineNeed>,
    /// SSH agents.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineNeed>,
    /// Cache mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<OutlineCache>,
    /// Texts of the files the places are in, base64 in JSON.
    #[serde(with = "base64_list", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Vec<u8>>,
}

/// A build argument.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Comment above it that begins with its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Value it has in this build.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutlineNeed {
    /// Its id.
    pub name: String,
    /// The build fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// A cache mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutlineCache {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// The stages of a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetList {
    /// In the order of the file.
    #[serde(deserialize_with = "crate::types::lenient::null_default")]
    pub targets: Vec<TargetInfo>,
    /// Texts of the files the places are in, base64 in JSON.
    #[serde(with = "base64_list")]
    pub sources: Vec<Vec<u8>>,
}

/// A stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetInfo {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// It is the one that is built when none is named.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Comment above it that begins with its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it starts from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// Its platform.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}
