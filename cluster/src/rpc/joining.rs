//! From a token to a certificate: what a host does before it is a node.

use cluster_api::proto;
use proto::ca_client::CaClient;

use super::peers::{ask, request, stranger_channel};
use super::tls::Clock;
use super::{Refusal, TlsError, limits};
use crate::ca::{CaError, Identity, JoinToken, NodeCertificate, NodeKey, RaftKey, TrustRoot};

/// Why a host could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("cannot get the root certificate from {address}: {source}")]
    Root { address: String, source: Refusal },
    #[error("manager {address} does not let this node in: {source}")]
    Refused { address: String, source: Refusal },
    #[error("manager {address} sent something that is of no use: {source}")]
    Answer { address: String, source: CaError },
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The root certificate of the manager at `address`, if it is the one the token names.
pub async fn download_root(
    address: &str,
    token: &JoinToken,
    clock: &Clock,
) -> Result<TrustRoot, JoinError> {
    let channel = stranger_channel(address, None, clock)?;
    let mut client = CaClient::new(channel).max_decoding_message_size(limits::ANONYMOUS_BYTES);
    let message = proto::GetRootCertificateRequest {};
    let answer = ask(
        limits::CALL,
        client.get_root_certificate(request(message, limits::CALL)),
    );
    let answer = answer.await.map_err(|source| JoinError::Root {
        address: address.to_owned(),
        source,
    })?;
    let root = TrustRoot::from_pem(&answer.certificate)?;
    root.check(token.root, address)?;
    Ok(root)
}

/// Joins: a certificate for `key`, and the role the token gives. The answer is checked; nothing is written.
pub async fn request_identity(
    address: &str,
    root: TrustRoot,
    token: &JoinToken,
    key: NodeKey,
    availability: &str,
    clock: &Clock,
) -> Result<Identity, JoinError> {
    let channel = stranger_channel(address, Some(&root), clock)?;
    let mut client = CaClient::new(channel).max_decoding_message_size(limits::ANONYMOUS_BYTES);
    let message = proto::IssueCertificateRequest {
        csr: key.request()?.into(),
        token: token.to_string(),
        availability: availability.to_owned(),
    };
    let answer = ask(
        limits::COMMIT,
        client.issue_certificate(request(message, limits::COMMIT)),
    );
    let answer = answer.await.map_err(|source| JoinError::Refused {
        address: address.to_owned(),
        source,
    })?;
    let identity = NodeCertificate::from_pem(&answer.certificate).and_then(|certificate| {
        let identity = Identity {
            root,
            certificate,
            key,
            raft_key: RaftKey::generate()?,
        };
        identity.check()?;
        Ok(identity)
    });
    identity.map_err(|source| JoinError::Answer {
        address: address.to_owned(),
        source,
    })
}
