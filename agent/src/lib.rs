//! The node daemon: the Docker Engine API over a container engine.
//!
//! ```text
//! http ──▶ [builder ──▶] engine ──▶ agent-image (layers) · netdriver (sandboxes) · agent-runtime (keeper, launch)
//! ```
//!
//! `daemon` is the only module that sees all parts. `http` knows statuses and wire formats and decides nothing;
//! `engine` knows containers and has never heard of HTTP.

/// Tar archives of file trees that others may change meanwhile: both ends of a copy use the same code.
pub mod archive {
    pub use crate::engine::{ByteReceiver, ByteSender, byte_pipe};
    pub use agent_image::{
        Destination, ExtractError, ExtractOptions, ImageError, Limits, Overwrite, Owner, extract,
        write_tree,
    };
}
pub mod builder;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod http;
mod registry_auth;
mod space;
pub mod swarm;
mod worker;
