//! One exchange with a registry: authorisation, redirects, retries, time limits, cancellation. Source of the rules:
//! OCI distribution-spec 1.1; retries as in moby `daemon/internal/distribution/xfer`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderValue, LOCATION, PROXY_AUTHORIZATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::auth::{Challenge, TokenKey};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::proxy::ProxyDialer;
use super::{Registry, Session, tls};

/// For a connection, and for the head of a reply.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// The same for a mirror that has not answered yet: there is somebody else to ask.
const MIRROR_CONNECT_LIMIT: Duration = Duration::from_secs(5);
const MIRROR_HEAD_LIMIT: Duration = Duration::from_secs(15);
/// For a registry to move an upload to its place, which some do by copying it.
pub(super) const COMMIT_LIMIT: Duration = Duration::from_secs(600);
/// Without a byte of a body.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);
const BACK_OFF: Duration = Duration::from_millis(250);
/// A registry that wants to be left alone for longer is told to the user instead.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 10;
/// Bytes of an error message, and of a token.
pub(super) const SMALL_BODY: u64 = 1 << 20;
/// Characters of a registry's own words in an error.
const DETAIL_MAX: usize = 300;

/// Body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type HttpClient = Client<HttpsConnector<ProxyDialer>, Body>;
pub(super) type Connection = Arc<HttpClient>;

/// A body that is all there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// What to ask for. Only questions that may be repeated.
#[derive(Clone)]
pub(super) struct Ask {
    method: Method,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
    rights: Rights,
    limit: Duration,
}

#[derive(Clone)]
enum Target {
    /// Absolute within the endpoint.
    Path(String),
    /// Where the registry said to go on.
    Location(Url),
}

/// What an authorisation must be good for.
#[derive(Clone)]
enum Rights {
    /// The registry is asked, not a repository.
    Registry,
    /// What the session is for.
    Session,
    /// And reading another repository.
    Also(String),
}

/// What came back.
pub(super) struct Answer {
    pub(super) reply: Response<Incoming>,
    /// Who gave it, after redirects.
    by: Url,
}

impl Ask {
    /// `path` is absolute within the endpoint.
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self::to(method, Target::Path(path.into()))
    }

    /// `path` is absolute within the endpoint.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Where the registry said to go on.
    pub(super) fn at(method: Method, location: Url) -> Self {
        Self::to(method, Target::Location(location))
    }

    fn to(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            rights: Rights::Session,
            limit: HEAD_LIMIT,
        }
    }

    pub(super) fn header(mut self, name: http::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(super) fn body(mut self, bytes: Bytes) -> Self {
        self.body = bytes;
        self
    }

    /// Time for the head of the reply.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// About the registry, not the repository.
    pub(super) fn without_scope(mut self) -> Self {
        self.rights = Rights::Registry;
        self
    }

    /// Reading `repository` is part of it.
    pub(super) fn also_reading(mut self, repository: &str) -> Self {
        self.rights = Rights::Also(repository.to_owned());
        self
    }

    /// For messages.
    fn what(&self) -> &str {
        match &self.target {
            Target::Path(path) => path,
            Target::Location(url) => url.path(),
        }
    }
}

impl Registry {
    pub(super) fn connect(&self, endpoint: &Endpoint) -> Result<HttpClient, RegistryError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(match endpoint.is_mirror() {
            true => MIRROR_CONNECT_LIMIT,
            false => CONNECT_LIMIT,
        }));
        tcp.set_nodelay(true);
        let config = tls::client_config(endpoint, &self.config.certificates)?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(ProxyDialer::new(tcp, self.config.proxies.clone()));
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector))
    }
}

