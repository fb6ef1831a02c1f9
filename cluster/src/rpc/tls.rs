//! TLS of a node: version 1.3 only, both sides with a certificate of the same root and the same cluster.
//!
//! Sessions are never resumed and no early data is taken: every connection checks certificates anew, at the time of
//! the given clock.

use std::fmt;
use std::sync::Arc;

use agent_api::swarm::NodeRole;
use arc_swap::ArcSwap;
use cluster_api::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;

use crate::ca::{CaError, Identity, NodeCertificate, TrustRoot, role_unit};

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const HTTP2: &[u8] = b"h2";

/// The clock certificates are judged by.
pub type Clock = Arc<dyn TimeProvider>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// Why TLS cannot be set up with an identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Identity(#[from] CaError),
    #[error("cannot set up TLS for the cluster: {0}")]
    Setup(String),
}

impl TlsError {
    fn setup(error: impl ToString) -> Self {
        Self::Setup(error.to_string())
    }
}

/// Whom a client wants at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expect {
    /// Any manager.
    Manager,
    /// This manager.
    ManagerNode(String),
    /// This node, whatever its role.
    Node(String),
}

impl Expect {
    /// A name its certificate must have.
    fn name(&self) -> Result<ServerName<'static>, rustls::Error> {
        let name = match self {
            Self::Manager => role_unit(NodeRole::Manager),
            Self::ManagerNode(id) | Self::Node(id) => id,
        };
        ServerName::try_from(name.to_owned())
            .map_err(|_| refuse(format!("{name:?} cannot be the id of a node")))
    }

    fn accepts(&self, certificate: &NodeCertificate) -> bool {
        let subject = &certificate.subject;
        match self {
            Self::Manager => subject.role == NodeRole::Manager,
            Self::ManagerNode(id) => subject.role == NodeRole::Manager && subject.node_id == *id,
            Self::Node(id) => subject.node_id == *id,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager => f.write_str("a manager"),
            Self::ManagerNode(id) => write!(f, "manager {id}"),
            Self::Node(id) => write!(f, "node {id}"),
        }
    }
}

/// The identity of this node as TLS uses it. [`Self::replace`] gives new connections another one.
pub struct NodeTls {
    current: ArcSwap<Current>,
    generation: watch::Sender<u64>,
    clock: Clock,
}

struct Current {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

impl NodeTls {
    /// Refuses an identity whose parts do not fit.
    pub fn new(identity: Identity, clock: Clock) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(Current::new(identity, &clock)?),
            generation: watch::Sender::new(0),
            clock,
        }))
    }

    /// From now on new connections, in and out, use this identity.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        self.current
            .store(Arc::new(Current::new(identity, &self.clock)?));
        self.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// The identity in use.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.current.load().identity.clone()
    }

    /// The time by the clock certificates are judged by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let seconds = self.clock.current_time().map_or(0, |time| time.as_secs());
        Timestamp(i64::try_from(seconds).map_or(i64::MAX, |s| s.saturating_mul(1_000_000_000)))
    }

    /// Changes whenever the identity does.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// For one connection to a peer, and the name to connect by.
    pub(super) fn client(
        &self,
        expect: &Expect,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
        let current = self.current.load();
        let cluster_id = current.identity.certificate.subject.cluster_id.clone();
        let verifier = PeerVerifier {
            inner: server_verifier(&current.roots)?,
            expect: expect.clone(),
            cluster_id: Some(cluster_id),
        };
        let config = client_builder(&self.clock)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(
                vec![current.identity.certificate.der.clone()],
                current.identity.key.private_key(),
            )
            .map_err(TlsError::setup)?;
        Ok((finish(config), expect.name().map_err(TlsError::setup)?))
    }
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeTls({:?})", self.identity().certificate.subject)
    }
}

