//! Caches outside of this daemon: in a registry, in a directory of the client, inside of an image.
//!
//! ```text
//! --cache-to    steps ─▶ layers ─▶ document [config] ─▶ registry | OCI layout as a tar | configuration of the image [export]
//! --cache-from  document ─▶ keys; a step that is found under one of them has its layers fetched and is a record of the
//!               daemon's own cache from then on                                                           [import]
//! ```
//!
//! An artifact of the OCI with BuildKit's media types: any registry takes it and any tool can copy it. What is in it are the
//! keys of our cache, so it is good for daemons of our kind. Must not: decide what a step's key is.

mod config;
mod export;
mod import;

pub(crate) use export::{Export, Step, check, inline, with_inline};
pub(crate) use import::Imports;
