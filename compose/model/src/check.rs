//! Rules within one part of the canonical tree that a schema cannot say (compose-go `validation/`).

use std::net::IpAddr;

use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::short;
use crate::tree::{Node, Path, Value};

/// Checks all parts of a tree.
pub(crate) fn validate(report: &mut Report, tree: &Node) {
    walk(report, tree, &Path::ROOT);
}

fn walk(report: &mut Report, node: &Node, path: &Path<'_>) {
    match path.steps().as_slice() {
        [kind @ ("volumes" | "networks"), _] => external_alone(report, node, path, kind),
        ["configs", _] => one_source(report, node, path, &["file", "environment", "content"]),
        ["secrets", _] => one_source(report, node, path, &["file", "environment"]),
        ["services", _, "ports", "[]"] => port(report, node, path),
        ["services", _, "gpus", "[]"]
        | [
            "services",
            _,
            "deploy",
            "resources",
            "reservations",
            "devices",
            "[]",
        ] => device_request(report, node, path),
        ["services", _, "develop", "watch", "[]", "path"] if node.as_str() == Some("") => {
            let message = format!("{path} must not be empty");
            report.error(Diagnostic::error(node.span, message));
        }
        ["services", _, "volumes", "[]"] => mount(report, node, path),
        ["services", _, "healthcheck", "test"] => health_test(report, node, path),
        _ => {}
    }
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map {
                walk(report, &entry.node, &path.key(key));
            }
        }
        Value::Seq(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(report, item, &path.index(index));
            }
        }
        _ => {}
    }
}

fn is_external(node: &Node) -> bool {
    node.get("external")
        .is_some_and(|node| node.value == Value::Bool(true))
}

/// An external resource has nothing but a name. docker compose refuses more for a volume and ignores it for a
/// network.
fn external_alone(report: &mut Report, node: &Node, path: &Path<'_>, kind: &str) {
    if !is_external(node) {
        return;
    }
    for (key, entry) in node.as_map().into_iter().flatten() {
        if matches!(key.as_str(), "name" | "external") || key.starts_with("x-") {
            continue;
        }
        if kind == "volumes" {
            report.error(
                Diagnostic::error(
                    entry.key,
                    format!("{path} is external: it cannot have `{key}`"),
                )
                .with_help("an external resource exists already; only its name can be given"),
            );
        } else {
            report.warn(Diagnostic::warning(
                entry.key,
                format!("{path} is external: its `{key}` is ignored"),
            ));
        }
    }
}

fn one_source(report: &mut Report, node: &Node, path: &Path<'_>, keys: &[&str]) {
    let given: Vec<&str> = keys
        .iter()
        .copied()
        .filter(|key| node.get(key).is_some())
        .collect();
    let list = keys.join(", ");
    if given.len() > 1 {
        let message = format!("{path} has {}: only one is allowed", given.join(" and "));
        report.error(Diagnostic::error(node.span, message));
    }
    if given.is_empty() && node.get("external").is_none() && node.get("driver").is_none() {
        let message = format!("{path} needs one of {list} or external");
        report.error(Diagnostic::error(node.span, message));
    }
}

fn port(report: &mut Report, node: &Node, path: &Path<'_>) {
    if node.as_map().is_none() {
        return;
    }
    let Some(target) = node.get("target") else {
        let message = format!("{path} needs `target`, the port in the container");
        return report.error(Diagnostic::error(node.span, message));
    };
    if let Value::Int(number) = target.value
        && !(1..=65535).contains(&number)
    {
        let message = format!("{path}.target must be a port from 1 to 65535, not {number}");
        report.error(Diagnostic::error(target.span, message));
    }
    if let Some(ip) = node.get("host_ip")
        && let Some(text) = ip.as_str()
        && text.parse::<IpAddr>().is_err()
        && !text.contains('$')
    {
        let message = format!("{path}.host_ip is {text:?}, which is no IP address");
        report.error(Diagnostic::error(ip.span, message));
    }
    if let Some(published) = node.get("published")
        && let Some(text) = published.scalar_text()
        && !text.is_empty()
        && !text.contains('$')
        && short::range(&text).is_none()
    {
        let message = format!("{path}.published is {text:?}: write a port or a range FROM-TO");
        report.error(Diagnostic::error(published.span, message));
    }
    if let Some(protocol) = node.get("protocol")
        && let Some(text) = protocol.as_str()
        && !matches!(text.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp")
        && !text.contains('$')
    {
        let message = format!("{path}.protocol must be tcp, udp or sctp, not {text:?}");
        report.error(Diagnostic::error(protocol.span, message));
    }
}

fn device_request(report: &mut Report, node: &Node, path: &Path<'_>) {
    if node.get("count").is_some() && node.get("device_ids").is_some() {
        let message = format!("{path} has count and device_ids: only one is allowed");
        report.error(Diagnostic::error(node.span, message));
    }
}

fn mount(report: &mut Report, node: &Node, path: &Path<'_>) {
    if node.as_map().is_some() && node.get_str("target").is_none_or(str::is_empty) {
        let message = format!("{path} needs `target`, the path in the container");
        report.error(Diagnostic::error(node.span, message));
    }
}

fn health_test(report: &mut Report, node: &Node, path: &Path<'_>) {
    let Some(first) = node.as_seq().and_then(<[Node]>::first) else {
        return;
    };
    if !matches!(first.as_str(), Some("CMD" | "CMD-SHELL" | "NONE")) {
        let message = format!("{path} must start with CMD, CMD-SHELL or NONE");
        report.error(
            Diagnostic::error(first.span, message)
                .with_help("write [\"CMD\", \"program\", …], or one text for a shell"),
        );
    }
}
