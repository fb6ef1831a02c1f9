//! Who takes part in Raft.

use cluster_api::proto::membership_server::Membership;
use cluster_api::proto::{
    HealthRequest, HealthResponse, JoinRequest, JoinResponse, LeaveRequest, LeaveResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Calls, MANAGER, limits, peer, within};

#[async_trait]
impl Membership for Calls {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let membership = self.backend(|b| b.membership.clone(), MANAGER)?;
        let peer = peer(&request)?;
        within(limits::COMMIT, membership.join(&peer, request.into_inner())).await
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let membership = self.backend(|b| b.membership.clone(), MANAGER)?;
        let peer = peer(&request)?;
        within(
            limits::COMMIT,
            membership.leave(&peer, request.into_inner()),
        )
        .await
    }

    async fn health(
        &self,
        request: Request<HealthRequest>,
    ) -> Result<Response<HealthResponse>, Status> {
        let peer = peer(&request)?;
        match self.backend(|b| b.membership.clone(), MANAGER) {
            Ok(membership) => within(limits::CALL, membership.health(&peer)).await,
            // It may be about to join.
            Err(_) => Ok(Response::new(HealthResponse::default())),
        }
    }
}
