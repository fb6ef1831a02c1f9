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
            Ok(offer) if !runs(&offer.platform, &request) => None,
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

/// Whether an image runs on the machine that asks; what either does not say fits.
fn runs(platform: &str, asked: &ResolveImageRequest) -> bool {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next(), parts.next());
    let fits = |own: Option<&str>, wanted: &str| {
        let own = own.unwrap_or_default();
        own.is_empty() || wanted.is_empty() || own == wanted || (own, wanted) == ("386", "amd64")
    };
    fits(os, &asked.os) && fits(architecture, &asked.architecture)
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .map_err(|error| Refusal::Invalid(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_offered_to_machines_they_run_on() {
        let asked = |os: &str, architecture: &str| ResolveImageRequest {
            reference: "web:1".into(),
            os: os.into(),
            architecture: architecture.into(),
        };
        for (platform, os, architecture, expected) in [
            ("linux/amd64", "linux", "amd64", true),
            ("linux/amd64", "linux", "arm64", false),
            ("linux/arm64/v8", "linux", "arm64", true),
            ("linux/386", "linux", "amd64", true),
            ("linux/amd64", "linux", "386", false),
            ("windows/amd64", "linux", "amd64", false),
            ("linux/arm64", "", "", true),
            ("/", "linux", "arm64", true),
        ] {
            let found = runs(platform, &asked(os, architecture));
            assert_eq!(found, expected, "{platform} for {os}/{architecture}");
        }
    }
}
