//! Requests forwarded by other managers.

use cluster_api::proto::control_server::Control;
use cluster_api::proto::{ForwardRequest, ForwardResponse};
use tonic::{Request, Response, Status, async_trait};

use super::{Calls, MANAGER, Refusal, limits, peer, within};

#[async_trait]
impl Control for Calls {
    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ForwardResponse>, Status> {
        // Certainly not carried out: the asker looks for the leader.
        let control = self
            .backend(|b| b.control.clone(), MANAGER)
            .map_err(|_| Refusal::NotLeader { leader: None })?;
        let peer = peer(&request)?;
        within(limits::COMMIT, control.forward(&peer, request.into_inner())).await
    }
}
