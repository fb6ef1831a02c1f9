//! Raft: a stream of batches per sender.

use cluster_api::proto::raft_server::Raft;
use cluster_api::proto::{RaftMessages, RaftMessagesResponse};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Calls, MANAGER, peer};

#[async_trait]
impl Raft for Calls {
    async fn messages(
        &self,
        request: Request<Streaming<RaftMessages>>,
    ) -> Result<Response<RaftMessagesResponse>, Status> {
        let peer = peer(&request)?;
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            // Asked anew for each batch: this node may have become a worker.
            let raft = self.backend(|b| b.raft.clone(), MANAGER)?;
            raft.messages(&peer, batch).await?;
        }
        Ok(Response::new(RaftMessagesResponse {}))
    }
}
