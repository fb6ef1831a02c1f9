//! Shell-like words: variables, quotes and escapes as Dockerfiles know them.
//!
//! Must not: run anything, read the process's environment. Follows BuildKit's `frontend/dockerfile/shell/lex.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// Unbalanced quotes or braces, unknown modifiers, `${x?}` of an unset variable.
    pub fn expand(&self, word: &str, env: &dyn Environment) -> Result<Expansion, WordError> {
        let _ = (word, env);
        todo!()
    }
}
