//! Asking servers over HTTP: redirects are followed, times bounded, certificates those that the system trusts.
//!
//! Must not: decide what an answer means, or log an address with a password in it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_image::{Proxies, ProxyDialer};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, COOKIE, HOST, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;
use url::Url;

/// For a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// For the head of an answer.
const HEAD_LIMIT: Duration = Duration::from_secs(120);
/// Without a byte of a body.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(120);
/// As Go's client.
const REDIRECTS_MAX: usize = 10;

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Address(String),
    #[error("cannot reach {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("{host} did not answer for {} s", limit.as_secs())]
    Silent { host: String, limit: Duration },
    #[error("{0} redirects more than {REDIRECTS_MAX} times")]
    Redirects(String),
    #[error("canceled")]
    Cancelled,
}

/// What to ask for.
pub(super) struct Question {
    /// The way there.
    pub(super) proxies: Proxies,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Question {
    /// A plain `GET`, without proxies.
    pub(super) fn get(url: Url) -> Self {
        Self {
            proxies: Proxies::default(),
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Goes through proxies where they apply.
    pub(super) fn through(mut self, proxies: &Proxies) -> Self {
        self.proxies = proxies.clone();
        self
    }
}

/// The host of an address, for messages.
pub(super) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "a server without a name".to_owned(),
    }
}

/// Asks, following redirects. Credentials stay with the host that they were meant for. Gives the last address, too.
pub(super) async fn ask(
    mut question: Question,
    cancel: &CancellationToken,
) -> Result<(Url, Response<Incoming>), FetchError> {
    let first = host_of(&question.url);
    for _ in 0..=REDIRECTS_MAX {
        let answer = once(&question, cancel).await?;
        let next = match answer.status() {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => location(&question.url, answer.headers())?,
            _ => return Ok((question.url, answer)),
        };
        if question.url.scheme() == "https" && next.scheme() != "https" {
            return Err(FetchError::Address(format!(
                "{first} redirects to an address without TLS"
            )));
        }
        if next.origin() != question.url.origin() {
            for secret in [AUTHORIZATION, COOKIE] {
                question.headers.remove(secret);
            }
        }
        question.url = next;
    }
    Err(FetchError::Redirects(first))
}

async fn once(
    question: &Question,
    cancel: &CancellationToken,
) -> Result<Response<Incoming>, FetchError> {
    let host = host_of(&question.url);
    if !matches!(question.url.scheme(), "http" | "https") || question.url.host_str().is_none() {
        return Err(FetchError::Address(format!(
            "an address of the kind {}:// cannot be asked over HTTP",
            question.url.scheme()
        )));
    }
    let mut headers = question.headers.clone();
    let agent = concat!("muster/", env!("CARGO_PKG_VERSION"));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(agent));
    headers.remove(HOST);
    let mut request = Request::new(Full::new(question.body.clone()));
    *request.method_mut() = question.method.clone();
    *request.headers_mut() = headers;
    let address = without_userinfo(&question.url);
    *request.uri_mut() = address.as_str().parse().map_err(|error| {
        FetchError::Address(format!("the address of {host} is malformed: {error}"))
    })?;
    if let Some(basic) = basic(&question.url) {
        request.headers_mut().entry(AUTHORIZATION).or_insert(basic);
    }
    if let Some(value) = question.proxies.authorization(request.uri()) {
        let value = HeaderValue::from_str(value).map_err(|_| {
            FetchError::Address("the proxy's password cannot be sent in a header".to_owned())
        })?;
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    let client = client(&question.proxies);
    let answer = tokio::time::timeout(HEAD_LIMIT, client.request(request));
    let answer = tokio::select! {
        answer = answer => answer,
        () = cancel.cancelled() => return Err(FetchError::Cancelled),
    };
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(FetchError::Unreachable {
            reason: reason(&error),
            host,
        }),
        Err(_) => Err(FetchError::Silent {
            host,
            limit: HEAD_LIMIT,
        }),
    }
}

/// The innermost cause: what is around it says only that something failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn location(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let target = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    let Some(target) = target else {
        return Err(FetchError::Address(format!(
            "{} redirects without saying where to",
            host_of(from)
        )));
    };
    from.join(target).map_err(|error| {
        FetchError::Address(format!(
            "{} redirects to a malformed address: {error}",
            host_of(from)
        ))
    })
}

/// The address as it is asked for: what is before the `@` goes into a header.
fn without_userinfo(url: &Url) -> Url {
    let mut plain = url.clone();
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.set_fragment(None);
    plain
}

fn basic(url: &Url) -> Option<HeaderValue> {
    use base64::Engine as _;
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| {
        let form = format!("x={}", text.replace('+', "%2B"));
        url::form_urlencoded::parse(form.as_bytes())
            .next()
            .map_or_else(String::new, |(_, value)| value.into_owned())
    };
    let pair = format!(
        "{}:{}",
        plain(url.username()),
        plain(url.password().unwrap_or_default())
    );
    let text = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    );
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

type HttpsClient = Client<HttpsConnector<ProxyDialer>, Full<Bytes>>;

/// Nothing is kept open: downloads are rare, and what is idle would outlive the runtime of a test.
fn client(proxies: &Proxies) -> HttpsClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls().clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(ProxyDialer::new(tcp, proxies.clone()));
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector)
}

/// The system's certificates, read when they are first needed.
fn tls() -> &'static rustls::ClientConfig {
    static CONFIG: OnceLock<rustls::ClientConfig> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_the_address_for_a_header() {
        let url: Url = "https://me:p%40ss+@host:8443/x?y=1#frag".parse().unwrap();
        assert_eq!(without_userinfo(&url).as_str(), "https://host:8443/x?y=1");
        assert_eq!(basic(&url).unwrap(), "Basic bWU6cEBzcys=");
        assert_eq!(host_of(&url), "host:8443");
        assert_eq!(basic(&"https://host/".parse().unwrap()), None);
    }
}
