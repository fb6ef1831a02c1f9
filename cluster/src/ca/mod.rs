//! Identity of a swarm's nodes: the root that signs, the certificates they carry, and the tokens that let them in.
//!
//! ```text
//! token  SWMTKN-1-<hash of the root>-<secret>
//!          │ joiner: downloads the root, compares the hash      (TrustRoot::check)
//!          │ joiner: sends a CSR and the token over that root   (NodeKey::request)
//!          ▼
//! manager: secret says the role; only the CSR's key is used     (RootCa::issue)
//!          ▼
//! certificate  CN = node id · OU = role · O = cluster id        (NodeCertificate)
//!          ▼ at 50–80 % of its life
//! new key, new CSR, over mutual TLS                             (renewal::renew_at)
//! ```
//!
//! Nothing here touches the network, and nothing here asks a clock: the time is an argument. Behaviour is SwarmKit's
//! (`ca/certificates.go`, `ca/config.go`), constants included. One root, kept in the store: rotation, external
//! authorities and a locked key are not done here.

mod admission;
mod certificate;
mod disk;
mod key;
mod renewal;
mod root;
#[cfg(test)]
mod tests;
mod token;

pub use admission::{Admission, AdmissionError, admit, certify, join_token};
pub(crate) use certificate::role_unit;
pub use certificate::{NodeCertificate, NodeSubject};
pub use disk::{DiskError, Identity, IdentityStore, RaftKey};
pub use key::{CertificateRequest, MAX_REQUEST_BYTES, NodeKey};
pub use renewal::renew_at;
pub use root::{
    BACKDATE, DEFAULT_VALIDITY, MIN_VALIDITY, RootCa, RootDigest, TrustRoot, check_validity,
};
pub use token::{JoinToken, TokenError, TokenSecret, role_of_secret};

/// Why an identity could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Something from outside is not what it should be.
    #[error("{what} cannot be read: {reason}")]
    Malformed { what: &'static str, reason: String },
    /// A certificate request that is not signed with the key it carries, has another kind of key, or is too long.
    #[error("certificate request refused: {0}")]
    Request(String),
    /// A name that cannot stand in a certificate.
    #[error(
        "{what} {value:?} cannot stand in a certificate: 1 to 64 characters of a-z and 0-9 are allowed"
    )]
    Subject { what: &'static str, value: String },
    /// The life of a certificate is too short.
    #[error("certificates of {0:?} are too short-lived: at least 1h is needed")]
    Validity(std::time::Duration),
    /// The root that was downloaded is not the one the token names.
    #[error(
        "the root certificate of {address} is not the one the token names (hash {have}, token says {want}): \
         use a token of this cluster, and make sure that nobody stands between"
    )]
    WrongRoot {
        address: String,
        have: String,
        want: String,
    },
    /// The certificate does not belong to the key, or not to the root.
    #[error("certificate of node {node_id} does not fit: {reason}")]
    Mismatch { node_id: String, reason: String },
    /// Signing failed.
    #[error("cannot make {what}: {reason}")]
    Crypto { what: &'static str, reason: String },
}

impl CaError {
    fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed {
            what,
            reason: reason.to_string(),
        }
    }

    fn crypto(what: &'static str, reason: impl ToString) -> Self {
        Self::Crypto {
            what,
            reason: reason.to_string(),
        }
    }
}
