//! Merges one tree over another by Compose's rules (compose-go `override/merge.go`).
//!
//! Mappings merge deeply, sequences append, scalars of the upper file win, an empty value keeps the lower one; the
//! exceptions are in [`rule`]. `!reset` and `!override` are obeyed here and stay in the result as marks, because
//! an `extends` merge is followed by the merge over lower files; [`strip_marks`] ends that. Values of a wrong type
//! pass through: the schema check after the merge reports them.

use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::tree::{Entry, Map, Mark, Node, Path, Value};

/// How the value at a place is merged.
enum Rule {
    /// Deep merge, append, or last wins, by type.
    Ordinary,
    /// The upper value replaces the lower, even if it is empty.
    Replace,
    /// The upper value replaces the lower unless it is empty.
    ReplaceUnlessEmpty,
    /// `KEY=VALUE` lists and mappings, merged by key.
    KeyValue,
    /// Text or list, appended.
    List,
    /// `host=ip` lists and mappings, appended without exact repetitions.
    Hosts,
    /// Lists of names and mappings, merged by name.
    Names,
    /// As names, with the defaults of a short dependency.
    DependsOn,
    /// Text is the context.
    Build,
    /// Merged only if the driver stays the same.
    Logging,
    /// Merged by subnet.
    Pools,
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["networks", _, "ipam", "config"] => Rule::Pools,
        ["networks" | "volumes", _, "labels"]
        | [
            "services",
            _,
            "annotations" | "environment" | "labels" | "sysctls",
        ]
        | [
            "services",
            _,
            "build",
            "args" | "additional_contexts" | "labels",
        ]
        | ["services", _, "deploy", "labels"] => Rule::KeyValue,
        ["services", _, "build"] => Rule::Build,
        ["services", _, "extra_hosts"] | ["services", _, "build", "extra_hosts"] => Rule::Hosts,
        ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"] => {
            Rule::Replace
        }
        ["services", _, "depends_on"] => Rule::DependsOn,
        [
            "services",
            _,
            "dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "tmpfs",
        ] => Rule::List,
        ["services", _, "logging"] => Rule::Logging,
        ["services", _, "models" | "networks"] => Rule::Names,
        ["services", _, "ulimits", _] => Rule::ReplaceUnlessEmpty,
        _ => Rule::Ordinary,
    }
}

/// Merges `over` onto `base`; both are at `path`.
pub(crate) fn merge(report: &mut Report, base: Node, over: Node, path: &Path<'_>) -> Node {
    if over.mark != Mark::Merge {
        return over;
    }
    match rule(&path.steps()) {
        Rule::Replace => over,
        _ if over.is_null() => base,
        _ if base.is_null() => over,
        Rule::ReplaceUnlessEmpty => over,
        Rule::Ordinary => ordinary(report, base, over, path),
        Rule::KeyValue => key_value(base, over),
        Rule::Names => by_key(report, base, over, path, &names),
        Rule::DependsOn => by_key(report, base, over, path, &dependencies),
        Rule::Build => by_key(report, base, over, path, &build),
        Rule::List => append(base, over, as_list, Repeats::Keep),
        Rule::Hosts => append(base, over, as_hosts, Repeats::Drop),
        Rule::Logging => logging(report, base, over, path),
        Rule::Pools => pools(report, base, over, path),
    }
}

fn ordinary(report: &mut Report, base: Node, over: Node, path: &Path<'_>) -> Node {
    let span = over.span;
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Node::map(maps(report, base, over, path), span),
        (Value::Seq(mut items), Value::Seq(more)) => {
            items.extend(more);
            Node::seq(items, span)
        }
        (Value::Map(_), _) => cannot_override(report, base.span, span, path, "a mapping"),
        (Value::Seq(_), _) => cannot_override(report, base.span, span, path, "a list"),
        (_, over) => Node::new(over, span),
    }
}

fn cannot_override(
    report: &mut Report,
    base: crate::span::Span,
    over: crate::span::Span,
    path: &Path<'_>,
    wanted: &str,
) -> Node {
    report.error(
        Diagnostic::error(over, format!("cannot override {path}: it must be {wanted}"))
            .with_label(format!("expected {wanted}"))
            .with_place(base, format!("{wanted} here"))
            .with_help("write it in the same form, or use !override to replace it"),
    );
    Node::null(over)
}

/// Merges mapping entries; the order of the lower one is kept, new keys follow.
fn maps(report: &mut Report, mut base: Map, over: Map, path: &Path<'_>) -> Map {
    for (key, entry) in over {
        let merged = match base.get_mut(&key) {
            Some(below) if entry.node.mark == Mark::Merge => {
                let span = below.node.span;
                let lower = std::mem::replace(&mut below.node, Node::null(span));
                Entry {
                    key: entry.key,
                    node: merge(report, lower, entry.node, &path.key(&key)),
                }
            }
            _ => entry,
        };
        base.insert(key, merged);
    }
    base
}

/// Variables and labels: the upper value of a key wins, also when it is empty (`A:` takes A from outside).
fn key_value(base: Node, over: Node) -> Node {
    match (key_values(&base), key_values(&over)) {
        (Some(mut below), Some(above)) => {
            below.extend(above);
            Node::map(below, over.span)
        }
        _ => over,
    }
}

