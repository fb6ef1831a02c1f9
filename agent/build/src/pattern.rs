//! File name patterns: Go's `filepath.Match`, and lists of patterns as `.dockerignore` and `--exclude` use them.
//!
//! Must not: touch files. Follows Go's `path/filepath/match.go` and moby/patternmatcher.

/// A pattern that is not one: `syntax error in pattern`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

/// Go's `filepath.Match` on Unix: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`; `*` and `?` do not match `/`.
///
/// # Errors
/// The pattern is malformed. As in Go, a malformed rest is found even if the name does not match before it.
pub fn glob(pattern: &str, name: &str) -> Result<bool, PatternError> {
    let _ = (pattern, name);
    todo!()
}

/// A list of patterns of which the last that matches decides; `!` patterns take back.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    entries: Vec<()>,
}

impl Patterns {
    /// Compiles patterns (already cleaned lines of an ignore file, or `--exclude` values).
    ///
    /// # Errors
    /// A malformed pattern, or a lone `!`.
    pub fn new<I>(patterns: I) -> Result<Patterns, PatternError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let _ = patterns.into_iter().count();
        todo!()
    }

    /// No pattern at all: nothing matches.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the path (relative, `/` between names, no `.` or `..`) or a directory above it matches: moby's
    /// `MatchesOrParentMatches`.
    pub fn matches(&self, path: &str) -> bool {
        let _ = path;
        todo!()
    }

    /// Whether everything below this directory matches too, so that a walk may skip it: it matches, and no `!` pattern
    /// after that could take back something below.
    pub fn prunes(&self, dir: &str) -> bool {
        let _ = dir;
        todo!()
    }
}
