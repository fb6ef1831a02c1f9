//! The Compose specification: YAML files to a [`Project`].
//!
//! [`load`] is the whole pipeline; its stages stand in `pipeline.rs`, in order, one module each. The loader
//! reads files named by its options, compose files and env files, and nothing else: no environment
//! variable, no network, no engine. Everything it reads is bounded. Every value keeps the place where it was
//! written, and every error shows that place.
//!
//! Behaviour follows compose-spec/compose-go and the Compose specification; where it differs on purpose,
//! the case under `tests/cases` says why.

#![warn(missing_docs)]

mod diagnostic;
mod options;
mod span;
pub mod types;

pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, Style};
pub use options::{LoadOptions, Stages};
pub use span::{Location, Source, Sources, Span};
pub use types::*;

/// What [`load`] gives back.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// What the user should know though it is no error; render with [`Diagnostic::render`].
    pub warnings: Vec<Diagnostic>,
    /// The files that were read; resolves every [`Span`] of the project.
    pub sources: Sources,
}

/// Loads a project: finds the files, reads, interpolates, merges, validates and normalises them.
///
/// Blocking: reads a handful of small files.
///
/// # Errors
///
/// All problems that one stage finds, together, each with its place.
pub fn load(_options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    todo!()
}
