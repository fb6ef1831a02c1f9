//! Where files come from that no step has made: base images, downloads, repositories.
//!
//! ```text
//! image ── store, else registry ─▶ layers held while they are used
//! oci_layout ── an image that the client sends ─▶ the store
//! http  ── resolve (asks whether it changed, or downloads) ─▶ digest ─▶ place: one file of mode 0600
//! git   ── resolve (which commit a name is) ─▶ commit ─▶ checkout: its tree, owned by root
//! download ─ an archive at an address, handed on as it comes: for `import`
//! remote ─ a main context given by its address: a repository, an archive, or a Dockerfile
//! ```
//!
//! Everything here is asked of machines that are not trusted: sizes, redirects and times are bounded. Must not: run a
//! program, or keep credentials longer than a request lasts.

mod client;
mod download;
mod git;
mod http;
mod image;
mod oci_layout;
mod remote;

pub(crate) use download::{Download, download};
pub(crate) use git::{checkout as git_checkout, resolve as git_resolve};
pub(crate) use http::{HttpState, place as http_place, resolve as http_resolve};
pub(crate) use image::{ImageRequest, Pull, ResolvedImage, image, local_image};
pub(crate) use oci_layout::oci_layout;
pub(crate) use remote::{Remote, RemoteAddress, remote};

#[cfg(test)]
mod tests;
