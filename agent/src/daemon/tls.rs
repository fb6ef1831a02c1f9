//! The API on an address, for clients that prove themselves by a certificate. TLS ends here: what is inside goes on over a
//! socket pair, so that everything behind is what it is for a local client.
//!
//! Plain connections are not offered: whoever reaches the API owns the host.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::DaemonError;
use crate::config::{Host, TlsFiles};
use crate::http::Server;

/// For a client to prove itself.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);
/// Clients that are at it at the same time.
const HANDSHAKES_MAX: usize = 64;
/// Pause after `accept` failed for want of descriptors or memory: those come back when connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener whose clients are verified.
pub(super) struct Front {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Front {
    /// Listens on an address.
    pub(super) async fn bind(address: SocketAddr, files: &TlsFiles) -> Result<Self, DaemonError> {
        let failed = |reason: String| DaemonError::Socket {
            host: Host::Tls(address).to_string(),
            reason,
        };
        let config = server_config(files).map_err(failed)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Accepts until the daemon ends.
    pub(super) async fn serve(self, server: Server) {
        let handshakes = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
        loop {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, server) = (self.acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let inside = shake_hands(stream, &acceptor).await;
                drop(permit);
                match inside {
                    Ok(stream) => pass_on(stream, &server).await,
                    Err(error) => debug!(%peer, %error, "a client of the API is turned away"),
                }
            });
        }
    }
}

type Inside = tokio_rustls::server::TlsStream<TcpStream>;

async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Inside> {
    let _ = stream.set_nodelay(true);
    let handshake = acceptor.accept(stream);
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no handshake");
    tokio::time::timeout(HANDSHAKE_LIMIT, handshake)
        .await
        .map_err(late)?
}

async fn pass_on(mut outside: Inside, server: &Server) {
    let pair = UnixStream::pair();
    let (mut inside, served) = match pair {
        Ok(pair) => pair,
        Err(error) => {
            warn!(%error, "cannot serve a connection");
            return;
        }
    };
    server.adopt(served);
    // How it ends is for the two at its ends to tell.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, String> {
    let path = |given: &Option<std::path::PathBuf>, flag: &str| {
        given.clone().ok_or_else(|| {
            format!("--{flag} is missing: give --tlsverify, --tlscacert, --tlscert and --tlskey")
        })
    };
    if !files.verify {
        return Err("it is served to verified clients only: give --tlsverify".to_owned());
    }
    let authority = path(&files.authority, "tlscacert")?;
    let (certificate, key) = (
        path(&files.certificate, "tlscert")?,
        path(&files.key, "tlskey")?,
    );
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&authority)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| format!("{}: {error}", authority.display()))?;
    let private = PrivateKeyDer::from_pem_file(&key)
        .map_err(|error| format!("{}: {error}", key.display()))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&certificate)?, private)
        .map_err(|error| format!("{}: {error}", certificate.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: {error}", path.display()))
}
