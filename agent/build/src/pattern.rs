//! File name patterns: Go's `filepath.Match`, and lists of patterns as `.dockerignore` and `--exclude` use them.
//!
//! Must not: touch files. Follows Go's `path/filepath/match.go` and moby/patternmatcher, whose regular expressions are
//! a small automaton here: no pattern takes more than (its length × the path's length) steps.

mod automaton;
mod descent;
mod glob;

pub use descent::Descent;
pub use glob::{Glob, glob};

use automaton::Automaton;

/// A pattern that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Malformed; Go's `ErrBadPattern`.
    #[error("syntax error in pattern {0:?}")]
    Syntax(String),
    /// A `!` with nothing after it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclusion,
    /// A line of an ignore file is longer than any path.
    #[error("line {0} of the ignore file is longer than {1} bytes")]
    LineTooLong(usize, usize),
    /// A line of an ignore file is not text.
    #[error("line {0} of the ignore file is not valid UTF-8")]
    NotText(usize),
}

/// A list of patterns of which the last that matches decides; `!` patterns take back.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Cleaned, without `!`.
    text: String,
    exclusion: bool,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    /// No special character: the path itself.
    Exact,
    /// `text**`: what begins so.
    Prefix(usize),
    /// `**text`: what ends so; `**/text` also `text` itself.
    Suffix,
    Automaton(Automaton),
}

impl Patterns {
    /// Compiles patterns (cleaned lines of an ignore file, or `--exclude` values); empty ones are left out.
    ///
    /// # Errors
    /// A malformed pattern, or a lone `!`.
    pub fn new<I>(patterns: I) -> Result<Patterns, PatternError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut entries = Vec::new();
        for pattern in patterns {
            let trimmed = pattern.as_ref().trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            let (text, exclusion) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneExclusion),
                Some(rest) => (rest.to_string(), true),
                None => (cleaned, false),
            };
            entries.push(Entry {
                matcher: Matcher::new(&text)?,
                text,
                exclusion,
            });
        }
        Ok(Patterns { entries })
    }

    /// No pattern at all: nothing matches.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there are `!` patterns.
    pub fn has_exclusions(&self) -> bool {
        self.entries.iter().any(|entry| entry.exclusion)
    }

    /// Whether every entry of the root matches: a pattern `*`, `**` or `**/*`.
    pub fn match_whole_root(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| !entry.exclusion && matches!(entry.text.as_str(), "*" | "**" | "**/*"))
    }

    /// Whether the path (relative, `/` between names, no `.` or `..`) or a directory above it matches: moby's
    /// `MatchesOrParentMatches`.
    pub fn matches(&self, path: &str) -> bool {
        let mut matched = false;
        for entry in &self.entries {
            // A pattern that would not change the answer is not looked at.
            if entry.exclusion == matched && entry.matches_at_or_above(path) {
                matched = !entry.exclusion;
            }
        }
        matched
    }

    /// Whether everything below this directory matches too, so that a walk may skip it: it matches, and no later `!`
    /// pattern could take back something below.
    pub fn prunes(&self, dir: &str) -> bool {
        if dir.is_empty() || dir == "." {
            return false;
        }
        let last = self
            .entries
            .iter()
            .rposition(|entry| !entry.exclusion && entry.matches_at_or_above(dir));
        let Some(last) = last else {
            return false;
        };
        !self.entries[last + 1..]
            .iter()
            .any(|entry| entry.exclusion && entry.may_match_at_or_below(dir))
    }
}

impl Entry {
    fn matches_at_or_above(&self, path: &str) -> bool {
        if let Matcher::Automaton(automaton) = &self.matcher {
            return automaton.matches_at_or_above(path);
        }
        self.matches_exactly(path)
            || path
                .match_indices('/')
                .any(|(end, _)| self.matches_exactly(&path[..end]))
    }

    fn matches_exactly(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix(length) => path.starts_with(&self.text[..*length]),
            Matcher::Suffix => {
                let suffix = &self.text["**".len()..];
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Automaton(automaton) => automaton.matches(path),
        }
    }

    /// False only when certainly nothing at, above or below `dir` matches.
    fn may_match_at_or_below(&self, dir: &str) -> bool {
        if self.matches_at_or_above(dir) {
            return true;
        }
        let below = |text: &str| {
            text.strip_prefix(dir)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        match &self.matcher {
            Matcher::Exact => below(&self.text),
            // What begins with the prefix begins with `dir` only if one continues the other.
            Matcher::Prefix(length) => {
                let prefix = &self.text[..*length];
                below(prefix) || format!("{dir}/").starts_with(prefix)
            }
            Matcher::Suffix => true,
            Matcher::Automaton(automaton) => automaton.may_continue(&format!("{dir}/")),
        }
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Matcher, PatternError> {
        let glob = Glob::new(text)?;
        if !text.contains(['*', '?', '[', ']', '\\']) {
            return Ok(Matcher::Exact);
        }
        let plain = |part: &str| !part.contains(['*', '?', '[', ']', '\\']);
        if let Some(rest) = text.strip_prefix("**")
            && plain(rest)
        {
            return Ok(Matcher::Suffix);
        }
        if let Some(rest) = text.strip_suffix("**")
            && plain(rest)
        {
            return Ok(Matcher::Prefix(rest.len()));
        }
        Ok(Matcher::Automaton(Automaton::new(glob)))
    }
}

/// The shortest equal path, lexically: Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => match names.last() {
                Some(&last) if last != ".." => {
                    names.pop();
                }
                None if rooted => {}
                _ => names.push(".."),
            },
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
