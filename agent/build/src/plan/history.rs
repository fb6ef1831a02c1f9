//! How lines of an image's history write values: as Go's `fmt` does.

use std::time::Duration;

use super::Healthcheck;
use crate::dockerfile;
use crate::quote::quote;

/// `["a" "b"]`
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(super) fn timestamp(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        // Further away than calendars are kept; BuildKit would write a year of five digits.
        Err(_) if seconds < 0 => jiff::Timestamp::MIN.to_string(),
        Err(_) => jiff::Timestamp::MAX.to_string(),
    }
}

/// The probe of an image's configuration.
pub(super) fn healthcheck(check: &dockerfile::Healthcheck) -> Healthcheck {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    Healthcheck {
        test: check.test.clone(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: i64::from(check.retries),
    }
}

/// `&{["CMD-SHELL" "true"] "30s" "0s" "0s" "0s" '\x03'}`: test, interval, timeout, start period, start interval and
/// retries, all of them quoted as Go's `%q` does.
pub(super) fn healthcheck_text(check: &Healthcheck) -> String {
    let durations = [
        check.interval,
        check.timeout,
        check.start_period,
        check.start_interval,
    ];
    let durations = durations.map(|nanos| quote(&go_duration(nanos)));
    format!(
        "&{{{} {} {}}}",
        quoted_list(&check.test),
        durations.join(" "),
        quoted_number(check.retries)
    )
}

/// A number as Go's `%q` has it: as the character of that number.
fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32);
    match c.unwrap_or('\u{fffd}') {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c => {
            let quoted = quote(&c.to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

/// Nanoseconds as Go writes a duration: `1h0m0s`, `1.5s`, `20ms`.
fn go_duration(nanos: i64) -> String {
    let nanos = nanos.unsigned_abs();
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", with_fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => return format!("{}ms", with_fraction(nanos, 1_000_000)),
        _ => {}
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = with_fraction(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn with_fraction(nanos: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let fraction = format!("{:0digits$}", nanos % unit);
    let fraction = fraction.trim_end_matches('0');
    match fraction {
        "" => format!("{}", nanos / unit),
        fraction => format!("{}.{fraction}", nanos / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (15, "15ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }

    #[test]
    fn retries_are_a_character() {
        for (number, text) in [
            (0, r"'\x00'"),
            (3, r"'\x03'"),
            (10, r"'\n'"),
            (39, r"'\''"),
            (65, "'A'"),
            (-1, "'\u{fffd}'"),
        ] {
            assert_eq!(quoted_number(number), text);
        }
    }

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
