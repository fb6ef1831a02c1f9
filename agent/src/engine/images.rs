//! The facade's operations on images: thin over the image store, plus what only containers know (who uses an image).

use agent_api::{Filters, ImageDeleteItem, ImageHistoryItem, ImageInspect, ImageSummary, ProgressMessage, PruneResponse};
use futures_util::stream::BoxStream;

use super::{ByteReceiver, Engine};
use crate::error::Result;

/// Progress of a long operation; an error is its last item.
pub type ProgressStream = BoxStream<'static, Result<ProgressMessage>>;

/// What to import as a one-layer image.
pub struct ImageImport {
    /// Name of the new image; empty for none.
    pub repository: String,
    /// Its tag; empty means `latest`.
    pub tag: String,
    /// Text for the history.
    pub message: String,
    /// Dockerfile instructions that change the configuration.
    pub changes: Vec<String>,
    /// `os[/arch[/variant]]`; empty means this machine's.
    pub platform: String,
}

impl Engine {
    /// Loads the images of a docker-archive or OCI-layout tar.
    pub async fn load_images(&self, archive: ByteReceiver, quiet: bool) -> Result<ProgressStream> {
        todo!()
    }

    /// Makes an image of a root file system tar.
    pub async fn import_image(&self, archive: ByteReceiver, import: ImageImport) -> Result<ProgressStream> {
        todo!()
    }

    /// Writes images as a docker-archive that is an OCI layout too. All names are checked before this returns.
    pub async fn save_images(&self, names: Vec<String>) -> Result<ByteReceiver> {
        todo!()
    }

    /// Lists images. Intermediate ones only with `all`.
    pub async fn list_images(&self, all: bool, filters: Filters) -> Result<Vec<ImageSummary>> {
        todo!()
    }

    /// Everything about an image.
    pub async fn inspect_image(&self, reference: &str) -> Result<ImageInspect> {
        todo!()
    }

    /// The steps that made an image, newest first.
    pub async fn image_history(&self, reference: &str) -> Result<Vec<ImageHistoryItem>> {
        todo!()
    }

    /// Gives an image another name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<()> {
        todo!()
    }

    /// Takes off a name, and removes the content when it was the last one.
    pub async fn remove_image(&self, reference: &str, force: bool, no_prune: bool) -> Result<Vec<ImageDeleteItem>> {
        todo!()
    }

    /// Removes images nobody uses.
    pub async fn prune_images(&self, filters: Filters) -> Result<PruneResponse> {
        todo!()
    }
}
