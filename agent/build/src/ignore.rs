//! `.dockerignore` files.
//!
//! Must not: read them from disk. Follows moby/patternmatcher's `ignorefile`.

use crate::pattern::{PatternError, Patterns, clean};

/// Longest line, as in moby.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Patterns of an ignore file's text, one for each line that is not a comment, cleaned: spaces around, a `/` in front
/// and `./`, `//`, `x/..` inside are gone.
///
/// # Errors
/// A line that is too long or is not UTF-8.
pub fn read(text: &[u8]) -> Result<Vec<String>, PatternError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut patterns = Vec::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if line.len() >= MAX_LINE_BYTES {
            return Err(PatternError::LineTooLong(number + 1, MAX_LINE_BYTES - 1));
        }
        if line.starts_with(b"#") {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| PatternError::NotText(number + 1))?;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (sign, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            patterns.push(sign.to_string());
            continue;
        }
        let cleaned = clean(pattern);
        let relative = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        patterns.push(format!("{sign}{relative}"));
    }
    Ok(patterns)
}

/// [`read`] and compile.
///
/// # Errors
/// As [`read`] and [`Patterns::new`].
pub fn parse(text: &[u8]) -> Result<Patterns, PatternError> {
    Patterns::new(read(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cleaned_and_comments_dropped() {
        let text = b"\xef\xbb\xbftest1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \n\
            \t spaced \t\n/\n./x//y/../z/\r\n #not a comment";
        let expected = [
            "test1",
            "test2",
            "a/file/here",
            "lastfile",
            "!inverted/abs/path",
            "!",
            "!",
            "spaced",
            "/",
            "x/z",
            "#not a comment",
        ];
        assert_eq!(read(text).expect("valid"), expected);
        assert!(read(b"").expect("valid").is_empty());
    }

    #[test]
    fn what_cannot_be_a_pattern_is_refused_with_its_line() {
        let message = |text: &[u8]| parse(text).expect_err("malformed").to_string();
        assert_eq!(message(b"a\n!\n"), "illegal exclusion pattern: \"!\"");
        assert_eq!(message(b"a\n[b\n"), "syntax error in pattern \"[b\"");
        assert_eq!(
            message(b"a\n\xff\n"),
            "line 2 of the ignore file is not valid UTF-8"
        );
        let long = [b"a\n".as_slice(), &[b'x'; 70_000]].concat();
        assert_eq!(
            message(&long),
            "line 2 of the ignore file is longer than 65535 bytes"
        );
        assert!(parse(b"# \xff\n").expect("a comment").is_empty());
    }
}
