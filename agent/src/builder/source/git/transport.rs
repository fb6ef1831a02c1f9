//! The way to a repository: gitoxide's protocol over our HTTP client, or over a connection to a git daemon.
//!
//! Runs on threads that may block. What comes back is bounded, a server that is silent is given up, and a cancel ends
//! everything. Must not: use the host's git configuration, credentials or programs.

use std::io::{self, BufRead, Cursor, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use agent_image::Proxies;
use bytes::{Buf as _, Bytes};
use gix::error::Result as GitResult;
use gix_transport::Protocol;
use gix_transport::client::blocking_io::Transport;
use gix_transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse, Transport as HttpTransport,
};
use gix_transport::client::git::{ConnectMode, blocking_io::Connection};
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::super::client::{Question, STALL_LIMIT, ask, host_of};

/// Most that one answer may bring: a pack of one commit.
const MAX_BYTES: u64 = 16 << 30;
/// Longest request: the commits that are wanted.
const REQUEST_MAX: usize = 1 << 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Port of a git daemon.
const DAEMON: u16 = 9418;

/// How to reach a repository. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    url: Url,
    authorization: Option<HeaderValue>,
    /// For HTTP; a git daemon is always asked directly.
    proxies: Proxies,
    cancel: CancellationToken,
    runtime: Handle,
    /// Why the last exchange failed, in words for people: gitoxide wraps what it is told.
    failure: Arc<Mutex<Option<String>>>,
}

