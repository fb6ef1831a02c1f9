//! What becomes of a result: an image of the store, an archive, files, or nothing.
//!
//! | output | where it goes |
//! |---|---|
//! | image | the engine's store, named; perhaps a registry afterwards                          [image] |
//! | oci, docker | an archive with the image, on a channel of the client's                     [archive] |
//! | local, tar | its files as a tar, on a channel of the client's                             [files] |
//! | cacheonly | nowhere |

mod archive;
mod config;
mod files;
mod image;

use std::sync::Arc;

use agent_api::build::{BuildRequest, BuildResult, CompressionKind, LayerCompression, Output};
use agent_build::plan::{Plan, Platform};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::progress::Progress;
use super::remote_cache;
use super::session::Session;
use super::steps::{Shop, Solved};
use archive::Kind;

/// The result of one platform.
pub(crate) struct Built {
    /// How it was made.
    pub(crate) plan: Arc<Plan>,
    /// Its files; none is an empty file system.
    pub(crate) files: Option<Solved>,
    /// Lines of the base image's history.
    pub(crate) base_history: usize,
    /// Its steps, as far as they are to be written to other caches.
    pub(crate) steps: Vec<remote_cache::Step>,
}

impl Built {
    fn platform(&self) -> &Platform {
        &self.plan.platform
    }
}

/// One export under way.
pub(crate) struct Export<'a> {
    pub(crate) shop: &'a Arc<Shop>,
    pub(crate) request: &'a BuildRequest,
    /// The result is an index of images, also if it is one.
    pub(crate) index: bool,
    pub(crate) session: Option<&'a Session>,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a CancellationToken,
}

impl Export<'_> {
    /// Exports results to everything that was asked for, and says what came of it.
    pub(crate) async fn run(&self, built: &[Built]) -> Result<BuildResult, Failure> {
        let mut result = BuildResult::default();
        let default = [Output::Image(agent_api::build::ImageOutput::default())];
        let outputs = match self.request.outputs.is_empty() {
            true => &default[..],
            false => &self.request.outputs,
        };
        for output in outputs {
            match output {
                Output::Image(options) => self.image(&built[0], options, &mut result).await?,
                Output::Local { id, platform_split } => {
                    let split = platform_split.unwrap_or(self.index);
                    self.files("exporting to client directory", id, split, built)
                        .await?;
                }
                Output::Tar { id, platform_split } => {
                    let split = platform_split.unwrap_or(self.index);
                    self.files("exporting to client tarball", id, split, built)
                        .await?;
                }
                Output::Oci(options) => {
                    self.archive(Kind::Oci, built, options, &mut result).await?;
                }
                Output::Docker(options) => {
                    self.archive(Kind::Docker, built, options, &mut result)
                        .await?;
                }
                Output::CacheOnly => {}
            }
        }
        let caches = remote_cache::Export {
            shop: self.shop,
            request: self.request,
            session: self.session,
            progress: self.progress,
            cancel: self.cancel,
        };
        let steps = built
            .iter()
            .flat_map(|built| &built.steps)
            .collect::<Vec<_>>();
        caches.run(&steps).await?;
        Ok(result)
    }
}

/// Refuses, before anything is built, outputs that cannot be made of so many platforms, or of an index.
pub(crate) fn check(request: &BuildRequest, platforms: usize, index: bool) -> Result<(), Failure> {
    for output in &request.outputs {
        match output {
            Output::Image(options) => {
                if options.push_by_digest {
                    return Err(Failure::invalid(
                        "push-by-digest is not supported: give the image a tag",
                    ));
                }
                if options.push && options.oci_media_types == Some(false) {
                    return Err(Failure::invalid(
                        "oci-mediatypes=false is not supported with push: what is built has OCI's",
                    ));
                }
                if options.push {
                    pushed(&options.compression)?;
                }
            }
            Output::Oci(options) | Output::Docker(options) => archived(&options.compression)?,
            Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => {}
        }
    }
    let stored = |output: &Output| matches!(output, Output::Image(_));
    let image = request.outputs.is_empty() || request.outputs.iter().any(stored);
    if image && !request.annotations.is_empty() {
        return Err(Failure::invalid(
            "annotations are not supported for images of the store: they are kept with an output of type oci or docker",
        ));
    }
    for key in request.annotations.keys() {
        let kind = key.split_once(':').map_or("manifest", |(kind, _)| kind);
        if kind != "manifest"
            && ["index", "manifest-descriptor", "index-descriptor"]
                .contains(&kind.split('[').next().unwrap_or(kind))
        {
            return Err(Failure::invalid(format!(
                "annotation {key:?}: only those of manifests are supported"
            )));
        }
    }
    if platforms > 1 && image {
        return Err(Failure::invalid(
            "exporting multiple references to image store is currently unsupported: use an output of type oci, or build one platform",
        ));
    }
    if index
        && request
            .outputs
            .iter()
            .any(|output| matches!(output, Output::Docker(_)))
    {
        return Err(Failure::invalid(
            "docker exporter does not currently support exporting manifest lists",
        ));
    }
    Ok(())
}

/// A push sends gzip, and of layers that came from a registry what came.
fn pushed(given: &LayerCompression) -> Result<(), Failure> {
    let refused = match given.kind {
        Some(CompressionKind::Zstd) => "compression=zstd",
        Some(CompressionKind::Uncompressed) => "compression=uncompressed",
        Some(CompressionKind::Gzip) | None if given.level.is_some() => "compression-level",
        Some(CompressionKind::Gzip) | None if given.force => "force-compression",
        Some(CompressionKind::Gzip) | None => return Ok(()),
    };
    Err(Failure::invalid(format!(
        "{refused} is not supported with push: layers are pushed as gzip, those that came from a registry as they came"
    )))
}

/// An archive packs all layers anew.
fn archived(given: &LayerCompression) -> Result<(), Failure> {
    match (given.kind, given.level) {
        (Some(CompressionKind::Zstd), _) => Err(Failure::invalid(
            "compression=zstd is not supported: use gzip or uncompressed",
        )),
        (_, Some(level)) if !(0..=9).contains(&level) => Err(Failure::invalid(format!(
            "compression-level={level} is not supported: gzip has the levels 0 to 9"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CompressionKind::{Gzip, Uncompressed, Zstd};

    #[test]
    fn no_option_of_compression_is_swallowed() {
        for (kind, level, force, push, archive) in [
            (None, None, false, "", ""),
            (Some(Gzip), None, false, "", ""),
            (Some(Gzip), None, true, "force-compression ", ""),
            (None, Some(9), false, "compression-level ", ""),
            (Some(Gzip), Some(22), false, "compression-level ", "=22 "),
            (None, Some(-1), false, "compression-level ", "=-1 "),
            (Some(Uncompressed), None, false, "=uncompressed ", ""),
            (Some(Zstd), None, false, "=zstd ", "=zstd "),
        ] {
            let given = LayerCompression { kind, level, force };
            for (checked, refused) in [(pushed(&given), push), (archived(&given), archive)] {
                match checked {
                    Ok(()) => assert_eq!(refused, "", "{given:?}"),
                    Err(failure) => {
                        let told = failure.message();
                        assert!(!refused.is_empty() && told.contains(refused), "{told}");
                    }
                }
            }
        }
    }
}
