//! The swarm itself, and the managers' part of `/info`.

use agent_api::swarm::{ClusterInfo, Info, JoinTokens, Swarm, TlsInfo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_api::Cluster;
use x509_parser::pem::parse_x509_pem;

use super::super::Refusal;
use super::Shown;
use crate::ca::{JoinToken, TokenError, TrustRoot};
use crate::store::Store;

/// `GET /swarm`.
///
/// # Errors
///
/// There is no cluster yet, or its root cannot be read.
pub fn swarm(store: &Store) -> Result<Swarm, Refusal> {
    let cluster = store
        .cluster()
        .ok_or_else(|| Refusal::Unavailable("This node is not part of a swarm".to_owned()))?;
    let root = TrustRoot::from_pem(cluster.root_ca.certificate.as_bytes()).map_err(unreadable)?;
    let token = |secret: &str| -> Result<String, Refusal> {
        let secret = secret.parse().map_err(|error: TokenError| {
            Refusal::Unclassified(format!("the stored secret of a join token: {error}"))
        })?;
        let root = root.digest();
        Ok(JoinToken { root, secret }.to_string())
    };
    let tokens = &cluster.root_ca.tokens;
    Ok(Swarm {
        cluster: cluster_info(cluster, tls_info(&cluster.root_ca.certificate)?),
        join_tokens: JoinTokens {
            worker: token(&tokens.worker)?,
            manager: token(&tokens.manager)?,
        },
    })
}

/// What `TLSInfo` tells of a root certificate in PEM, here and in the descriptions of nodes.
///
/// # Errors
///
/// It is no certificate.
pub fn tls_info(root: &str) -> Result<TlsInfo, Refusal> {
    let (_, pem) = parse_x509_pem(root.as_bytes()).map_err(unreadable)?;
    let certificate = pem.parse_x509().map_err(unreadable)?;
    Ok(TlsInfo {
        trust_root: root.to_owned(),
        cert_issuer_subject: STANDARD.encode(certificate.subject().as_raw()),
        cert_issuer_public_key: STANDARD.encode(certificate.public_key().raw),
    })
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unclassified(format!("error loading cluster rootCA: {error}"))
}

fn cluster_info(cluster: &Cluster, tls_info: TlsInfo) -> ClusterInfo {
    let meta = Shown::from(cluster.meta);
    ClusterInfo {
        id: cluster.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: cluster.spec.clone(),
        tls_info,
        root_rotation_in_progress: false,
        default_addr_pool: cluster
            .address_pools
            .iter()
            .map(ToString::to_string)
            .collect(),
        subnet_size: cluster.subnet_size.into(),
        data_path_port: cluster.data_path_port.into(),
    }
}

/// Adds to a node's own knowledge what managers know.
pub fn info(store: &Store, info: &mut Info) {
    match swarm(store) {
        Ok(swarm) => info.cluster = Some(swarm.cluster),
        Err(refusal) => info.error = refusal.to_string(),
    }
    info.nodes = store.nodes().count() as u64;
    info.managers = store.nodes().filter(|node| node.member.is_some()).count() as u64;
    if info.managers == 2 {
        info.warnings.push(TWO_MANAGERS.to_owned());
    }
}

const TWO_MANAGERS: &str =
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.";
