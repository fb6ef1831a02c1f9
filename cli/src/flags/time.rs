//! `--since` and `--until`: a Unix time, an RFC 3339 time or date, or a duration before now.
//! Source: moby `api/types/time/timestamp.go`.

use super::duration;
use jiff::civil;
use jiff::{Timestamp, tz::TimeZone};

/// Seconds since the epoch with nine decimals, as the API takes it.
pub(crate) fn timestamp(text: &str, now: Timestamp) -> Result<String, String> {
    if let Ok(nanoseconds) = duration::parse(text)
        && text != "0"
    {
        let at = now.as_nanosecond() - i128::from(nanoseconds);
        return Ok(format!(
            "{}.{:09}",
            at.div_euclid(1_000_000_000),
            at.rem_euclid(1_000_000_000)
        ));
    }
    let seconds = text.split('.').next().unwrap_or_default();
    if !text.is_empty()
        && !seconds.is_empty()
        && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return Ok(text.to_owned());
    }
    let written = |at: Timestamp| format!("{}.{:09}", at.as_second(), at.subsec_nanosecond());
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(written(at));
    }
    // Without a zone it is local time; seconds or the whole time may be missing.
    let civil = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)));
    match civil.and_then(|civil| civil.to_zoned(TimeZone::system())) {
        Ok(at) => Ok(written(at.timestamp())),
        Err(_) => Err(format!(
            "invalid time {text:?}: write 10m, 2026-01-02T15:04:05Z or seconds since the epoch"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::timestamp;
    use jiff::Timestamp;

    #[test]
    fn times_are_absolute_or_before_now() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (text, expected) in [
            ("10m", "999400.000000000"),
            ("1500ms", "999998.500000000"),
            ("12345", "12345"),
            ("12345.678", "12345.678"),
            ("2020-01-02T03:04:05Z", "1577934245.000000000"),
            ("2020-01-02T03:04:05.5+01:00", "1577930645.500000000"),
        ] {
            assert_eq!(timestamp(text, now).as_deref(), Ok(expected), "{text}");
        }
        for bad in ["", "yesterday", "10x"] {
            assert!(timestamp(bad, now).is_err(), "{bad}");
        }
        assert!(timestamp("2020-01-02", now).is_ok());
    }
}
