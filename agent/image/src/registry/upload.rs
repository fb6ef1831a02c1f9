//! Putting a blob or a manifest into a repository (OCI distribution-spec 1.1, "Pushing blobs").
//!
//! ```text
//! present ─▶ HEAD says so: nothing to do
//! mount   ─▶ POST ?mount=&from=  201: the registry has linked it    202: an upload has begun instead
//! whole   ─▶ POST, PUT ?digest= with the bytes                       small blobs whose digest is known
//! stream  ─▶ POST, one PATCH of unknown length, PUT ?digest=         large ones, as Docker
//!              └ connection broken: GET the upload's state, make the bytes again, skip what is there,
//!                and go on in pieces of CHUNK bytes, each repeated from memory if need be;
//!                an upload that cannot be gone on with is begun anew
//! ```
//!
//! A blob need not be in memory or on disk: whoever pushes can write it again, the same each time.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use url::Url;

use super::Session;
use super::error::RegistryError;
use super::transport::{Ask, COMMIT_LIMIT, HEAD_LIMIT, chain};
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;

/// Bytes of one piece after a connection broke.
const CHUNK: usize = 8 << 20;
/// Bytes handed to the connection at once, and how many of them wait.
const PIECE: usize = 128 << 10;
const QUEUE: usize = 8;

/// What became of the wish to mount a blob.
pub(crate) enum Mounting {
    /// It is in the repository.
    Mounted,
    /// The registry began an upload in its place.
    Refused(Url),
}

/// Why a blob did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// The registry, or the way there.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The bytes could not be made.
    #[error(transparent)]
    Content(ImageError),
}

impl From<UploadError> for ImageError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Registry(error) => error.into(),
            UploadError::Content(error) => error,
        }
    }
}

/// Writes the blob, the same each time.
pub(crate) type Content<'a> = &'a (dyn Fn(&mut dyn Write) -> Result<(), ImageError> + Sync);

