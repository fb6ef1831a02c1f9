//! Patterns asked about by a walk that goes down from a root: what was found of a directory is carried to what is in it,
//! so that of each path only the last name is read. The same answers as [`Patterns::matches`] and [`Patterns::prunes`].
//!
//! Source: moby/patternmatcher `MatchesUsingParentResults`.

use super::{Matcher, Patterns};

/// Words carried for a directory at most. A list that would need more (of many thousand patterns) is asked about whole
/// paths, so that a deep tree takes no more memory than its paths.
const WORDS_MAX: usize = 4096;

/// A directory on the way down, and what the patterns have made of its path.
#[derive(Debug, Clone, Default)]
pub struct Descent {
    /// Relative to the root; empty for the root.
    path: String,
    /// Nothing for a list that is too long.
    known: Option<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    /// The patterns that match at or above the directory, one bit each.
    matched: Vec<u64>,
    /// For each automaton, in order, its states after the path and a `/`.
    states: Vec<u64>,
}

impl Patterns {
    /// The root, where a walk begins.
    pub fn descent(&self) -> Descent {
        let words = |entry: &super::Entry| match &entry.matcher {
            Matcher::Automaton(automaton) => automaton.words(),
            _ => 0,
        };
        let states: usize = self.entries.iter().map(words).sum();
        let matched = self.entries.len().div_ceil(64);
        if states + matched > WORDS_MAX {
            return Descent::default();
        }
        let mut known = Known {
            matched: vec![0; matched],
            states: vec![0; states],
        };
        let mut rest = &mut known.states[..];
        for entry in &self.entries {
            if let Matcher::Automaton(automaton) = &entry.matcher {
                let (own, others) = rest.split_at_mut(automaton.words());
                automaton.start(own);
                rest = others;
            }
        }
        Descent {
            path: String::new(),
            known: Some(known),
        }
    }

    /// The directory `name` in `above`.
    pub fn descend(&self, above: &Descent, name: &str) -> Descent {
        let path = above.join(name);
        let Some(before) = &above.known else {
            return Descent { path, known: None };
        };
        let mut known = before.clone();
        let mut scratch = Vec::new();
        let mut rest = &mut known.states[..];
        for (number, entry) in self.entries.iter().enumerate() {
            let matches = match &entry.matcher {
                Matcher::Automaton(automaton) => {
                    let (own, others) = rest.split_at_mut(automaton.words());
                    rest = others;
                    scratch.resize(own.len(), 0);
                    let matches = automaton.read(own, &mut scratch, name) && automaton.accepts(own);
                    automaton.read(own, &mut scratch, "/");
                    matches
                }
                _ => entry.matches_exactly(&path),
            };
            known.matched[number / 64] |= u64::from(matches) << (number % 64);
        }
        Descent {
            path,
            known: Some(known),
        }
    }

    /// Whether `name` in the directory, or a directory above it, matches.
    pub fn matches_in(&self, above: &Descent, name: &str) -> bool {
        let path = above.join(name);
        let Some(known) = &above.known else {
            return self.matches(&path);
        };
        let (mut states, mut scratch) = (Vec::new(), Vec::new());
        let mut rest = &known.states[..];
        let mut matched = false;
        for (number, entry) in self.entries.iter().enumerate() {
            let before = match &entry.matcher {
                Matcher::Automaton(automaton) => {
                    let (own, others) = rest.split_at(automaton.words());
                    rest = others;
                    own
                }
                _ => &[],
            };
            // A pattern that would not change the answer is not looked at.
            if entry.exclusion != matched {
                continue;
            }
            let matches = known.has(number)
                || match &entry.matcher {
                    Matcher::Automaton(automaton) => {
                        automaton.may_end(&path) && {
                            states.clear();
                            states.extend_from_slice(before);
                            scratch.resize(before.len(), 0);
                            automaton.read(&mut states, &mut scratch, name)
                                && automaton.accepts(&states)
                        }
                    }
                    _ => entry.matches_exactly(&path),
                };
            if matches {
                matched = !entry.exclusion;
            }
        }
        matched
    }

    /// Whether everything in the directory `name` that the walk stands in matches, so that it may be skipped.
    pub fn prunes_in(&self, above: &Descent, name: &str) -> bool {
        match self.has_exclusions() {
            false => self.matches_in(above, name),
            true => self.prunes(&above.join(name)),
        }
    }
}

impl Descent {
    fn join(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        }
    }
}

impl Known {
    fn has(&self, number: usize) -> bool {
        self.matched[number / 64] & (1 << (number % 64)) != 0
    }
}
