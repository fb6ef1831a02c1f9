//! Whom a cluster lets in, and the certificates it gives, from what its store holds. The leader asks here: a follower's
//! store may not know yet that a token was rotated.

use std::time::Duration;

use agent_api::swarm::{NodeAvailability, NodeRole};
use cluster_api::{Cluster, Timestamp};

use super::{
    CaError, CertificateRequest, DEFAULT_VALIDITY, JoinToken, NodeCertificate, NodeSubject, RootCa,
    TokenError, TrustRoot, role_of_secret,
};

/// Why a host is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("the join token cannot be read: {0}")]
    Token(#[from] TokenError),
    #[error("the join token is of another swarm, or from before this swarm was made anew")]
    OtherCluster,
    #[error(
        "the join token is not valid (any more): get the present one with `swarm join-token` on a manager"
    )]
    Secret,
    #[error("availability {0:?} is unknown: it is active, pause or drain")]
    Availability(String),
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// A host that may become a node.
#[derive(Debug)]
pub struct Admission {
    /// The same for the same key: a host that asks again is the same node.
    pub node_id: String,
    pub role: NodeRole,
    pub availability: NodeAvailability,
    /// For [`certify`].
    pub request: CertificateRequest,
}

/// Reads what a stranger sent: a request (DER), a token, and the availability it wishes for.
pub fn admit(
    cluster: &Cluster,
    csr: &[u8],
    token: &str,
    availability: &str,
) -> Result<Admission, AdmissionError> {
    let token: JoinToken = token.parse()?;
    let root = TrustRoot::from_pem(cluster.root_ca.certificate.as_bytes())?;
    if token.root != root.digest() {
        return Err(AdmissionError::OtherCluster);
    }
    let role =
        role_of_secret(&cluster.root_ca.tokens, &token.secret).ok_or(AdmissionError::Secret)?;
    let availability = match availability {
        "" | "active" => NodeAvailability::Active,
        "pause" => NodeAvailability::Pause,
        "drain" => NodeAvailability::Drain,
        other => {
            let other = other.chars().take(20).collect();
            return Err(AdmissionError::Availability(other));
        }
    };
    let request = CertificateRequest::from_der(csr)?;
    Ok(Admission {
        node_id: request.node_id(),
        role,
        availability,
        request,
    })
}

/// A certificate for a node of the cluster, as long-lived as the cluster's settings say.
pub fn certify(
    cluster: &Cluster,
    request: &CertificateRequest,
    node_id: &str,
    role: NodeRole,
    now: Timestamp,
) -> Result<NodeCertificate, CaError> {
    let root = RootCa::from_pem(&cluster.root_ca.certificate, &cluster.root_ca.key)?;
    let validity = match cluster.spec.ca_config.node_cert_expiry {
        0 => DEFAULT_VALIDITY,
        nanoseconds => Duration::from_nanos(nanoseconds),
    };
    let subject = NodeSubject {
        node_id: node_id.to_owned(),
        role,
        cluster_id: cluster.id.clone(),
    };
    root.issue(request, &subject, validity, now)
}

/// The token that lets a host in with a role.
pub fn join_token(cluster: &Cluster, role: NodeRole) -> Result<JoinToken, AdmissionError> {
    let secrets = &cluster.root_ca.tokens;
    let secret = match role {
        NodeRole::Manager => &secrets.manager,
        NodeRole::Worker => &secrets.worker,
    };
    Ok(JoinToken {
        root: TrustRoot::from_pem(cluster.root_ca.certificate.as_bytes())?.digest(),
        secret: secret.parse()?,
    })
}
