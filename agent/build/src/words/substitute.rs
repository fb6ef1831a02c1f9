//! `${name…}` with its modifiers.

use regex::Regex;

use super::Reader;

impl Reader<'_> {
    /// What follows `${`, up to its `}`.
    pub(super) fn braces(&mut self) -> Result<String, String> {
        match self.chars.peek() {
            None => return Err(MISSING_BRACE.into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err(MISSING_BRACE.into()),
            Some('}') => Ok(match self.lookup(&name) {
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.chars.next().unwrap_or(char::REPLACEMENT_CHARACTER);
                if matches!(modifier, '#' | '%') {
                    return Err(unsupported(&format!(":{modifier}")));
                }
                self.modified(&name, modifier, Empty::IsUnset)
            }
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => {
                self.modified(&name, modifier, Empty::IsSet)
            }
            Some('/') => self.replaced(&name),
            Some(other) => Err(unsupported(&other.to_string())),
        }
    }

    fn modified(&mut self, name: &str, modifier: char, empty: Empty) -> Result<String, String> {
        let is_pattern = matches!(modifier, '#' | '%');
        let (word, _) = self
            .read_until(Some('}'), is_pattern)
            .map_err(|reason| self.or_at_end(reason, MISSING_BRACE))?;
        let shown = match empty {
            Empty::IsUnset => format!(":{modifier}"),
            Empty::IsSet => modifier.to_string(),
        };
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let usable = match empty {
            Empty::IsUnset => value.clone().filter(|v| !v.is_empty()),
            Empty::IsSet => value.clone(),
        };
        match modifier {
            '-' => Ok(usable.unwrap_or(word)),
            '+' => Ok(usable.map(|_| word).unwrap_or_default()),
            '?' => match (usable, value) {
                (Some(value), _) => Ok(value),
                (None, _) if !word.is_empty() => Err(format!("{name}: {word}")),
                (None, None) => Err(format!("{name}: is not allowed to be unset")),
                (None, Some(_)) => Err(format!("{name}: is not allowed to be empty")),
            },
            '#' | '%' => {
                let value = value.unwrap_or_default();
                // Doubled: the longest match instead of the shortest.
                let (pattern, greedy) = match word.strip_prefix(modifier) {
                    Some(pattern) => (pattern, true),
                    None => (word.as_str(), false),
                };
                if modifier == '#' {
                    trim_prefix(pattern, &value, greedy)
                } else {
                    // The shortest match at the end is the shortest at the start of everything reversed.
                    let reversed: String = value.chars().rev().collect();
                    let rest = trim_prefix(&reverse_pattern(pattern), &reversed, greedy)?;
                    Ok(rest.chars().rev().collect())
                }
            }
            _ => Err(unsupported(&shown)),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let (pattern, _) = self
            .read_until(Some('/'), true)
            .map_err(|reason| self.or_at_end(reason, "syntax error: missing '/' in ${}"))?;
        let (replacement, _) = self
            .read_until(Some('}'), true)
            .map_err(|reason| self.or_at_end(reason, MISSING_BRACE))?;
        let value = match self.lookup(name) {
            None if self.lexer.skip_unset => {
                return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
            }
            value => value.unwrap_or_default(),
        };
        let regex = to_regex(&pattern, true, false)?;
        let limit = if all { 0 } else { 1 };
        let longest = value
            .len()
            .saturating_add(1)
            .saturating_mul(replacement.len().saturating_add(1));
        if all && longest > super::MAX_EXPANDED_BYTES {
            let count = regex.find_iter(&value).count();
            if count.saturating_mul(replacement.len()) > super::MAX_EXPANDED_BYTES {
                return Err(format!(
                    "expands to more than {} bytes",
                    super::MAX_EXPANDED_BYTES
                ));
            }
        }
        Ok(regex
            .replacen(&value, limit, regex::NoExpand(&replacement))
            .into_owned())
    }

    /// The reason, or `at_end` when the text ran out.
    fn or_at_end(&mut self, reason: String, at_end: &str) -> String {
        if self.chars.peek().is_none() {
            at_end.into()
        } else {
            reason
        }
    }
}

const MISSING_BRACE: &str = "syntax error: missing '}'";

/// Whether an empty value counts as set.
#[derive(Clone, Copy)]
enum Empty {
    IsSet,
    IsUnset,
}

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, String> {
    let end = to_regex(pattern, greedy, true)?
        .find(value)
        .map_or(0, |found| found.end());
    Ok(value[end..].to_string())
}

/// Shell pattern (`*`, `?`, `\` before those) to a regular expression; no bracket expressions.
fn to_regex(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, String> {
    let invalid =
        |why: &dyn std::fmt::Display| format!("invalid pattern ({pattern}) in substitution: {why}");
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => match chars.peek() {
                // Escaped only because of the ${}; the backslash is not part of the pattern.
                Some('}' | '/') => {}
                Some(&c @ ('*' | '?' | '\\')) => {
                    chars.next();
                    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                }
                other => {
                    let shown = other.copied().unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(invalid(&format_args!("invalid escape '\\{shown}'")));
                }
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&out).map_err(|error| invalid(&error))
}

/// The pattern backwards, escapes staying in front of what they escape.
fn reverse_pattern(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut piece = String::from(c);
        if c == '\\' {
            piece.extend(chars.next());
        }
        pieces.push(piece);
    }
    pieces.into_iter().rev().collect()
}
