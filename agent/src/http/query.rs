//! The query of a request, read as leniently as Docker reads it.
//!
//! Source: moby `api/server/httputils/form.go`, `api/types/time/timestamp.go`.

use agent_api::Filters;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::error::HttpError;

/// Parameters in order; a name may come more than once.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        Self(
            url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value; empty when absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.first(name).unwrap_or_default()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value; `None` when absent or empty.
    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|value| !value.is_empty())
    }

    /// The names that were given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Everything but the known words for no is yes.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The same with a value for an absent parameter.
    pub(super) fn flag_or(&self, name: &str, absent: bool) -> bool {
        match self.first(name) {
            None => absent,
            Some(text) => !matches!(
                text.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A whole number; `None` when absent or empty.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, HttpError> {
        self.optional(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| HttpError::unreadable_number("Atoi", text))
            })
            .transpose()
    }

    /// Height or width of a terminal: required.
    pub(super) fn terminal_size(&self, name: &str, what: &str) -> Result<u16, HttpError> {
        let text = self.text(name);
        let problem = match text.strip_prefix('-').unwrap_or(text).parse::<u64>() {
            _ if text.starts_with('+') || text.starts_with("-+") => "invalid syntax",
            Err(error) if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) => {
                "value out of range"
            }
            Err(_) => "invalid syntax",
            Ok(_) if text.starts_with('-') => "value out of range",
            Ok(size) => match u16::try_from(size) {
                Ok(size) => return Ok(size),
                Err(_) => "value out of range",
            },
        };
        Err(HttpError::bad_request(format!(
            "invalid resize {what} {text:?}: {problem}"
        )))
    }

    /// The `filters` parameter.
    pub(super) fn filters(&self) -> Result<Filters, HttpError> {
        Filters::parse(self.text("filters")).map_err(|_| HttpError::bad_request("invalid filter"))
    }

    /// A point in time: seconds since the epoch with an optional fraction, RFC 3339 with or without zone, a date, or a
    /// duration before now. `0` and empty are none.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, HttpError> {
        let text = self.text(name);
        if text.is_empty() || text == "0" {
            return Ok(None);
        }
        parse_time(text)
            .map(Some)
            .ok_or_else(|| HttpError::unreadable_number("ParseInt", text))
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Some(time) = epoch(text) {
        return Some(time);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // Without zone it is the server's.
    if let Ok(time) = text.parse::<DateTime>() {
        return TimeZone::system().to_timestamp(time).ok();
    }
    None
}

/// `1136073600` or `1136073600.000000001`.
fn epoch(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Timestamp::new(seconds, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn booleans_are_what_docker_takes_for_them() {
        for yes in ["a=1", "a=true", "a=True", "a=yes", "a=x"] {
            assert!(query(yes).flag("a"), "{yes}");
        }
        for no in [
            "", "a", "a=", "a=0", "a=false", "a=FALSE", "a=no", "a=none", "a=+",
        ] {
            assert!(!query(no).flag("a"), "{no}");
        }
        assert!(query("").flag_or("a", true));
        assert!(!query("a=0").flag_or("a", true));
    }

    #[test]
    fn times_come_in_all_the_shapes_clients_send() {
        let cases = [
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("1136073600.5", "2006-01-01T00:00:00.5Z"),
            ("1136073600.000000001", "2006-01-01T00:00:00.000000001Z"),
            ("2006-01-02T15:04:05Z", "2006-01-02T15:04:05Z"),
            (
                "2006-01-02T15:04:05.123%2B02:00",
                "2006-01-02T13:04:05.123Z",
            ),
        ];
        for (text, expected) in cases {
            let time = query(&format!("since={text}"))
                .time("since")
                .unwrap()
                .unwrap();
            assert_eq!(time.to_string(), expected, "{text}");
        }
        assert_eq!(query("since=0").time("since"), Ok(None));
        assert_eq!(query("").time("since"), Ok(None));
        assert_eq!(
            query("since=x").time("since").unwrap_err().message,
            r#"strconv.ParseInt: parsing "x": invalid syntax"#
        );
    }

    #[test]
    fn sizes_of_terminals_are_checked_as_docker_checks_them() {
        let message = |text: &str| {
            query(text)
                .terminal_size("h", "height")
                .unwrap_err()
                .message
        };
        assert_eq!(query("h=24").terminal_size("h", "height"), Ok(24));
        assert_eq!(message(""), r#"invalid resize height "": invalid syntax"#);
        assert_eq!(
            message("h=x"),
            r#"invalid resize height "x": invalid syntax"#
        );
        assert_eq!(
            message("h=-1"),
            r#"invalid resize height "-1": value out of range"#
        );
        assert_eq!(
            message("h=70000"),
            r#"invalid resize height "70000": value out of range"#
        );
    }

    #[test]
    fn names_may_repeat() {
        assert_eq!(query("names=a&x=1&names=b%2Fc").all("names"), ["a", "b/c"]);
    }
}