impl Link {
    /// Must be called within the runtime that shall do the work.
    pub(super) fn new(
        url: Url,
        authorization: Option<HeaderValue>,
        proxies: Proxies,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            url,
            authorization,
            proxies,
            cancel,
            runtime: Handle::current(),
            failure: Arc::default(),
        }
    }

    /// The address without what is secret in it.
    pub(super) fn address(&self) -> String {
        super::super::http::shown(&self.url)
    }

    /// Another repository; credentials are taken along on the same host only.
    pub(super) fn to(&self, url: Url) -> Self {
        let same = url.origin() == self.url.origin() && url.scheme() != "git";
        Self {
            authorization: self.authorization.clone().filter(|_| same),
            url,
            failure: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Why an exchange failed: what was seen here, or else what gitoxide says.
    pub(super) fn explain(&self, error: &gix::Error) -> String {
        let seen = self.failure.lock().take();
        seen.unwrap_or_else(|| error.probable_cause().to_string())
    }

    /// Connects.
    pub(super) fn open(&self) -> io::Result<Box<dyn Transport + Send>> {
        match self.url.scheme() {
            "git" => self.daemon(),
            _ => {
                let plain = gix::url::parse(without_userinfo(&self.url).as_str())
                    .map_err(|error| io::Error::other(error.to_string()))?;
                let client = HttpClient {
                    link: self.clone(),
                    redirected: None,
                };
                Ok(Box::new(HttpTransport::new_http(
                    client,
                    plain,
                    Protocol::V2,
                    false,
                )))
            }
        }
    }

    fn daemon(&self) -> io::Result<Box<dyn Transport + Send>> {
        let (host, port) = (self.url.host_str().unwrap_or_default(), self.url.port());
        let mut last = io::Error::other(format!("{host} has no address"));
        for address in (host, port.unwrap_or(DAEMON)).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                Ok(stream) => return self.speak(stream, host, port),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn speak(
        &self,
        stream: TcpStream,
        host: &str,
        port: Option<u16>,
    ) -> io::Result<Box<dyn Transport + Send>> {
        stream.set_read_timeout(Some(STALL_LIMIT))?;
        stream.set_write_timeout(Some(STALL_LIMIT))?;
        let (writer, ender) = (stream.try_clone()?, stream.try_clone()?);
        let cancel = self.cancel.clone();
        let hang_up = self.runtime.spawn(async move {
            cancel.cancelled().await;
            // Whoever reads or writes sees the end.
            let _ = ender.shutdown(Shutdown::Both);
        });
        let reader = Daemon {
            stream: stream.take(MAX_BYTES),
            _hang_up: tokio_util::task::AbortOnDropHandle::new(hang_up),
        };
        Ok(Box::new(Connection::new(
            reader,
            writer,
            Protocol::V2,
            self.url.path(),
            Some((host.to_owned(), port)),
            ConnectMode::Daemon,
            false,
        )))
    }
}

/// The reading side of a connection to a daemon.
struct Daemon {
    stream: io::Take<TcpStream>,
    _hang_up: tokio_util::task::AbortOnDropHandle<()>,
}

impl Read for Daemon {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

fn without_userinfo(url: &Url) -> Url {
    let mut plain = url.clone();
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain
}

/// gitoxide's HTTP by our client.
struct HttpClient {
    link: Link,
    /// Base of the repository's addresses after a redirect.
    redirected: Option<String>,
}

impl HttpClient {
    fn question(
        &self,
        method: Method,
        url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<Question> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidInput, "a malformed address");
        let mut url: Url = url.parse().map_err(|_| malformed())?;
        let ours = url.origin() == self.link.url.origin();
        if ours {
            // For the client to make a header of it.
            let _ = url.set_username(self.link.url.username());
            let _ = url.set_password(self.link.url.password());
        }
        let mut all = HeaderMap::new();
        for line in headers {
            let Some((name, value)) = line.as_ref().split_once(':') else {
                continue;
            };
            let (Ok(name), Ok(value)) = (
                HeaderName::try_from(name.trim()),
                HeaderValue::try_from(value.trim()),
            ) else {
                continue;
            };
            all.append(name, value);
        }
        // Servers tell git's requests by it.
        all.insert(USER_AGENT, HeaderValue::from_static("git/2.0 (muster)"));
        if let (true, Some(value)) = (ours, &self.link.authorization) {
            all.insert(AUTHORIZATION, value.clone());
        }
        Ok(Question {
            proxies: self.link.proxies.clone(),
            method,
            url,
            headers: all,
            body: Bytes::new(),
        })
    }
}

impl Http for HttpClient {
    type Headers = Headers;
    type ResponseBody = ResponseBody;
    type PostBody = PostBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> GitResult<GetResponse<Headers, ResponseBody>> {
        let question = self
            .question(Method::GET, url, headers)
            .map_err(gix::Error::from_error)?;
        let exchange = Exchange::new(self.link.clone(), question);
        exchange.perform();
        let end = exchange.0.lock().last.clone();
        if let (Some(end), Some(tail)) = (end, url.strip_prefix(base_url)) {
            let end = without_userinfo(&end).to_string();
            self.redirected = end
                .strip_suffix(tail)
                .filter(|base| *base != base_url)
                .map(str::to_owned);
        }
        Ok(GetResponse {
            headers: Headers::of(&exchange),
            body: ResponseBody::of(&exchange),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> GitResult<PostResponse<Headers, ResponseBody, PostBody>> {
        let question = self
            .question(Method::POST, url, headers)
            .map_err(gix::Error::from_error)?;
        let exchange = Exchange::new(self.link.clone(), question);
        Ok(PostResponse {
            headers: Headers::of(&exchange),
            body: ResponseBody::of(&exchange),
            post_body: PostBody {
                exchange,
                written: Vec::new(),
            },
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> GitResult {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

/// One request and its answer. The parts that gitoxide is given share it, all on one thread.
#[derive(Clone)]
struct Exchange(Arc<Mutex<State>>);

struct State {
    link: Link,
    question: Option<Question>,
    answer: Option<io::Result<Answer>>,
    /// Where redirects led to.
    last: Option<Url>,
}

struct Answer {
    headers: Option<Vec<u8>>,
    body: Incoming,
    left: u64,
}

impl Exchange {
    fn new(link: Link, question: Question) -> Self {
        Self(Arc::new(Mutex::new(State {
            link,
            question: Some(question),
            answer: None,
            last: None,
        })))
    }

    /// Asks, and waits for the head of the answer.
    fn perform(&self) {
        let mut state = self.0.lock();
        let Some(question) = state.question.take() else {
            return;
        };
        let link = state.link.clone();
        let asked = link.runtime.block_on(ask(question, &link.cancel));
        let answer = match asked {
            Err(error) => Err(io::Error::other(error.to_string())),
            Ok((last, answer)) => {
                state.last = Some(last);
                refused(&link, answer.status()).map(|()| {
                    let (head, body) = answer.into_parts();
                    Answer {
                        headers: Some(lines(&head.headers)),
                        body,
                        left: MAX_BYTES,
                    }
                })
            }
        };
        if let Err(error) = &answer {
            *link.failure.lock() = Some(error.to_string());
        }
        state.answer = Some(answer);
    }

    fn with<T>(&self, take: impl FnOnce(&mut Answer, &Link) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        let State { link, answer, .. } = &mut *state;
        match answer {
            Some(Ok(answer)) => take(answer, link),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Err(io::Error::other(
                "an answer is read before its question was sent",
            )),
        }
    }
}

/// What a status means for a repository.
fn refused(link: &Link, status: StatusCode) -> io::Result<()> {
    let (address, host) = (link.address(), host_of(&link.url));
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(io::Error::other(format!(
            "{host} refuses access to {address} (status {}): pass the secret GIT_AUTH_TOKEN or GIT_AUTH_HEADER",
            status.as_u16()
        ))),
        StatusCode::NOT_FOUND => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "repository {address} not found, or not to be seen without the secret GIT_AUTH_TOKEN"
            ),
        )),
        status => Err(io::Error::other(format!(
            "{host} answered with status {} for {address}",
            status.as_u16()
        ))),
    }
}

fn lines(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text
}

/// Takes the body of a request; it is sent when this is dropped.
struct PostBody {
    exchange: Exchange,
    written: Vec<u8>,
}

impl Write for PostBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > REQUEST_MAX {
            return Err(io::Error::other("a request to a repository is too long"));
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PostBody {
    fn drop(&mut self) {
        if let Some(question) = &mut self.exchange.0.lock().question {
            question.body = std::mem::take(&mut self.written).into();
        }
        self.exchange.perform();
    }
}

/// The headers of an answer, one per line.
struct Headers {
    exchange: Exchange,
    text: Option<Cursor<Vec<u8>>>,
}

impl Headers {
    fn of(exchange: &Exchange) -> Self {
        Self {
            exchange: exchange.clone(),
            text: None,
        }
    }

    fn text(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        if self.text.is_none() {
            let headers = self.exchange.with(|answer, _| Ok(answer.headers.take()))?;
            self.text = Some(Cursor::new(headers.unwrap_or_default()));
        }
        Ok(self.text.as_mut().expect("it was set just above"))
    }
}

impl Read for Headers {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.text()?.read(into)
    }
}

impl BufRead for Headers {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.text()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(text) = &mut self.text {
            text.consume(amount);
        }
    }
}

/// The body of an answer.
struct ResponseBody {
    exchange: Exchange,
    piece: Bytes,
}

impl ResponseBody {
    fn of(exchange: &Exchange) -> Self {
        Self {
            exchange: exchange.clone(),
            piece: Bytes::new(),
        }
    }
}

impl Read for ResponseBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(into.len());
        into[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for ResponseBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            let next = self.exchange.with(next_piece);
            if let Err(error) = &next {
                let state = self.exchange.0.lock();
                let mut failure = state.link.failure.lock();
                failure.get_or_insert_with(|| error.to_string());
            }
            match next? {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

/// The next bytes of a body; none at its end.
fn next_piece(answer: &mut Answer, link: &Link) -> io::Result<Option<Bytes>> {
    let frame = link.runtime.block_on(async {
        tokio::select! {
            frame = tokio::time::timeout(STALL_LIMIT, answer.body.frame()) => frame.map_err(|_| {
                let silent = format!("{} fell silent", host_of(&link.url));
                io::Error::new(io::ErrorKind::TimedOut, silent)
            }),
            () = link.cancel.cancelled() => Err(io::Error::other("canceled")),
        }
    })?;
    let Some(frame) = frame else { return Ok(None) };
    let data = frame
        .map_err(io::Error::other)?
        .into_data()
        .unwrap_or_default();
    answer.left = answer.left.checked_sub(data.len() as u64).ok_or_else(|| {
        io::Error::other(format!(
            "{} sends more than {MAX_BYTES} bytes",
            link.address()
        ))
    })?;
    Ok(Some(data))
}
