//! `printf` of templates: the verbs of Go's fmt that make sense for the values there are.

use super::value::Value;
use crate::render::json;

/// Formats; what does not fit shows as Go shows it (`%!d(string=x)`, `%!s(MISSING)`).
pub(super) fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (directive, length) = Directive::parse(&rest[at + 1..]);
        rest = &rest[at + 1 + length..];
        match directive.verb {
            '%' => out.push('%'),
            '\0' => out.push_str("%!(NOVERB)"),
            verb => match values.next() {
                Some(value) => out.push_str(&directive.format(value)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    out.push_str(rest);
    let extra: Vec<_> = values
        .map(|value| format!("{}={value}", value.kind()))
        .collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

#[derive(Default)]
struct Directive {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

impl Directive {
    /// What follows a `%`, and its length in bytes.
    fn parse(text: &str) -> (Self, usize) {
        let mut directive = Self::default();
        let mut characters = text.char_indices().peekable();
        while let Some((_, flag)) = characters.next_if(|(_, c)| "-0+# ".contains(*c)) {
            match flag {
                '-' => directive.left = true,
                '0' => directive.zero = true,
                '+' => directive.plus = true,
                _ => {}
            }
        }
        let number = |characters: &mut std::iter::Peekable<std::str::CharIndices<'_>>| {
            let mut value = 0_usize;
            while let Some((_, digit)) = characters.next_if(|(_, c)| c.is_ascii_digit()) {
                value = (value * 10 + digit as usize - '0' as usize).min(10_000);
            }
            value
        };
        directive.width = number(&mut characters);
        if characters.next_if(|(_, c)| *c == '.').is_some() {
            directive.precision = Some(number(&mut characters));
        }
        match characters.next() {
            Some((at, verb)) => {
                directive.verb = verb;
                (directive, at + verb.len_utf8())
            }
            None => (directive, text.len()),
        }
    }

    fn format(&self, value: &Value) -> String {
        let text = match (self.verb, value) {
            ('s' | 'v', Value::Str(text)) => match self.precision {
                Some(length) => text.chars().take(length).collect(),
                None => text.to_string(),
            },
            ('v', Value::Nil(_)) => "<nil>".to_owned(),
            ('v', value) => value.to_string(),
            ('s', value @ (Value::List(_) | Value::Map(_))) => value.to_string(),
            ('q', Value::Str(text)) => json::compact(&serde_json::Value::from(&**text)),
            ('t', Value::Bool(flag)) => flag.to_string(),
            ('d', Value::Int(number)) if self.plus => format!("{number:+}"),
            ('d', Value::Int(number)) => number.to_string(),
            ('x', Value::Int(number)) => format!("{number:x}"),
            ('X', Value::Int(number)) => format!("{number:X}"),
            ('o', Value::Int(number)) => format!("{number:o}"),
            ('b', Value::Int(number)) => format!("{number:b}"),
            ('x', Value::Str(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('c', Value::Int(number)) => u32::try_from(*number)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or(char::REPLACEMENT_CHARACTER)
                .to_string(),
            ('f', Value::Float(number)) => format!("{number:.*}", self.precision.unwrap_or(6)),
            ('g', Value::Float(_)) => value.to_string(),
            (verb, Value::Nil(_)) => format!("%!{verb}(<nil>)"),
            (verb, value) => format!("%!{verb}({}={value})", value.kind()),
        };
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            text + &" ".repeat(missing)
        } else if self.zero && matches!(self.verb, 'd' | 'f' | 'x' | 'X') {
            match text.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(missing)),
                None => "0".repeat(missing) + &text,
            }
        } else {
            " ".repeat(missing) + &text
        }
    }
}
