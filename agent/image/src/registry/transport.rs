//! One exchange with a registry: authorisation, redirects, retries, time limits, cancellation. Source of the rules:
//! OCI distribution-spec 1.1; retries as in moby `daemon/internal/distribution/xfer`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::auth::{Challenge, TokenKey, TokenReply};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::{Registry, Session, tls};

/// For a connection, and for the head of a reply.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// Without a byte of a body.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Tries of one exchange, as Docker.
pub(super) const TRIES: u32 = 5;
const BACK_OFF: Duration = Duration::from_millis(250);
const REDIRECTS_MAX: usize = 10;
/// Bytes of an error message, and of a token.
const SMALL_BODY: u64 = 1 << 20;
/// Characters of a registry's own words in an error.
const DETAIL_MAX: usize = 300;

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
pub(super) type Connection = Arc<HttpClient>;

/// What to ask for. Only questions that may be repeated.
pub(super) struct Ask {
    method: Method,
    path: String,
    headers: HeaderMap,
    scoped: bool,
}

impl Ask {
    /// `path` is absolute within the endpoint.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            scoped: true,
        }
    }

    pub(super) fn header(mut self, name: http::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// About the registry, not the repository.
    pub(super) fn without_scope(mut self) -> Self {
        self.scoped = false;
        self
    }
}

impl Registry {
    pub(super) fn connect(&self, endpoint: &Endpoint) -> Result<HttpClient, RegistryError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.set_nodelay(true);
        let config = tls::client_config(endpoint, &self.config.certificates)?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector))
    }
}

