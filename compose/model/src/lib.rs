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

mod bind;
mod canonical;
mod check;
mod consistency;
mod diagnostic;
mod dotenv;
mod environment;
mod extends;
mod files;
mod include;
mod interpolate;
mod load;
mod locate;
mod merge;
mod normalize;
mod options;
mod output;
mod paths;
mod pipeline;
mod read;
mod report;
mod scalar;
mod schema;
mod select;
mod short;
mod span;
mod template;
mod tree;
pub mod types;
mod unicity;
mod words;
mod yaml_writer;

pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, Style};
pub use options::{LoadOptions, Stages};
pub use output::{Dollars, value_to_json, value_to_yaml};
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

/// What [`load_model`] gives back.
#[derive(Clone, Debug)]
pub struct Model {
    /// The canonical tree of the project: services of all profiles, env files not read.
    pub value: serde_json::Value,
    /// As in [`Loaded`].
    pub warnings: Vec<Diagnostic>,
    /// As in [`Loaded`].
    pub sources: Sources,
}

/// Loads a project: finds the files, reads, interpolates, merges, validates and normalises them.
///
/// Blocking: reads a handful of small files.
///
/// # Errors
///
/// All problems that one stage finds, together, each with its place.
pub fn load(options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    load::load(options)
}

/// Loads a project without giving its values a type: for `config --no-interpolate`, where a number may be
/// `${VARIABLE}`. Profiles and references are not considered.
///
/// # Errors
///
/// As [`load`].
pub fn load_model(options: &LoadOptions) -> Result<Model, Diagnostics> {
    load::load_model(options)
}
