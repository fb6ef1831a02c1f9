//! The shape of a Compose file: which keys there are, of which types. Checks the merged tree and reports
//! everything that is wrong, each at its place.
//!
//! The tables in `service.rs` and `project.rs` follow the Compose specification's schema; this file knows how to
//! check a tree against a table. What values mean together is checked later (`check.rs`, `consistency.rs`).

mod project;
mod service;
mod suggest;

use crate::diagnostic::Diagnostic;
use crate::report::Report;
use crate::tree::{Map, Node, Path, Value};
use crate::types::{Bytes, Duration};

pub(crate) use suggest::nearest;

/// What a value may be.
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// Nothing but null.
    Empty,
    /// Text.
    Text,
    /// Text of this form; the second string describes it.
    Form(fn(&str) -> bool, &'static str),
    /// A length of time.
    Duration,
    /// A number of bytes, with or without unit.
    Size,
    /// A number of bytes as text.
    TextSize,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A boolean or text.
    Bool,
    /// A boolean; text is no substitute.
    StrictBool,
    /// A whole number or text.
    Int,
    /// A whole number within bounds, or text.
    IntIn(i64, i64),
    /// A number or text.
    Number,
    /// A whole number; text is no substitute.
    StrictInt,
    /// A number; text is no substitute.
    StrictNumber,
    /// Text, number or boolean.
    Scalar,
    /// Text, number, boolean or null.
    ScalarOrEmpty,
    /// A list of a shape.
    List(&'static Shape),
    /// A list of a shape without repetitions.
    Set(&'static Shape),
    /// A mapping from any key to a shape.
    MapOf(&'static Shape),
    /// A mapping from names `[a-zA-Z0-9._-]+` to a shape.
    Named(&'static Shape),
    /// A mapping with known keys.
    Object(&'static Fields),
    /// One of several shapes; they differ in the kind of value.
    OneOf(&'static [&'static Shape]),
}

/// Known keys of a mapping.
pub(crate) struct Fields {
    /// Key and shape.
    pub(crate) known: &'static [(&'static str, &'static Shape)],
    /// Keys that must be there.
    pub(crate) required: &'static [&'static str],
    /// Whether `x-*` keys are allowed.
    pub(crate) extensions: bool,
}

/// Checks a whole project tree.
pub(crate) fn validate(report: &mut Report, tree: &Node) {
    check(report, tree, &project::PROJECT, &Path::ROOT);
}

fn check(report: &mut Report, node: &Node, shape: &Shape, path: &Path<'_>) {
    match (shape, &node.value) {
        (Shape::Any, _)
        | (Shape::Empty, Value::Null)
        | (Shape::Text, Value::Str(_))
        | (Shape::Bool, Value::Bool(_) | Value::Str(_))
        | (Shape::StrictBool, Value::Bool(_))
        | (Shape::Int, Value::Int(_) | Value::Str(_))
        | (Shape::IntIn(..), Value::Str(_))
        | (Shape::StrictInt, Value::Int(_))
        | (Shape::Number, Value::Int(_) | Value::Float(_) | Value::Str(_))
        | (Shape::StrictNumber, Value::Int(_) | Value::Float(_))
        | (
            Shape::Scalar | Shape::ScalarOrEmpty,
            Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Bool(_),
        )
        | (Shape::ScalarOrEmpty, Value::Null) => {}
        // A whole number may be written as a float.
        (Shape::Int | Shape::StrictInt, Value::Float(number)) if number.fract() == 0.0 => {}
        (Shape::IntIn(from, to), Value::Int(number)) => {
            if number < from || number > to {
                let message = format!("{path} must be between {from} and {to}, not {number}");
                report.error(Diagnostic::error(node.span, message));
            }
        }
        (Shape::Size, Value::Int(_) | Value::Float(_)) => {}
        (
            Shape::Form(..) | Shape::Word(_) | Shape::Duration | Shape::Size | Shape::TextSize,
            Value::Str(text),
        ) if text.is_empty() || text.contains('$') => {}
        (Shape::Duration, Value::Str(text)) => {
            if let Err(why) = text.parse::<Duration>() {
                report.error(Diagnostic::error(node.span, format!("{path}: {why}")));
            }
        }
        (Shape::Size | Shape::TextSize, Value::Str(text)) => {
            if let Err(why) = text.parse::<Bytes>() {
                report.error(Diagnostic::error(node.span, format!("{path}: {why}")));
            }
        }
        (Shape::Form(holds, wanted), Value::Str(text)) => {
            if !holds(text) {
                let message = format!("{path} is {text:?}: it must be {wanted}");
                report.error(Diagnostic::error(node.span, message));
            }
        }
        (Shape::Word(words), Value::Str(text)) => {
            if !words.contains(&text.as_str()) {
                let message = format!("{path} must be {}, not {text:?}", or_words(words));
                let mut diagnostic = Diagnostic::error(node.span, message);
                if let Some(word) = nearest(text, words.iter().copied()) {
                    diagnostic = diagnostic.with_help(format!("did you mean `{word}`?"));
                }
                report.error(diagnostic);
            }
        }
        (Shape::List(item) | Shape::Set(item), Value::Seq(items)) => {
            for (index, value) in items.iter().enumerate() {
                check(report, value, item, &path.index(index));
            }
            if let Shape::Set(_) = shape {
                unique(report, items, path);
            }
        }
        (Shape::MapOf(value), Value::Map(map)) => {
            for (key, entry) in map {
                check(report, &entry.node, value, &path.key(key));
            }
        }
        (Shape::Named(value), Value::Map(map)) => named(report, map, value, path),
        (Shape::Object(fields), Value::Map(map)) => object(report, node, map, fields, path),
        (Shape::OneOf(shapes), _) => one_of(report, node, shapes, path),
        _ => mismatch(report, node, shape, path),
    }
}

fn mismatch(report: &mut Report, node: &Node, shape: &Shape, path: &Path<'_>) {
    let wanted = describe(shape);
    let what = if path.steps().is_empty() {
        "a Compose file".to_owned()
    } else {
        path.to_string()
    };
    let message = format!("{what} must be {wanted}, not {}", shown(node));
    let mut diagnostic =
        Diagnostic::error(node.span, message).with_label(format!("expected {wanted}"));
    diagnostic = match (shape, node.scalar_text()) {
        (Shape::Text | Shape::Form(..) | Shape::Word(_) | Shape::TextSize, Some(text)) => {
            diagnostic.with_help(format!("quote it: \"{text}\""))
        }
        (Shape::Object(_), _) if is_misplaced_attribute(path) => diagnostic
            .with_help("this is an attribute of a service: indent it below the service's name"),
        (Shape::Duration, Some(text)) => {
            diagnostic.with_help(format!("write it with a unit: {text}s"))
        }
        _ => diagnostic,
    };
    report.error(diagnostic);
}

/// `services.image`: the name of an attribute where services are named.
fn is_misplaced_attribute(path: &Path<'_>) -> bool {
    match (path.steps().as_slice(), &service::SERVICE) {
        (["services", key], Shape::Object(fields)) => {
            fields.known.iter().any(|(name, _)| name == key)
        }
        _ => false,
    }
}

/// The value for a message: scalars literally, collections by kind.
fn shown(node: &Node) -> String {
    match node.scalar_text() {
        Some(text) if text.chars().count() <= 40 => match node.value {
            Value::Str(_) => format!("{text:?}"),
            _ => format!("the {} {text}", node.kind().trim_start_matches("a ")),
        },
        _ => node.kind().to_owned(),
    }
}

fn object(report: &mut Report, node: &Node, map: &Map, fields: &Fields, path: &Path<'_>) {
    for (key, entry) in map {
        let known = fields.known.iter().find(|(name, _)| name == key);
        match known {
            Some((_, shape)) => check(report, &entry.node, shape, &path.key(key)),
            None if fields.extensions && key.starts_with("x-") => {}
            None => {
                let place = match path.steps().is_empty() {
                    true => "at the top level".to_owned(),
                    false => format!("in {path}"),
                };
                let mut diagnostic =
                    Diagnostic::error(entry.key, format!("unknown attribute `{key}` {place}"))
                        .with_label("not known to Compose");
                let names = fields.known.iter().map(|(name, _)| *name);
                diagnostic = match nearest(key, names) {
                    Some(name) => diagnostic.with_help(format!("did you mean `{name}`?")),
                    None if path.steps().is_empty() && entry.node.as_map().is_some() => diagnostic
                        .with_help("services belong below `services:`; extensions start with `x-`"),
                    None if fields.extensions => {
                        diagnostic.with_help("an extension of your own must start with `x-`")
                    }
                    None => diagnostic,
                };
                report.error(diagnostic);
            }
        }
    }
    for required in fields.required {
        if !map.contains_key(*required) {
            let message = format!("{path} needs `{required}`");
            report.error(
                Diagnostic::error(node.span, message)
                    .with_label(format!("`{required}` is missing")),
            );
        }
    }
}

fn named(report: &mut Report, map: &Map, value: &Shape, path: &Path<'_>) {
    for (key, entry) in map {
        if !is_name(key) {
            let message = format!("invalid name {key:?} in {path}");
            report.error(
                Diagnostic::error(entry.key, message)
                    .with_help("use letters, digits, `.`, `_` and `-`"),
            );
        }
        check(report, &entry.node, value, &path.key(key));
    }
}

/// `[a-zA-Z0-9._-]+`.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.chars().all(allowed)
}

fn unique(report: &mut Report, items: &[Node], path: &Path<'_>) {
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.scalar_text() else {
            continue;
        };
        match seen.get(&text) {
            Some(&first) => report.error(
                Diagnostic::error(item.span, format!("{path} has {text:?} twice"))
                    .with_label("again here")
                    .with_place(items[first].span, "first here"),
            ),
            None => {
                seen.insert(text, index);
            }
        }
    }
}

/// Checks against the one alternative that takes this kind of value.
fn one_of(report: &mut Report, node: &Node, shapes: &[&Shape], path: &Path<'_>) {
    match shapes.iter().find(|shape| takes(shape, &node.value)) {
        Some(shape) => check(report, node, shape, path),
        None => {
            let wanted: Vec<&str> = shapes.iter().map(|shape| describe(shape)).collect();
            let message = format!("{path} must be {}, not {}", or_words(&wanted), shown(node));
            report.error(
                Diagnostic::error(node.span, message)
                    .with_label(format!("expected {}", or_words(&wanted))),
            );
        }
    }
}

fn takes(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Empty => matches!(value, Value::Null),
        Shape::Text | Shape::Form(..) | Shape::Word(_) | Shape::Duration | Shape::TextSize => {
            matches!(value, Value::Str(_))
        }
        Shape::StrictBool => matches!(value, Value::Bool(_)),
        Shape::Bool => matches!(value, Value::Bool(_) | Value::Str(_)),
        Shape::StrictInt | Shape::StrictNumber => matches!(value, Value::Int(_) | Value::Float(_)),
        Shape::Int | Shape::IntIn(..) | Shape::Number | Shape::Size => {
            matches!(value, Value::Int(_) | Value::Float(_) | Value::Str(_))
        }
        Shape::Scalar => !matches!(value, Value::Null | Value::Seq(_) | Value::Map(_)),
        Shape::ScalarOrEmpty => !matches!(value, Value::Seq(_) | Value::Map(_)),
        Shape::List(_) | Shape::Set(_) => matches!(value, Value::Seq(_)),
        Shape::MapOf(_) | Shape::Named(_) | Shape::Object(_) => matches!(value, Value::Map(_)),
        Shape::OneOf(shapes) => shapes.iter().any(|shape| takes(shape, value)),
    }
}

fn describe(shape: &Shape) -> &'static str {
    match shape {
        Shape::Any => "anything",
        Shape::Empty => "empty",
        Shape::Text | Shape::Form(..) | Shape::Word(_) => "text",
        Shape::Duration => "a duration",
        Shape::Size => "a size in bytes",
        Shape::TextSize => "a size as text",
        Shape::Bool | Shape::StrictBool => "true or false",
        Shape::Int | Shape::IntIn(..) | Shape::StrictInt => "a whole number",
        Shape::Number | Shape::StrictNumber => "a number",
        Shape::Scalar => "text, a number or a boolean",
        Shape::ScalarOrEmpty => "text, a number, a boolean or empty",
        Shape::List(_) | Shape::Set(_) => "a list",
        Shape::MapOf(_) | Shape::Named(_) | Shape::Object(_) => "a mapping",
        Shape::OneOf(_) => "one of several forms",
    }
}

fn or_words(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
