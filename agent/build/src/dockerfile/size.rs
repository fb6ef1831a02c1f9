//! Sizes such as `64m`. Follows docker/go-units' `RAMInBytes`: binary units.

/// Bytes; `None` when it is not a size.
pub(super) fn parse(text: &str) -> Option<u64> {
    let last_digit = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, unit) = text.split_at(last_digit + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    // Go's float syntax minus what Rust adds to it.
    if !number.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+')) {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let bytes = number * (1u64 << shift) as f64;
    (bytes < i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_binary() {
        for (text, bytes) in [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("32k", Some(32 << 10)),
            ("32 KiB", Some(32 << 10)),
            ("32.5kB", Some(33_280)),
            ("1g", Some(1 << 30)),
            ("0", Some(0)),
            ("", None),
            ("hello", None),
            ("-32", None),
            (" 32 ", None),
            ("32mbx", None),
            ("32kbb", None),
            ("1e400p", None),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }
}
