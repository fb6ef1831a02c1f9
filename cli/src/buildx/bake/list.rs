//! `--list`: the targets or the variables that files define, as a table or as JSON. Source: buildx `commands/bake.go`.

use super::eval::{self, Locals, Scope};
use super::file::Definitions;
use super::resolve::Book;
use crate::render::table::align_tabbed;
use agent_api::client::build::option_fields;
use serde::Serialize;
use serde_json::Value;

/// What is listed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    what: What,
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Targets,
    Variables,
}

/// A target or a group of them.
#[derive(Serialize)]
struct TargetRow {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    group: bool,
}

#[derive(Serialize)]
struct VariableRow {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    /// None is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl List {
    /// Reads the flag: `variables`, or `type=variables,format=json`.
    pub(super) fn parse(flag: &str) -> Result<Self, String> {
        let fields = option_fields(flag).map_err(|reason| format!("--list {flag:?}: {reason}"))?;
        let (mut what, mut json) = (String::new(), false);
        for (key, value) in &fields {
            match (key.as_str(), value.as_deref()) {
                (word, None) if fields.len() == 1 => word.clone_into(&mut what),
                ("type", Some(word)) => word.clone_into(&mut what),
                ("format", Some("json")) => json = true,
                ("format", Some("table")) => json = false,
                _ => {
                    return Err(format!(
                        "invalid --list {flag:?}: write type=targets or type=variables, then format=json or format=table"
                    ));
                }
            }
        }
        let what = match what.as_str() {
            "targets" => What::Targets,
            "variables" => What::Variables,
            _ => {
                return Err(format!("invalid --list {flag:?}: use targets or variables"));
            }
        };
        Ok(Self { what, json })
    }

    /// The list as it is printed.
    pub(super) fn show(self, definitions: &Definitions, scope: &Scope) -> Result<String, String> {
        match self.what {
            What::Targets => {
                let rows = targets(definitions, scope)?;
                let line = |row: &TargetRow| format!("{}\t{}", row.name, row.description);
                Ok(self.print("TARGET\tDESCRIPTION", &rows, line))
            }
            What::Variables => {
                let rows = variables(definitions, scope)?;
                let line = |row: &VariableRow| {
                    let value = row.value.as_deref().unwrap_or("<null>");
                    format!("{}\t{}\t{value}\t{}", row.name, row.kind, row.description)
                };
                Ok(self.print("VARIABLE\tTYPE\tVALUE\tDESCRIPTION", &rows, line))
            }
        }
    }

    fn print<R: Serialize>(self, head: &str, rows: &[R], line: impl Fn(&R) -> String) -> String {
        if self.json {
            return serde_json::to_string_pretty(rows).expect("rows have a JSON form") + "\n";
        }
        let mut lines = vec![head.to_owned()];
        lines.extend(rows.iter().map(line));
        align_tabbed(&lines)
    }
}

