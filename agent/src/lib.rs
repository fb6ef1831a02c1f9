//! The node daemon: the Docker Engine API over a container engine.
//!
//! ```text
//! http ──▶ engine ──▶ agent-image (layers) · netdriver (sandboxes) · agent-runtime (keeper, launch)
//! ```
//!
//! `daemon` is the only module that sees all parts. `http` knows statuses and wire formats and decides nothing;
//! `engine` knows containers and has never heard of HTTP.

pub mod config;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod http;
