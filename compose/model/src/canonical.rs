//! Short forms to long forms, after the schema check (compose-go `transform/canonical.go` and the decoders of its
//! types): what follows sees one form of everything. Sets no defaults but those that belong to a short form.

use crate::diagnostic::Diagnostic;
use crate::merge;
use crate::report::Report;
use crate::short;
use crate::span::Span;
use crate::tree::{Entry, Map, Node, Path, Value};
use crate::words;

/// Ports that the ranges of a file may expand to.
const MAX_PORTS: usize = 65_536;

/// Whether a text that cannot be taken apart is an error, or stays as it is because its variables are not
/// replaced yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texts {
    Interpolated,
    Raw,
}

/// Brings a merged tree into canonical form.
pub(crate) fn document(report: &mut Report, tree: &mut Node, texts: Texts) {
    let mut stage = Canonical {
        report,
        texts,
        ports: 0,
    };
    tree.walk_mut(&Path::ROOT, &mut |node, path| {
        stage.node(node, path);
    });
}

struct Canonical<'r> {
    report: &'r mut Report,
    texts: Texts,
    /// Ports so far.
    ports: usize,
}

impl Canonical<'_> {
    /// Converts one node; its children are visited afterwards, in their new form.
    fn node(&mut self, node: &mut Node, path: &Path<'_>) {
        let steps = path.steps();
        match steps.as_slice() {
            [
                "services",
                _,
                "annotations" | "environment" | "labels" | "sysctls",
            ]
            | ["services", _, "deploy", "labels"]
            | ["services", _, "build", "args" | "labels"]
            | ["services", _, "gpus", "[]", "options"]
            | [
                "services",
                _,
                "deploy",
                "resources",
                "reservations",
                "devices",
                "[]",
                "options",
            ]
            | ["services", _, "volumes", "[]", "volume", "labels"]
            | [
                "services",
                _,
                "pre_start" | "post_start" | "pre_stop",
                "[]",
                "environment",
            ]
            | [
                "services",
                _,
                "develop",
                "watch",
                "[]",
                "exec",
                "environment",
            ]
            | ["networks" | "volumes" | "secrets" | "configs", _, "labels"] => key_values(node),
            ["services", _, "build", "additional_contexts"] => self.contexts(node, path),
            ["services", _, "build", "ssh"] => self.ssh(node, path),
            ["services", _, "build"] => wrap_text(node, "context"),
            ["services", _, "extends"] => wrap_text(node, "service"),
            ["services", _, "dns" | "dns_search" | "tmpfs" | "label_file"]
            | ["services", _, "build", "no_cache_filter"]
            | [
                "services",
                _,
                "develop",
                "watch",
                "[]",
                "ignore" | "include",
            ] => list(node),
            ["services", _, "env_file"] => env_files(node),
            ["services", _, "networks" | "models"] => names(node, &merge::names),
            ["services", _, "depends_on"] => depends_on(node),
            ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => {
                self.hosts(node, path);
            }
            ["services", _, "provider", "options", _] => provider_option(node),
            ["services", _, "gpus"] => gpus(node),
            ["services", _, "devices", "[]"] => self.device(node),
            ["services", _, "secrets" | "configs", "[]"]
            | ["services", _, "build", "secrets", "[]"] => wrap_text(node, "source"),
            ["services", _, "volumes", "[]"] => self.volume(node, path),
            ["services", _, "ports"] => self.ports(node),
            ["services", _, "command" | "entrypoint"]
            | [
                "services",
                _,
                "pre_start" | "post_start" | "pre_stop",
                "[]",
                "command",
            ]
            | ["services", _, "develop", "watch", "[]", "exec", "command"] => {
                self.command(node, path);
            }
            ["services", _, "healthcheck", "test"] => health_test(node),
            ["networks" | "volumes" | "secrets" | "configs", _] => self.external(node, path),
            _ => {}
        }
    }

    fn error(&mut self, span: Span, message: String) {
        if self.texts == Texts::Interpolated {
            self.report.error(Diagnostic::error(span, message));
        }
    }

    fn command(&mut self, node: &mut Node, path: &Path<'_>) {
        let Value::Str(line) = &node.value else {
            return;
        };
        if self.texts == Texts::Raw && line.contains('$') {
            return;
        }
        let span = node.span;
        let Some(split) = words::split(line) else {
            self.report.error(
                Diagnostic::error(
                    span,
                    format!("cannot split {path} into words: a quote or bracket is left open"),
                )
                .with_help("write it as a list, or quote what is meant for a shell: sh -c '…'"),
            );
            return;
        };
        if let Some(char) = split.dropped_from {
            self.report.warn(
                Diagnostic::warning(
                    span,
                    format!("everything from `{char}` on is dropped from {path}: no shell runs it"),
                )
                .with_help("to use a shell, write [\"sh\", \"-c\", \"…\"]"),
            );
        }
        let words = split.words.into_iter();
        *node = Node::seq(words.map(|word| Node::string(word, span)).collect(), span);
    }

    fn contexts(&mut self, node: &mut Node, path: &Path<'_>) {
        if let Some(items) = node.as_seq() {
            for item in items {
                if item.as_str().is_some_and(|text| !text.contains('=')) {
                    let text = item.as_str().unwrap_or_default();
                    let message =
                        format!("invalid value {text:?} in {path}: expected NAME=CONTEXT");
                    self.report.error(Diagnostic::error(item.span, message));
                }
            }
        }
        key_values(node);
    }

    fn ssh(&mut self, node: &mut Node, path: &Path<'_>) {
        if let Some(items) = node.as_seq() {
            for item in items {
                let text = item.as_str().unwrap_or_default();
                if text != "default" && !text.contains('=') {
                    let message =
                        format!("invalid key {text:?} in {path}: write default or ID=PATH");
                    self.report.error(Diagnostic::error(item.span, message));
                }
            }
        }
        key_values(node);
    }

    fn hosts(&mut self, node: &mut Node, path: &Path<'_>) {
        let Value::Seq(items) = &node.value else {
            return;
        };
        let mut hosts = Map::new();
        for item in items {
            let Some(line) = item.as_str() else {
                continue;
            };
            let Some((host, addresses)) = line.split_once('=').or_else(|| line.split_once(':'))
            else {
                let message = format!("invalid line {line:?} in {path}: the address is missing");
                self.report
                    .error(Diagnostic::error(item.span, message).with_help("write HOST=ADDRESS"));
                continue;
            };
            let list = hosts
                .entry(host.to_owned())
                .or_insert_with(|| Entry::at(Node::seq(Vec::new(), item.span)));
            if let Value::Seq(list) = &mut list.node.value {
                let addresses = addresses.split(',');
                list.extend(addresses.map(|address| Node::string(address, item.span)));
            }
        }
        *node = Node::map(hosts, node.span);
    }

    fn device(&mut self, node: &mut Node) {
        let Value::Str(text) = &node.value else {
            return;
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, permissions) = match parts.as_slice() {
            [source] => (*source, *source, "rwm"),
            [source, target] => (*source, *target, "rwm"),
            [source, target, permissions] => (*source, *target, *permissions),
            _ => {
                let message = format!("confusing device {text:?}: use the long form");
                return self.error(node.span, message);
            }
        };
        let target = if target.is_empty() { source } else { target };
        let fields = [
            ("source", source),
            ("target", target),
            ("permissions", permissions),
        ];
        *node = long_form(
            node.span,
            fields.map(|(key, text)| (key, Value::Str(text.into()))),
        );
    }

    fn volume(&mut self, node: &mut Node, path: &Path<'_>) {
        let span = node.span;
        let Value::Str(text) = &node.value else {
            if let Some(target) = node.get_mut("target")
                && let Value::Str(path) = &mut target.value
            {
                *path = clean(path);
            }
            return;
        };
        let volume = match short::volume(text) {
            Ok(volume) => volume,
            Err(message) => return self.error(span, message),
        };
        for option in &volume.unknown {
            self.report.warn(Diagnostic::warning(
                span,
                format!("{path} has the unknown option {option:?}, which is ignored"),
            ));
        }
        let mut fields: Vec<(&str, Value)> = Vec::new();
        let kind = if volume.bind { "bind" } else { "volume" };
        fields.push(("type", Value::Str(kind.into())));
        if let Some(source) = volume.source {
            fields.push(("source", Value::Str(source)));
        }
        fields.push(("target", Value::Str(clean(&volume.target))));
        if volume.read_only {
            fields.push(("read_only", Value::Bool(true)));
        }
        let mut bind: Vec<(&str, Value)> = Vec::new();
        if let Some(propagation) = volume.propagation {
            bind.push(("propagation", Value::Str(propagation)));
        }
        if let Some(selinux) = volume.selinux {
            bind.push(("selinux", Value::Str(selinux)));
        }
        if volume.bind {
            bind.push(("create_host_path", Value::Bool(true)));
        }
        if !bind.is_empty() {
            fields.push(("bind", long_form(span, bind).value));
        }
        if !volume.bind || volume.nocopy {
            let nocopy = volume.nocopy.then_some(("nocopy", Value::Bool(true)));
            fields.push(("volume", long_form(span, nocopy).value));
        }
        *node = long_form(span, fields);
    }

    fn ports(&mut self, node: &mut Node) {
        let Value::Seq(items) = &mut node.value else {
            return;
        };
        let mut ports = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            let text = match &item.value {
                Value::Map(_) => {
                    ports.push(item);
                    continue;
                }
                _ => item.scalar_text().unwrap_or_default(),
            };
            match short::ports(&text) {
                Ok(list) if self.ports + list.len() > MAX_PORTS => {
                    let message = format!("the file publishes more than {MAX_PORTS} ports");
                    self.report.error(Diagnostic::error(item.span, message));
                    break;
                }
                Ok(list) => {
                    self.ports += list.len();
                    let list = list.into_iter();
                    ports.extend(list.map(|port| long_port(port, item.span)));
                }
                Err(_) if self.texts == Texts::Raw => ports.push(item),
                Err(message) => {
                    self.report
                        .error(Diagnostic::error(item.span, message).with_help(
                            "write [IP:][HOST:]CONTAINER[/PROTOCOL], for example \"8080:80\"",
                        ))
                }
            }
        }
        *items = ports;
    }

    /// `external: {name: x}` is the old way to write `external: true` with `name: x`.
    fn external(&mut self, node: &mut Node, path: &Path<'_>) {
        let Some(map) = node.as_map_mut() else {
            return;
        };
        let Some(external) = map.get_mut("external") else {
            return;
        };
        let span = external.node.span;
        let Value::Map(old) = &external.node.value else {
            return;
        };
        let old_name = old.get("name").cloned();
        external.node = Node::bool(true, span);
        let Some(old_name) = old_name else {
            return;
        };
        self.report.warn(Diagnostic::warning(
            old_name.key,
            format!("{path}: external.name is deprecated: write name and external: true"),
        ));
        match map.get("name") {
            Some(name) if name.node.value != old_name.node.value => self.report.error(
                Diagnostic::error(old_name.node.span, format!("{path} has two names"))
                    .with_place(name.node.span, "the other name")
                    .with_help("keep only name"),
            ),
            Some(_) => {}
            None => {
                map.insert("name".into(), old_name);
            }
        }
    }
}