impl Session<'_> {
    /// Runs network work to its end, to its time limit or to the cancellation of the session.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        self.registry.runtime.block_on(async {
            tokio::select! {
                () = self.cancel.cancelled() => Err(RegistryError::Cancelled),
                done = tokio::time::timeout(limit, work) => match done {
                    Ok(done) => done,
                    Err(_) => Err(self.unreachable(format!("no answer for {} s", limit.as_secs()))),
                },
            }
        })
    }

    /// Waits before the try after number `tries`.
    pub(super) fn back_off(&self, tries: u32) -> Result<(), RegistryError> {
        let pause = BACK_OFF * 2u32.saturating_pow(tries.min(6));
        self.wait(pause * 2, async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
    }

    /// The reply with a good status. Broken connections and overloaded servers are asked again; authorisation is got
    /// when it is wanted, once.
    pub(super) fn ask(&self, ask: Ask) -> Result<Response<Incoming>, RegistryError> {
        let mut tries = 0;
        loop {
            let outcome = self.ask_authorised(&ask);
            let again = match &outcome {
                Err(error) => error.is_unreachable() && !self.refused(error),
                Ok(reply) => {
                    let status = reply.status();
                    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
                }
            };
            tries += 1;
            if again && tries < TRIES {
                self.back_off(tries)?;
                continue;
            }
            let reply = outcome?;
            return match reply.status().is_success() {
                true => Ok(reply),
                false => Err(self.failure(&ask, reply)),
            };
        }
    }

    /// Whether asking again at once does not help: nobody is listening, or there is plain http to try instead.
    fn refused(&self, error: &RegistryError) -> bool {
        let RegistryError::Unreachable { reason, .. } = error else {
            return false;
        };
        let falls_back = self.endpoint.insecure && self.endpoint.scheme == "https";
        falls_back
            || ["refused", "lookup", "certificate"]
                .iter()
                .any(|sign| reason.contains(sign))
    }

    fn ask_authorised(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let key = self.token_key(ask.scoped);
        let known = self
            .registry_token()
            .or_else(|| self.registry.tokens.get(&key));
        let reply = self.follow(ask, known.as_deref())?;
        if reply.status() != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.registry.tokens.forget(&key);
        let challenges = reply.headers().get_all(WWW_AUTHENTICATE);
        let mut challenges = challenges
            .iter()
            .filter_map(|header| Challenge::parse(header.to_str().ok()?));
        let Some(challenge) = challenges.next() else {
            return Ok(reply);
        };
        let authorization = match challenge {
            Challenge::Basic => match &self.credentials {
                Some(credentials) => credentials.basic(),
                None => {
                    return Err(RegistryError::NoCredentials(
                        self.endpoint.url(&ask.path),
                        self.reference.domain().to_owned(),
                    ));
                }
            },
            Challenge::Bearer { realm, service } => self.token(key, &realm, &service)?,
        };
        self.follow(ask, Some(&authorization))
    }

    fn registry_token(&self) -> Option<String> {
        let token = &self.credentials.as_ref()?.registry_token;
        (!token.is_empty()).then(|| format!("Bearer {token}"))
    }

    fn token_key(&self, scoped: bool) -> TokenKey {
        TokenKey {
            origin: self.endpoint.to_string(),
            scope: match scoped {
                true => format!("repository:{}:pull", self.reference.path()),
                false => String::new(),
            },
            // Another password is another user: a wrong one must not profit from a token got with the right one.
            user: self.credentials.as_ref().map_or_else(String::new, |user| {
                let secrets = format!("{}\0{}", user.basic(), user.identity_token);
                crate::digest::Digest::of(secrets.as_bytes()).to_string()
            }),
        }
    }

    /// Gets a token from the service that the registry names.
    fn token(&self, key: TokenKey, realm: &str, service: &str) -> Result<String, RegistryError> {
        let what = "get a token";
        let mut url = Url::parse(realm)
            .map_err(|error| self.protocol(what, format!("bad realm {realm:?}: {error}")))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.endpoint.insecure) {
            let reason = format!("the token service {realm} would be asked without TLS");
            return Err(self.protocol(what, reason));
        }
        let identity = self
            .credentials
            .as_ref()
            .filter(|user| !user.identity_token.is_empty());
        let mut request = Request::builder();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let pairs = [("service", service), ("scope", &key.scope)];
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        let body = match identity {
            Some(user) => {
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "muster")
                    .append_pair("refresh_token", &user.identity_token)
                    .extend_pairs(pairs);
                request = request
                    .method(Method::POST)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                form.finish()
            }
            None => {
                let mut query = url.query_pairs_mut();
                query.extend_pairs(pairs);
                if let Some(user) = &self.credentials {
                    query.append_pair("account", &user.username);
                    request = request.header(AUTHORIZATION, user.basic());
                }
                drop(query);
                String::new()
            }
        };
        let request = request
            .uri(url.as_str())
            .body(Full::from(body))
            .map_err(|error| self.protocol(what, error))?;
        let reply = self.wait(HEAD_LIMIT, async {
            self.connection
                .request(request)
                .await
                .map_err(|error| self.unreachable(chain(&error)))
        })?;
        let status = reply.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Unauthorized(
                url.host_str().unwrap_or(realm).to_owned(),
            ));
        }
        if !status.is_success() {
            return Err(self.status(what, reply));
        }
        let bytes = self.read_all(what, reply, SMALL_BODY)?;
        let token = serde_json::from_slice::<TokenReply>(&bytes)
            .map_err(|error| self.protocol(what, error))?;
        self.registry
            .tokens
            .keep(key, token)
            .ok_or_else(|| self.protocol(what, "the reply holds no token"))
    }

    /// One request, and those it is redirected to. `Authorization` stays within the endpoint.
    fn follow(
        &self,
        ask: &Ask,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let what = &ask.path;
        let mut url = Url::parse(&self.endpoint.url(&ask.path))
            .map_err(|error| self.protocol(what, error))?;
        let home = url.origin();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::builder()
                .method(ask.method.clone())
                .uri(url.as_str())
                .header(
                    http::header::USER_AGENT,
                    concat!("muster/", env!("CARGO_PKG_VERSION")),
                );
            if let Some(headers) = request.headers_mut() {
                headers.extend(ask.headers.clone());
            }
            if let Some(authorization) = authorization.filter(|_| url.origin() == home) {
                let mut value = HeaderValue::from_str(authorization)
                    .map_err(|_| self.protocol(what, "the token is no text"))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let request = request
                .body(Full::default())
                .map_err(|error| self.protocol(what, error))?;
            let reply = self.wait(HEAD_LIMIT, async {
                self.connection
                    .request(request)
                    .await
                    .map_err(|error| self.unreachable(chain(&error)))
            })?;
            if !matches!(reply.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let location = reply
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .ok_or_else(|| self.protocol(what, "a redirect leads nowhere"))?;
            let next = url.join(location).map_err(|error| {
                self.protocol(what, format!("redirect to {location:?}: {error}"))
            })?;
            let fine = match next.scheme() {
                "https" => true,
                "http" => url.scheme() == "http" || self.endpoint.insecure,
                _ => false,
            };
            if !fine {
                return Err(
                    self.protocol(what, format!("refusing a redirect from {url} to {next}"))
                );
            }
            url = next;
        }
        Err(self.protocol(what, format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// The whole body, if it is not longer than `limit`.
    pub(super) fn read_all(
        &self,
        what: &str,
        mut reply: Response<Incoming>,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next_chunk(reply.body_mut())? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > limit {
                return Err(self.protocol(what, format!("it is longer than {limit} bytes")));
            }
        }
        Ok(bytes)
    }

    /// The next bytes of a body; `None` at its end.
    pub(super) fn next_chunk(&self, body: &mut Incoming) -> Result<Option<Bytes>, RegistryError> {
        self.wait(STALL_LIMIT, async {
            loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                    Some(Err(error)) => return Err(self.unreachable(chain(&error))),
                }
            }
        })
    }

    /// The error that a status means for a repository.
    fn failure(&self, ask: &Ask, reply: Response<Incoming>) -> RegistryError {
        match reply.status() {
            StatusCode::UNAUTHORIZED if self.credentials.is_some() => {
                RegistryError::Unauthorized(self.reference.domain().to_owned())
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if ask.scoped => {
                RegistryError::Denied(self.reference.familiar_repository())
            }
            StatusCode::UNAUTHORIZED => {
                RegistryError::Unauthorized(self.reference.domain().to_owned())
            }
            _ => self.status(&ask.path, reply),
        }
    }

    fn status(&self, what: &str, reply: Response<Incoming>) -> RegistryError {
        let status = reply.status().as_u16();
        let detail = self.read_all(what, reply, SMALL_BODY).unwrap_or_default();
        RegistryError::Status {
            what: what.to_owned(),
            registry: self.endpoint.to_string(),
            status,
            detail: registry_words(&detail),
        }
    }

    pub(super) fn unreachable(&self, reason: impl ToString) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.endpoint.to_string(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn protocol(&self, what: &str, reason: impl ToString) -> RegistryError {
        RegistryError::Protocol {
            what: format!("{}{what}", self.endpoint),
            reason: reason.to_string(),
        }
    }
}

/// `: code: message` of the first error in a registry's reply.
fn registry_words(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let first = &body["errors"][0];
    let words = [&first["code"], &first["message"]].map(|word| word.as_str().unwrap_or_default());
    let words: String = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .flat_map(|word| [": ", word])
        .flat_map(str::chars)
        .filter(|c| !c.is_control())
        .take(DETAIL_MAX)
        .collect();
    words
}

/// An error with everything behind it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
