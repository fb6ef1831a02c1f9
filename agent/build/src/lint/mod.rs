//! BuildKit's checks ("build checks", `docker build --check`).
//!
//! Must not: decide what needs base images; planning raises those through the same [`Linter`].
//! Follows BuildKit's `frontend/dockerfile/linter`.

mod check;
mod config;
pub mod finding;

pub use config::{Config, ConfigError};

use serde::{Deserialize, Serialize};

use crate::dockerfile::Lines;

/// Where the rules are explained.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

/// A finding that counts.
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

impl Lint {
    /// The one-line form of progress output: `Rule: message (line 3)`.
    pub fn short(&self) -> String {
        match self.lines.first {
            0 => format!("{}: {}", self.rule, self.message),
            line => format!("{}: {} (line {line})", self.rule, self.message),
        }
    }
}

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// Last part of the address of its page; empty without.
    page: &'static str,
    /// Only on with `experimental=`.
    pub experimental: bool,
}

impl Rule {
    /// Address of the page that explains it; empty without.
    pub fn url(&self) -> String {
        match self.page {
            "" => String::new(),
            page => format!("{PAGES}{page}/"),
        }
    }
}

/// A rule's finding before configuration decides whether it counts. Made by the functions of [`finding`], one for each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What was found.
    pub message: String,
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

    /// Takes a finding at an instruction; `comments` are those above it (a `# check=skip=…` there applies).
    pub fn raise(&mut self, finding: Finding, lines: Lines, comments: &[String]) {
        if !self.config.with_comments(comments).allows(finding.rule) {
            return;
        }
        self.found.push(Lint {
            rule: finding.rule.name.into(),
            description: finding.rule.description.into(),
            url: finding.rule.url(),
            message: finding.message,
            lines,
        });
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
        if !self.config.error || self.found.is_empty() {
            return None;
        }
        let mut rules: Vec<&str> = Vec::new();
        for lint in &self.found {
            if !rules.contains(&lint.rule.as_str()) {
                rules.push(&lint.rule);
            }
        }
        Some(format!(
            "lint violation found for rules: {}",
            rules.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests;
