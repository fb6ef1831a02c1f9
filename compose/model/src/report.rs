//! What a load has read and has to say so far. Stages add problems and go on; the pipeline stops between
//! stages when there is an error.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::span::{Sources, Span};

/// A stage could not produce a result; its errors are in the [`Report`].
#[derive(Debug)]
pub(crate) struct Failed;

/// Errors shown at most; a broken file can have any number.
const MAX_ERRORS: usize = 50;

/// Collects files, errors and warnings.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sources: Sources,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    said: BTreeSet<String>,
    suppressed: usize,
}

impl Report {
    pub(crate) fn error(&mut self, diagnostic: Diagnostic) {
        if self.errors.contains(&diagnostic) {
            return;
        }
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(diagnostic);
        } else {
            self.suppressed += 1;
        }
    }

    /// Adds an error and gives the value to return.
    pub(crate) fn fail(&mut self, diagnostic: Diagnostic) -> Failed {
        self.error(diagnostic);
        Failed
    }

    /// Adds a warning, once per message.
    pub(crate) fn warn(&mut self, diagnostic: Diagnostic) {
        if self.warnings.len() < MAX_ERRORS && self.said.insert(diagnostic.message.clone()) {
            self.warnings.push(diagnostic);
        }
    }

    /// Stops the pipeline if a stage found errors.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Failed)
        }
    }

    pub(crate) fn into_success(self) -> (Vec<Diagnostic>, Sources) {
        (self.warnings, self.sources)
    }

    /// Errors in the order of the files, then warnings.
    pub(crate) fn into_failure(mut self) -> Diagnostics {
        self.errors
            .sort_by_key(|error| (error.span.file, error.span.start));
        if self.suppressed > 0 {
            let message = format!("{} more errors are not shown", self.suppressed);
            self.errors.push(Diagnostic::error(Span::NONE, message));
        }
        self.errors.append(&mut self.warnings);
        Diagnostics {
            diagnostics: self.errors,
            sources: self.sources,
        }
    }
}
