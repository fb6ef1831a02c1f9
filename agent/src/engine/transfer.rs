//! The facade's operations on images that nodes of a cluster give each other.

use std::sync::Arc;

use agent_image::{Accept, BlobSource, Digest, Offer, Reference};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::pipe::{ByteReceiver, byte_pipe};
use super::shared::blocking;
use crate::error::{Error, Result};

impl Engine {
    /// What this engine has under a name, for another to begin with.
    ///
    /// # Errors
    /// It has nothing.
    pub async fn offer_image(&self, name: &str) -> Result<Offer> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        blocking(move || Ok(shared.images.offer(&name)?)).await
    }

    /// Lengths of those of the blobs that are here.
    pub async fn blob_sizes(&self, blobs: Vec<Digest>) -> Result<Vec<(Digest, u64)>> {
        let shared = Arc::clone(&self.shared);
        let sizes = move || {
            let size = |blob: &Digest| Some((*blob, shared.images.blob_size(blob)?));
            Ok(blobs.iter().filter_map(size).collect())
        };
        blocking(sizes).await
    }

    /// The bytes of a blob from `offset` on. Dropping the receiver ends the reading.
    pub fn read_blob(&self, blob: Digest, offset: u64) -> ByteReceiver {
        let (mut sender, receiver) = byte_pipe();
        let shared = Arc::clone(&self.shared);
        self.shared.transfers.spawn(move || {
            use std::io::Write as _;
            let written = shared
                .images
                .write_blob(&blob, offset, &mut sender)
                .map_err(std::io::Error::other);
            if let Err(error) = written.and_then(|()| sender.flush()) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    /// Takes an image over from wherever `source` gets its blobs. Dropping the future cancels it; nothing is left then.
    ///
    /// # Errors
    /// A blob cannot be had or is not what it should be, or the image is not `accept`ed.
    pub async fn receive_image(
        &self,
        name: &str,
        manifest: Digest,
        accept: Accept,
        source: impl BlobSource + Send + 'static,
    ) -> Result<()> {
        let name = Reference::parse(name).map_err(|error| Error::invalid(error.to_string()))?;
        let shared = Arc::clone(&self.shared);
        let cancel = shared.closing.child_token();
        let _guard = cancel.clone().drop_guard();
        let transfers = shared.transfers.clone();
        transfers
            .run(move || receive(&shared, &name, &manifest, accept, &source, &cancel))
            .await
    }
}

fn receive(
    shared: &super::shared::Shared,
    name: &Reference,
    manifest: &Digest,
    accept: Accept,
    source: &dyn BlobSource,
    cancel: &CancellationToken,
) -> Result<()> {
    let images = &shared.images;
    images.receive(name, manifest, accept, source, cancel)?;
    shared.image_moved(name, "pull");
    Ok(())
}