fn long_port(port: short::ShortPort, span: Span) -> Node {
    let mut fields = vec![("mode", Value::Str("ingress".into()))];
    if let Some(ip) = port.host_ip {
        fields.push(("host_ip", Value::Str(ip)));
    }
    fields.push(("target", Value::Int(i64::from(port.target))));
    if let Some(published) = port.published {
        fields.push(("published", Value::Str(published)));
    }
    fields.push(("protocol", Value::Str(port.protocol)));
    long_form(span, fields)
}

/// A mapping that stands for a short form written at `span`.
fn long_form<'k>(span: Span, fields: impl IntoIterator<Item = (&'k str, Value)>) -> Node {
    let entries = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), Entry::at(Node::new(value, span))));
    Node::map(entries.collect(), span)
}

fn wrap_text(node: &mut Node, key: &str) {
    if let Value::Str(_) = node.value {
        let value = std::mem::replace(&mut node.value, Value::Null);
        *node = long_form(node.span, [(key, value)]);
    }
}

fn list(node: &mut Node) {
    if let Value::Str(_) = node.value {
        let item = node.clone();
        node.value = Value::Seq(vec![item]);
    }
    // `dns: [""]` comes from an unset variable and means none.
    if let Value::Seq(items) = &mut node.value {
        items.retain(|item| item.as_str() != Some(""));
    }
}

