//! What a plain YAML scalar means: yaml.v3's resolution, which compose-go relies on.
//!
//! `0440` and `0o440` are octal, `1_000` is an integer, `yes`/`no`/`on`/`off` and `22:22` are text. Timestamps
//! stay text (yaml.v3 would turn them into a date and print that differently).

use crate::tree::Value;

/// Resolves a plain, untagged scalar.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Int(number);
    }
    if is_float(&plain)
        && let Ok(number) = plain.parse::<f64>()
    {
        return Value::Float(number);
    }
    Value::Str(text.to_owned())
}

/// Go's `strconv.ParseInt(text, 0, 64)`: sign, then 0x, 0o, 0b, 0 (octal) or decimal digits.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(body) = lower.strip_prefix("0x") {
        (16, body)
    } else if let Some(body) = lower.strip_prefix("0o") {
        (8, body)
    } else if let Some(body) = lower.strip_prefix("0b") {
        (2, body)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if body.is_empty() || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(body, radix).ok()?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// yaml.v3's float form: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_holds = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_holds = exponent.is_none_or(|exponent| {
        let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !unsigned.is_empty() && digits(unsigned)
    });
    mantissa_holds && exponent_holds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_as_in_yaml_v3() {
        let text = |text: &str| Value::Str(text.to_owned());
        for (written, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("yes", text("yes")),
            ("on", text("on")),
            ("0440", Value::Int(0o440)),
            ("0o440", Value::Int(0o440)),
            ("0x1F", Value::Int(31)),
            ("0b11", Value::Int(3)),
            ("1_000", Value::Int(1000)),
            ("-12", Value::Int(-12)),
            ("+1", Value::Int(1)),
            ("22:22", text("22:22")),
            ("08", Value::Float(8.0)),
            ("1.50", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            ("1e3", Value::Float(1000.0)),
            ("1.2.3", text("1.2.3")),
            ("2001-01-01", text("2001-01-01")),
            ("-", text("-")),
            (".", text(".")),
            ("0x", text("0x")),
            ("9223372036854775808", Value::Float(9223372036854775808.0)),
        ] {
            assert_eq!(resolve(written), value, "{written:?}");
        }
    }
}
