//! The configuration of the image that a build makes: what it inherits and what instructions add.
//!
//! Field order and presence are those of the JSON that BuildKit's image exporter writes, so that the same Dockerfile
//! gives the same configuration. Must not: know layers; creation time and diff ids are put in when the image is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image configuration without `created` and `rootfs`.
///
/// Also what a base image's configuration is read into: fields that BuildKit does not know are dropped as it drops them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Processor.
    #[serde(default)]
    pub architecture: String,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What containers are started with.
    #[serde(default)]
    pub config: ContainerDefaults,
    /// What was done, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Features of the operating system.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Version of the operating system.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Version of the processor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// What containers of an image are started with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDefaults {
    /// USER.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// EXPOSE: `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// ENV: `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// VOLUME.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// WORKDIR.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// LABEL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// STOPSIGNAL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Set by CMD; means something on Windows only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// HEALTHCHECK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// ONBUILD: instructions for images that start from this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// SHELL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// The value of a set's member in Go's JSON: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// HEALTHCHECK; durations in nanoseconds, 0 inherits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", text]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between probes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time a probe may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time at the start in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between probes in that time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339. Of lines that a build adds only with SOURCE_DATE_EPOCH; else it is put in when the image is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// With what.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It has no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads the configuration of an image, as Go would.
    ///
    /// # Errors
    /// It is no JSON object, or a known field is of another type.
    pub fn from_json(json: &[u8]) -> Result<ImageConfig, serde_json::Error> {
        crate::go_json::from_slice(json)
    }

    /// The configuration file of the image: this, `created` (RFC 3339) and the digests of the layers' tars.
    ///
    /// Every line of history should have its time by now. Bytes are those that Go's encoder would write.
    pub fn to_json(&self, created: &str, diff_ids: &[String]) -> Vec<u8> {
        #[derive(Serialize)]
        struct RootFs<'a> {
            r#type: &'a str,
            diff_ids: &'a [String],
        }
        let mut fields = serde_json::Map::new();
        if let Ok(serde_json::Value::Object(known)) = serde_json::to_value(self) {
            fields = known;
        }
        let root_fs = RootFs {
            r#type: "layers",
            diff_ids,
        };
        fields.insert("created".to_owned(), created.into());
        let root_fs = serde_json::to_value(root_fs).expect("texts are JSON");
        fields.insert("rootfs".to_owned(), root_fs);
        fields.sort_keys();
        let json = serde_json::Value::Object(fields).to_string();
        escape_as_go(&json).into_bytes()
    }
}

/// The characters that Go's encoder escapes in strings so that they can stand in a web page. They occur in strings only.
fn escape_as_go(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}
