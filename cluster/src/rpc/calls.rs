//! The calls between nodes that ask once and get one answer, and the streams that are no session of an agent.

use cluster_api::proto::{self, ManagerAddress};
use futures_util::{Stream, StreamExt as _};

use super::backend::Messages;
use super::peers::{Peers, ask, request};
use super::tls::Expect;
use super::{Refusal, limits};

use proto::ca_client::CaClient;
use proto::control_client::ControlClient;
use proto::images_client::ImagesClient;
use proto::logs_client::LogsClient;
use proto::membership_client::MembershipClient;

/// The manager at an address; any one when its id is not known.
impl From<&ManagerAddress> for Expect {
    fn from(manager: &ManagerAddress) -> Self {
        if manager.node_id.is_empty() {
            Self::Manager
        } else {
            Self::ManagerNode(manager.node_id.clone())
        }
    }
}

impl Peers {
    fn manager(&self, manager: &ManagerAddress) -> tonic::transport::Channel {
        self.channel(&manager.address, Expect::from(manager))
    }

    /// A control request for the leader. After [`Refusal::TimedOut`] or a lost connection it may or may not have been
    /// carried out.
    pub async fn forward(
        &self,
        leader: &ManagerAddress,
        message: proto::ForwardRequest,
    ) -> Result<proto::ForwardResponse, Refusal> {
        let mut client = ControlClient::new(self.manager(leader))
            .max_decoding_message_size(limits::ASSIGNMENTS_BYTES);
        ask(
            limits::COMMIT,
            client.forward(request(message, limits::COMMIT)),
        )
        .await
    }

    /// Makes this manager a member of Raft.
    pub async fn join(
        &self,
        leader: &ManagerAddress,
        message: proto::JoinRequest,
    ) -> Result<proto::JoinResponse, Refusal> {
        let mut client = MembershipClient::new(self.manager(leader));
        ask(
            limits::COMMIT,
            client.join(request(message, limits::COMMIT)),
        )
        .await
    }

    /// Removes this manager from Raft.
    pub async fn leave(&self, leader: &ManagerAddress) -> Result<(), Refusal> {
        let mut client = MembershipClient::new(self.manager(leader));
        let message = proto::LeaveRequest {};
        ask(
            limits::COMMIT,
            client.leave(request(message, limits::COMMIT)),
        )
        .await?;
        Ok(())
    }

    /// Whether a node with a manager's certificate answers at an address, and what it says of itself.
    pub async fn health(&self, manager: &ManagerAddress) -> Result<proto::HealthResponse, Refusal> {
        let mut client = MembershipClient::new(self.manager(manager));
        let message = proto::HealthRequest {};
        ask(limits::CALL, client.health(request(message, limits::CALL))).await
    }

    /// Asks a manager for a new certificate for this node.
    pub async fn renew_certificate(
        &self,
        manager: &ManagerAddress,
        csr: Vec<u8>,
    ) -> Result<proto::IssueCertificateResponse, Refusal> {
        let mut client = CaClient::new(self.manager(manager));
        let message = proto::RenewCertificateRequest { csr: csr.into() };
        ask(
            limits::COMMIT,
            client.renew_certificate(request(message, limits::COMMIT)),
        )
        .await
    }

    /// What a node has under an image's name.
    pub async fn resolve_image(
        &self,
        node: &ManagerAddress,
        message: proto::ResolveImageRequest,
    ) -> Result<Option<proto::BlobDescriptor>, Refusal> {
        let mut client = ImagesClient::new(self.node(node));
        let answer = ask(limits::CALL, client.resolve(request(message, limits::CALL)));
        Ok(answer.await?.manifest)
    }

    /// Which of these blobs a node has.
    pub async fn available_blobs(
        &self,
        node: &ManagerAddress,
        digests: Vec<String>,
    ) -> Result<Vec<proto::BlobDescriptor>, Refusal> {
        let mut client = ImagesClient::new(self.node(node));
        let mut blobs = Vec::new();
        for digests in digests.chunks(limits::BLOBS_PER_QUESTION) {
            let message = proto::AvailableBlobsRequest {
                digests: digests.to_vec(),
            };
            let answer = ask(
                limits::CALL,
                client.available(request(message, limits::CALL)),
            );
            blobs.extend(answer.await?.blobs);
        }
        Ok(blobs)
    }

    /// A blob's bytes from `offset` on. The receiver verifies the digest. Each piece must come in time.
    pub async fn fetch_blob(
        &self,
        node: &ManagerAddress,
        digest: String,
        offset: u64,
    ) -> Result<Messages<proto::BlobPiece>, Refusal> {
        let mut client = ImagesClient::new(self.node(node));
        let message = proto::FetchBlobRequest { digest, offset };
        let pieces = ask(limits::CALL, client.fetch(message)).await?;
        Ok(
            futures_util::stream::try_unfold(
                pieces,
                async |mut pieces| match tokio::time::timeout(limits::PIECE, pieces.message()).await
                {
                    Ok(piece) => Ok(piece?.map(|piece| (piece, pieces))),
                    Err(_) => Err(Refusal::TimedOut(format!(
                        "the next piece did not come within {:?}",
                        limits::PIECE
                    ))),
                },
            )
            .boxed(),
        )
    }

    /// What tasks print, gathered by the leader.
    pub async fn subscribe_logs(
        &self,
        leader: &ManagerAddress,
        message: proto::SubscribeLogsRequest,
    ) -> Result<Messages<proto::LogBatch>, Refusal> {
        let mut client = LogsClient::new(self.manager(leader));
        let batches = ask(limits::CALL, client.subscribe(message)).await?;
        Ok(batches.map(|batch| batch.map_err(Refusal::from)).boxed())
    }

    /// Sends what this node's tasks printed. Ends when `batches` does, or when nobody reads any more.
    pub async fn publish_logs(
        &self,
        leader: &ManagerAddress,
        batches: impl Stream<Item = proto::PublishLogsRequest> + Send + 'static,
    ) -> Result<(), Refusal> {
        let mut client = LogsClient::new(self.manager(leader));
        client.publish(batches).await?;
        Ok(())
    }

    fn node(&self, node: &ManagerAddress) -> tonic::transport::Channel {
        self.channel(&node.address, Expect::Node(node.node_id.clone()))
    }
}
