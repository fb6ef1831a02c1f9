//! The root of trust: the part everybody has ([`TrustRoot`]) and the part that signs ([`RootCa`], managers only).

use std::fmt;
use std::time::Duration;

use cluster_api::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use ring::rand::SecureRandom as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::certificate::{pem, role_unit, word};
use super::{CaError, CertificateRequest, NodeCertificate, NodeSubject};

/// Life of a node's certificate unless the cluster's spec says otherwise.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shortest life that may be asked for.
pub const MIN_VALIDITY: Duration = Duration::from_secs(3600);
/// Certificates are valid from this long before they are made, for nodes whose clocks are behind.
pub const BACKDATE: Duration = Duration::from_secs(3600);
/// Life of the root: 20 years of 365 days (`ca/certificates.go`, `RootCAExpiration`).
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const ROOT_NAME: &str = "swarm-ca";

/// SHA-256 of the root certificate (DER).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RootDigest(pub [u8; 32]);

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The root certificate, as every node has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRoot(CertificateDer<'static>);

impl TrustRoot {
    /// Reads the only certificate of a PEM text. Refuses anything that cannot sign others.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CaError> {
        const WHAT: &str = "root certificate";
        let mut certificates = CertificateDer::pem_slice_iter(pem);
        let der = match (certificates.next(), certificates.next()) {
            (Some(Ok(der)), None) => der,
            (Some(Ok(_)), Some(_)) => {
                return Err(CaError::malformed(WHAT, "there is more than one"));
            }
            (Some(Err(error)), _) => return Err(CaError::malformed(WHAT, error)),
            (None, _) => return Err(CaError::malformed(WHAT, "there is none")),
        };
        {
            use x509_parser::prelude::{FromDer as _, X509Certificate};
            let (rest, certificate) =
                X509Certificate::from_der(&der).map_err(|error| CaError::malformed(WHAT, error))?;
            if !rest.is_empty() || !certificate.is_ca() {
                return Err(CaError::malformed(WHAT, "it is not one of an authority"));
            }
        }
        Ok(Self(der))
    }

    /// What join tokens hold.
    #[must_use]
    pub fn digest(&self) -> RootDigest {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        RootDigest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Whether this is the root a token names; `address` is where it was got from.
    pub fn check(&self, want: RootDigest, address: &str) -> Result<(), CaError> {
        let have = self.digest();
        if have == want {
            return Ok(());
        }
        Err(CaError::WrongRoot {
            address: address.to_owned(),
            have: have.to_string(),
            want: want.to_string(),
        })
    }

    /// As PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.0)
    }

    pub(crate) const fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }
}

/// The root with its key.
pub struct RootCa {
    trust: TrustRoot,
    key: KeyPair,
}

impl RootCa {
    /// A new root.
    pub fn create(now: Timestamp) -> Result<Self, CaError> {
        const WHAT: &str = "a root certificate";
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| CaError::crypto(WHAT, error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, ROOT_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial()?);
        set_life(&mut params, now, ROOT_VALIDITY);
        let certificate = params
            .self_signed(&key)
            .map_err(|error| CaError::crypto(WHAT, error))?;
        Ok(Self {
            trust: TrustRoot(certificate.der().clone()),
            key,
        })
    }

    /// Reads what the store holds. Refuses a key that does not belong to the certificate.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let trust = TrustRoot::from_pem(certificate.as_bytes())?;
        let key = KeyPair::from_pem(key).map_err(|error| CaError::malformed("root key", error))?;
        let (_, parsed) = X509Certificate::from_der(trust.der())
            .map_err(|error| CaError::malformed("root certificate", error))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let reason = "it does not belong to the root certificate";
            return Err(CaError::malformed("root key", reason));
        }
        Ok(Self { trust, key })
    }

    /// The part for everybody.
    #[must_use]
    pub const fn trust(&self) -> &TrustRoot {
        &self.trust
    }

    /// The key as PEM, for the store.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// Signs a certificate: the request's key, the given subject, and nothing else of the request.
    /// Valid from [`BACKDATE`] before `now` to `validity` after it.
    pub fn issue(
        &self,
        request: &CertificateRequest,
        subject: &NodeSubject,
        validity: Duration,
        now: Timestamp,
    ) -> Result<NodeCertificate, CaError> {
        const WHAT: &str = "a node certificate";
        check_validity(validity)?;
        let node_id = word("node id", &subject.node_id)?;
        let cluster_id = word("cluster id", &subject.cluster_id)?;
        let unit = role_unit(subject.role);

        let mut params = CertificateParams::new(vec![node_id.clone(), unit.to_owned()])
            .map_err(|error| CaError::crypto(WHAT, error))?;
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, cluster_id);
        name.push(DnType::OrganizationalUnitName, unit);
        name.push(DnType::CommonName, node_id);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        set_life(&mut params, now, validity);

        let issuer = Issuer::from_ca_cert_der(self.trust.der(), &self.key)
            .map_err(|error| CaError::crypto(WHAT, error))?;
        let certificate = params
            .signed_by(&request.key, &issuer)
            .map_err(|error| CaError::crypto(WHAT, error))?;
        NodeCertificate::from_der(certificate.der())
    }
}

impl fmt::Debug for RootCa {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootCa({})", self.trust.digest())
    }
}

/// Whether certificates may live that long; for `--cert-expiry` too.
pub fn check_validity(validity: Duration) -> Result<(), CaError> {
    if validity < MIN_VALIDITY {
        return Err(CaError::Validity(validity));
    }
    Ok(())
}

/// 128 random bits, positive.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CaError::crypto("a serial number", "no random bytes"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Whole seconds, as certificates count.
fn set_life(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.0.max(0).unsigned_abs() / 1_000_000_000);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + validity;
}
