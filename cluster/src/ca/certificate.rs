//! What a node's certificate says.

use agent_api::swarm::NodeRole;
use cluster_api::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::CaError;

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSubject {
    /// CN.
    pub node_id: String,
    /// OU: `swarm-manager` or `swarm-worker`.
    pub role: NodeRole,
    /// O.
    pub cluster_id: String,
}

/// The organisational unit that stands for a role. It is also a DNS name of the certificate, so that a client can ask
/// for "any manager" (as in SwarmKit).
pub(crate) const fn role_unit(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => "swarm-manager",
        NodeRole::Worker => "swarm-worker",
    }
}

/// A certificate and what was read from it. That it is genuine is for whoever holds the root to say
/// ([`super::Identity::check`], or TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    pub der: CertificateDer<'static>,
    pub subject: NodeSubject,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The public key, as in the certificate (SubjectPublicKeyInfo, DER).
    pub public_key: Vec<u8>,
}

impl NodeCertificate {
    /// Reads a certificate. Refuses one that does not name exactly one node, role and cluster.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, CaError> {
        const WHAT: &str = "node certificate";
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| CaError::malformed(WHAT, error))?;
        if !rest.is_empty() {
            return Err(CaError::malformed(WHAT, "bytes follow it"));
        }
        let name = certificate.subject();
        let role = match only(name.iter_organizational_unit(), "OU")? {
            "swarm-manager" => NodeRole::Manager,
            "swarm-worker" => NodeRole::Worker,
            other => {
                let reason = format!("its OU is {other:?}, not swarm-manager or swarm-worker");
                return Err(CaError::malformed(WHAT, reason));
            }
        };
        let subject = NodeSubject {
            node_id: word("node id", only(name.iter_common_name(), "CN")?)?,
            role,
            cluster_id: word("cluster id", only(name.iter_organization(), "O")?)?,
        };
        let validity = certificate.validity();
        Ok(Self {
            der: der.clone().into_owned(),
            subject,
            not_before: from_seconds(validity.not_before.timestamp()),
            not_after: from_seconds(validity.not_after.timestamp()),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(pem)
            .map_err(|error| CaError::malformed("node certificate", error))?;
        Self::from_der(&der)
    }

    /// As PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }
}

/// The text of the only attribute of its kind.
fn only<'a>(
    mut attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
    what: &str,
) -> Result<&'a str, CaError> {
    let malformed = |reason: String| CaError::malformed("node certificate", reason);
    let attribute = attributes
        .next()
        .ok_or_else(|| malformed(format!("it has no {what}")))?;
    if attributes.next().is_some() {
        return Err(malformed(format!("it has more than one {what}")));
    }
    attribute
        .as_str()
        .map_err(|_| malformed(format!("its {what} is not text")))
}

/// Ids end up in file names, DNS names and logs: nothing but letters and digits.
pub(super) fn word(what: &'static str, value: &str) -> Result<String, CaError> {
    let fits = (1..=64).contains(&value.len())
        && value
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !fits {
        let value = value.chars().take(80).collect();
        return Err(CaError::Subject { what, value });
    }
    Ok(value.to_owned())
}

pub(super) const fn from_seconds(seconds: i64) -> Timestamp {
    Timestamp(seconds.saturating_mul(1_000_000_000))
}

/// RFC 7468, lines of 64 characters.
pub(super) fn pem(label: &str, contents: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(contents);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base 64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
