//! The `filters` query parameter. Two shapes are legal: `{"label":["a"]}` and `{"label":{"a":true}}`.

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

/// Filters by name; values of one name are alternatives (labels: all must match), names are combined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(IndexMap<String, IndexSet<String>>);

/// A filter that the resource does not have, or text that is not JSON of either shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The resource does not know this filter.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// The filter is known, its value is not.
    #[error("invalid filter '{name}={value}'")]
    Value {
        /// Name of the filter.
        name: String,
        /// What was given.
        value: String,
    },
    /// Not JSON in a known shape.
    #[error("invalid filters: {0}")]
    Syntax(String),
}

impl Filters {
    /// No filters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the value of the query parameter; empty is no filter.
    ///
    /// # Errors
    /// [`FilterError::Syntax`] when it is neither of the two JSON shapes.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Map(IndexMap<String, bool>),
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let raw: IndexMap<String, Values> =
            serde_json::from_str(text).map_err(|error| FilterError::Syntax(error.to_string()))?;
        let mut filters = Self::default();
        for (name, values) in raw {
            match values {
                Values::List(list) => list.into_iter().for_each(|value| filters.add(&name, value)),
                Values::Map(map) => {
                    map.into_iter()
                        .filter(|(_, on)| *on)
                        .for_each(|(value, _)| filters.add(&name, value));
                }
            }
        }
        Ok(filters)
    }

    /// Adds one alternative.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0
            .entry(name.to_owned())
            .or_default()
            .insert(value.into());
    }

    /// Same as [`Filters::add`], for building in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.add(name, value);
        self
    }

    /// The query parameter's value, in the list shape.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("maps of strings serialise")
    }

    /// Whether there is nothing to filter by.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All values of one filter.
    pub fn get<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether this filter was given.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses filters that the resource does not have.
    ///
    /// # Errors
    /// [`FilterError::Unknown`] with the first one.
    pub fn allow(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(FilterError::Unknown(name.clone())),
            None => Ok(()),
        }
    }

    /// True when the filter is absent or one of its values satisfies the predicate.
    pub fn any(&self, name: &str, matches: impl FnMut(&str) -> bool) -> bool {
        !self.contains(name) || self.get(name).any(matches)
    }

    /// Label filters: every `key` or `key=value` must be there (`label`), none may be (`label!`).
    #[must_use]
    pub fn labels_match(&self, labels: &super::Labels) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").all(has) && !self.get("label!").any(has)
    }

    /// A boolean filter; `None` when absent.
    ///
    /// # Errors
    /// [`FilterError::Value`] when it is no boolean or both.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FilterError> {
        let invalid = || {
            let values: Vec<&str> = self.get(name).collect();
            FilterError::Value {
                name: name.to_owned(),
                value: format!("[{}]", values.join(" ")),
            }
        };
        let mut result = None;
        for value in self.get(name) {
            let parsed = match value {
                "1" | "true" | "t" | "T" | "TRUE" | "True" => true,
                "0" | "false" | "f" | "F" | "FALSE" | "False" => false,
                _ => return Err(invalid()),
            };
            if result.is_some_and(|before| before != parsed) {
                return Err(invalid());
            }
            result = Some(parsed);
        }
        Ok(result)
    }
}

impl Serialize for Filters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_mean_the_same() {
        let list = Filters::parse(r#"{"label":["a","b=c"],"dangling":["true"]}"#).unwrap();
        let map = Filters::parse(
            r#"{"label":{"a":true,"b=c":true,"no":false},"dangling":{"true":true}}"#,
        )
        .unwrap();
        assert_eq!(list, map);
        assert_eq!(list.boolean("dangling"), Ok(Some(true)));
        assert_eq!(
            list.to_json(),
            r#"{"label":["a","b=c"],"dangling":["true"]}"#
        );
    }

    #[test]
    fn labels_must_all_match() {
        let filters = Filters::new().with("label", "a").with("label", "b=c");
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert!(filters.labels_match(&labels(&[("a", ""), ("b", "c")])));
        assert!(!filters.labels_match(&labels(&[("a", ""), ("b", "x")])));
    }

    #[test]
    fn unknown_names_and_other_shapes_are_refused() {
        assert_eq!(
            Filters::new().with("colour", "red").allow(&["name"]),
            Err(FilterError::Unknown("colour".into()))
        );
        assert!(Filters::parse("[1]").is_err());
        assert!(
            Filters::new()
                .with("dangling", "maybe")
                .boolean("dangling")
                .is_err()
        );
    }
}
