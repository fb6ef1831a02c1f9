//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`. Follows Go's `time.ParseDuration`.

use std::time::Duration;

use crate::quote::quote;

/// Parses a duration; whether it is negative comes apart.
pub(super) fn parse(text: &str) -> Result<(Sign, Duration), String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (Sign::Minus, rest),
        None => (Sign::Plus, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok((sign, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let scale = scale(unit).ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            )
        })?;
        let part = amount(whole, fraction, scale).ok_or_else(invalid)?;
        nanos = nanos
            .checked_add(part)
            .filter(|&sum| sum <= i64::MAX as u64)
            .ok_or_else(invalid)?;
        rest = after;
    }
    Ok((sign, Duration::from_nanos(nanos)))
}

/// Whether a duration was written with a minus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

/// Nanoseconds of a unit.
fn scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `whole.fraction` units in nanoseconds; digits beyond what counts are dropped.
fn amount(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: String = fraction.chars().take(18).collect();
    let part = match fraction.parse::<u128>() {
        Ok(digits) => digits * u128::from(scale) / 10u128.pow(fraction.len() as u32),
        Err(_) => 0,
    };
    whole
        .checked_mul(scale)?
        .checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, millis) in [
            ("0", 0),
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            (".5m", 30_000),
            ("100ms", 100),
            ("+1m", 60_000),
            ("2000us", 2),
            ("1.0000000000000000000001s", 1_000),
        ] {
            let expected = Ok((Sign::Plus, Duration::from_millis(millis)));
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse("-1s"), Ok((Sign::Minus, Duration::from_secs(1))));
    }

    #[test]
    fn messages_are_those_of_go() {
        for (text, message) in [
            ("", "time: invalid duration \"\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("1..5s", "time: invalid duration \"1..5s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse(text), Err(message.into()), "{text}");
        }
    }
}
