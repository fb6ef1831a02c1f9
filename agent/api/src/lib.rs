//! The Docker Engine API as muster speaks it: wire types and a client.
//!
//! The types are *server shaped*: they say exactly what dockerd puts on the wire, including the places where it
//! writes `null` for an absent list, so that every existing client reads our answers as it reads Docker's. The
//! daemon serialises them; the command line, the Compose planner and the tests deserialise them through [`Client`].
//!
//! This package does not decide anything: no defaults of the engine, no validation beyond shape.
//! Source: the Engine API reference v1.51 and moby `api/types`.

pub mod client;
pub mod types;

pub use client::Client;
pub use types::*;

/// The newest Engine API version that is served, `(major, minor)`.
pub const API_VERSION: (u16, u16) = (1, 51);
/// The oldest Engine API version that is served.
pub const MIN_API_VERSION: (u16, u16) = (1, 24);
