//! The way to a registry through a proxy: which addresses go through which proxy, and a connector that does so. Of an HTTP
//! proxy plain http is asked itself (absolute form), TLS goes through a tunnel (`CONNECT`, RFC 9110 §9.3.6); through a SOCKS
//! proxy everything does ([`super::socks`]). Proxies that are spoken to by TLS are refused.
//!
//! Must not: read the environment; the daemon's configuration does. Source of the rules of exemption: Go
//! `golang.org/x/net/http/httpproxy`, which Docker uses.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::Service;
use url::Url;

use super::socks::{self, Login};

/// Bytes of a proxy's answer to `CONNECT`.
const HEAD_MAX: usize = 16 << 10;
/// For a proxy to open a tunnel.
const TUNNEL_LIMIT: Duration = Duration::from_secs(30);

/// Which proxies registries are reached through.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    http: Option<Proxy>,
    /// For `https://`.
    https: Option<Proxy>,
    exempt: Vec<Exempt>,
}

impl std::fmt::Debug for Proxies {
    /// Without the passwords that the URLs of proxies may hold.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| proxy.address.clone());
        write!(
            f,
            "Proxies(http: {:?}, https: {:?})",
            name(&self.http),
            name(&self.https)
        )
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Proxy {
    /// `http://host:port` or `socks5://host:port`
    address: String,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// With the value of `Proxy-Authorization`.
    Http(Option<String>),
    Socks(Option<Login>),
}

/// One word of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    Everything,
    Network(IpNet),
    Address(IpAddr, Option<u16>),
    /// A name; whether it stands for itself too, or for what is below it only.
    Name {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// From the values of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; empty text is none.
    ///
    /// # Errors
    /// The URL of a proxy is malformed or of a kind that is not supported; the text says which.
    pub fn new(http: &str, https: &str, no_proxy: &str) -> Result<Self, String> {
        Ok(Self {
            http: Proxy::parse(http)?,
            https: Proxy::parse(https)?,
            exempt: no_proxy.split(',').filter_map(Exempt::parse).collect(),
        })
    }

    /// What a proxy that reads requests for `uri` wants as `Proxy-Authorization`.
    #[must_use]
    pub fn authorization(&self, uri: &Uri) -> Option<&str> {
        let forwarded = uri.scheme_str() != Some("https");
        match &self.of(uri).filter(|_| forwarded)?.kind {
            Kind::Http(authorization) => authorization.as_deref(),
            Kind::Socks(_) => None,
        }
    }

    fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let (proxy, port) = match uri.scheme_str() {
            Some("https") => (self.https.as_ref()?, 443),
            _ => (self.http.as_ref()?, 80),
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(port);
        let address: Option<IpAddr> = host.parse().ok();
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let exempt = local
            || self
                .exempt
                .iter()
                .any(|exempt| exempt.covers(&host, address, port));
        (!exempt).then_some(proxy)
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        // A password before the host is nobody's business.
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let url = Url::parse(&whole).map_err(|error| format!("proxy {shown:?}: {error}"))?;
        let login = (!url.username().is_empty()).then(|| {
            let plain = |text: &str| {
                let form = format!("x={}", text.replace('+', "%2B"));
                url::form_urlencoded::parse(form.as_bytes())
                    .next()
                    .map_or_else(String::new, |(_, value)| value.into_owned())
            };
            Login {
                user: plain(url.username()),
                password: plain(url.password().unwrap_or_default()),
            }
        });
        let (scheme, port, kind) = match url.scheme() {
            "http" => {
                let basic = |Login { user, password }| {
                    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
                };
                ("http", 80, Kind::Http(login.map(basic)))
            }
            "socks5" | "socks5h" => ("socks5", 1080, Kind::Socks(login)),
            other => {
                return Err(format!(
                    "a proxy by {other}:// is not supported: write http://host:port or socks5://host:port"
                ));
            }
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("proxy {shown:?} has no host"))?;
        Ok(Some(Self {
            address: format!("{scheme}://{host}:{}", url.port().unwrap_or(port)),
            kind,
        }))
    }
}

impl Exempt {
    fn parse(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase();
        if word.is_empty() {
            return None;
        }
        if word == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = word.parse() {
            return Some(Self::Network(network));
        }
        let (host, port) = match word.rsplit_once(':') {
            // An IPv6 address without brackets has no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok())
            }
            _ => (&*word, None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        Some(Self::Name {
            suffix: format!(".{}", host.trim_start_matches('.')),
            itself: !host.starts_with('.'),
            port,
        })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let fits = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::Everything => true,
            Self::Network(network) => address.is_some_and(|address| network.contains(&address)),
            Self::Address(exempt, wanted) => address == Some(*exempt) && fits(wanted),
            Self::Name {
                suffix,
                itself,
                port: wanted,
            } => fits(wanted) && (host.ends_with(&**suffix) || (*itself && host == &suffix[1..])),
        }
    }
}

/// Connects directly or through a proxy, as the address asks for. A client that speaks HTTP over it adds
/// [`Proxies::authorization`] to its requests.
#[derive(Debug, Clone)]
pub struct ProxyDialer {
    tcp: HttpConnector,
    proxies: Proxies,
}

impl ProxyDialer {
    /// `tcp` makes the connections, to proxies also.
    #[must_use]
    pub fn new(tcp: HttpConnector, proxies: Proxies) -> Self {
        Self { tcp, proxies }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for ProxyDialer {
    type Response = Dialed;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Dialed, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&uri).cloned() else {
            let connecting = self.tcp.call(uri);
            return Box::pin(async {
                Ok(Dialed {
                    io: connecting.await?,
                    forwarded: false,
                })
            });
        };
        let at = proxy.address.parse::<Uri>();
        let mut tcp = self.tcp.clone();
        Box::pin(async move {
            let through =
                |error: &dyn std::fmt::Display| format!("proxy {}: {error}", proxy.address);
            let io = tcp
                .call(at?)
                .await
                .map_err(|error| through(&super::transport::chain(&error)))?;
            if uri.scheme_str() != Some("https") && matches!(proxy.kind, Kind::Http(_)) {
                return Ok(Dialed {
                    io,
                    forwarded: true,
                });
            }
            let mut stream = io.into_inner();
            let opening = async {
                match &proxy.kind {
                    Kind::Http(basic) => tunnel(&mut stream, &uri, basic.as_deref()).await,
                    Kind::Socks(login) => socks::open(&mut stream, &uri, login.as_ref()).await,
                }
            };
            tokio::time::timeout(TUNNEL_LIMIT, opening)
                .await
                .map_err(|_| through(&"no answer"))?
                .map_err(|error| through(&error))?;
            Ok(Dialed {
                io: TokioIo::new(stream),
                forwarded: false,
            })
        })
    }
}

/// Asks a proxy to pass bytes on to `uri` from now on.
async fn tunnel(stream: &mut TcpStream, uri: &Uri, basic: Option<&str>) -> io::Result<()> {
    let host = uri.host().unwrap_or_default();
    let target = format!("{host}:{}", uri.port_u16().unwrap_or(443));
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = basic {
        head += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= HEAD_MAX {
            return Err(io::Error::other("its answer does not end"));
        }
        // Byte by byte: what follows the head belongs to the tunnel.
        answer.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!(
            "it refuses a tunnel to {target}: {line}"
        ))),
    }
}

