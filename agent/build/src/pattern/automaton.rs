//! moby's extension of patterns: `**`, as an automaton that reads a path once.

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
}

/// States that are possible after a part of the path. State 2·i: steps before i are done. State 2·i+1: inside of the
/// directories that step i takes.
struct States {
    set: Vec<bool>,
}

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
        Automaton { steps }
    }

    /// Whether the whole path matches.
    pub(super) fn matches(&self, path: &str) -> bool {
        self.after(path)
            .is_some_and(|states| states.set[2 * self.steps.len()])
    }

    /// Whether a path that begins so could match.
    pub(super) fn may_continue(&self, start: &str) -> bool {
        self.after(start).is_some()
    }

    /// The states after a part of a path; `None` when there is none left.
    fn after(&self, text: &str) -> Option<States> {
        let size = 2 * self.steps.len() + 1;
        let mut states = States {
            set: vec![false; size],
        };
        self.enter(&mut states, 0);
        for c in text.chars() {
            let mut next = States {
                set: vec![false; size],
            };
            for state in (0..size - 1).filter(|&state| states.set[state]) {
                let step = state / 2;
                match &self.steps[step] {
                    Step::One(Token::Star) if c != '/' => self.enter(&mut next, step),
                    Step::One(token) if *token != Token::Star && token.takes(c) => {
                        self.enter(&mut next, step + 1);
                    }
                    Step::One(_) => {}
                    Step::Rest => self.enter(&mut next, step),
                    Step::Directories => {
                        next.set[2 * step + 1] = true;
                        if c == '/' {
                            self.enter(&mut next, step + 1);
                        }
                    }
                }
            }
            states = next;
            if !states.set.contains(&true) {
                return None;
            }
        }
        Some(states)
    }

    /// Adds the state before `step`, and those that are reached from it without a character.
    fn enter(&self, states: &mut States, mut step: usize) {
        loop {
            if std::mem::replace(&mut states.set[2 * step], true) {
                return;
            }
            match self.steps.get(step) {
                Some(Step::One(Token::Star) | Step::Directories | Step::Rest) => step += 1,
                _ => return,
            }
        }
    }
}
