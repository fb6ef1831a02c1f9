//! The image configuration blob: what a container made from the image runs, and its history.
//!
//! The bytes of the blob are the image's identity and are never rewritten; these types are a
//! reading of it ([`ImageConfig::from_json`]). Fields: OCI image-spec `config.md` plus Docker's extensions
//! (`Healthcheck`, `OnBuild`, `Shell`, `ArgsEscaped`: moby `api/types/container`, image-spec 1.3).

use agent_build::plan::Platform;
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

/// A parsed image configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct ImageConfig {
    /// When the image was made.
    #[serde(
        default,
        deserialize_with = "timestamp",
        skip_serializing_if = "Option::is_none"
    )]
    pub created: Option<Timestamp>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Processor, in Go's words: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Processor variant: `v7`, `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// What a container runs unless told otherwise.
    #[serde(default)]
    pub config: RunConfig,
    /// The layers, bottom first.
    #[serde(default)]
    pub rootfs: RootFs,
    /// One entry per step that made the image, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryStep>,
    /// Free text of the commit that made it (Docker only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Version of the engine that made it (Docker only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
}

/// The `config` object: defaults for containers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol` → `{}`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub exposed_ports: IndexMap<String, Empty>,
    /// `NAME=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Program in front of the arguments. `None` and empty differ: empty resets an inherited one.
    #[serde(
        default,
        deserialize_with = "words",
        skip_serializing_if = "Option::is_none"
    )]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments.
    #[serde(
        default,
        deserialize_with = "words",
        skip_serializing_if = "Option::is_none"
    )]
    pub cmd: Option<Vec<String>>,
    /// Mount points that get a fresh volume.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub volumes: IndexMap<String, Empty>,
    /// Directory to start in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// Signal `stop` sends: `SIGQUIT` or a number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to find out whether the container is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions run when the image is the base of a build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell for the shell form of instructions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Windows only; kept so that inspect shows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
}

/// The empty JSON object that the values of `ExposedPorts` and `Volumes` are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Empty {}

/// A health check.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty inherits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two probes, nanoseconds; 0 inherits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Until a probe counts as failed, nanoseconds; 0 inherits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// After the start, failures do not count, nanoseconds; 0 inherits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two probes within the start period, nanoseconds; 0 inherits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy; 0 inherits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layer tars, bottom first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct HistoryStep {
    /// When.
    #[serde(
        default,
        deserialize_with = "timestamp",
        skip_serializing_if = "Option::is_none"
    )]
    pub created: Option<Timestamp>,
    /// By whom.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// By which instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads a configuration as Docker does ([`agent_build::go_json`]).
    ///
    /// # Errors
    /// It is no JSON object, or something in it is of another type.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        agent_build::go_json::from_slice(json)
    }

    /// Whether there is a layer for each step of the history that made one; images for which that is not so come into no
    /// store (moby `daemon/internal/image/store.go:Create`).
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check_history(&self) -> Result<(), &'static str> {
        let steps = self.history.iter().filter(|step| !step.empty_layer);
        match steps.count() <= self.rootfs.diff_ids.len() {
            true => Ok(()),
            false => Err("too many non-empty layers in History section"),
        }
    }

    /// The chain ids, bottom first: what identifies a stack of layers
    /// (OCI image-spec `config.md`, Layer ChainID).
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            chain.push(match chain.last() {
                None => *diff_id,
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
            });
        }
        chain
    }

    /// `os/architecture[/variant]`.
    pub fn platform(&self) -> String {
        let mut platform = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            platform.push('/');
            platform.push_str(&self.variant);
        }
        platform
    }
}

impl ImageConfig {
    /// `os/architecture` of this machine, in Go's words.
    pub fn machine() -> String {
        format!("linux/{}", machine_architecture())
    }

    /// Whether the image is for `wanted` = `os/architecture[/variant]`; a part not given fits.
    pub(crate) fn matches(&self, wanted: &str) -> bool {
        let mut parts = wanted.split('/');
        let mut fits = |mine: &str| {
            parts
                .next()
                .is_none_or(|part| part.is_empty() || mine.is_empty() || part == mine)
        };
        fits(&self.os) && fits(&self.architecture) && fits(&self.variant)
    }

    /// Whether programs of the image run on `wanted`. What it does not say about itself fits.
    pub fn runs_on(&self, wanted: &Platform) -> bool {
        let own = |own: &String, wanted: &String| match own.is_empty() {
            true => wanted.clone(),
            false => own.clone(),
        };
        let offered = Platform {
            os: own(&self.os, &wanted.os),
            architecture: own(&self.architecture, &wanted.architecture),
            variant: self.variant.clone(),
        };
        crate::platform::rank(wanted, &offered).is_some()
    }

    /// Whether containers of this image run on this machine; the error says what is needed.
    /// An image that does not say what it is for is taken at its silence.
    pub fn check_platform(&self) -> Result<(), ImageError> {
        let machine = machine_architecture();
        let runs = match &*self.architecture {
            "" => true,
            "386" => machine == "amd64",
            own => own == machine,
        };
        if runs && matches!(&*self.os, "" | "linux") {
            return Ok(());
        }
        Err(ImageError::Platform {
            image: self.platform(),
            machine: Self::machine(),
        })
    }
}

fn machine_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A list, or a single text that stands for a list of itself (moby `strslice.StrSlice`).
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Words;

    impl<'de> Visitor<'de> for Words {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, given: D) -> Result<Self::Value, D::Error> {
            given.deserialize_any(self)
        }

        fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![word.to_owned()]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = items.next_element()? {
                words.push(word);
            }
            Ok(Some(words))
        }
    }

    deserializer.deserialize_option(Words)
}

/// Go's zero time (`0001-01-01T00:00:00Z`) stands for "not set".
fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if text.is_empty() || text == "0001-01-01T00:00:00Z" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_zero_times_are_defaults() {
        let config = ImageConfig::from_json(
            br#"{"created":"0001-01-01T00:00:00Z","os":"linux","architecture":"arm64","variant":"v8",
                "config":{"Env":null,"Entrypoint":[],"Labels":null,"ExposedPorts":{"80/tcp":{}}},
                "history":null,"rootfs":{"type":"layers","diff_ids":null},"unknown":[1]}"#,
        )
        .unwrap();
        assert_eq!(config.created, None);
        assert_eq!(config.platform(), "linux/arm64/v8");
        assert_eq!(config.config.env, None);
        assert_eq!(config.config.entrypoint, Some(vec![]));
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert!(config.chain_ids().is_empty());
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        let config = ImageConfig {
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: vec![a, b],
            },
            ..ImageConfig::default()
        };
        let second = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(config.chain_ids(), [a, second]);
    }
}
