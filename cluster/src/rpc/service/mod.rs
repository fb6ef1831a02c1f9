//! The generated services, each handing its calls to a backend: bounds in, bounds out, no decisions.

mod ca;
mod control;
mod dispatcher;
mod images;
mod logs;
mod membership;
mod raft;

use std::sync::Arc;
use std::time::Duration;

use cluster_api::proto;
use futures_util::StreamExt as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::backend::Messages;
use super::{Backends, PeerIdentity, Refusal, SharedBackends, limits};

/// Calls of one service.
struct Calls(Arc<SharedBackends>);

/// Every service.
pub(super) fn routes(backends: &Arc<SharedBackends>) -> Routes {
    let calls = || Calls(backends.clone());
    Routes::new(
        proto::raft_server::RaftServer::new(calls())
            .max_decoding_message_size(limits::RAFT_BATCH_BYTES),
    )
    .add_service(
        proto::ca_server::CaServer::new(calls()).max_decoding_message_size(limits::ANONYMOUS_BYTES),
    )
    .add_service(
        proto::dispatcher_server::DispatcherServer::new(calls())
            .max_decoding_message_size(limits::MESSAGE_BYTES)
            .max_encoding_message_size(limits::ASSIGNMENTS_BYTES),
    )
    .add_service(
        proto::control_server::ControlServer::new(calls())
            .max_decoding_message_size(limits::MESSAGE_BYTES)
            .max_encoding_message_size(limits::ASSIGNMENTS_BYTES),
    )
    .add_service(
        proto::membership_server::MembershipServer::new(calls())
            .max_decoding_message_size(limits::MESSAGE_BYTES),
    )
    .add_service(
        proto::images_server::ImagesServer::new(calls())
            .max_decoding_message_size(limits::MESSAGE_BYTES),
    )
    .add_service(
        proto::logs_server::LogsServer::new(calls())
            .max_decoding_message_size(limits::MESSAGE_BYTES),
    )
}

impl Calls {
    /// The backend a call is for, if this node has that part.
    fn backend<T: ?Sized>(
        &self,
        pick: impl FnOnce(&Backends) -> Option<Arc<T>>,
        part: &str,
    ) -> Result<Arc<T>, Status> {
        pick(&self.0.get())
            .ok_or_else(|| Refusal::Unavailable(format!("this node is no {part} now")).into())
    }
}

const MANAGER: &str = "manager";

/// Who asks. Only for methods that need a certificate: the guard has put it there.
fn peer<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    request
        .extensions()
        .get::<PeerIdentity>()
        .cloned()
        .ok_or_else(|| {
            Refusal::Unauthenticated("this call needs a certificate of this swarm".into()).into()
        })
}

/// The answer, if it comes in time.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Refusal>>,
) -> Result<Response<T>, Status> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(Response::new(answer)),
        Ok(Err(refusal)) => Err(refusal.into()),
        Err(_) => Err(Refusal::TimedOut(format!("no answer within {limit:?}")).into()),
    }
}

type Outgoing<T> = futures_util::stream::BoxStream<'static, Result<T, Status>>;

fn outgoing<T: 'static>(messages: Messages<T>) -> Outgoing<T> {
    messages
        .map(|message| message.map_err(Status::from))
        .boxed()
}
