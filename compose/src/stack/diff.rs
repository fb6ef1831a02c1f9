//! Field by field: what differs between two specs. Values of environment variables are never shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// Path as the Engine API names it: `TaskTemplate.ContainerSpec.Image`, `EndpointSpec.Ports[80/tcp].PublishedPort`.
    pub path: String,
    /// What it was, as JSON; `None` when it was not set.
    pub before: Option<Shown>,
    /// What it will be; `None` when it will not be set.
    pub after: Option<Shown>,
}

/// A value as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As JSON.
    Value(String),
    /// It may be a secret.
    Hidden,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Value(text) => f.write_str(text),
            Shown::Hidden => f.write_str("(not shown)"),
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.before, &self.after) {
            (Some(Shown::Hidden), Some(Shown::Hidden)) => write!(f, "{path}: changed (not shown)"),
            (Some(before), Some(after)) => write!(f, "{path}: {before} → {after}"),
            (None, Some(after)) => write!(f, "{path}: set to {after}"),
            (Some(before), None) => write!(f, "{path}: no longer set, was {before}"),
            (None, None) => f.write_str(path),
        }
    }
}

/// All differences of two canonical specs, in the order of their paths.
pub(super) fn diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk("", Some(before), Some(after), &mut changes);
    changes
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            members(path, before, after, changes);
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            elements(path, before, after, changes);
        }
        // A whole part that comes or goes is told field by field, but for the values of lists.
        (None, Some(Value::Object(after))) => members(path, &Map::new(), after, changes),
        (Some(Value::Object(before)), None) => members(path, before, &Map::new(), changes),
        (None, Some(Value::Array(after))) => elements(path, &[], after, changes),
        (Some(Value::Array(before)), None) => elements(path, before, &[], changes),
        _ => changes.push(FieldChange {
            path: path.to_owned(),
            before: before.map(|value| shown(path, value)),
            after: after.map(|value| shown(path, value)),
        }),
    }
}

fn members(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    changes: &mut Vec<FieldChange>,
) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let inner = match last(path) {
            // Keys of the user, which may have dots.
            "Labels" | "Env" | "Sysctls" | "Options" | "DriverOpts" => format!("{path}[{key}]"),
            "" => key.clone(),
            _ => format!("{path}.{key}"),
        };
        walk(&inner, before.get(key), after.get(key), changes);
    }
}

/// Lists of named things by name, sets element by element, other lists as a whole.
fn elements(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<FieldChange>) {
    let named = |list: &[Value]| -> Option<BTreeMap<String, Value>> {
        let pairs = list
            .iter()
            .map(|element| Some((name(path, element)?, element.clone())));
        let pairs: BTreeMap<_, _> = pairs.collect::<Option<_>>()?;
        (pairs.len() == list.len()).then_some(pairs)
    };
    match (named(before), named(after)) {
        (Some(before), Some(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let path = format!("{path}[{name}]");
                match (before.get(name), after.get(name)) {
                    (Some(before), Some(after)) => {
                        walk(&path, Some(before), Some(after), changes);
                    }
                    (before, after) => changes.push(FieldChange {
                        before: before.map(|value| shown(&path, value)),
                        after: after.map(|value| shown(&path, value)),
                        path,
                    }),
                }
            }
        }
        _ => changes.push(FieldChange {
            path: path.to_owned(),
            before: (!before.is_empty()).then(|| shown(path, &before.into())),
            after: (!after.is_empty()).then(|| shown(path, &after.into())),
        }),
    }
}

/// What an element of a list is known by.
fn name(path: &str, element: &Value) -> Option<String> {
    let text = |pointer: &str| element.pointer(pointer)?.as_str().map(str::to_owned);
    match last(path) {
        "Mounts" | "Networks" => text("/Target"),
        "Secrets" | "Configs" => text("/File/Name"),
        "Ulimits" => text("/Name"),
        "Ports" => Some(format!(
            "{}/{}{}",
            element["TargetPort"],
            text("/Protocol")?,
            match text("/PublishMode")?.as_str() {
                "ingress" => String::new(),
                mode => format!(" {mode}"),
            }
        )),
        "CapabilityAdd" | "CapabilityDrop" | "Constraints" | "Hosts" | "Groups" | "Aliases" => {
            element.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn shown(path: &str, value: &Value) -> Shown {
    if path.contains("ContainerSpec.Env[") {
        Shown::Hidden
    } else {
        Shown::Value(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(before: Value, after: Value) -> Vec<String> {
        let changes = diff(&before, &after);
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fields_are_told_one_by_one() {
        let before = json!({"Mode": {"Replicated": {"Replicas": 1}}, "Labels": {"a.b": "1"},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:1", "Args": ["a", "b"], "Mounts": [{"Target": "/x", "Source": "x"}]}}});
        let after = json!({"Mode": {"Replicated": {"Replicas": 3}}, "Labels": {"c": "2"},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:2", "Args": ["a"], "Mounts": [{"Target": "/x", "Source": "y"}]}}});
        assert_eq!(
            lines(before, after),
            [
                r#"Labels[a.b]: no longer set, was "1""#,
                r#"Labels[c]: set to "2""#,
                "Mode.Replicated.Replicas: 1 → 3",
                r#"TaskTemplate.ContainerSpec.Args: ["a","b"] → ["a"]"#,
                r#"TaskTemplate.ContainerSpec.Image: "web:1" → "web:2""#,
                r#"TaskTemplate.ContainerSpec.Mounts[/x].Source: "x" → "y""#,
            ]
        );
    }

    #[test]
    fn variables_are_named_and_not_shown() {
        let spec = |env: Value| json!({"TaskTemplate": {"ContainerSpec": {"Env": env}}});
        let told = lines(
            spec(json!({"A": "=hush", "B": "=x"})),
            spec(json!({"A": "=quiet", "C": "=y"})),
        );
        assert_eq!(
            told,
            [
                "TaskTemplate.ContainerSpec.Env[A]: changed (not shown)",
                "TaskTemplate.ContainerSpec.Env[B]: no longer set, was (not shown)",
                "TaskTemplate.ContainerSpec.Env[C]: set to (not shown)",
            ]
        );
    }

    #[test]
    fn an_element_that_comes_is_told_as_a_whole() {
        let ports = json!({"EndpointSpec": {"Ports": [{"TargetPort": 80, "Protocol": "tcp", "PublishMode": "ingress", "PublishedPort": 8080}]}});
        assert_eq!(
            lines(json!({}), ports),
            [
                r#"EndpointSpec.Ports[80/tcp]: set to {"TargetPort":80,"Protocol":"tcp","PublishMode":"ingress","PublishedPort":8080}"#
            ]
        );
    }
}
