//! Makes sequences unique after an append: a later item takes the place of an earlier one with the same key
//! (compose-go `override/uncity.go`). Runs before and after the canonical forms, because a range of ports
//! collides only when it is expanded.

use std::collections::HashMap;

use crate::short;
use crate::tree::{Node, Path, Value};

/// Enforces unicity in a whole tree.
pub(crate) fn enforce(tree: &mut Node) {
    tree.walk_mut(&Path::ROOT, &mut |node, path| {
        if let Value::Seq(items) = &mut node.value
            && let Some(key) = indexer(&path.steps())
        {
            let mut places: HashMap<String, usize> = HashMap::new();
            let mut unique: Vec<Node> = Vec::with_capacity(items.len());
            for item in items.drain(..) {
                match key(&item) {
                    Some(key) => match places.get(&key) {
                        Some(&at) => unique[at] = item,
                        None => {
                            places.insert(key, unique.len());
                            unique.push(item);
                        }
                    },
                    None => unique.push(item),
                }
            }
            *items = unique;
        }
    });
}

/// The key of the items at a place; the key function gives `None` for an item of a wrong type.
fn indexer(path: &[&str]) -> Option<fn(&Node) -> Option<String>> {
    Some(match path {
        ["networks", _, "labels"]
        | ["networks", _, "ipam", "options"]
        | [
            "services",
            _,
            "annotations" | "cap_add" | "cap_drop" | "dns" | "dns_opt" | "dns_search"
            | "environment" | "labels" | "links" | "profiles" | "sysctls" | "tmpfs",
        ]
        | [
            "services",
            _,
            "build",
            "args" | "additional_contexts" | "tags" | "labels",
        ]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "networks", _, "aliases" | "link_local_ips"] => before_equals,
        ["services", _, "configs"] => config_target,
        ["services", _, "secrets"] => secret_target,
        ["services", _, "devices"] => device_target,
        ["services", _, "env_file"] => env_file_path,
        ["services", _, "expose"] => Node::scalar_text,
        ["services", _, "ports"] => port,
        ["services", _, "volumes"] => volume_target,
        _ => return None,
    })
}

fn before_equals(item: &Node) -> Option<String> {
    let text = item.as_str()?;
    Some(text.split('=').next().unwrap_or(text).to_owned())
}

fn config_target(item: &Node) -> Option<String> {
    file_target(item, "")
}

fn secret_target(item: &Node) -> Option<String> {
    file_target(item, "/run/secrets")
}

fn file_target(item: &Node, directory: &str) -> Option<String> {
    match &item.value {
        Value::Str(source) => Some(format!("{directory}/{source}")),
        Value::Map(_) => match item.get_str("target") {
            Some(target) => Some(target.to_owned()),
            None => Some(format!("{directory}/{}", item.get_str("source")?)),
        },
        _ => None,
    }
}

fn device_target(item: &Node) -> Option<String> {
    match &item.value {
        Value::Str(text) => {
            let mut parts = text.split(':');
            let source = parts.next()?;
            Some(parts.next().unwrap_or(source).to_owned())
        }
        _ => item
            .get_str("target")
            .or_else(|| item.get_str("source"))
            .map(str::to_owned),
    }
}

fn env_file_path(item: &Node) -> Option<String> {
    item.as_str()
        .or_else(|| item.get_str("path"))
        .map(str::to_owned)
}

fn port(item: &Node) -> Option<String> {
    if item.as_map().is_none() {
        return item.scalar_text();
    }
    let text = |key: &str| item.get(key).and_then(Node::scalar_text);
    Some(format!(
        "{}:{}:{}/{}",
        text("host_ip").unwrap_or_else(|| "0.0.0.0".into()),
        text("published").unwrap_or_default(),
        text("target")?,
        text("protocol").unwrap_or_else(|| "tcp".into()),
    ))
}

fn volume_target(item: &Node) -> Option<String> {
    match &item.value {
        Value::Str(text) => short::volume(text).ok().map(|volume| volume.target),
        _ => item.get_str("target").map(str::to_owned),
    }
}
