//! A stream of bytes to a daemon, by whichever way its address names.
//!
//! `ssh` is the user's own, run as Docker's command runs it, with everything its configuration says; `MUSTER_SSH` names
//! another program. On the other side it starts `muster system dial-stdio`, which passes bytes on to the daemon's socket.
//! TLS is mutual: `ca.pem`, `cert.pem` and `key.pem` of `DOCKER_CERT_PATH`, or of `~/.docker`.
//! Source: docker/cli `cli/connhelper`, `cli/context/docker/load.go`.

use super::error::{ClientError, Result};
use super::host::{Host, SshHost, Way};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// For a connection over a network.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Bytes kept of what `ssh` complains about.
const COMPLAINT_MAX: u64 = 4 << 10;

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that nothing is known of but its bytes.
pub type RawConnection = Box<dyn Stream>;

impl super::Client {
    /// A new connection to the daemon, for somebody else who speaks its language.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] without a daemon.
    pub async fn dial(&self) -> Result<RawConnection> {
        dial(self.host()).await
    }
}

/// Connects.
pub(super) async fn dial(host: &Host) -> Result<RawConnection> {
    let unreachable = |source| ClientError::Unreachable {
        host: host.to_string(),
        source,
    };
    match &host.way {
        Way::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        Way::Ssh(ssh) => Ok(Box::new(SshStream::spawn(ssh).map_err(unreachable)?)),
        Way::Tcp { host, port, tls } => {
            let connecting = TcpStream::connect((host.as_str(), *port));
            let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
            let stream = tokio::time::timeout(CONNECT_LIMIT, connecting)
                .await
                .unwrap_or_else(|_| Err(late()))
                .map_err(unreachable)?;
            let _ = stream.set_nodelay(true);
            if !tls {
                return Ok(Box::new(stream));
            }
            let config = tls_config().map_err(unreachable)?;
            let name = ServerName::try_from(host.clone())
                .map_err(|error| unreachable(io::Error::other(error)))?;
            let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
            let stream = tokio::time::timeout(CONNECT_LIMIT, handshake)
                .await
                .unwrap_or_else(|_| Err(late()))
                .map_err(unreachable)?;
            Ok(Box::new(stream))
        }
    }
}

/// Whom to believe, and who we are.
fn tls_config() -> io::Result<Arc<ClientConfig>> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = given("DOCKER_CERT_PATH")
        .or_else(|| given("DOCKER_CONFIG"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(given("HOME")?).join(".docker")))
        .unwrap_or_default();
    let file = |name: &str| directory.join(name);
    let broken = |path: PathBuf| {
        move |error: rustls::pki_types::pem::Error| {
            io::Error::other(format!("TLS: cannot use {}: {error}", path.display()))
        }
    };
    let certificates = |name: &str| {
        CertificateDer::pem_file_iter(file(name))
            .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
            .map_err(broken(file(name)))
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca.pem")?);
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).map_err(broken(file("key.pem")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|error| io::Error::other(format!("TLS: {error}")))?;
    Ok(Arc::new(config))
}

/// An `ssh` whose standard input and output are the other end of a socket. Killed on drop. A socket, since writing to a pipe
/// whose reader has gone would end a program that lets it.
struct SshStream {
    _child: Child,
    stream: UnixStream,
    /// Nothing has come yet: should the stream end now, `ssh` says why.
    silent: bool,
    complaint: JoinHandle<String>,
}

impl SshStream {
    fn spawn(ssh: &SshHost) -> io::Result<Self> {
        let program = std::env::var_os("MUSTER_SSH").filter(|program| !program.is_empty());
        let program = program.unwrap_or_else(|| "ssh".into());
        let mut command = Command::new(&program);
        command.args(arguments(ssh));
        let (ours, its) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut child = command
            .stdin(OwnedFd::from(its.try_clone()?))
            .stdout(OwnedFd::from(its))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let name = program.to_string_lossy();
                io::Error::new(error.kind(), format!("cannot run {name}: {error}"))
            })?;
        // The command holds the other end, too.
        drop(command);
        let errors = child.stderr.take().expect("it is piped");
        let complaint = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut first = errors.take(COMPLAINT_MAX);
            let _ = first.read_to_end(&mut text).await;
            // More is not kept, but must not block it.
            let mut rest = first.into_inner();
            tokio::spawn(async move { tokio::io::copy(&mut rest, &mut tokio::io::sink()).await });
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Self {
            stream: UnixStream::from_std(ours)?,
            _child: child,
            silent: true,
            complaint,
        })
    }
}

/// As Docker's command calls it.
fn arguments(ssh: &SshHost) -> Vec<String> {
    let mut words: Vec<String> = ["-o", "ConnectTimeout=30", "-T"]
        .map(str::to_owned)
        .to_vec();
    if let Some(user) = &ssh.user {
        words.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = ssh.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    words.extend(["--".to_owned(), ssh.host.clone(), "muster".to_owned()]);
    if let Some(socket) = &ssh.socket {
        // The other side's shell reads it.
        let quoted = format!("'unix://{}'", socket.replace('\'', "'\\''"));
        words.extend(["--host".to_owned(), quoted]);
    }
    words.extend(["system", "dial-stdio"].map(str::to_owned));
    words
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)) {
            // It has gone without reading what was written: that is its end, too.
            Err(error) if self.silent && has_gone(&error) => {}
            read => read?,
        }
        if buffer.filled().len() > before {
            self.silent = false;
        } else if self.silent && buffer.remaining() > 0 {
            let said = ready!(Pin::new(&mut self.complaint).poll(cx)).unwrap_or_default();
            self.silent = false;
            let said = match said.is_empty() {
                true => "it ended without a word".to_owned(),
                false => said,
            };
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("ssh: {said} (is muster installed there?)"),
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            // Why is told to whoever reads.
            Err(error) if self.silent && has_gone(&error) => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_called_as_docker_calls_it() {
        let of = |text: &str| match Host::parse(text).unwrap().way {
            Way::Ssh(ssh) => arguments(&ssh).join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            of("ssh://me@there:2222"),
            "-o ConnectTimeout=30 -T -l me -p 2222 -- there muster system dial-stdio"
        );
        assert_eq!(
            of("ssh://there/run/o'x.sock"),
            "-o ConnectTimeout=30 -T -- there muster --host 'unix:///run/o'\\''x.sock' system dial-stdio"
        );
    }
}
