//! Env files: `KEY=VALUE` lines with quotes, escapes, comments and interpolation (compose-go `dotenv/parser.go`), and
//! the raw format of `docker run --env-file`. Text in, variables out; reads no file.

use std::collections::BTreeMap;

use crate::template::{self, Variables};

/// Text that the variables of an env file may add up to.
const MAX_BYTES: usize = 32 << 20;

/// What is wrong with an env file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DotenvError {
    /// Byte range in the text.
    pub(crate) at: std::ops::Range<usize>,
    /// Lower case, no full stop.
    pub(crate) message: String,
}

/// Looks a variable up outside the file.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Parses a file into `values`. A value may refer to what `lookup` knows, first, and to `values`, which is what
/// earlier files and lines set. A key without a value is taken from `lookup`, or left out.
pub(crate) fn parse(
    text: &str,
    lookup: Lookup<'_>,
    values: &mut BTreeMap<String, String>,
) -> Result<(), DotenvError> {
    let start = text.len() - text.strip_prefix('\u{feff}').unwrap_or(text).len();
    let mut parser = Parser {
        text,
        at: start,
        lookup,
        values,
        bytes: 0,
    };
    while parser.next_statement() {
        parser.statement()?;
    }
    Ok(())
}

/// Parses the raw format: everything after the first `=` is the value; lines starting with `#` are comments; a key
/// alone is taken from `lookup`, or left out.
pub(crate) fn parse_raw(
    text: &str,
    lookup: Lookup<'_>,
    values: &mut BTreeMap<String, String>,
) -> Result<(), DotenvError> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let at = start;
        start += line.len();
        let line = line.trim_end_matches(['\n', '\r']);
        let line = if at == 0 {
            line.trim_start_matches('\u{feff}')
        } else {
            line
        };
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (key, value) = match trimmed.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (trimmed.trim_end(), lookup(trimmed.trim_end())),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(DotenvError {
                at: at..at + line.len(),
                message: format!(
                    "invalid variable name {key:?}: it must not be empty or contain spaces"
                ),
            });
        }
        if let Some(value) = value {
            values.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    lookup: Lookup<'a>,
    values: &'a mut BTreeMap<String, String>,
    /// Text so far.
    bytes: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips blank lines and comments; false at the end.
    fn next_statement(&mut self) -> bool {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            if !rest.starts_with('#') {
                return !rest.is_empty();
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn statement(&mut self) -> Result<(), DotenvError> {
        let export = self
            .rest()
            .strip_prefix("export")
            .filter(|tail| tail.starts_with(blank));
        if let Some(tail) = export {
            self.at = self.text.len() - tail.trim_start_matches(blank).len();
        }
        let start = self.at;
        let rest = self.rest();
        let mut end = rest.len();
        let mut separator = None;
        for (at, char) in rest.char_indices() {
            match char {
                '=' | ':' | '\n' => {
                    end = at;
                    separator = Some(char);
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                char if blank(char) || char.is_alphanumeric() => {}
                char => {
                    let line = rest.lines().next().unwrap_or_default();
                    return Err(DotenvError {
                        at: start + at..start + at + char.len_utf8(),
                        message: format!("unexpected character {char:?} in variable name {line:?}"),
                    });
                }
            }
        }
        let key = rest[..end].trim_end().to_owned();
        self.at = start + end + separator.map_or(0, char::len_utf8);
        if key.contains(' ') {
            return Err(DotenvError {
                at: start..start + key.len(),
                message: format!("variable name {key:?} contains a space"),
            });
        }
        if key.is_empty() {
            return Err(DotenvError {
                at: start..start + 1,
                message: "no variable name before the separator".into(),
            });
        }
        if matches!(separator, None | Some('\n')) {
            if let Some(value) = (self.lookup)(&key) {
                self.values.insert(key, value);
            }
            return Ok(());
        }
        let value = self.value()?;
        self.bytes += value.len();
        if self.bytes > MAX_BYTES {
            return Err(DotenvError {
                at: start..start + key.len(),
                message: format!("variables add up to more than {} MiB", MAX_BYTES >> 20),
            });
        }
        self.values.insert(key, value);
        Ok(())
    }

    fn value(&mut self) -> Result<String, DotenvError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(blank).len();
        let start = self.at;
        let rest = self.rest();
        match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let line = rest.split('\n').next().unwrap_or_default();
                let end = start + line.len();
                let value = line
                    .split(" #")
                    .next()
                    .unwrap_or(line)
                    .trim_end()
                    .to_owned();
                self.at = end;
                self.expand(&value, start..end)
            }
        }
    }

    /// Reads up to the closing quote, over lines; in double quotes escapes and variables are replaced.
    fn quoted(&mut self, quote: char) -> Result<String, DotenvError> {
        let start = self.at;
        let mut value = String::new();
        let mut escaped = false;
        for (at, char) in self.text[start + 1..].char_indices() {
            if char == quote && !escaped {
                self.at = start + 1 + at + 1;
                return match quote {
                    '"' => {
                        let end = self.at;
                        self.expand(&unescape(&value), start..end)
                    }
                    _ => Ok(value),
                };
            }
            if char == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if escaped && char != quote {
                value.push('\\');
            }
            escaped = false;
            value.push(char);
        }
        let line = self.text[start..].lines().next().unwrap_or_default();
        Err(DotenvError {
            at: start..start + line.len(),
            message: format!("the quote is not closed: {line}"),
        })
    }

    fn expand(&self, value: &str, at: std::ops::Range<usize>) -> Result<String, DotenvError> {
        struct Scope<'a> {
            lookup: Lookup<'a>,
            values: &'a BTreeMap<String, String>,
        }
        impl Variables for Scope<'_> {
            fn get(&self, name: &str) -> Option<String> {
                (self.lookup)(name).or_else(|| self.values.get(name).cloned())
            }
            fn unset(&mut self, _name: &str) {}
        }
        let mut scope = Scope {
            lookup: self.lookup,
            values: self.values,
        };
        template::substitute(value, &mut scope).map_err(|error| DotenvError {
            at,
            message: error.to_string(),
        })
    }
}

