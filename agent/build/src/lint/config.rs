//! `# check=…`: which rules apply. Follows BuildKit's `linter.ParseLintOptions`.

use std::collections::BTreeSet;

use super::Rule;
use crate::dockerfile::Dockerfile;
use crate::quote::quote;

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
        let mut config = Config::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for option in text.trim().splitn(3, ';') {
            let invalid = |what| ConfigError(format!("invalid check option {}", quote(what)));
            let (key, value) = option.split_once('=').ok_or_else(|| invalid(option))?;
            match (key.trim(), value.trim()) {
                ("skip", "all") => config.skip_all = true,
                ("skip", names) => config.skip = split(names),
                ("experimental", "all") => config.experimental_all = true,
                ("experimental", names) => config.experimental = split(names),
                ("error", "1" | "t" | "T" | "true" | "TRUE" | "True") => config.error = true,
                ("error", "0" | "f" | "F" | "false" | "FALSE" | "False") => config.error = false,
                ("error", value) => {
                    return Err(ConfigError(format!(
                        "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
                        quote(option),
                        quote(value)
                    )));
                }
                (key, _) => return Err(invalid(key)),
            }
        }
        Ok(config)
    }

    /// What a file's own `# check=` says.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn of(dockerfile: &Dockerfile) -> Result<Config, ConfigError> {
        let text = dockerfile.check.as_ref().map_or("", |(text, _)| text);
        Config::parse(text)
            .map_err(|error| ConfigError(format!("failed to parse check options: {}", error.0)))
    }

    /// Whether findings of a rule count.
    pub(super) fn allows(&self, rule: &Rule) -> bool {
        if rule.experimental {
            self.experimental_all || self.experimental.contains(rule.name)
        } else {
            !self.skip_all && !self.skip.contains(rule.name)
        }
    }

    /// This, and what a comment `# check=…` above an instruction adds. One that cannot be read adds nothing.
    pub(super) fn with_comments(&self, comments: &[String]) -> Config {
        let mut merged = self.clone();
        let Some(text) = comments.iter().find_map(|comment| check_of(comment)) else {
            return merged;
        };
        if let Ok(more) = Config::parse(text) {
            merged.skip_all |= more.skip_all;
            merged.skip.extend(more.skip);
            merged.experimental_all |= more.experimental_all;
            merged.experimental.extend(more.experimental);
        }
        merged
    }
}

/// The value of a comment `check=…`, up to a space.
fn check_of(comment: &str) -> Option<&str> {
    let (key, value) = comment.split_once('=')?;
    let value = value.trim().split(' ').next()?;
    (key.trim_end().eq_ignore_ascii_case("check") && !value.is_empty()).then_some(value)
}

fn split(names: &str) -> BTreeSet<String> {
    names.split(',').map(|name| name.trim().into()).collect()
}
