//! The template language of `--format`: Go's `text/template` as far as Docker's users can reach it.
//!
//! Pipelines, `if`/`else if`/`else`, `range` with `break` and `continue`, `with`, `define`/`template`/`block`,
//! variables, comments, trim markers, comparison and logic functions, and Docker's own functions.
//! A template cannot do I/O, and its nesting, recursion and output are bounded.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

pub(crate) use value::{Row, Value};

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    tree: parse::Tree,
}

/// Which functions change what they are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Functions {
    /// For a line of values.
    Value,
    /// For the line of column titles.
    Header,
}

/// What is wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template error at character {}: {reason}", at + 1)]
pub(crate) struct TemplateError {
    /// Byte offset in the template.
    at: usize,
    reason: String,
}

impl TemplateError {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self {
            at,
            reason: reason.into(),
        }
    }
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self {
            tree: parse::parse(lex::pieces(text)?)?,
        })
    }

    pub(crate) fn render(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.tree, data, Functions::Value)
    }

    pub(crate) fn render_header(&self, data: &Value) -> Result<String, TemplateError> {
        eval::render(&self.tree, data, Functions::Header)
    }
}

#[cfg(test)]
mod tests;
