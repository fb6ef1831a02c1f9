//! Sessions of nodes.

use cluster_api::proto::dispatcher_server::Dispatcher;
use cluster_api::proto::{
    AckAssignmentsRequest, AckAssignmentsResponse, AssignmentsMessage, AssignmentsRequest,
    HeartbeatRequest, HeartbeatResponse, SessionMessage, SessionRequest, UpdateTaskStatusRequest,
    UpdateTaskStatusResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Calls, MANAGER, Outgoing, limits, outgoing, peer, within};
use crate::rpc::DispatcherBackend;

impl Calls {
    fn dispatcher(&self) -> Result<std::sync::Arc<dyn DispatcherBackend>, Status> {
        self.backend(|b| b.dispatcher.clone(), MANAGER)
    }
}

#[async_trait]
impl Dispatcher for Calls {
    type SessionStream = Outgoing<SessionMessage>;
    type AssignmentsStream = Outgoing<AssignmentsMessage>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (dispatcher, peer) = (self.dispatcher()?, peer(&request)?);
        let session = dispatcher.session(&peer, request.into_inner());
        Ok(within(limits::COMMIT, session).await?.map(outgoing))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let (dispatcher, peer) = (self.dispatcher()?, peer(&request)?);
        within(
            limits::CALL,
            dispatcher.heartbeat(&peer, request.into_inner()),
        )
        .await
    }

    async fn assignments(
        &self,
        request: Request<AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let (dispatcher, peer) = (self.dispatcher()?, peer(&request)?);
        let assignments = dispatcher.assignments(&peer, request.into_inner());
        Ok(within(limits::CALL, assignments).await?.map(outgoing))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let (dispatcher, peer) = (self.dispatcher()?, peer(&request)?);
        let update = dispatcher.update_task_status(&peer, request.into_inner());
        let done = within(limits::COMMIT, update).await?;
        Ok(done.map(|()| UpdateTaskStatusResponse {}))
    }

    async fn ack_assignments(
        &self,
        request: Request<AckAssignmentsRequest>,
    ) -> Result<Response<AckAssignmentsResponse>, Status> {
        let (dispatcher, peer) = (self.dispatcher()?, peer(&request)?);
        let acknowledge = dispatcher.acknowledge(&peer, request.into_inner());
        let done = within(limits::CALL, acknowledge).await?;
        Ok(done.map(|()| AckAssignmentsResponse {}))
    }
}