impl Current {
    fn new(identity: Identity, clock: &Clock) -> Result<Self, TlsError> {
        identity.check()?;
        let roots = roots(&identity.root)?;
        let inner = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::setup)?;
        let verifier = NodeVerifier {
            inner,
            cluster_id: identity.certificate.subject.cluster_id.clone(),
        };
        let mut server = ServerConfig::builder_with_details(provider(), clock.clone())
            .with_protocol_versions(VERSIONS)
            .map_err(TlsError::setup)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(
                vec![identity.certificate.der.clone()],
                identity.key.private_key(),
            )
            .map_err(TlsError::setup)?;
        server.alpn_protocols = vec![HTTP2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Self {
            identity: Arc::new(identity),
            server: Arc::new(server),
            roots,
        })
    }
}

/// For someone who has a token and nothing else. With a root, the other end must be a manager under it; without, it may
/// be anyone, and what it says must be checked by hash.
pub(super) fn stranger(
    root: Option<&TrustRoot>,
    clock: &Clock,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match root {
        Some(root) => Arc::new(PeerVerifier {
            inner: server_verifier(&roots(root)?)?,
            expect: Expect::Manager,
            cluster_id: None,
        }),
        None => Arc::new(AnyServer(provider())),
    };
    let config = client_builder(clock)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = Expect::Manager.name().map_err(TlsError::setup)?;
    Ok((finish(config), name))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(root: &TrustRoot) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).map_err(TlsError::setup)?;
    Ok(Arc::new(roots))
}

fn server_verifier(roots: &Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(TlsError::setup)
}

fn client_builder(
    clock: &Clock,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_details(provider(), clock.clone())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::setup)
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    // The name is one of roles and ids: nobody on the way needs to see it.
    config.enable_sni = false;
    Arc::new(config)
}

/// A reason of ours inside a TLS error.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

fn refuse(reason: String) -> rustls::Error {
    let reason = OtherError(Arc::new(Reason(reason)));
    rustls::Error::InvalidCertificate(CertificateError::Other(reason))
}

/// The subject of a certificate whose signature was checked; refuses one of another cluster.
fn member(
    certificate: &CertificateDer<'_>,
    cluster_id: Option<&str>,
) -> Result<NodeCertificate, rustls::Error> {
    let certificate =
        NodeCertificate::from_der(certificate).map_err(|error| refuse(error.to_string()))?;
    let theirs = &certificate.subject.cluster_id;
    if cluster_id.is_some_and(|ours| ours != theirs) {
        return Err(refuse(format!(
            "node {} belongs to another cluster ({theirs})",
            certificate.subject.node_id
        )));
    }
    Ok(certificate)
}

/// Clients: nodes of the cluster, or nobody in particular.
#[derive(Debug)]
struct NodeVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    cluster_id: String,
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        member(end_entity, Some(&self.cluster_id))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Servers: the node that is wanted.
#[derive(Debug)]
struct PeerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    expect: Expect,
    /// Unknown to someone who is about to join.
    cluster_id: Option<String>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = self.expect.name()?;
        let verified =
            self.inner
                .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)?;
        let certificate = member(end_entity, self.cluster_id.as_deref())?;
        if !self.expect.accepts(&certificate) {
            return Err(refuse(format!(
                "{} is wanted, this is node {}",
                self.expect, certificate.subject.node_id
            )));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whoever answers, as long as it has the key of the certificate it shows. Only good for asking a root that is then
/// compared with a hash.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// For tests: a client that checks nothing.
#[cfg(test)]
pub(super) fn any_server() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AnyServer(provider()))
}

/// For tests: a client with a certificate that does not mind whom it talks to.
#[cfg(test)]
pub(super) fn careless(identity: &Identity) -> (Arc<ClientConfig>, ServerName<'static>) {
    let config = client_builder(&system_clock())
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(any_server())
        .with_client_auth_cert(
            vec![identity.certificate.der.clone()],
            identity.key.private_key(),
        )
        .unwrap();
    (finish(config), Expect::Manager.name().unwrap())
}