/// Groups say what is in them, and a matrix is the group of the targets it makes.
fn targets(definitions: &Definitions, scope: &Scope) -> Result<Vec<TargetRow>, String> {
    let book = Book::new(definitions, scope)?;
    let none = Locals::new();
    let mut rows: Vec<TargetRow> = Vec::new();
    for (name, group) in &definitions.groups {
        let members = group.get("targets");
        let members = members.and_then(|list| scope.evaluate(list, &none).ok());
        let members = members
            .iter()
            .flat_map(|list| list.as_array().into_iter().flatten());
        let members: Vec<String> = members.filter_map(|one| eval::text(one).ok()).collect();
        let members = members.join(", ");
        rows.push(TargetRow {
            name: name.clone(),
            description: match evaluated(group.get("description"), scope, &none) {
                text if text.is_empty() => members,
                text => format!("{text} ({members})"),
            },
            group: true,
        });
    }
    for (name, members) in &book.matrices {
        rows.push(TargetRow {
            name: name.clone(),
            description: members.join(", "),
            group: true,
        });
    }
    for (name, (layers, locals)) in &book.targets {
        let described = layers
            .iter()
            .rev()
            .find_map(|layer| layer.get("description"));
        rows.push(TargetRow {
            name: name.clone(),
            description: evaluated(described, scope, locals),
            group: false,
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn variables(definitions: &Definitions, scope: &Scope) -> Result<Vec<VariableRow>, String> {
    let mut rows = Vec::new();
    for (name, variable) in &definitions.variables {
        let value = match scope.variable(name, 0)? {
            None | Some(Value::Null) => None,
            Some(value) => Some(eval::text(&value).unwrap_or_else(|_| value.to_string())),
        };
        rows.push(VariableRow {
            name: name.clone(),
            description: evaluated(variable.description.as_ref(), scope, &Locals::new()),
            kind: variable
                .kind
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            value,
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

/// A description that cannot be evaluated is none.
fn evaluated(expression: Option<&hcl::Expression>, scope: &Scope, locals: &Locals) -> String {
    let value = expression.and_then(|expression| scope.evaluate(expression, locals).ok());
    value
        .and_then(|value| eval::text(&value).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(flag: &str, text: &str, env: &[(&str, &str)]) -> String {
        let mut definitions = Definitions::default();
        definitions.add_hcl(text).unwrap();
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let scope = definitions.scope(&env, &[]).unwrap();
        List::parse(flag)
            .unwrap()
            .show(&definitions, &scope)
            .unwrap()
    }

    // What buildx 0.29.1 printed for the same file.
    const FILE: &str = r#"
variable "I" {}
variable "B" {
  type = string
  default = "y"
  description = "the b"
}
variable "C" {
  type = list(string)
  default = ["a","b"]
}
variable "D" { type = number }
variable "H" { default = ["q"] }
target "default" { description = "d" }
"#;

    #[test]
    fn variables_are_listed_with_their_types() {
        assert_eq!(
            shown("variables", FILE, &[("C", "z"), ("C_JSON", "[\"x\", 1]")]),
            "VARIABLE\tTYPE\t\tVALUE\t\tDESCRIPTION
B\t\tstring\t\ty\t\tthe b
C\t\tlist of string\t[\"x\",\"1\"]\t
D\t\tnumber\t\t<null>\t\t
H\t\t\t\t[\"q\"]\t\t
I\t\t\t\t\t\t
"
        );
        let json: Value =
            serde_json::from_str(&shown("type=variables,format=json", FILE, &[])).unwrap();
        assert_eq!(
            json[0],
            serde_json::json!({"name": "B", "description": "the b", "type": "string", "value": "y"})
        );
        assert_eq!(json[2], serde_json::json!({"name": "D", "type": "number"}));
        assert_eq!(
            shown("targets", FILE, &[]),
            "TARGET\tDESCRIPTION\ndefault\td\n"
        );
    }

    #[test]
    fn groups_and_matrices_say_what_is_in_them() {
        let file = r#"
group "g" { targets = ["a", "b"] }
group "h" {
  targets = ["a"]
  description = "hh"
}
target "a" {}
target "m" {
  name = "m-${x}"
  matrix = { x = ["1", "2"] }
  description = "number ${x}"
}
"#;
        assert_eq!(
            shown("type=targets,format=table", file, &[]),
            "TARGET\tDESCRIPTION\na\t\ng\ta, b\nh\thh (a)\nm\tm-1, m-2\nm-1\tnumber 1\nm-2\tnumber 2\n"
        );
        let json: Value =
            serde_json::from_str(&shown("type=targets,format=json", file, &[])).unwrap();
        assert_eq!(
            json[1],
            serde_json::json!({"name": "g", "description": "a, b", "group": true})
        );
    }

    #[test]
    fn variables_follow_each_other_in_any_order() {
        let file = "variable \"X\" { default = \"${Y}\" }\nvariable \"Y\" { default = \"${Z}\" }\nvariable \"Z\" { default = \"z\" }\n";
        let listed = shown("variables", file, &[("X", "x"), ("Z", "given")]);
        assert_eq!(
            listed,
            "VARIABLE\tTYPE\tVALUE\tDESCRIPTION\nX\t\t\tx\t\nY\t\t\tgiven\t\nZ\t\t\tgiven\t\n"
        );
    }

    #[test]
    fn other_lists_are_refused() {
        for flag in [
            "frob",
            "targets,format=json",
            "type=targets,format=x",
            "type=targets,x=y",
            "",
        ] {
            let error = List::parse(flag).unwrap_err();
            assert!(
                error.contains("--list") && error.contains("targets"),
                "{error}"
            );
        }
    }
}
