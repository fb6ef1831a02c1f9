//! `.dockerignore` files.
//!
//! Must not: read them from disk. Follows moby/patternmatcher's `ignorefile`.

use crate::pattern::{PatternError, Patterns};

/// Patterns of an ignore file's text, one for each line that is not a comment, cleaned.
///
/// # Errors
/// A line that is too long or is not UTF-8.
pub fn read(text: &[u8]) -> Result<Vec<String>, PatternError> {
    let _ = text;
    todo!()
}

/// [`read`] and compile.
///
/// # Errors
/// As [`read`] and [`Patterns::new`].
pub fn parse(text: &[u8]) -> Result<Patterns, PatternError> {
    Patterns::new(read(text)?)
}
