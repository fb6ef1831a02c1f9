//! `--call=outline`: what a target takes from outside.

use serde::{Deserialize, Serialize};

use super::table::aligned;
use crate::lint::Location;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outline {
    /// Name of the target; empty without.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// Text of the comment above it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub description: String,
    /// Build arguments that it uses, by line.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub args: Vec<Argument>,
    /// Secrets that it mounts, by line.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub secrets: Vec<Wanted>,
    /// SSH agents that it mounts, by line.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ssh: Vec<Wanted>,
    /// The file's text in base64.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<String>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// Name.
    pub name: String,
    /// Text of the comment above it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub description: String,
    /// Its value in this build.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub value: String,
    /// Where it is declared.
    pub location: Location,
}

/// A secret or an SSH agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its id.
    pub name: String,
    /// Whether the build fails without.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub required: bool,
    /// Where it is mounted.
    pub location: Location,
}

impl Outline {
    /// The JSON that `format=json` prints.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers serialise")
    }

    /// The tables that are printed otherwise; empty when there is nothing to tell.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = match self.name.as_str() {
                "" => "(default)",
                name => name,
            };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            out += &aligned(&rows, 1);
            out.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
            let args = self.args.iter();
            rows.extend(args.map(|arg| vec![&*arg.name, &*arg.value, &*arg.description]));
            out += &aligned(&rows, 3);
            out.push('\n');
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if list.is_empty() {
                continue;
            }
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(list.iter().map(|wanted| {
                let required = if wanted.required { "true" } else { "" };
                vec![wanted.name.as_str(), required]
            }));
            out += &aligned(&rows, 3);
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Lines;

    #[test]
    fn what_a_target_takes_is_a_set_of_tables() {
        let location = Location::of(Lines::one(2));
        let wanted = |name: &str, required| Wanted {
            name: name.into(),
            required,
            location: location.clone(),
        };
        let outline = Outline {
            name: "build".into(),
            description: "compiles".into(),
            args: vec![Argument {
                name: "VERSION".into(),
                description: "what to fetch".into(),
                value: "1.2".into(),
                location: location.clone(),
            }],
            secrets: vec![wanted("token", true), wanted("other-token", false)],
            ssh: vec![wanted("default", false)],
            sources: Vec::new(),
        };
        let expected = "TARGET:      build\nDESCRIPTION: compiles\n\n\
            BUILD ARG   VALUE   DESCRIPTION\nVERSION     1.2     what to fetch\n\n\
            SECRET        REQUIRED\ntoken         true\nother-token   \n\n\
            SSH       REQUIRED\ndefault   \n\n";
        assert_eq!(outline.text(), expected);
        let json = outline.json();
        assert_eq!(
            serde_json::from_str::<Outline>(&json).expect("valid"),
            outline
        );
        assert_eq!(
            (
                Outline::default().text().as_str(),
                Outline::default().json().as_str()
            ),
            ("", "{}")
        );
    }
}
