//! Whom to trust: the system's certificate authorities and those of `certs.d/<registry>`; nobody is asked for a
//! certificate that can be verified where the configuration calls a registry insecure.
//! Source of the layout of `certs.d`: moby `daemon/pkg/registry/registry.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::endpoint::Endpoint;
use super::error::RegistryError;

/// The TLS configuration for one endpoint.
pub(super) fn client_config(
    endpoint: &Endpoint,
    directories: &[PathBuf],
) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let files = Files::of(endpoint, directories)?;
    let builder = if endpoint.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let own = files.authorities.clone();
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            tracing::debug!(%error, "a certificate authority of the system is not usable");
        }
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(files.authorities);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| RegistryError::Certificate {
                registry: endpoint.authority.clone(),
                path: directories.first().cloned().unwrap_or_default(),
                reason: error.to_string(),
            })?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { verifier, own }))
    };
    let config = match files.client {
        None => builder.with_no_client_auth(),
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| broken(endpoint, &path, error))?,
    };
    Ok(config)
}

/// Names, times and lengths of what `certs.d` holds for one registry: a connection made with other files is not used.
pub(super) type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

pub(super) fn stamp(endpoint: &Endpoint, directories: &[PathBuf]) -> Stamp {
    let entries = directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(directory.join(&endpoint.authority)).ok());
    let mut stamp: Stamp = entries
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let about = std::fs::metadata(entry.path()).ok()?;
            Some((entry.path(), about.modified().ok(), about.len()))
        })
        .collect();
    stamp.sort();
    stamp
}

/// What `certs.d` holds for one registry.
#[derive(Default)]
struct Files {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(
        PathBuf,
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
    )>,
}

impl Files {
    fn of(endpoint: &Endpoint, directories: &[PathBuf]) -> Result<Self, RegistryError> {
        let mut files = Self::default();
        for directory in directories {
            let directory = directory.join(&endpoint.authority);
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => files.authorities.extend(certificates(endpoint, &path)?),
                    Some("cert") => {
                        let key = path.with_extension("key");
                        let private = PrivateKeyDer::from_pem_file(&key)
                            .map_err(|error| broken(endpoint, &key, error))?;
                        files.client =
                            Some((path.clone(), certificates(endpoint, &path)?, private));
                    }
                    _ => {}
                }
            }
        }
        Ok(files)
    }
}

fn certificates(
    endpoint: &Endpoint,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| broken(endpoint, path, error))
}

fn broken(endpoint: &Endpoint, path: &Path, error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Certificate {
        registry: endpoint.authority.clone(),
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The usual verification; but a certificate that lies in `certs.d` itself is believed although it is an authority's, as
/// `openssl req -x509` makes them and Docker takes them. Its names and dates must be right all the same.
#[derive(Debug)]
struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self
            .verifier
            .verify_server_cert(leaf, intermediates, name, stapled, now);
        if usual.is_ok() || !self.own.iter().any(|own| own == leaf) {
            return usual;
        }
        let bad = |error| Err(rustls::Error::InvalidCertificate(error));
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
            return bad(CertificateError::BadEncoding);
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if now < validity.not_before.timestamp() {
            return bad(CertificateError::NotValidYet);
        }
        if now > validity.not_after.timestamp() {
            return bad(CertificateError::Expired);
        }
        names_match(&parsed, name)
            .then(ServerCertVerified::assertion)
            .ok_or(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName,
            ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Whether one of a certificate's alternative names is the one asked for.
fn names_match(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names
        .value
        .general_names
        .iter()
        .any(|own| match (own, name) {
            (GeneralName::IPAddress(bytes), ServerName::IpAddress(address)) => {
                match std::net::IpAddr::from(*address) {
                    std::net::IpAddr::V4(address) => *bytes == address.octets(),
                    std::net::IpAddr::V6(address) => *bytes == address.octets(),
                }
            }
            (GeneralName::DNSName(own), ServerName::DnsName(name)) => {
                let (own, name) = (own.to_ascii_lowercase(), name.as_ref().to_ascii_lowercase());
                match own.strip_prefix("*.") {
                    // One label, as RFC 6125 has it.
                    Some(rest) => name.split_once('.').is_some_and(|(_, tail)| tail == rest),
                    None => own == name,
                }
            }
            _ => false,
        })
}

/// Accepts every certificate whose owner holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
