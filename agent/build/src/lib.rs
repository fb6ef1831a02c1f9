//! The Dockerfile language and what a build consists of: text in, a graph of steps and an image configuration out.
//!
//! Must not: touch files, the network, the clock or any other package of the workspace. All of it is pure, so that
//! every rule can be shown by a table.

#![warn(missing_docs)]

pub mod dockerfile;
pub mod excerpt;
pub mod go_json;
pub mod ignore;
pub mod lint;
pub mod pattern;
pub mod plan;
pub mod words;

mod quote;
mod redact;
mod suggest;

/// Where tables of expected results are kept beside a checkout; tests that read them skip aloud without.
#[cfg(test)]
const SHARED_TABLES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/data/dockerfile"
);

pub use dockerfile::{Dockerfile, Lines, ParseError};
pub use redact::redacted;
