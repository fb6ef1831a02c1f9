//! BuildKit's checks ("build checks", `docker build --check`).
//!
//! Must not: decide what needs base images; planning raises those through the same [`Linter`].
//! Follows BuildKit's `frontend/dockerfile/linter`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::dockerfile::{Dockerfile, Lines};

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lint {
    /// Name of the rule, as `# check=skip=` takes it.
    pub rule: String,
    /// What the rule asks for.
    pub description: String,
    /// Where the rule is explained; empty for rules without a page.
    pub url: String,
    /// What was found.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

/// Which rules apply (`# check=…`, or the build argument `BUILDKIT_DOCKERFILE_CHECK`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `skip=all`
    pub skip_all: bool,
    /// `skip=A,B`
    pub skip: BTreeSet<String>,
    /// `experimental=all`
    pub experimental_all: bool,
    /// `experimental=A,B`
    pub experimental: BTreeSet<String>,
    /// `error=true`: findings fail the build.
    pub error: bool,
}

/// A rule's finding before configuration decides whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What was found.
    pub message: String,
}

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// Where it is explained.
    pub url: &'static str,
    /// Only on with `experimental=`.
    pub experimental: bool,
}

/// Why `# check=` cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl Config {
    /// Reads `skip=A,B;error=true;experimental=all`.
    ///
    /// # Errors
    /// An unknown option or a malformed value, in BuildKit's words.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let _ = text;
        todo!()
    }
}

/// Collects findings that the configuration lets through.
#[derive(Debug, Clone, Default)]
pub struct Linter {
    config: Config,
    found: Vec<Lint>,
}

impl Linter {
    /// A linter with a configuration.
    pub fn new(config: Config) -> Self {
        Linter {
            config,
            found: Vec::new(),
        }
    }

    /// Runs every check that the text alone decides.
    pub fn check(&mut self, dockerfile: &Dockerfile) {
        let _ = (dockerfile, &self.config);
        todo!()
    }

    /// Takes a finding at an instruction; `comments` are those above it (a `# check=skip=…` there applies).
    pub fn raise(&mut self, finding: Finding, lines: Lines, comments: &[String]) {
        let _ = (finding, lines, comments);
        todo!()
    }

    /// What was found so far.
    pub fn found(&self) -> &[Lint] {
        &self.found
    }

    /// The findings, in the order they were raised.
    pub fn into_found(self) -> Vec<Lint> {
        self.found
    }

    /// With `error=true` and any finding: the message that fails the build.
    pub fn error(&self) -> Option<String> {
        todo!()
    }
}
