//! Output of tasks.

use cluster_api::proto::logs_server::Logs;
use cluster_api::proto::{LogBatch, PublishLogsRequest, PublishLogsResponse, SubscribeLogsRequest};
use futures_util::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Calls, MANAGER, Outgoing, Refusal, limits, outgoing, peer, within};

#[async_trait]
impl Logs for Calls {
    type SubscribeStream = Outgoing<LogBatch>;

    async fn subscribe(
        &self,
        request: Request<SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let logs = self.backend(|b| b.logs.clone(), MANAGER)?;
        let peer = peer(&request)?;
        let subscription = logs.subscribe(&peer, request.into_inner());
        Ok(within(limits::CALL, subscription).await?.map(outgoing))
    }

    async fn publish(
        &self,
        request: Request<Streaming<PublishLogsRequest>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let logs = self.backend(|b| b.logs.clone(), MANAGER)?;
        let peer = peer(&request)?;
        let batches = request
            .into_inner()
            .map(|batch| batch.map_err(Refusal::from))
            .boxed();
        logs.publish(&peer, batches).await?;
        Ok(Response::new(PublishLogsResponse {}))
    }
}