/// A connection, and whether a proxy reads its requests.
pub struct Dialed {
    io: TokioIo<TcpStream>,
    forwarded: bool,
}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded)
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_through_the_proxy_of_their_scheme_unless_exempt() {
        let proxies = Proxies::new(
            "http://p:3128",
            "user:p%40ss@q:3129",
            "a.test, .b.test,*.c.test,10.0.0.0/8,192.0.2.1:5000,d.test:81,[2001:db8::1]",
        )
        .unwrap();
        for (address, proxy) in [
            ("http://x.test/", Some("http://p:3128")),
            ("https://x.test/", Some("http://q:3129")),
            ("https://a.test/", None),
            ("https://A.test:444/", None),
            ("https://sub.a.test/", None),
            ("https://xa.test/", Some("http://q:3129")),
            ("https://b.test/", Some("http://q:3129")),
            ("https://sub.b.test/", None),
            ("https://sub.c.test/", None),
            ("http://10.1.2.3:5000/", None),
            ("http://11.1.2.3:5000/", Some("http://p:3128")),
            ("http://192.0.2.1:5000/", None),
            ("http://192.0.2.1:5001/", Some("http://p:3128")),
            ("http://d.test:81/", None),
            ("http://d.test/", Some("http://p:3128")),
            ("http://[2001:db8::1]/", None),
            ("http://127.0.0.9:1/", None),
            ("http://localhost:1/", None),
            ("http://[::1]:1/", None),
        ] {
            let found = proxies.of(&address.parse().unwrap());
            assert_eq!(found.map(|found| &*found.address), proxy, "{address}");
        }
        let https = proxies.https.as_ref().unwrap();
        assert!(matches!(&https.kind, Kind::Http(Some(basic)) if basic == "Basic dXNlcjpwQHNz"));
        assert!(!format!("{proxies:?}").contains("p@ss"));
        let wrong = Proxies::new("http://user:p%40ss@h:99999", "", "").unwrap_err();
        assert!(wrong.contains("\"h:99999\""), "{wrong}");
        assert!(!wrong.contains("p%40ss"), "{wrong}");
        let all = Proxies::new("p:1", "", "*").unwrap();
        assert!(all.of(&"http://x.test/".parse().unwrap()).is_none());
        assert!(
            Proxies::default()
                .of(&"http://x/".parse().unwrap())
                .is_none()
        );
    }

    #[tokio::test]
    async fn plain_http_too_goes_through_a_socks_proxy() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("socks5h://me:p%20w@{}", proxy.local_addr().unwrap());
        let proxies = Proxies::new(&address, "socks5://q", "").unwrap();
        assert_eq!(proxies.https.as_ref().unwrap().address, "socks5://q:1080");
        let uri: Uri = "http://r.test:5000/v2/".parse().unwrap();
        assert_eq!(proxies.authorization(&uri), None);
        let server = async {
            let (mut client, _) = proxy.accept().await.unwrap();
            for (asked, answer) in [
                (&b"\x05\x02\x00\x02"[..], &b"\x05\x02"[..]),
                (b"\x01\x02me\x03p w", b"\x01\x00"),
                (
                    b"\x05\x01\x00\x03\x06r.test\x13\x88",
                    b"\x05\x00\x00\x01\0\0\0\0\0\0hello",
                ),
            ] {
                let mut sent = vec![0; asked.len()];
                client.read_exact(&mut sent).await.unwrap();
                assert_eq!(sent, asked);
                client.write_all(answer).await.unwrap();
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let mut dialer = ProxyDialer::new(tcp, proxies);
        let (dialed, ()) = tokio::join!(dialer.call(uri), server);
        let dialed = dialed.unwrap_or_else(|error| panic!("{error}"));
        assert!(!dialed.forwarded, "requests are for the registry");
        let mut said = String::new();
        TokioIo::new(dialed)
            .read_to_string(&mut said)
            .await
            .unwrap();
        assert_eq!(said, "hello");
    }

    #[test]
    fn other_kinds_of_proxies_are_refused_by_name() {
        for kind in ["https", "socks4", "ftp"] {
            let refused = Proxies::new(&format!("{kind}://p:1"), "", "").unwrap_err();
            let told = format!("a proxy by {kind}:// is not supported");
            assert!(refused.contains(&told), "{refused}");
        }
        for nowhere in ["http://", "socks5://", "socks5:///x"] {
            assert!(Proxies::new(nowhere, "", "").is_err(), "{nowhere}");
        }
    }
}
