//! Go durations: `1h30m`, `500ms`, `1.5s`.

/// Nanoseconds of a duration, or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid duration {text:?}: write it like 1h30m, 10s or 500ms");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let length = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..length] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(bad()),
            };
        rest = &rest[length..];
    }
    if total >= 9.2e18 {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    Ok((sign * total).round() as i64)
}

/// For clap: a duration that is not negative.
pub(crate) fn positive(text: &str) -> Result<i64, String> {
    match parse(text)? {
        negative if negative < 0 => Err("the duration cannot be negative".to_owned()),
        nanoseconds => Ok(nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("-1ms", -1_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        for bad in ["", "10", "s", "1x", "1h 2m", "9999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(positive("-1s").is_err());
    }
}