/// White space within a line.
fn blank(char: char) -> bool {
    matches!(
        char,
        '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}'
    )
}

/// Escapes of double quotes; `\$` becomes `$$`, which the interpolation turns into `$`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(char) = rest.chars().next() else {
            out.push('\\');
            break;
        };
        let replacement = match char {
            'a' => "\u{7}",
            'b' => "\u{8}",
            'f' => "\u{c}",
            'n' => "\n",
            'r' => "\r",
            't' => "\t",
            'v' => "\u{b}",
            '"' => "\"",
            '\\' => "\\",
            '$' => "$$",
            '0' => {
                let digits = rest[1..]
                    .bytes()
                    .take(3)
                    .take_while(|b| (b'0'..=b'7').contains(b))
                    .count();
                let code = u32::from_str_radix(&rest[1..1 + digits], 8).ok();
                match code.filter(|_| digits == 3).and_then(char::from_u32) {
                    Some(char) => {
                        out.push(char);
                        rest = &rest[4..];
                    }
                    None => {
                        out.push_str("\\0");
                        rest = &rest[1..];
                    }
                }
                continue;
            }
            other => {
                out.push('\\');
                out.push(other);
                rest = &rest[other.len_utf8()..];
                continue;
            }
        };
        out.push_str(replacement);
        rest = &rest[char.len_utf8()..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parsed = Result<BTreeMap<String, String>, DotenvError>;

    fn parse(text: &str) -> Parsed {
        let mut values = BTreeMap::new();
        super::parse(text, &lookup, &mut values).map(|()| values)
    }

    fn parse_raw(text: &str) -> Parsed {
        let mut values = BTreeMap::new();
        super::parse_raw(text, &lookup, &mut values).map(|()| values)
    }

    fn lookup(name: &str) -> Option<String> {
        (name == "OUTSIDE").then(|| "outside".to_owned())
    }

    #[test]
    fn the_whole_grammar() {
        let text = r#"# comment
PLAIN=value
export EXPORTED=1
YAML: colon
SPACED = around
COMMENT=a # not this
HASH=a#b
EMPTY=
QUOTED="a # b"
SINGLE='$PLAIN \n \' it'
ESCAPED="tab\tnl\n q\" d\$ o\0101 k\q"
EXPANDED="${PLAIN}-${MISSING:-none}"
BARE=$PLAIN/${OUTSIDE}
MULTI="one
two"
OUTSIDE
UNKNOWN
a.b-c[0]=dots
LAST=end"#;
        let values = parse(text).expect("valid");
        let expected = [
            ("BARE", "value/outside"),
            ("COMMENT", "a"),
            ("EMPTY", ""),
            ("ESCAPED", "tab\tnl\n q\" d$ oA k\\q"),
            ("EXPANDED", "value-none"),
            ("EXPORTED", "1"),
            ("HASH", "a#b"),
            ("LAST", "end"),
            ("MULTI", "one\ntwo"),
            ("OUTSIDE", "outside"),
            ("PLAIN", "value"),
            ("QUOTED", "a # b"),
            ("SINGLE", "$PLAIN \\n ' it"),
            ("SPACED", "around"),
            ("YAML", "colon"),
            ("a.b-c[0]", "dots"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(values, expected.into());
    }

    #[test]
    fn a_byte_order_mark_and_windows_lines_are_fine() {
        let values = parse("\u{feff}A=1\r\nB=2\r\n").expect("valid");
        assert_eq!(values["A"], "1");
        assert_eq!(values["B"], "2");
    }

    #[test]
    fn errors_point_at_the_place() {
        for (text, at) in [
            ("A=1\nB C=2\n", 4..7),
            ("A=1\nB!=2\n", 5..6),
            ("A=\"open\nB=2", 2..7),
            ("=x", 0..1),
            ("A=${", 2..4),
            ("A=${B:?no}", 2..10),
        ] {
            assert_eq!(parse(text).map_err(|e| e.at), Err(at), "{text:?}");
        }
    }

    #[test]
    fn the_raw_format_takes_values_literally() {
        let values = parse_raw("# c\nA=\"q\" $B #x\nOUTSIDE\nNONE\n").expect("valid");
        assert_eq!(values["A"], "\"q\" $B #x");
        assert_eq!(values["OUTSIDE"], "outside");
        assert!(!values.contains_key("NONE"));
        assert!(parse_raw("A B=1").is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[A-Za-z=:\"'\\\\$#{}\\n 0é-]*") {
            let _ = parse(&text);
            let _ = parse_raw(&text);
        }
    }
}
