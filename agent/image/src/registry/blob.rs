//! The bytes of a blob as a `Read`: bounded by the size that the manifest promises, and going on where a broken
//! connection stopped. Whether they are the right ones is for the reader to say, who hashes them anyway.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use http::StatusCode;
use http::header::{CONTENT_RANGE, RANGE};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::Session;
use super::error::RegistryError;
use super::partial::{Partial, Partials};
use super::transport::Ask;
use crate::digest::Digest;
use crate::manifest::Descriptor;

/// Connections for one blob, however much each of them brought.
const CONNECTIONS_MAX: u32 = 50;
/// Bytes that are read of an interrupted download at once.
const PIECE: u64 = 256 << 10;
/// Bytes of an image configuration.
const CONFIG_MAX: u64 = 8 << 20;

/// Reads one blob.
pub(crate) struct BlobReader<'a> {
    session: &'a Session<'a>,
    path: String,
    size: u64,
    /// Bytes received.
    at: u64,
    body: Option<Incoming>,
    chunk: Bytes,
    connections: u32,
    /// Connections that brought nothing, since the last that did.
    fruitless: u32,
    /// Why reading failed: an `io::Error` passes through decoders that keep only its text.
    failure: &'a Mutex<Option<RegistryError>>,
    /// What an earlier pull left, and what a later one may go on with.
    partial: Option<Partial>,
}

impl Session<'_> {
    /// A configuration, verified.
    pub(crate) fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > CONFIG_MAX {
            let reason = format!("it is longer than {CONFIG_MAX} bytes");
            return Err(self.protocol(&descriptor.digest.to_string(), reason));
        }
        let failure = Mutex::new(None);
        let mut bytes = Vec::new();
        let read = BlobReader::new(self, descriptor, &failure).read_to_end(&mut bytes);
        if let Err(error) = read {
            let failure = failure.into_inner();
            return Err(failure.unwrap_or_else(|| self.unreachable(error)));
        }
        let actual = Digest::of(&bytes);
        if actual != descriptor.digest {
            return Err(RegistryError::Digest {
                what: format!("{}: configuration", self.reference.familiar()),
                expected: descriptor.digest,
                actual,
            });
        }
        Ok(bytes)
    }
}

impl<'a> BlobReader<'a> {
    pub(crate) fn new(
        session: &'a Session<'a>,
        descriptor: &Descriptor,
        failure: &'a Mutex<Option<RegistryError>>,
    ) -> Self {
        let repository = session.reference.path();
        Self {
            session,
            path: format!("/v2/{repository}/blobs/{}", descriptor.digest),
            size: descriptor.size,
            at: 0,
            body: None,
            chunk: Bytes::new(),
            connections: 0,
            fruitless: 0,
            failure,
            partial: None,
        }
    }

    /// Goes on with what an interrupted pull left, and leaves something itself if it is interrupted.
    pub(crate) fn resumable(mut self, partials: &Partials, blob: &Digest) -> Self {
        self.partial = partials.take(blob, self.size);
        self
    }

    /// The next bytes; empty at the end.
    fn fill(&mut self) -> Result<(), RegistryError> {
        self.fill_from_partial();
        while self.chunk.is_empty() && self.at < self.size {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => {
                    let body = self.open()?;
                    if !self.chunk.is_empty() {
                        self.body = Some(body);
                        return Ok(());
                    }
                    body
                }
            };
            let error = match self.session.next_chunk(&mut body) {
                Ok(Some(chunk)) => {
                    if chunk.len() as u64 > self.size - self.at {
                        let reason = format!("it is longer than the promised {} bytes", self.size);
                        return Err(self.session.protocol(&self.path, reason));
                    }
                    if !chunk.is_empty() {
                        self.fruitless = 0;
                    }
                    self.take(chunk);
                    self.body = Some(body);
                    continue;
                }
                Ok(None) => self.session.unreachable(format!(
                    "the connection ended after {} of {} bytes of {}",
                    self.at, self.size, self.path
                )),
                Err(error) => error,
            };
            self.fruitless += 1;
            if error.is_cancelled()
                || self.fruitless >= self.session.registry.attempts()
                || self.connections >= CONNECTIONS_MAX
            {
                return Err(error);
            }
            tracing::debug!(%error, at = self.at, "going on with a blob");
            self.session.back_off(self.fruitless)?;
        }
        Ok(())
    }

    fn fill_from_partial(&mut self) {
        let Some(partial) = &self.partial else {
            return;
        };
        if !self.chunk.is_empty() || self.at >= partial.len() {
            return;
        }
        let mut piece = vec![0; PIECE.min(partial.len() - self.at) as usize];
        match partial.read(self.at, &mut piece) {
            Ok(len) if len > 0 => {
                piece.truncate(len);
                self.at += len as u64;
                self.chunk = Bytes::from(piece);
            }
            // From here on the registry is asked.
            _ => self.partial = None,
        }
    }

    /// Bytes that came.
    fn take(&mut self, chunk: Bytes) {
        self.at += chunk.len() as u64;
        if let Some(partial) = &mut self.partial
            && let Err(error) = partial.append(&chunk)
        {
            tracing::debug!(%error, "a download is not kept");
            self.partial = None;
        }
        self.chunk = chunk;
    }

    /// Asks for what is still missing.
    fn open(&mut self) -> Result<Incoming, RegistryError> {
        self.connections += 1;
        let mut ask = Ask::get(&*self.path);
        if self.at > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.at));
        }
        let reply = match self.session.ask(ask) {
            // It gives no parts of this one (any more): from its beginning, then.
            Err(error) if self.at > 0 && error.is_range() => {
                self.session.ask(Ask::get(&*self.path))?
            }
            reply => reply?,
        };
        let begins = match reply.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = reply.headers().get(CONTENT_RANGE);
                let range = range.and_then(|range| range.to_str().ok()).unwrap_or("");
                let start = range.strip_prefix("bytes ").unwrap_or("").split('-').next();
                start.and_then(|start| start.parse::<u64>().ok())
            }
            // The whole blob again.
            _ => Some(0),
        };
        let mut body = reply.into_body();
        let mut skip = match begins {
            Some(begins) if begins <= self.at => self.at - begins,
            _ => {
                let reason = format!("asked from byte {}, got another range", self.at);
                return Err(self.session.protocol(&self.path, reason));
            }
        };
        while skip > 0 {
            match self.session.next_chunk(&mut body)? {
                None => return Ok(body),
                Some(chunk) if chunk.len() as u64 <= skip => skip -= chunk.len() as u64,
                Some(mut chunk) => {
                    chunk.advance(skip as usize);
                    skip = 0;
                    if chunk.len() as u64 > self.size - self.at {
                        let reason = format!("it is longer than the promised {} bytes", self.size);
                        return Err(self.session.protocol(&self.path, reason));
                    }
                    self.take(chunk);
                }
            }
        }
        Ok(body)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.fill() {
            let text = error.to_string();
            *self.failure.lock() = Some(error);
            return Err(io::Error::other(text));
        }
        let len = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}