impl Session<'_> {
    /// Runs network work to its end, to its time limit or to the cancellation of the session.
    pub(crate) fn wait<T>(
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
        self.pause(BACK_OFF * 2u32.saturating_pow(tries.min(6)))
    }

    fn pause(&self, pause: Duration) -> Result<(), RegistryError> {
        self.wait(pause + HEAD_LIMIT, async {
            tokio::time::sleep(pause).await;
            Ok(())
        })
    }

    /// The reply with a good status. Broken connections and overloaded servers are asked again, after the time they
    /// ask for, but not a mirror from which nothing has come yet, or an endpoint that has said nothing all the time; authorisation is got when it is wanted, once.
    pub(super) fn ask(&self, mut ask: Ask) -> Result<Response<Incoming>, RegistryError> {
        let mut attempts = self.registry.attempts();
        if self.endpoint.is_mirror() && !self.heard.load(Ordering::Relaxed) {
            (attempts, ask.limit) = (1, ask.limit.min(MIRROR_HEAD_LIMIT));
        }
        let mut tries = 0;
        loop {
            let tried = Instant::now();
            let outcome = self.ask_authorised(&ask);
            if outcome.is_ok() {
                self.heard.store(true, Ordering::Relaxed);
            }
            let mut pause = None;
            let again = match &outcome {
                Err(error) => {
                    // Who accepts connections and says nothing has had all the time there is.
                    let mute = tried.elapsed() >= ask.limit && !self.heard.load(Ordering::Relaxed);
                    error.is_unreachable() && !mute && !self.refused(error)
                }
                Ok(reply) => {
                    let status = reply.status();
                    pause = retry_after(reply.headers());
                    pause.is_none_or(|pause| pause <= RETRY_AFTER_MAX)
                        && (status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error())
                }
            };
            tries += 1;
            if again && tries < attempts {
                match pause {
                    Some(pause) => self.pause(pause)?,
                    None => self.back_off(tries)?,
                }
                continue;
            }
            let reply = outcome?;
            return match reply.status().is_success() {
                true => Ok(reply),
                false => Err(self.failure(&ask, reply)),
            };
        }
    }

    /// The reply with a good status, without another try for anything but authorisation.
    pub(super) fn ask_once(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let reply = self.ask_authorised(ask)?;
        match reply.status().is_success() {
            true => Ok(reply),
            false => Err(self.failure(ask, reply)),
        }
    }

    /// Whether asking again at once does not help: nobody is listening, or there is plain http to try instead.
    fn refused(&self, error: &RegistryError) -> bool {
        let RegistryError::Unreachable { reason, .. } = error else {
            return false;
        };
        let falls_back = self.endpoint.insecure && self.endpoint.scheme == "https";
        falls_back
            || error.is_no_tls()
            || ["refused", "refuses", "lookup", "certificate"]
                .iter()
                .any(|sign| reason.contains(sign))
    }

    fn ask_authorised(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let key = self.token_key(&ask.rights);
        let known = self.known_authorization(&key);
        let answer = self.follow(ask, known.as_deref())?;
        if answer.reply.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer.reply);
        }
        let challenge = self.challenge(&answer)?;
        self.registry.tokens.forget(&key);
        let Some(challenge) = challenge else {
            return Ok(answer.reply);
        };
        let authorization = match challenge {
            Challenge::Basic => match &self.credentials {
                Some(credentials) => self.registry.tokens.keep_basic(key, credentials.basic()),
                None => {
                    return Err(RegistryError::NoCredentials(
                        self.endpoint.url(ask.what()),
                        self.reference.domain().to_owned(),
                    ));
                }
            },
            Challenge::Bearer { realm, service } => self.token(key, &realm, &service)?,
        };
        Ok(self.follow(ask, Some(&authorization))?.reply)
    }

    /// What the registry wants of who asks; of several challenges the first of a scheme that is spoken here. Where it
    /// redirects to, nobody is told who asks (CVE-2020-15157): a challenge from there is an error.
    pub(super) fn challenge(&self, answer: &Answer) -> Result<Option<Challenge>, RegistryError> {
        let by = &answer.by;
        if !self.is_home(by) {
            let origin = by.origin().ascii_serialization();
            let reason = format!(
                "refusing to authenticate to {origin}, where {} redirects to: only the registry itself may ask for that",
                self.endpoint
            );
            return Err(self.protocol(by.path(), reason));
        }
        let challenges = answer.reply.headers().get_all(WWW_AUTHENTICATE);
        Ok(challenges
            .iter()
            .find_map(|header| Challenge::parse(header.to_str().ok()?)))
    }

    /// Whether a URL is of the endpoint.
    fn is_home(&self, url: &Url) -> bool {
        Url::parse(&self.endpoint.to_string()).is_ok_and(|home| home.origin() == url.origin())
    }

    /// The authorisation that was good last time, for requests that cannot be repeated.
    pub(super) fn session_authorization(&self) -> Option<String> {
        self.known_authorization(&self.token_key(&Rights::Session))
    }

    fn known_authorization(&self, key: &TokenKey) -> Option<String> {
        let token = self.credentials.as_ref().map(|user| &user.registry_token);
        match token {
            Some(token) if !token.is_empty() => Some(format!("Bearer {token}")),
            _ => self.registry.tokens.get(key),
        }
    }

    fn token_key(&self, rights: &Rights) -> TokenKey {
        let own = || {
            format!(
                "repository:{}:{}",
                self.reference.path(),
                self.purpose.actions()
            )
        };
        TokenKey {
            origin: self.endpoint.to_string(),
            scope: match rights {
                Rights::Registry => String::new(),
                Rights::Session => own(),
                Rights::Also(other) => format!("{} repository:{other}:pull", own()),
            },
            // Another password is another user: a wrong one must not profit from a token got with the right one.
            user: self.credentials.as_ref().map_or_else(String::new, |user| {
                let secrets = format!("{}\0{}", user.basic(), user.identity_token);
                crate::digest::Digest::of(secrets.as_bytes()).to_string()
            }),
        }
    }

    /// One request, and those it is redirected to. `Authorization` stays within the endpoint.
    pub(super) fn follow(
        &self,
        ask: &Ask,
        authorization: Option<&str>,
    ) -> Result<Answer, RegistryError> {
        let what = ask.what();
        let mut url = match &ask.target {
            Target::Path(path) => {
                Url::parse(&self.endpoint.url(path)).map_err(|error| self.protocol(what, error))?
            }
            Target::Location(url) => url.clone(),
        };
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.request(&ask.method, &url, authorization)?;
            request.headers_mut().extend(ask.headers.clone());
            if !ask.body.is_empty() || matches!(ask.method, Method::POST | Method::PUT) {
                request
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from(ask.body.len()));
            }
            *request.body_mut() = whole(ask.body.clone());
            let reply = self.wait(ask.limit, async {
                self.connection
                    .request(request)
                    .await
                    .map_err(|error| self.unreachable(chain(&error)))
            })?;
            let followed: &[u16] = match ask.method {
                Method::GET | Method::HEAD => &[301, 302, 303, 307, 308],
                // The others would change into a GET.
                _ => &[307, 308],
            };
            if !followed.contains(&reply.status().as_u16()) {
                return Ok(Answer { reply, by: url });
            }
            url = self.location(what, &url, reply.headers())?;
        }
        Err(self.protocol(what, format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// A request without a body. `Authorization` is for the endpoint alone.
    pub(super) fn request(
        &self,
        method: &Method,
        url: &Url,
        authorization: Option<&str>,
    ) -> Result<Request<Body>, RegistryError> {
        let what = url.path();
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|error| self.protocol(what, error))?;
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| self.protocol(what, "the token is no text"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let mut request = Request::builder().method(method.clone()).header(
            http::header::USER_AGENT,
            concat!("muster/", env!("CARGO_PKG_VERSION")),
        );
        if let Some(value) = self.registry.config.proxies.authorization(&uri) {
            request = request.header(PROXY_AUTHORIZATION, sensitive(value)?);
        }
        if let Some(value) = authorization.filter(|_| self.is_home(url)) {
            request = request.header(AUTHORIZATION, sensitive(value)?);
        }
        request
            .uri(uri)
            .body(whole(Bytes::new()))
            .map_err(|error| self.protocol(what, error))
    }

    /// Where a reply says to go on; it may be relative, and must not lead out of TLS.
    pub(super) fn location(
        &self,
        what: &str,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Url, RegistryError> {
        let location = headers
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .ok_or_else(|| self.protocol(what, "the reply does not say where to go on"))?;
        let next = url.join(location).map_err(|error| {
            let shown = location.split('?').next().unwrap_or_default();
            self.protocol(what, format!("redirect to {shown:?}: {error}"))
        })?;
        let fine = match next.scheme() {
            "https" => true,
            "http" => url.scheme() == "http" || self.endpoint.insecure,
            _ => false,
        };
        match fine {
            true => Ok(next),
            false => {
                let (from, to) = (bare(url), bare(&next));
                let reason = format!("refusing a redirect from {from} to {to}");
                Err(self.protocol(what, reason))
            }
        }
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
        let repository = !matches!(ask.rights, Rights::Registry);
        match reply.status() {
            StatusCode::FORBIDDEN if repository => {
                let body = self.read_all(ask.what(), reply, SMALL_BODY);
                let (_, reason) = registry_words(&body.unwrap_or_default());
                let reason = Some(reason).filter(|reason| !reason.is_empty());
                let repository = self.reference.familiar_repository();
                self.purpose.denied(repository, reason)
            }
            StatusCode::UNAUTHORIZED if self.credentials.is_some() => {
                RegistryError::Unauthorized(self.reference.domain().to_owned())
            }
            StatusCode::UNAUTHORIZED if repository => {
                let repository = self.reference.familiar_repository();
                self.purpose.denied(repository, None)
            }
            StatusCode::UNAUTHORIZED => {
                RegistryError::Unauthorized(self.reference.domain().to_owned())
            }
            _ => self.status(ask.what(), reply),
        }
    }

    pub(super) fn status(&self, what: &str, reply: Response<Incoming>) -> RegistryError {
        let status = reply.status().as_u16();
        let body = self.read_all(what, reply, SMALL_BODY).unwrap_or_default();
        let (code, message) = registry_words(&body);
        let words = [code, message].into_iter().filter(|word| !word.is_empty());
        RegistryError::Status {
            what: what.to_owned(),
            registry: self.endpoint.to_string(),
            status,
            detail: words.flat_map(|word| [": ".to_owned(), word]).collect(),
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
            what: match what.is_empty() || what.starts_with('/') {
                true => format!("{}{what}", self.endpoint),
                false => format!("{}: {what}", self.endpoint),
            },
            reason: reason.to_string(),
        }
    }
}

/// Without what may be a secret: users, passwords and signatures.
fn bare(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// Code and message of the first error in a registry's reply, as far as they can be shown; perhaps empty.
fn registry_words(body: &[u8]) -> (String, String) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Default::default();
    };
    let first = &body["errors"][0];
    let shown = |word: &str| {
        let text = first[word].as_str().unwrap_or_default().chars();
        text.filter(|c| !c.is_control()).take(DETAIL_MAX).collect()
    };
    (shown("code"), shown("message"))
}

/// An error with everything behind it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
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

/// How long a registry wants not to be asked: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let left = date.timestamp().duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}
