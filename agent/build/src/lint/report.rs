//! What `docker build --check` prints, as text and as JSON. Follows BuildKit's `frontend/subrequests/lint`.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Lint;
use crate::dockerfile::Lines;
use crate::excerpt::excerpt;

/// Result of a check: the JSON document that BuildKit's clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Findings in the order they were raised; none are `null`, as Go writes an empty list.
    #[serde(with = "null_when_empty")]
    pub warnings: Vec<Warning>,
    /// The files they are in.
    pub sources: Vec<Source>,
    /// Why the file cannot be built at all.
    #[serde(
        rename = "buildError",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub error: Option<BuildError>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Name of the rule.
    #[serde(rename = "ruleName")]
    pub rule: String,
    /// What the rule asks for.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub description: String,
    /// Page that explains it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub url: String,
    /// What was found.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
    /// Where.
    pub location: Location,
}

/// A file's name and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name.
    pub filename: String,
    /// The text in base64.
    #[serde(
        skip_serializing_if = "String::is_empty",
        default,
        with = "base64_text"
    )]
    pub data: String,
    /// `Dockerfile`
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub language: String,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildError {
    /// Its message.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// Lines of one of the sources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Location {
    /// Which of the sources.
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero", default)]
    pub source_index: i32,
    /// One for each line.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ranges: Vec<Range>,
}

/// From here to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Range {
    /// First position.
    pub start: Point,
    /// Last position.
    pub end: Point,
}

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Point {
    /// Line from 1; 0 for none.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub line: i32,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Location {
    /// The place as BuildKit writes it: a range of its own for each line.
    pub fn of(lines: Lines) -> Location {
        let ranges = (lines.first..=lines.last).map(|line| {
            let point = Point {
                line: i32::try_from(line).unwrap_or(i32::MAX),
            };
            Range {
                start: point,
                end: point,
            }
        });
        Location {
            source_index: 0,
            ranges: ranges.collect(),
        }
    }

    fn lines(&self) -> Vec<Lines> {
        let line = |point: Point| u32::try_from(point.line).unwrap_or(0);
        let ranges = self.ranges.iter();
        ranges
            .map(|range| Lines::new(line(range.start), line(range.end)))
            .collect()
    }
}

impl Report {
    /// A report on one file.
    pub fn new(name: &str, source: &str, lints: &[Lint]) -> Report {
        let warnings = lints.iter().map(|lint| Warning {
            rule: lint.rule.clone(),
            description: lint.description.clone(),
            url: lint.url.clone(),
            detail: lint.message.clone(),
            location: Location::of(lint.lines),
        });
        Report {
            warnings: warnings.collect(),
            sources: vec![Source {
                filename: name.into(),
                language: "Dockerfile".into(),
                data: source.into(),
            }],
            error: None,
        }
    }

    /// The same, for a file that cannot be built.
    pub fn with_error(mut self, message: &str, lines: Option<Lines>) -> Report {
        self.error = Some(BuildError {
            message: message.into(),
            location: lines.map(Location::of).unwrap_or_default(),
        });
        self
    }

    /// Whether `--check` succeeds: nothing was found.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.error.is_none()
    }

    /// The JSON that `--call=check,format=json` prints.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers serialise")
    }

    /// The text that `--check` prints, sorted by line. An error is not part of it: see [`Report::error_text`].
    pub fn text(&self) -> String {
        let mut out = match self.warnings.len() {
            0 if self.error.is_some() => return String::new(),
            0 => return "Check complete, no warnings found.\n".into(),
            1 => "Check complete, 1 warning has been found!\n".to_string(),
            count => format!("Check complete, {count} warnings have been found!\n"),
        };
        let mut sorted: Vec<&Warning> = self.warnings.iter().collect();
        sorted.sort_by_key(|warning| {
            warning
                .location
                .ranges
                .first()
                .map(|range| range.start.line)
        });
        for warning in sorted {
            let _ = write!(out, "\nWARNING: {}", warning.rule);
            if !warning.url.is_empty() {
                let _ = write!(out, " - {}", warning.url);
            }
            let _ = write!(
                out,
                "\n{}\n{}",
                warning.detail,
                self.excerpt(&warning.location)
            );
        }
        out
    }

    /// The error with its lines, as it goes to the error output.
    pub fn error_text(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!(
            "{}\n{}",
            error.message,
            self.excerpt(&error.location)
        ))
    }

    fn excerpt(&self, location: &Location) -> String {
        let source = usize::try_from(location.source_index)
            .ok()
            .and_then(|index| self.sources.get(index));
        source.map_or(String::new(), |source| {
            excerpt(&source.filename, &source.data, &location.lines())
        })
    }
}

mod null_when_empty {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        list: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Some(list)
            .filter(|list| !list.is_empty())
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<T>, D::Error> {
        Ok(Option::deserialize(d)?.unwrap_or_default())
    }
}

/// Bytes in JSON, as Go writes them.
mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(text))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
        let bytes = STANDARD
            .decode(String::deserialize(d)?)
            .map_err(D::Error::custom)?;
        String::from_utf8(bytes).map_err(D::Error::custom)
    }
}
