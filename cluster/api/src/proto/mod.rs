//! The wire of a swarm: messages, clients and servers generated from
//! `proto/muster/cluster/v1/*.proto`. The test `generated` keeps the two equal;
//! nothing in this folder is written by hand but this file.
//!
//! Objects travel as bytes: JSON of the types of this crate.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    rustdoc::all,
    reason = "generated code"
)]
#[rustfmt::skip]
mod generated;

pub use generated::*;
