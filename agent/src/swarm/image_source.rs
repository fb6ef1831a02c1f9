//! What other nodes may ask of this node's images.

use agent_image::Digest;
use cluster::rpc::limits::{BLOBS_PER_QUESTION, PIECE_BYTES};
use cluster::rpc::{ImageSource, Messages, Refusal};
use cluster_api::proto::{
    AvailableBlobsRequest, AvailableBlobsResponse, BlobDescriptor, BlobPiece, FetchBlobRequest,
    ResolveImageRequest, ResolveImageResponse,
};
use futures_util::StreamExt as _;
use tonic::async_trait;

use crate::engine::{CHUNK, Engine};
use crate::error::Error;

const _: () = assert!(CHUNK <= PIECE_BYTES, "the engine's chunks fit into a piece");

/// The engine's images.
pub(crate) struct EngineImages(pub(crate) Engine);

#[async_trait]
impl ImageSource for EngineImages {
    async fn resolve(&self, request: ResolveImageRequest) -> Result<ResolveImageResponse, Refusal> {
        let manifest = match self.0.offer_image(&request.reference).await {
            Ok(offer) => Some(BlobDescriptor {
                media_type: offer.media_type,
                digest: offer.manifest.to_string(),
                size: offer.manifest_size,
            }),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(Refusal::Internal(error.to_string())),
        };
        Ok(ResolveImageResponse { manifest })
    }

    async fn available(
        &self,
        request: AvailableBlobsRequest,
    ) -> Result<AvailableBlobsResponse, Refusal> {
        if request.digests.len() > BLOBS_PER_QUESTION {
            return Err(Refusal::TooMuch(format!(
                "{} digests asked for, at most {BLOBS_PER_QUESTION} can be",
                request.digests.len()
            )));
        }
        let digests: Result<Vec<Digest>, Refusal> =
            request.digests.iter().map(|text| digest(text)).collect();
        let found = self.0.blob_sizes(digests?).await;
        let found = found.map_err(|error| Refusal::Internal(error.to_string()))?;
        let blobs = found.into_iter().map(|(digest, size)| BlobDescriptor {
            media_type: String::new(),
            digest: digest.to_string(),
            size,
        });
        Ok(AvailableBlobsResponse {
            blobs: blobs.collect(),
        })
    }

    async fn fetch(&self, request: FetchBlobRequest) -> Result<Messages<BlobPiece>, Refusal> {
        let blob = digest(&request.digest)?;
        let sizes = self.0.blob_sizes(vec![blob]).await;
        let sizes = sizes.map_err(|error| Refusal::Internal(error.to_string()))?;
        let Some((_, total_size)) = sizes.first().copied() else {
            return Err(Refusal::NotFound(format!("{blob} is not here")));
        };
        if request.offset > total_size {
            return Err(Refusal::Invalid(format!(
                "{blob} has {total_size} bytes, none at {}",
                request.offset
            )));
        }
        let bytes = self.0.read_blob(blob, request.offset);
        let length = futures_util::stream::once(async move {
            Ok(BlobPiece {
                total_size,
                data: bytes::Bytes::new(),
            })
        });
        let pieces = futures_util::stream::unfold(bytes, |mut bytes| async {
            let piece = bytes.recv().await?.map(|data| BlobPiece {
                total_size: 0,
                data,
            });
            let piece = piece.map_err(|error| Refusal::Internal(error.to_string()));
            Some((piece, bytes))
        });
        Ok(length.chain(pieces).boxed())
    }
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|error| Refusal::Invalid(format!("{text:?}: {error}")))
}
