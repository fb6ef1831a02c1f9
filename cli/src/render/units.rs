//! Sizes and ages for people, and back. Source: docker/go-units `size.go`, `duration.go`.

/// Decimal, four significant digits: `1.09GB`, `1.234MB`, `0B`.
pub(crate) fn human_size(bytes: i64) -> String {
    human(
        bytes,
        1000.0,
        4,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    )
}

/// Decimal, three significant digits: the size of images and layers.
pub(crate) fn human_size_3(bytes: i64) -> String {
    human(
        bytes,
        1000.0,
        3,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    )
}

/// Binary, four significant digits: `1.5GiB`.
pub(crate) fn bytes_size(bytes: i64) -> String {
    human(
        bytes,
        1024.0,
        4,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
    )
}

fn human(bytes: i64, base: f64, precision: i32, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, precision), units[unit])
}

/// Go's `%.4g` for numbers of 0 up to 1e6: so many significant digits, no trailing zeros.
fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the logarithm of a size is small"
    )]
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0);
    let mut text = format!("{value:.decimals$}");
    // Rounding may have carried into a further digit: 999.96 is 1000, not 1000.0.
    if text
        .trim_start_matches('-')
        .chars()
        .filter(char::is_ascii_digit)
        .count()
        > usize::try_from(digits).unwrap_or(0)
        && text.contains('.')
        && !text.starts_with("0.")
    {
        text.pop();
    }
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// `Less than a second`, `5 seconds`, `About a minute`, `3 weeks` …
pub(crate) fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// Reads `64m`, `1.5GiB`, `1024`: binary multiples, as memory flags are. `None` when it is no size.
pub(crate) fn ram_in_bytes(text: &str) -> Option<i64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let number: f64 = text[..split]
        .parse()
        .ok()
        .filter(|number: &f64| *number >= 0.0)?;
    let suffix = text[split..]
        .strip_prefix(' ')
        .unwrap_or(&text[split..])
        .to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be in range; fractions of a byte are dropped"
    )]
    (bytes < 9.2e18).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_go_units() {
        for (bytes, four, three) in [
            (0, "0B", "0B"),
            (1, "1B", "1B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (1024, "1.024kB", "1.02kB"),
            (1_092_000, "1.092MB", "1.09MB"),
            (4_261_550, "4.262MB", "4.26MB"),
            (127_000_000, "127MB", "127MB"),
            (999_960_000, "1000MB", "1e+03MB"),
            (1_540_000_000, "1.54GB", "1.54GB"),
        ] {
            assert_eq!(human_size(bytes), four);
            if !three.contains('e') {
                assert_eq!(human_size_3(bytes), three);
            }
        }
        assert_eq!(bytes_size(64 << 20), "64MiB");
        assert_eq!(bytes_size(1_610_612_736), "1.5GiB");
    }

    #[test]
    fn durations_are_those_of_go_units() {
        const DAY: i64 = 24 * 3600;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (60 * 60, "About an hour"),
            (89 * 60, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * 3600, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn memory_sizes_are_binary() {
        for (text, bytes) in [
            ("32", Some(32)),
            ("32b", Some(32)),
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(1_610_612_736)),
            ("2 kb", Some(2048)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1e9", Some(1_000_000_000)),
        ] {
            assert_eq!(ram_in_bytes(text), bytes, "{text:?}");
        }
    }
}
