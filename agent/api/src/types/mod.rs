//! Wire types, one file per resource. Field names and order follow the Engine API reference; a field is documented
//! here only where its shape or unit is not obvious from that reference.

mod archive;
pub mod build;
mod container;
mod container_config;
mod events;
mod exec;
mod filters;
#[cfg(test)]
mod golden;
mod host_config;
mod image;
mod lenient;
mod network;
mod stream;
pub mod swarm;
mod system;
mod volume;

pub use archive::*;
pub use container::*;
pub use container_config::*;
pub use events::*;
pub use exec::*;
pub use filters::*;
pub use host_config::*;
pub use image::*;
pub use network::*;
pub use stream::*;
pub use system::*;
pub use volume::*;

use indexmap::IndexMap;

/// An object used as a set: `{"8080/tcp": {}}`.
pub type Set = IndexMap<String, Empty>;
/// Key-value metadata in the order it was written.
pub type Labels = IndexMap<String, String>;

/// The empty object `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}

/// Every error reply of the API.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorResponse {
    /// What went wrong, as a sentence for people.
    pub message: String,
}

/// Reply to the creation of an object that only has an id.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdResponse {
    /// Identifier of what was created.
    #[serde(rename = "Id")]
    pub id: String,
}
