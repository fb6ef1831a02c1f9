//! Images between nodes.

use cluster_api::proto::images_server::Images;
use cluster_api::proto::{
    AvailableBlobsRequest, AvailableBlobsResponse, BlobPiece, FetchBlobRequest,
    ResolveImageRequest, ResolveImageResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Calls, Outgoing, Refusal, limits, outgoing, within};

const HOLDER: &str = "holder of images";

#[async_trait]
impl Images for Calls {
    type FetchStream = Outgoing<BlobPiece>;

    async fn resolve(
        &self,
        request: Request<ResolveImageRequest>,
    ) -> Result<Response<ResolveImageResponse>, Status> {
        let images = self.backend(|b| b.images.clone(), HOLDER)?;
        within(limits::CALL, images.resolve(request.into_inner())).await
    }

    async fn available(
        &self,
        request: Request<AvailableBlobsRequest>,
    ) -> Result<Response<AvailableBlobsResponse>, Status> {
        let images = self.backend(|b| b.images.clone(), HOLDER)?;
        let request = request.into_inner();
        if request.digests.len() > limits::BLOBS_PER_QUESTION {
            let most = limits::BLOBS_PER_QUESTION;
            return Err(
                Refusal::TooMuch(format!("at most {most} blobs can be asked for at once")).into(),
            );
        }
        within(limits::CALL, images.available(request)).await
    }

    async fn fetch(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let images = self.backend(|b| b.images.clone(), HOLDER)?;
        let blob = within(limits::CALL, images.fetch(request.into_inner())).await?;
        Ok(blob.map(outgoing))
    }
}
