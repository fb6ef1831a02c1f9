//! moby's extension of patterns: `**`, as an automaton that reads a path once.
//!
//! What is possible after a part of the path is a set of states, one bit each, so that a walk can go on from what it had
//! at a directory ([`super::descent`]).

use super::glob::{Glob, Token};

#[derive(Debug, Clone)]
enum Step {
    /// Everything that a [`Glob`] knows.
    One(Token),
    /// `**/` in front of something: nothing, or any directories.
    Directories,
    /// `**` at the end: anything.
    Rest,
}

/// A pattern with `*`, `?`, classes or `**`.
#[derive(Debug, Clone)]
pub(super) struct Automaton {
    steps: Vec<Step>,
    /// What every path that matches ends with.
    tail: String,
}

/// States that are possible after a part of the path. State 2·i: steps before i are done. State 2·i+1: inside of the
/// directories that step i takes.
type States = [u64];

impl Automaton {
    pub(super) fn new(glob: Glob) -> Automaton {
        let mut steps = Vec::new();
        let mut tokens = glob.tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if token != Token::Star || tokens.next_if_eq(&Token::Star).is_none() {
                steps.push(Step::One(token));
                continue;
            }
            // "**/" is the same as "**".
            tokens.next_if_eq(&Token::Literal('/'));
            steps.push(match tokens.peek() {
                Some(_) => Step::Directories,
                None => Step::Rest,
            });
        }
        let literal = |step: &Step| match step {
            Step::One(Token::Literal(c)) => Some(*c),
            _ => None,
        };
        let mut tail: Vec<char> = steps.iter().rev().map_while(literal).collect();
        tail.reverse();
        Automaton {
            steps,
            tail: tail.into_iter().collect(),
        }
    }

    /// Words of a set of states.
    pub(super) fn words(&self) -> usize {
        (2 * self.steps.len() + 1).div_ceil(64)
    }

    /// The states before the first character; `states` is empty.
    pub(super) fn start(&self, states: &mut States) {
        self.enter(states, 0);
    }

    /// Whether the path matches that brought these states about.
    pub(super) fn accepts(&self, states: &States) -> bool {
        let last = 2 * self.steps.len();
        states[last / 64] & (1 << (last % 64)) != 0
    }

    /// Whether a path could match that ends so.
    pub(super) fn may_end(&self, end: &str) -> bool {
        end.ends_with(&self.tail)
    }

    /// Whether the whole path matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        let (mut states, mut next) = (vec![0; self.words()], vec![0; self.words()]);
        self.start(&mut states);
        self.read(&mut states, &mut next, path) && self.accepts(&states)
    }

    /// Whether the path, or a directory above it, matches.
    pub(super) fn matches_at_or_above(&self, path: &str) -> bool {
        let (mut states, mut next) = (vec![0; self.words()], vec![0; self.words()]);
        self.start(&mut states);
        for c in path.chars() {
            if c == '/' && self.accepts(&states) {
                return true;
            }
            if !self.step(&mut states, &mut next, c) {
                return false;
            }
        }
        self.accepts(&states)
    }

    /// Whether a path that begins so could match.
    pub(super) fn may_continue(&self, start: &str) -> bool {
        let (mut states, mut next) = (vec![0; self.words()], vec![0; self.words()]);
        self.start(&mut states);
        self.read(&mut states, &mut next, start)
    }

    /// Goes on with a part of the path; `scratch` is as long as `states`. False when nothing can match any more: then there
    /// are no states left.
    pub(super) fn read(&self, states: &mut States, scratch: &mut States, text: &str) -> bool {
        states.iter().any(|word| *word != 0) && text.chars().all(|c| self.step(states, scratch, c))
    }

    fn step(&self, states: &mut States, next: &mut States, c: char) -> bool {
        next.fill(0);
        for (word, bits) in states.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let state = 64 * word + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let Some(step) = self.steps.get(state / 2) else {
                    continue;
                };
                match step {
                    Step::One(Token::Star) if c != '/' => self.enter(next, state / 2),
                    Step::One(token) if *token != Token::Star && token.takes(c) => {
                        self.enter(next, state / 2 + 1);
                    }
                    Step::One(_) => {}
                    Step::Rest => self.enter(next, state / 2),
                    Step::Directories => {
                        let inside = state | 1;
                        next[inside / 64] |= 1 << (inside % 64);
                        if c == '/' {
                            self.enter(next, state / 2 + 1);
                        }
                    }
                }
            }
        }
        states.copy_from_slice(next);
        states.iter().any(|word| *word != 0)
    }

    /// Adds the state before `step`, and those that are reached from it without a character.
    fn enter(&self, states: &mut States, mut step: usize) {
        loop {
            let (word, bit) = (2 * step / 64, 1 << (2 * step % 64));
            if states[word] & bit != 0 {
                return;
            }
            states[word] |= bit;
            match self.steps.get(step) {
                Some(Step::One(Token::Star) | Step::Directories | Step::Rest) => step += 1,
                _ => return,
            }
        }
    }
}