fn key_values(node: &mut Node) {
    names(node, &merge::key_values);
}

fn names(node: &mut Node, convert: &dyn Fn(&Node) -> Option<Map>) {
    if let Value::Seq(_) = node.value
        && let Some(map) = convert(node)
    {
        node.value = Value::Map(map);
    }
}

fn depends_on(node: &mut Node) {
    names(node, &merge::dependencies);
    if let Some(map) = node.as_map_mut() {
        for entry in map.values_mut() {
            entry
                .node
                .set_default("condition", Value::Str("service_started".into()));
            entry.node.set_default("required", Value::Bool(true));
        }
    }
}

fn env_files(node: &mut Node) {
    if let Value::Str(_) = node.value {
        let item = node.clone();
        node.value = Value::Seq(vec![item]);
    }
    if let Value::Seq(items) = &mut node.value {
        for item in items {
            wrap_text(item, "path");
        }
    }
}

fn provider_option(node: &mut Node) {
    if node.as_seq().is_none() {
        let item = node.clone();
        node.value = Value::Seq(vec![item]);
    }
}

fn gpus(node: &mut Node) {
    if let Value::Str(_) = node.value {
        let all = long_form(node.span, [("count", Value::Str("all".into()))]);
        node.value = Value::Seq(vec![all]);
    }
}

fn health_test(node: &mut Node) {
    if let Value::Str(_) = node.value {
        let shell = Node::string("CMD-SHELL", node.span);
        let line = node.clone();
        node.value = Value::Seq(vec![shell, line]);
    }
}

/// Go's `path.Clean` for slash paths.
pub(crate) fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_lexically() {
        for (path, cleaned) in [
            ("/a/../b//c/.", "/b/c"),
            ("/..", "/"),
            ("a/..", "."),
            ("../a", "../a"),
            ("./a/", "a"),
            ("", ""),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }
}
