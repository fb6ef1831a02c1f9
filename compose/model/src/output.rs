//! A project as text: the canonical YAML and JSON of `compose config`, which can be loaded again (`$` is doubled),
//! lists of parts, and the hash that tells whether a service changed.

use std::collections::BTreeSet;

use ring::digest;
use serde_json::Value;

use crate::types::{Project, ServiceConfig};
use crate::yaml_writer;

/// Whether `$` in texts is doubled, so that loading the output again gives the same project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dollars {
    /// `$` becomes `$$`: for values whose variables were replaced.
    Escape,
    /// As it is: for values that still contain their variables.
    Keep,
}

impl Project {
    /// The project as a plain value in docker compose's shape and order, `$` not doubled.
    pub fn to_value(&self) -> Value {
        let mut value = serialized(self);
        if let Some(configs) = value.get_mut("configs").and_then(Value::as_object_mut) {
            for config in configs.values_mut().filter_map(Value::as_object_mut) {
                if config.contains_key("environment") {
                    config.shift_remove("content");
                }
            }
        }
        value
    }

    /// `config`: canonical YAML.
    pub fn to_yaml(&self) -> String {
        value_to_yaml(self.to_value(), Dollars::Escape)
    }

    /// `config --format json`: canonical JSON, indented by two spaces.
    pub fn to_json(&self) -> String {
        let mut value = self.to_value();
        // Docker compose writes these two even when they are unset.
        if let Some(services) = value.get_mut("services").and_then(Value::as_object_mut) {
            for service in services.values_mut().filter_map(Value::as_object_mut) {
                for key in ["command", "entrypoint"] {
                    service.entry(key).or_insert(Value::Null);
                }
            }
        }
        value_to_json(value, Dollars::Escape)
    }

    /// Images of the active services: named ones, and the default name of built ones. Sorted, without repetitions.
    pub fn images(&self) -> Vec<String> {
        let images = self
            .services
            .iter()
            .filter(|(_, service)| service.provider.is_none());
        let images = images.map(|(name, service)| service.image_or_default(&self.name, name));
        images.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// All profiles that services name, active or not. Sorted, without repetitions.
    pub fn all_profiles(&self) -> Vec<String> {
        let services = self
            .services
            .values()
            .chain(self.disabled_services.values());
        let profiles = services.flat_map(|service| service.profiles.iter().cloned());
        profiles.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl ServiceConfig {
    /// The service as a plain value in docker compose's shape.
    pub fn to_value(&self) -> Value {
        serialized(self)
    }

    /// SHA-256 (hex) of everything that makes a container of this service what it is: not of how it is built, pulled,
    /// scaled, ordered or selected, nor of `x-*` keys.
    pub fn config_hash(&self) -> String {
        let mut value = self.to_value();
        if let Some(map) = value.as_object_mut() {
            for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
                map.shift_remove(key);
            }
            map.retain(|key, _| !key.starts_with("x-"));
            if let Some(deploy) = map.get_mut("deploy").and_then(Value::as_object_mut) {
                deploy.shift_remove("replicas");
            }
        }
        let digest = digest::digest(&digest::SHA256, value.to_string().as_bytes());
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// A plain value as YAML with docker compose's indentation.
pub fn value_to_yaml(mut value: Value, dollars: Dollars) -> String {
    if dollars == Dollars::Escape {
        escape_dollars(&mut value);
    }
    yaml_writer::write(&value)
}

/// A plain value as JSON indented by two spaces.
pub fn value_to_json(mut value: Value, dollars: Dollars) -> String {
    if dollars == Dollars::Escape {
        escape_dollars(&mut value);
    }
    format!("{value:#}")
}

fn serialized(part: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(part)
        .expect("the model has text keys and finite numbers, which JSON can hold");
    hoist_extensions(&mut value);
    value
}

/// Puts `$extensions` back among the keys of its mapping.
fn hoist_extensions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(extensions)) = map.shift_remove("$extensions") {
                map.extend(extensions);
            }
            map.values_mut().for_each(hoist_extensions);
        }
        Value::Array(items) => items.iter_mut().for_each(hoist_extensions),
        _ => {}
    }
}

fn escape_dollars(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape_dollars),
        Value::Object(map) => map.values_mut().for_each(escape_dollars),
        _ => {}
    }
}
