//! Variables in instructions.

use super::At;
use crate::dockerfile::{KeyValue, SourcesAndDest};
use crate::plan::PlanError;
use crate::plan::lints;
use crate::plan::planner::Planner;
use crate::words::Lexer;

impl Planner<'_> {
    /// Replaces the variables of a word, in the environment before the instruction.
    pub(super) fn word(&mut self, at: At<'_>, word: &str) -> Result<String, PlanError> {
        let lexer = self.lexer;
        self.word_by(at, word, &lexer)
    }

    pub(super) fn word_by(
        &mut self,
        at: At<'_>,
        word: &str,
        lexer: &Lexer,
    ) -> Result<String, PlanError> {
        let expanded = lexer.expand(word, &self.stages[at.state].env)?;
        self.spend(2 * expanded.text.len())?;
        lints::undefined(self, at.state, at.instruction, &expanded.unmatched);
        Ok(expanded.text)
    }

    pub(super) fn words(&mut self, at: At<'_>, words: &[String]) -> Result<Vec<String>, PlanError> {
        words.iter().map(|word| self.word(at, word)).collect()
    }

    pub(super) fn pairs(
        &mut self,
        at: At<'_>,
        pairs: &[KeyValue],
    ) -> Result<Vec<KeyValue>, PlanError> {
        let expand = |pair: &KeyValue| {
            Ok(KeyValue {
                key: self.word(at, &pair.key)?,
                value: self.word(at, &pair.value)?,
                legacy: pair.legacy,
            })
        };
        pairs.iter().map(expand).collect()
    }

    /// Sources, destination, and the bodies of heredocs whose delimiter is not quoted.
    pub(super) fn paths(
        &mut self,
        at: At<'_>,
        paths: &SourcesAndDest,
    ) -> Result<SourcesAndDest, PlanError> {
        let mut expanded = SourcesAndDest {
            paths: self.words(at, &paths.paths)?,
            dest: self.word(at, &paths.dest)?,
            contents: paths.contents.clone(),
        };
        // Quotes in a file are the file's own; its escape character does not change with the Dockerfile's.
        let mut lexer = Lexer::new('\\');
        lexer.skip_quotes = true;
        for content in &mut expanded.contents {
            if content.expand {
                content.data = self.word_by(at, &content.data, &lexer)?;
            }
        }
        Ok(expanded)
    }
}
