//! Functions of templates: Go's builtins and the ones Docker adds (docker/cli `templates/templates.go`).
//! Deliberately missing: `html`, `js`, `urlquery`, `call`.

use super::Functions;
use super::value::Value;
use crate::render::json;
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) fn call(name: &str, arguments: &[Value], functions: Functions) -> Result<Value, String> {
    // In a header a transformation of the value leaves the column's title alone.
    if functions == Functions::Header
        && let (
            "json" | "lower" | "upper" | "title" | "join" | "split" | "truncate" | "pad" | "slice"
            | "println",
            [value, ..],
        ) = (name, arguments)
    {
        return Ok(arguments
            .iter()
            .rfind(|value| matches!(value, Value::Str(_)))
            .unwrap_or(value)
            .clone());
    }
    Ok(match (name, arguments) {
        // Go escapes what a type's own MarshalJSON returns, and a row has one.
        ("json", [row @ Value::Row(_)]) => json::escaped(&row.to_json()).into(),
        ("json", [value]) => json::compact(&value.to_json()).into(),
        ("lower", [Value::Str(text)]) => text.to_lowercase().into(),
        ("upper", [Value::Str(text)]) => text.to_uppercase().into(),
        ("title", [Value::Str(text)]) => title(text).into(),
        ("split", [Value::Str(text), Value::Str(separator)]) => split(text, separator),
        ("join", [Value::List(items), Value::Str(separator)]) => items
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join(separator)
            .into(),
        ("join", [Value::Nil(_), Value::Str(_)]) => "".into(),
        ("pad", [Value::Str(text), Value::Int(before), Value::Int(after)]) => {
            let spaces =
                |count: i64| " ".repeat(usize::try_from(count.clamp(0, 10_000)).unwrap_or(0));
            if text.is_empty() {
                "".into()
            } else {
                format!("{}{text}{}", spaces(*before), spaces(*after)).into()
            }
        }
        ("truncate", [Value::Str(text), Value::Int(length)]) => text
            .chars()
            .take(usize::try_from(*length).unwrap_or(0))
            .collect::<String>()
            .into(),
        ("print", values) => print(values).into(),
        ("println", values) => {
            let mut line = values
                .iter()
                .map(Value::to_string)
                .collect::<Vec<_>>()
                .join(" ");
            line.push('\n');
            line.into()
        }
        ("printf", [Value::Str(format), values @ ..]) => {
            super::printf::printf(format, values).into()
        }
        ("len", [value]) => length(value)?,
        ("index", [value, keys @ ..]) => keys
            .iter()
            .try_fold(value.clone(), |value, key| value.index(key))?,
        ("slice", [value, bounds @ ..]) => slice(value, bounds)?,
        ("not", [value]) => (!value.is_true()).into(),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut equal = false;
            for other in others {
                equal = equal || compare(first, other)? == Ordering::Equal;
            }
            equal.into()
        }
        ("ne", [a, b]) => (compare(a, b)? != Ordering::Equal).into(),
        ("lt", [a, b]) => (ordered(a, b)? == Ordering::Less).into(),
        ("le", [a, b]) => (ordered(a, b)? != Ordering::Greater).into(),
        ("gt", [a, b]) => (ordered(a, b)? == Ordering::Greater).into(),
        ("ge", [a, b]) => (ordered(a, b)? != Ordering::Less).into(),
        (known, values) if KNOWN.contains(&known) => {
            let kinds: Vec<_> = values.iter().map(Value::kind).collect();
            return Err(format!("wrong arguments ({})", kinds.join(", ")));
        }
        _ => return Err("function not defined".to_owned()),
    })
}

const KNOWN: &[&str] = &[
    "json", "lower", "upper", "title", "split", "join", "pad", "truncate", "print", "println",
    "printf", "len", "index", "slice", "not", "eq", "ne", "lt", "le", "gt", "ge",
];

/// Go's `Sprint`: a space between operands when neither is a string.
fn print(values: &[Value]) -> String {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Str(_));
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            text.push(' ');
        }
        text.push_str(&value.to_string());
    }
    text
}

fn title(text: &str) -> String {
    let mut previous = ' ';
    text.chars()
        .map(|character| {
            let upper = !previous.is_alphanumeric() && previous != '_' && previous != '\'';
            previous = character;
            if upper {
                character.to_uppercase().collect::<String>()
            } else {
                character.to_string()
            }
        })
        .collect()
}

fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return Value::list(text.chars().map(|character| character.to_string().into()));
    }
    Value::list(text.split(separator).map(Value::from))
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Nil(_) => 0,
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX).into())
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let bound = |index: usize, default: usize| match bounds.get(index) {
        None => Ok(default),
        Some(Value::Int(at)) => {
            usize::try_from(*at).map_err(|_| format!("index out of range: {at}"))
        }
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            other.kind()
        )),
    };
    let range = |length: usize| {
        let (start, end) = (bound(0, 0)?, bound(1, length)?);
        if start <= end && end <= length {
            Ok(start..end)
        } else {
            Err(format!("slice index out of range: {start}:{end}"))
        }
    };
    match value {
        Value::Str(text) => {
            let piece = text
                .get(range(text.len())?)
                .ok_or("slice would cut a character")?;
            Ok(piece.into())
        }
        Value::List(items) => Ok(Value::List(Rc::new(items[range(items.len())?].to_vec()))),
        other => Err(format!("slice of type {}", other.kind())),
    }
}

/// Equality of basic values; numbers of both kinds compare by value.
fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Nil(_), Value::Nil(_)) => Ok(Ordering::Equal),
        (Value::Nil(_), _) | (_, Value::Nil(_)) => Ok(Ordering::Less),
        _ => ordered(a, b),
    }
}

fn ordered(a: &Value, b: &Value) -> Result<Ordering, String> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "comparison of an integer with a float is by float value"
    )]
    let float = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => Ok(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        _ => float(a)
            .zip(float(b))
            .and_then(|(a, b)| a.partial_cmp(&b))
            .ok_or_else(|| {
                format!(
                    "incompatible types for comparison: {} and {}",
                    a.kind(),
                    b.kind()
                )
            }),
    }
}
