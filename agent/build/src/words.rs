//! Shell-like words: variables, quotes and escapes as Dockerfiles know them.
//!
//! Must not: run anything, read the process's environment. Follows BuildKit's `frontend/dockerfile/shell/lex.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::str::Chars;

mod substitute;

use crate::quote::quote;

/// Deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 64;
/// Longest result of one expansion, in bytes: variables that double each other must not fill the memory.
const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// Why a word cannot be processed. `Display` is BuildKit's message: ``failed to process "${x": …``.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WordError(pub String);

/// Values of variables.
pub trait Environment {
    /// Value of a variable, `None` when it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl Environment for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl Environment for indexmap::IndexMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        indexmap::IndexMap::get(self, name).map(String::as_str)
    }
}

/// No variables at all.
impl Environment for () {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// Result of an expansion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The text with variables replaced, quotes and escapes removed.
    pub text: String,
    /// The same, split at unquoted spaces.
    pub words: Vec<String>,
    /// Variables that were used and set.
    pub matched: BTreeSet<String>,
    /// Variables that were used and not set.
    pub unmatched: BTreeSet<String>,
}

/// How words are processed. The default is BuildKit's `NewLex`: quotes and escapes disappear, unset variables are empty.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The escape character.
    pub escape: char,
    /// Keep the quotes in the result.
    pub raw_quotes: bool,
    /// Keep the escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are characters like any other (heredoc bodies).
    pub skip_quotes: bool,
    /// An unset variable stays as it was written.
    pub skip_unset: bool,
}

impl Lexer {
    /// A lexer with the given escape character.
    pub fn new(escape: char) -> Self {
        Lexer {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    /// Replaces variables in `word`.
    ///
    /// # Errors
    /// Unbalanced quotes or braces, unknown modifiers, `${x?}` of an unset variable, nesting or growth beyond reason.
    pub fn expand(&self, word: &str, env: &dyn Environment) -> Result<Expansion, WordError> {
        // A byte order mark in front is skipped, as Go's scanner does.
        let word_text = word.strip_prefix('\u{feff}').unwrap_or(word);
        let mut reader = Reader {
            lexer: self,
            env,
            chars: word_text.chars().peekable(),
            raw_escapes: self.raw_escapes,
            depth: 0,
            produced: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        match reader.read_until(None, self.raw_escapes) {
            Ok((text, words)) => Ok(Expansion {
                text,
                words,
                matched: reader.matched,
                unmatched: reader.unmatched,
            }),
            Err(reason) => Err(WordError(format!(
                "failed to process {}: {reason}",
                quote(word)
            ))),
        }
    }
}

/// Words under construction.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    current: String,
}

impl Splitter {
    /// A character outside of quotes: a space ends the word.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.words.push(self.current);
        }
        self.words
    }
}

struct Reader<'a> {
    lexer: &'a Lexer,
    env: &'a dyn Environment,
    chars: Peekable<Chars<'a>>,
    /// `lexer.raw_escapes`, or what a `${…}` in work asks for.
    raw_escapes: bool,
    depth: usize,
    /// Bytes that variables have contributed so far.
    produced: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl Reader<'_> {
    /// Reads to the end, or to `stop`, which is consumed and must be there.
    fn read_until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), String> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("substitutions nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.read_plain(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn read_plain(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Splitter::default();
        while let Some(&c) = self.chars.peek() {
            if stop == Some(c) {
                self.chars.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '<' => {
                    let part = self.possible_heredoc();
                    words.current.push_str(&part);
                    text.push_str(&part);
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let part = if c == '\'' {
                        self.single_quoted()?
                    } else {
                        self.double_quoted()?
                    };
                    words.current.push_str(&part);
                    text.push_str(&part);
                }
                c if c == self.lexer.escape => {
                    self.chars.next();
                    if self.raw_escapes {
                        words.current.push(c);
                        text.push(c);
                    }
                    // An escape at the very end disappears.
                    if let Some(escaped) = self.chars.next() {
                        words.current.push(escaped);
                        text.push(escaped);
                    }
                }
                c => {
                    self.chars.next();
                    words.push(c);
                    text.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
            None => Ok((text, words.finish())),
        }
    }

    /// Between single quotes everything is literal.
    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.chars.next();
        self.keep_quote('\'', &mut text);
        loop {
            match self.chars.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .into(),
                    );
                }
                Some('\'') => {
                    self.keep_quote('\'', &mut text);
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// Between double quotes `$` works, and the escape before `"`, `$` and itself.
    fn double_quoted(&mut self) -> Result<String, String> {
        let escape = self.lexer.escape;
        let mut text = String::new();
        self.chars.next();
        self.keep_quote('"', &mut text);
        loop {
            match self.chars.peek().copied() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .into(),
                    );
                }
                Some('"') => {
                    self.chars.next();
                    self.keep_quote('"', &mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) if c == escape => {
                    self.chars.next();
                    if self.raw_escapes {
                        text.push(c);
                    }
                    match self.chars.peek().copied() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == escape => {
                            self.chars.next();
                            text.push(next);
                        }
                        Some(_) => text.push(c),
                    }
                }
                Some(c) => {
                    self.chars.next();
                    text.push(c);
                }
            }
        }
    }

    fn keep_quote(&self, quote: char, text: &mut String) {
        if self.lexer.raw_quotes {
            text.push(quote);
        }
    }

    /// `<<` takes spaces that follow into the same word: `RUN << EOF`.
    fn possible_heredoc(&mut self) -> String {
        let mut text = String::from("<");
        self.chars.next();
        if self.chars.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(space) = self.chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                text.push(space);
            }
        }
        text
    }

    /// `$name` or `${…}`.
    fn dollar(&mut self) -> Result<String, String> {
        self.chars.next();
        let value = if self.chars.next_if_eq(&'{').is_some() {
            self.braces()?
        } else {
            match self.name() {
                name if name.is_empty() => "$".into(),
                name => match self.lookup(&name) {
                    None if self.lexer.skip_unset => format!("${name}"),
                    value => value.unwrap_or_default(),
                },
            }
        };
        self.produced += value.len();
        if self.produced > MAX_EXPANDED_BYTES {
            return Err(format!("expands to more than {MAX_EXPANDED_BYTES} bytes"));
        }
        Ok(value)
    }

    /// A name (letters, digits, `_`), a positional parameter (digits) or a special one (a single character).
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|&c| c.is_alphanumeric() || c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name);
        let seen = match value {
            Some(_) => &mut self.matched,
            None => &mut self.unmatched,
        };
        if !seen.contains(name) {
            seen.insert(name.to_string());
        }
        value.map(String::from)
    }
}

#[cfg(test)]
mod tests;
