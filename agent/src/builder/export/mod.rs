//! What becomes of a result: an image of the store, an archive, files, or nothing.
//!
//! | output | where it goes |
//! |---|---|
//! | image | the engine's store, named; perhaps a registry afterwards                          [image] |
//! | oci, docker | an archive with the image, on a channel of the client's                     [archive] |
//! | local, tar | its files as a tar, on a channel of the client's                             [files] |
//! | cacheonly | nowhere |

mod config;
mod files;
mod image;

use std::sync::Arc;

use agent_api::build::{BuildRequest, BuildResult, Output};
use agent_build::plan::{Plan, Platform};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::progress::Progress;
use super::session::Session;
use super::steps::{Shop, Solved};

/// The result of one platform.
pub(crate) struct Built {
    /// How it was made.
    pub(crate) plan: Arc<Plan>,
    /// Its files; none is an empty file system.
    pub(crate) files: Option<Solved>,
    /// Lines of the base image's history.
    pub(crate) base_history: usize,
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
        check(outputs, built)?;
        for output in outputs {
            match output {
                Output::Image(options) => {
                    self.image(&built[0], options, &mut result).await?;
                }
                Output::Local { id, platform_split } => {
                    let split = platform_split.unwrap_or(built.len() > 1);
                    self.files("exporting to client directory", id, split, built)
                        .await?;
                }
                Output::Tar { id, platform_split } => {
                    let split = platform_split.unwrap_or(built.len() > 1);
                    self.files("exporting to client tarball", id, split, built)
                        .await?;
                }
                Output::Oci(_) | Output::Docker(_) => {
                    return Err(Failure::invalid(
                        "outputs of type oci and docker are not supported yet",
                    ));
                }
                Output::CacheOnly => {}
            }
        }
        Ok(result)
    }
}

/// Refuses what cannot hold several platforms.
fn check(outputs: &[Output], built: &[Built]) -> Result<(), Failure> {
    if built.len() < 2 {
        return Ok(());
    }
    for output in outputs {
        let refused = match output {
            Output::Image(_) => {
                "exporting multiple references to image store is currently unsupported"
            }
            Output::Docker(_) => {
                "docker exporter does not currently support exporting manifest lists"
            }
            _ => continue,
        };
        return Err(Failure::invalid(refused));
    }
    Ok(())
}
