//! Paths and queries, percent-encoded.

use crate::Filters;
use std::fmt::{self, Write as _};

/// A query string, built pair by pair; absent values leave no trace.
#[derive(Debug, Default)]
pub(super) struct Query(String);

impl Query {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// `name=value`.
    pub(super) fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        encode_into(&mut self.0, &value.to_string(), false);
        self
    }

    /// `name=value` when there is a value that is not empty.
    pub(super) fn maybe(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value
            .map(|value| value.to_string())
            .filter(|value| !value.is_empty())
        {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// `name=1` when set.
    pub(super) fn flag(self, name: &str, set: bool) -> Self {
        if set { self.with(name, 1) } else { self }
    }

    /// `filters=…` when there are any.
    pub(super) fn filters(self, filters: &Filters) -> Self {
        if filters.is_empty() {
            self
        } else {
            self.with("filters", filters.to_json())
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name or id as a part of a path; slashes stay (image names have them, and the API routes them so).
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode_into(&mut encoded, text, true);
    // A client-side guard: `..` and an empty name would address another resource.
    if encoded.is_empty() || encoded.split('/').any(|part| part == ".." || part == ".") {
        encoded = encoded.replace('.', "%2E");
    }
    encoded
}

fn encode_into(out: &mut String, text: &str, keep_slash: bool) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b'/' | b':' | b'@' if keep_slash => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_hold_only_what_was_given() {
        let query = Query::new()
            .flag("all", true)
            .flag("size", false)
            .maybe("limit", None::<u32>)
            .maybe("name", Some("a b&c"))
            .filters(&Filters::new().with("label", "x=y"));
        assert_eq!(
            query.to_string(),
            "?all=1&name=a%20b%26c&filters=%7B%22label%22%3A%5B%22x%3Dy%22%5D%7D"
        );
        assert_eq!(Query::new().to_string(), "");
    }

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("host/app:1@sha256:ab"), "host/app:1@sha256:ab");
        assert_eq!(segment("a?b#c d"), "a%3Fb%23c%20d");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
