//! `--call=targets`: the stages of a file.

use serde::{Deserialize, Serialize};

use super::table::aligned;
use crate::dockerfile::Dockerfile;
use crate::lint::Location;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Stages in order.
    pub targets: Vec<Target>,
    /// The file's text in base64.
    pub sources: Vec<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Name; empty without.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// Built when no target is named: the last.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub default: bool,
    /// Text of the comment above.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub description: String,
    /// What it starts from, as written.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub base: String,
    /// `--platform`, as written.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub platform: String,
    /// Where its FROM is.
    pub location: Location,
}

impl Targets {
    /// The stages of a file.
    pub fn of(dockerfile: &Dockerfile) -> Targets {
        use base64::Engine as _;
        let last = dockerfile.stages.len().saturating_sub(1);
        let stages = dockerfile.stages.iter().enumerate();
        let targets = stages.map(|(index, stage)| Target {
            name: stage.name.clone().unwrap_or_default(),
            default: index == last,
            description: stage.description.clone(),
            base: stage.base.clone(),
            platform: stage.platform.clone().unwrap_or_default(),
            location: Location::of(stage.lines),
        });
        Targets {
            targets: targets.collect(),
            sources: vec![base64::engine::general_purpose::STANDARD.encode(&dockerfile.source)],
        }
    }

    /// The JSON that `format=json` prints.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers serialise")
    }

    /// The table that is printed otherwise.
    pub fn text(&self) -> String {
        let shown = |target: &Target| match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_string(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_string(),
        };
        let names: Vec<String> = self.targets.iter().map(shown).collect();
        let rows = names.iter().zip(&self.targets);
        let mut table = vec![vec!["TARGET", "DESCRIPTION"]];
        table.extend(rows.map(|(name, target)| vec![name.as_str(), target.description.as_str()]));
        aligned(&table, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_listed_with_their_descriptions() {
        let text = "# build compiles\nFROM --platform=$P golang AS Build\nFROM a\nFROM \\\n  build AS out\n";
        let targets = Targets::of(&Dockerfile::parse(text, "Dockerfile").expect("valid"));
        assert_eq!(
            targets.text(),
            "TARGET        DESCRIPTION\nbuild         compiles\n              \nout (default) \n"
        );
        let json = targets.json();
        for part in [
            "\"name\": \"build\",\n      \"description\": \"compiles\",\n      \"base\": \"golang\",\n      \"platform\": \"$P\",\n      \"location\"",
            "{\n      \"base\": \"a\",\n      \"location\"",
            "\"name\": \"out\",\n      \"default\": true,\n      \"base\": \"build\",",
        ] {
            assert!(json.contains(part), "{part}\n{json}");
        }
        assert_eq!(
            serde_json::from_str::<Targets>(&json).expect("valid"),
            targets
        );
        let last = Targets::of(&Dockerfile::parse("FROM a", "Dockerfile").expect("valid"));
        assert_eq!(last.text(), "TARGET    DESCRIPTION\n(default) \n");
    }
}