impl Session<'_> {
    /// Whether the repository has a blob.
    pub(crate) fn blob_there(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = format!("/v2/{}/blobs/{digest}", self.reference.path());
        match self.ask(Ask::new(Method::HEAD, path)) {
            Ok(_) => Ok(true),
            Err(RegistryError::Status { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob over from its repository `from`.
    pub(crate) fn mount(&self, digest: &Digest, from: &str) -> Result<Mounting, RegistryError> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from)
            .finish();
        let path = format!("/v2/{}/blobs/uploads/?{query}", self.reference.path());
        let reply = self.ask(Ask::new(Method::POST, &*path).also_reading(from))?;
        match reply.status() {
            StatusCode::CREATED => Ok(Mounting::Mounted),
            _ => Ok(Mounting::Refused(self.location(
                &path,
                &self.base()?,
                reply.headers(),
            )?)),
        }
    }

    /// Forgets an upload that was begun for nothing. Registries do so themselves in the end.
    pub(crate) fn abandon(&self, upload: Url) {
        let _ = self.ask(Ask::at(Method::DELETE, upload));
    }

    /// Puts a blob that is in memory.
    pub(crate) fn put_blob(
        &self,
        digest: &Digest,
        bytes: Bytes,
        begun: Option<Url>,
    ) -> Result<(), RegistryError> {
        let mut begun = begun;
        let mut tries = 0;
        loop {
            let upload = match begun.take() {
                Some(upload) => upload,
                None => self.begin()?,
            };
            tries += 1;
            match self.finish(upload, digest, bytes.clone()) {
                // The registry lost the upload.
                Err(RegistryError::Status { status: 404, .. })
                    if tries < self.registry.attempts() => {}
                outcome => return outcome,
            }
        }
    }

    /// Puts a blob that is written while it is on its way. Returns its digest and length.
    pub(crate) fn stream_blob(
        &self,
        content: Content<'_>,
        begun: Option<Url>,
    ) -> Result<(Digest, u64), UploadError> {
        let mut begun = begun;
        let mut tries = 0;
        loop {
            let upload = match begun.take() {
                Some(upload) => upload,
                None => self.begin()?,
            };
            let error = match self.stream(content, &upload)? {
                Ok((digest, size, upload)) => match self.finish(upload, &digest, Bytes::new()) {
                    Ok(()) => return Ok((digest, size)),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tries += 1;
            if tries >= self.registry.attempts() || error.is_cancelled() || !error.may_pass() {
                return Err(error.into());
            }
            tracing::debug!(%error, "an upload broke off");
            self.back_off(tries)?;
            // An upload that is not known any more begins anew.
            let Some((upload, at)) = self.state(&upload)? else {
                continue;
            };
            let mut pieces = Pieces {
                session: self,
                upload,
                at,
                skip: at,
                buffer: Vec::new(),
                failure: None,
            };
            let mut measured = Measured::new(&mut pieces);
            let written = content(&mut measured);
            let (digest, size) = measured.finish();
            let flushed = written.and_then(|()| pieces.flush().map_err(ImageError::Output));
            let ended = match (flushed, pieces.failure.take()) {
                (Ok(()), _) => self.finish(pieces.upload, &digest, Bytes::new()),
                (Err(_), Some(error)) => Err(error),
                (Err(error), None) => return Err(UploadError::Content(error)),
            };
            match ended {
                Ok(()) => return Ok((digest, size)),
                Err(error) if error.may_pass() || error.is_of_upload() => {
                    tracing::debug!(%error, "an upload is begun anew");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts a manifest under a tag or its digest.
    pub(crate) fn put_manifest(
        &self,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let path = format!("/v2/{}/manifests/{name}", self.reference.path());
        let ask = Ask::new(Method::PUT, path)
            .header(CONTENT_TYPE, media_type)
            .body(Bytes::copy_from_slice(bytes));
        self.ask(ask).map(drop)
    }

    fn base(&self) -> Result<Url, RegistryError> {
        Url::parse(&self.endpoint.url("/v2/")).map_err(|error| self.protocol("/v2/", error))
    }

    fn begin(&self) -> Result<Url, RegistryError> {
        let path = format!("/v2/{}/blobs/uploads/", self.reference.path());
        let reply = self.ask(Ask::new(Method::POST, &*path))?;
        self.location(&path, &self.base()?, reply.headers())
    }

    /// How much of an upload the registry has, and where to go on; `None`: it does not know it, or cannot go on with it, as
    /// Docker's registry up to 2.8 after a connection broke (`registry/handlers/blobupload.go`).
    fn state(&self, upload: &Url) -> Result<Option<(Url, u64)>, RegistryError> {
        let reply = match self.ask(Ask::at(Method::GET, upload.clone())) {
            Ok(reply) => reply,
            Err(error) if error.is_of_upload() => return Ok(None),
            Err(error) => return Err(error),
        };
        let next = self.location(upload.path(), upload, reply.headers());
        let next = next.unwrap_or_else(|_| upload.clone());
        Ok(Some((next, received(reply.headers()))))
    }

    /// One PATCH of everything. The inner error is the registry's, after which the upload may go on.
    #[allow(clippy::type_complexity)]
    fn stream(
        &self,
        content: Content<'_>,
        upload: &Url,
    ) -> Result<Result<(Digest, u64, Url), RegistryError>, UploadError> {
        let authorization = self.session_authorization();
        let mut request = self.request(&Method::PATCH, upload, authorization.as_deref())?;
        request.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        let (sender, receiver) = mpsc::channel(QUEUE);
        *request.body_mut() = Queue(receiver).boxed_unsync();
        let replied = self
            .registry
            .runtime
            .spawn(self.connection.request(request));
        let mut queue = ToQueue {
            session: self,
            sender,
            buffer: Vec::with_capacity(PIECE),
            cut: None,
        };
        let mut measured = Measured::new(&mut queue);
        let written = content(&mut measured);
        let (digest, size) = measured.finish();
        let written = written.and_then(|()| queue.flush().map_err(ImageError::Output));
        match (&written, queue.cut.take()) {
            (Err(_), Some(error)) if error.is_cancelled() => {
                replied.abort();
                return Err(error.into());
            }
            (Err(_), Some(_)) | (Ok(()), _) => {}
            (Err(_), None) => {
                // The request must not look complete.
                replied.abort();
                return Err(UploadError::Content(written.expect_err("matched above")));
            }
        }
        let complete = written.is_ok();
        drop(queue);
        let reply = self.wait(HEAD_LIMIT, async {
            match replied.await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(error)) => Err(self.unreachable(chain(&error))),
                Err(error) => Err(self.unreachable(error)),
            }
        });
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Err(error) => return Ok(Err(error)),
        };
        if !reply.status().is_success() || !complete {
            return Ok(Err(self.status(upload.path(), reply)));
        }
        let next = self.location(upload.path(), upload, reply.headers())?;
        Ok(Ok((digest, size, next)))
    }

    /// Makes a blob of an upload, whose last bytes come along.
    fn finish(&self, upload: Url, digest: &Digest, bytes: Bytes) -> Result<(), RegistryError> {
        let mut target = upload.clone();
        target
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let ask = Ask::at(Method::PUT, target)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes)
            .within(COMMIT_LIMIT);
        match self.ask(ask) {
            Ok(_) => Ok(()),
            // The reply to a request that was good got lost: the upload is gone because the blob is there.
            Err(RegistryError::Status { status: 404, .. }) if self.blob_there(digest)? => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Bytes that a registry has of an upload: `Range: 0-<last>`.
fn received(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range = range.unwrap_or_default();
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    match range.split_once('-').map(|(_, last)| last.parse::<u64>()) {
        // No bytes are "0-0" to some registries and "0--1" to others. One byte sent twice is noticed by the digest,
        // and no layer has one byte.
        None | Some(Err(_) | Ok(0)) => 0,
        Some(Ok(last)) => last + 1,
    }
}

/// Hashes and counts what passes.
struct Measured<'a> {
    hasher: Hasher,
    size: u64,
    output: &'a mut dyn Write,
}

impl<'a> Measured<'a> {
    fn new(output: &'a mut dyn Write) -> Self {
        Self {
            hasher: Hasher::new(),
            size: 0,
            output,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl Write for Measured<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The body of the one PATCH.
struct Queue(mpsc::Receiver<Bytes>);

impl HttpBody for Queue {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

struct ToQueue<'a> {
    session: &'a Session<'a>,
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
    /// Why nobody takes any more.
    cut: Option<RegistryError>,
}

impl ToQueue<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        let (session, sender) = (self.session, &self.sender);
        let sent = session.wait(HEAD_LIMIT, async {
            let sent = sender.send(Bytes::from(piece)).await;
            sent.map_err(|_| session.unreachable("it does not take the whole upload"))
        });
        sent.map_err(|error| {
            let text = error.to_string();
            self.cut = Some(error);
            io::Error::other(text)
        })
    }
}

impl Write for ToQueue<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Sends pieces that are repeated from memory when a connection breaks.
struct Pieces<'a> {
    session: &'a Session<'a>,
    upload: Url,
    /// Where the buffer begins in the blob.
    at: u64,
    /// Bytes still to be left out, since the registry has them.
    skip: u64,
    buffer: Vec<u8>,
    failure: Option<RegistryError>,
}

impl Pieces<'_> {
    fn send(&mut self) -> Result<(), RegistryError> {
        let mut tries = 0;
        while !self.buffer.is_empty() {
            let last = self.at + self.buffer.len() as u64 - 1;
            let ask = Ask::at(Method::PATCH, self.upload.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_RANGE, &format!("{}-{last}", self.at))
                .body(Bytes::copy_from_slice(&self.buffer));
            // Not asked again blindly: part of the piece may have arrived.
            let error = match self.session.ask_once(&ask) {
                Ok(reply) => {
                    self.upload =
                        self.session
                            .location(self.upload.path(), &self.upload, reply.headers())?;
                    self.at = last + 1;
                    self.buffer.clear();
                    return Ok(());
                }
                Err(error) => error,
            };
            tries += 1;
            if tries >= self.session.registry.attempts() || !error.may_pass() {
                return Err(error);
            }
            let refused = error.is_of_upload();
            if !refused {
                self.session.back_off(tries)?;
            }
            let Some((upload, there)) = self.session.state(&self.upload)? else {
                return Err(error);
            };
            let Some(more) = there.checked_sub(self.at).filter(|_| there <= last + 1) else {
                return Err(error);
            };
            // Both sides agree about what is there, and still it takes no more.
            if refused && more == 0 {
                return Err(error);
            }
            self.buffer.drain(..more as usize);
            (self.upload, self.at) = (upload, there);
        }
        Ok(())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        self.buffer.extend_from_slice(&bytes[skipped..]);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send().map_err(|error| {
            let text = error.to_string();
            self.failure = Some(error);
            io::Error::other(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has_of_an_upload() {
        for (range, bytes) in [
            ("0-0", 0),
            ("0--1", 0),
            ("0-1023", 1024),
            ("bytes=0-9", 10),
            ("", 0),
            ("x", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(range).unwrap());
            assert_eq!(received(&headers), bytes, "{range}");
        }
        assert_eq!(received(&HeaderMap::new()), 0);
    }
}
