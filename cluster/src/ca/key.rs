//! A node's key, and the request for a certificate made with it. Requests come from whoever found the port: of
//! everything in one, only the public key is used.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SubjectPublicKeyInfo};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::CaError;
use super::certificate::pem;
use super::token::id_of_digest;

/// Longest request that is looked at. One with a P-256 key and nothing else has about 250 bytes.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// ECDSA P-256.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new one, from the operating system's random source.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| CaError::crypto("a node key", error))
    }

    /// Reads PKCS#8.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let der = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| CaError::malformed("node key", error))
    }

    /// A request for a certificate (PKCS#10, DER). It names nobody: who the node is, its manager says.
    pub fn request(&self) -> Result<Vec<u8>, CaError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .serialize_request(&self.0)
            .map(|request| request.der().to_vec())
            .map_err(|error| CaError::crypto("a certificate request", error))
    }

    /// Whether a certificate was made for this key.
    pub(super) fn fits(&self, public_key: &[u8]) -> bool {
        // The certificate's key is wrapped in its algorithm; the bits are the last of it.
        SubjectPublicKeyInfo::from_der(public_key)
            .is_ok_and(|key| rcgen::PublicKeyData::der_bytes(&key) == self.0.public_key_raw())
    }

    pub(super) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", self.0.serialized_der()))
    }

    /// As TLS takes it.
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialized_der().to_vec()))
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

/// A request that was checked: signed with the key it carries, which is of the only kind accepted.
pub struct CertificateRequest {
    pub(super) key: SubjectPublicKeyInfo,
    digest: [u8; 32],
}

impl CertificateRequest {
    /// Reads a request. Names, extensions and attributes in it are not looked at.
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(CaError::Request(format!(
                "it has {} bytes, at most {MAX_REQUEST_BYTES} are allowed",
                der.len()
            )));
        }
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| CaError::Request(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CaError::Request("bytes follow it".into()));
        }
        let public_key = request.certification_request_info.subject_pki.raw;
        let key = SubjectPublicKeyInfo::from_der(public_key)
            .ok()
            .filter(|key| rcgen::PublicKeyData::algorithm(key) == &PKCS_ECDSA_P256_SHA256)
            .ok_or_else(|| CaError::Request("its key is not an ECDSA P-256 key".into()))?;
        request
            .verify_signature()
            .map_err(|_| CaError::Request("it is not signed with the key it carries".into()))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, public_key);
        let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { key, digest })
    }

    /// The id of a node that joins with this key. A joiner keeps its key until it has a certificate, so that asking
    /// again after a lost answer makes no second node.
    #[must_use]
    pub fn node_id(&self) -> String {
        id_of_digest(&self.digest)
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateRequest({})", self.node_id())
    }
}