/// Merges as mappings after `convert`; if the upper value cannot be converted it is returned for the schema
/// check to complain about.
fn by_key(
    report: &mut Report,
    base: Node,
    over: Node,
    path: &Path<'_>,
    convert: &dyn Fn(&Node) -> Option<Map>,
) -> Node {
    match (convert(&base), convert(&over)) {
        (Some(below), Some(above)) => Node::map(maps(report, below, above, path), over.span),
        _ => over,
    }
}

/// `KEY=VALUE` items or a mapping.
pub(crate) fn key_values(node: &Node) -> Option<Map> {
    match &node.value {
        Value::Map(map) => Some(map.clone()),
        Value::Seq(items) => {
            let mut map = Map::new();
            for item in items {
                let text = item.as_str()?;
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Value::Str(value.to_owned())),
                    None => (text, Value::Null),
                };
                map.insert(key.to_owned(), Entry::at(Node::new(value, item.span)));
            }
            Some(map)
        }
        _ => None,
    }
}

/// Names or a mapping.
pub(crate) fn names(node: &Node) -> Option<Map> {
    named(node, &|span| Node::null(span))
}

/// Names or a mapping; a name alone waits for `service_started`.
pub(crate) fn dependencies(node: &Node) -> Option<Map> {
    named(node, &|span| {
        let mut dependency = Node::map(Map::new(), span);
        dependency.set_default("condition", Value::Str("service_started".into()));
        dependency.set_default("required", Value::Bool(true));
        dependency
    })
}

fn named(node: &Node, value: &dyn Fn(crate::span::Span) -> Node) -> Option<Map> {
    match &node.value {
        Value::Map(map) => Some(map.clone()),
        Value::Seq(items) => items
            .iter()
            .map(|item| Some((item.as_str()?.to_owned(), Entry::at(value(item.span)))))
            .collect(),
        _ => None,
    }
}

fn build(node: &Node) -> Option<Map> {
    match &node.value {
        Value::Map(map) => Some(map.clone()),
        Value::Str(_) => Some(Map::from_iter([(
            "context".to_owned(),
            Entry::at(node.clone()),
        )])),
        _ => None,
    }
}

/// Whether an appended item that is there already is added again. (Other lists than hosts are made unique by
/// their own keys afterwards.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Keep,
    Drop,
}

fn append(
    base: Node,
    over: Node,
    convert: fn(&Node) -> Option<Vec<Node>>,
    repeats: Repeats,
) -> Node {
    let (Some(mut items), Some(more)) = (convert(&base), convert(&over)) else {
        return over;
    };
    for item in more {
        let repeated = items.iter().any(|lower| lower.value == item.value);
        if repeats == Repeats::Keep || !repeated {
            items.push(item);
        }
    }
    Node::seq(items, over.span)
}

fn as_list(node: &Node) -> Option<Vec<Node>> {
    match &node.value {
        Value::Seq(items) => Some(items.clone()),
        Value::Str(_) => Some(vec![node.clone()]),
        _ => None,
    }
}

/// `host=ip` items of a list or mapping.
pub(crate) fn as_hosts(node: &Node) -> Option<Vec<Node>> {
    match &node.value {
        Value::Seq(items) => Some(items.clone()),
        Value::Map(map) => {
            let mut lines = Vec::new();
            for (host, entry) in map {
                let addresses = match &entry.node.value {
                    Value::Seq(items) => items.as_slice(),
                    _ => std::slice::from_ref(&entry.node),
                };
                for address in addresses {
                    let text = address.scalar_text().unwrap_or_default();
                    lines.push(Node::string(format!("{host}={text}"), address.span));
                }
            }
            Some(lines)
        }
        _ => None,
    }
}

fn logging(report: &mut Report, base: Node, over: Node, path: &Path<'_>) -> Node {
    let same = match (base.get("driver"), over.get("driver")) {
        (Some(below), Some(above)) => below.value == above.value,
        _ => true,
    };
    match same {
        true => ordinary(report, base, over, path),
        false => over,
    }
}

/// Address pools: the same subnet is merged, others are added.
fn pools(report: &mut Report, base: Node, over: Node, path: &Path<'_>) -> Node {
    let span = over.span;
    let (Value::Seq(mut pools), Value::Seq(more)) = (base.value, over.value.clone()) else {
        return over;
    };
    for pool in more {
        let subnet = pool.get_str("subnet").map(str::to_owned);
        let twin = pools
            .iter_mut()
            .find(|lower| lower.get_str("subnet") == subnet.as_deref());
        match twin {
            Some(lower) => {
                let below = std::mem::replace(lower, Node::null(span));
                *lower = ordinary(report, below, pool, &path.index(0));
            }
            None => pools.push(pool),
        }
    }
    Node::seq(pools, span)
}

/// Removes what `!reset` marks and makes the rest ordinary again.
pub(crate) fn strip_marks(node: &mut Node) {
    node.mark = Mark::Merge;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.mark != Mark::Reset);
            map.values_mut()
                .for_each(|entry| strip_marks(&mut entry.node));
        }
        Value::Seq(items) => {
            items.retain(|item| item.mark != Mark::Reset);
            items.iter_mut().for_each(strip_marks);
        }
        _ => {}
    }
}
