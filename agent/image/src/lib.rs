//! Images of one machine: names, configurations and layers, on disk and in memory.
//!
//! ```text
//! <root>/content/oci-layout            {"imageLayoutVersion":"1.0.0"}
//! <root>/content/index.json            which images there are and how they are called  [index]
//! <root>/content/reserve               room for index.json on a full disk                   [content]
//! <root>/content/blobs/sha256/<hex>    image configurations and manifests, byte for byte [content]
//! <root>/layers/<diff id hex>/diff/    the layer as a directory for overlayfs           [layers]
//! <root>/layers/<diff id hex>/recipe   how to write the layer's tar again, bit for bit  [layers::recipe]
//! <root>/layers/<diff id hex>/layer.json
//! <root>/layers/unfinished-*           being unpacked; removed when the store is opened
//! <root>/layers/doomed-*               being deleted; removed when the store is opened
//! <root>/build/                        snapshots of builds that are no layers yet       [build]
//! ```
//!
//! A [`Store`] is synchronous and shared by reference: callers in async code use a blocking thread.
//! Order of writes makes a crash harmless: layers, then blobs, then `index.json`; removal goes the
//! other way. What the index does not reach is garbage and is collected at the next opening.
//!
//! Must not: mount anything, know containers (the caller says which images are in use), talk to a
//! network outside of `registry`, or print.

#![warn(missing_docs)]

mod archive;
pub mod build;
mod config;
mod deflate;
mod digest;
mod error;
mod inflate;
mod layers;
mod limits;
mod manifest;
mod platform;
mod progress;
mod reference;
mod registry;
mod remove;
mod stopping;
mod store;
mod tar_stream;

pub use archive::{
    Destination, ExtractError, ExtractOptions, Overwrite, Owner, extract, write_tree,
};
pub use config::{Empty, Healthcheck, HistoryStep, ImageConfig, RootFs, RunConfig};
pub use digest::{Digest, DigestError, Hasher, ImageId};
pub use error::{ErrorClass, ImageError};
pub use layers::UnpackError;
pub use limits::Limits;
pub use progress::{ProgressDetail, ProgressMessage, ProgressSink, silent};
pub use reference::{Reference, ReferenceError};
pub use registry::{
    Artifact, Credentials, Description, LayerBlob, Partial, Proxies, ProxyDialer, Registry,
    RegistryConfig, RegistryError, SearchFilter, SearchResult, registry_of,
};
pub use remove::remove_tree;
pub use stopping::Stopping;
pub use store::*;
pub use tar_stream::TarError;
