//! One pattern: Go's `filepath.Match` on Unix.

use super::PatternError;

/// What one element of a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Literal(char),
    /// `?`: any character but `/`.
    Any,
    /// `*`: any number of characters but `/`.
    Star,
    /// `[…]`: one of the ranges, or none of them. Takes a `/` like any other character.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    /// Whether it takes this one character.
    pub(super) fn takes(&self, c: char) -> bool {
        match self {
            Token::Literal(own) => *own == c,
            Token::Any | Token::Star => c != '/',
            Token::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

/// A compiled `filepath.Match` pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    pub(super) tokens: Vec<Token>,
}

/// Go's `filepath.Match` on Unix: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`; `*` and `?` do not match `/`.
///
/// # Errors
/// The pattern is malformed, also where the name would not have reached.
pub fn glob(pattern: &str, name: &str) -> Result<bool, PatternError> {
    Ok(Glob::new(pattern)?.matches(name))
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// A class that is empty or not closed, or a `\` at the end.
    pub fn new(pattern: &str) -> Result<Glob, PatternError> {
        let malformed = || PatternError::Syntax(pattern.to_string());
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Literal(chars.next().ok_or_else(malformed)?),
                '[' => {
                    let negated = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
                        let low = class_char(&mut chars).ok_or_else(malformed)?;
                        let high = match chars.next_if_eq(&'-') {
                            Some(_) => class_char(&mut chars).ok_or_else(malformed)?,
                            None => low,
                        };
                        ranges.push((low, high));
                    }
                    Token::Class { negated, ranges }
                }
                c => Token::Literal(c),
            });
        }
        Ok(Glob { tokens })
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where to go on when the last `*` takes one character more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Star) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(other) if at < name.len() && other.takes(name[at]) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                None if at == name.len() => return true,
                _ => {}
            }
            match retry {
                Some((after_star, taken)) if taken < name.len() && name[taken] != '/' => {
                    retry = Some((after_star, taken + 1));
                    token = after_star;
                    at = taken + 1;
                }
                _ => return false,
            }
        }
    }

    /// Whether the pattern has special characters, so that it is worth looking into directories.
    pub fn is_literal(&self) -> bool {
        self.tokens
            .iter()
            .all(|token| matches!(token, Token::Literal(_)))
    }
}

/// A character inside of `[…]`; something has to follow it.
fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let c = match chars.next()? {
        '-' | ']' => return None,
        '\\' => chars.next()?,
        c => c,
    };
    chars.peek().map(|_| c)
}
