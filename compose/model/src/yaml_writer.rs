//! Writes plain values as YAML, in the style of yaml.v3 with an indentation of two: what docker compose prints.

use serde_json::Value;

use crate::scalar;
use crate::tree::Value as Resolved;

/// The value as a YAML document, with a final newline.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 || out.ends_with('\n') {
            pad(out, indent);
        }
        text(out, key, indent, Multiline::Quote);
        out.push(':');
        below(out, value, indent);
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || out.ends_with('\n') {
            pad(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(out, map, indent + 2),
            Value::Array(inner) if !inner.is_empty() => sequence(out, inner, indent + 2),
            other => {
                scalar(out, other, indent + 2);
                out.push('\n');
            }
        }
    }
}

/// What follows a key.
fn below(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, indent + 2);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(out, items, indent + 2);
        }
        other => {
            out.push(' ');
            scalar(out, other, indent + 2);
            out.push('\n');
        }
    }
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&float.to_string()),
            None => out.push_str(&number.to_string()),
        },
        Value::String(value) => text(out, value, indent, Multiline::Block),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// How text with line breaks may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Multiline {
    /// As a literal block.
    Block,
    /// In double quotes (keys).
    Quote,
}

fn text(out: &mut String, text: &str, indent: usize, multiline: Multiline) {
    if text.contains('\n') && multiline == Multiline::Block && fits_block(text) {
        block(out, text, indent);
    } else if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{feff}' | '\u{85}' | '\u{2028}' | '\u{2029}'))
    {
        double_quoted(out, text);
    } else if is_plain(text) {
        out.push_str(text);
    } else if resolves_to_another_type(text) {
        // yaml.v3 prefers double quotes when the text would be something else.
        double_quoted(out, text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

/// A literal block keeps the text exactly if no line needs escapes and the first is not indented.
fn fits_block(text: &str) -> bool {
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().all(plain)
        && !text.starts_with([' ', '\n', '\t'])
        && !text.contains(['\u{feff}', '\u{85}', '\u{2028}', '\u{2029}'])
}

fn block(out: &mut String, text: &str, indent: usize) {
    let body = text.trim_end_matches('\n');
    let breaks = text.len() - body.len();
    out.push('|');
    match breaks {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
    for _ in 1..breaks {
        out.push('\n');
    }
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0' => out.push_str("\\0"),
            '\u{1b}' => out.push_str("\\e"),
            char if char.is_control() && u32::from(char) < 0x100 => {
                out.push_str(&format!("\\x{:02X}", u32::from(char)));
            }
            '\u{feff}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04X}", u32::from(char)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn is_plain(text: &str) -> bool {
    !resolves_to_another_type(text)
        && !text.starts_with(|c: char| "-?:,[]{}#&*!|>'\"%@` ".contains(c) && !starts_word(text))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text != "---"
        && text != "..."
        && !text.starts_with("--- ")
        && !text.starts_with("... ")
}

/// `-x`, `?x` and `:x` are plain though the character alone is an indicator.
fn starts_word(text: &str) -> bool {
    let mut chars = text.chars();
    matches!(chars.next(), Some('-' | '?' | ':')) && chars.next().is_some_and(|c| c != ' ')
}

/// Whether a reader, of YAML 1.1 or 1.2, would take the plain text for something else than text.
fn resolves_to_another_type(text: &str) -> bool {
    if !matches!(scalar::resolve(text), Resolved::Str(_)) || text == "<<" || text == "=" {
        return true;
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off") {
        return true;
    }
    is_base_60(text) || is_date(text)
}

/// YAML 1.1's `22:22` (an integer or float in base 60).
fn is_base_60(text: &str) -> bool {
    let mut parts = text.trim_start_matches(['-', '+']).split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let first = parts.next().unwrap_or_default();
    let mut rest = parts.peekable();
    rest.peek().is_some()
        && digits(first)
        && rest.all(|part| {
            let whole = part.split('.').next().unwrap_or(part);
            digits(whole) && whole.len() <= 2 && (whole.len() == 1 || whole < "60")
        })
}

/// `2001-01-01`, with or without a time.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let day = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    digits(year, 4..=4) && digits(month, 1..=2) && (1..=2).contains(&day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_style_is_docker_composes() {
        let value = json!({
            "name": "t",
            "services": {"a": {
                "command": ["sh", "-c", "a: b"], "empty": [], "none": {}, "null": null,
                "ports": [{"target": 80, "published": "80"}],
                "n": true, "float": 0.5, "whole": 3.0, "script": "one\n  two\n", "quote": "it's: 'x'",
            }},
        });
        let expected = "\
name: t
services:
  a:
    command:
      - sh
      - -c
      - 'a: b'
    empty: []
    none: {}
    \"null\": null
    ports:
      - target: 80
        published: \"80\"
    \"n\": true
    float: 0.5
    whole: 3
    script: |
      one
        two
    quote: 'it''s: ''x'''
";
        assert_eq!(write(&value), expected);
    }
}
