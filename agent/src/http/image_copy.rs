//! Images from daemon to daemon: the sender's blobs, and the receiver's side of a copy. The protocol is
//! `agent_api::client`'s (`image_copy`); these endpoints are muster's own, beside those of Docker.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use agent_api::build::{CONTROL, Frame, FrameCodec, FrameKind};
use agent_api::client::{BlobSize, COPY_PROTOCOL, CopyMessage, ImageOffer};
use agent_image::{Accept, BlobSource, Digest, Partial, Store};
use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::body::{self, BrokenOff};
use super::error::HttpError;
use super::hijack::Taken;
use super::router::{Route, get, post};
use super::{Call, Outcome};
use crate::engine::Engine;
use crate::error::Error;

/// Frames that wait for the connection, and for one channel; then the sender waits.
const OUTGOING: usize = 16;
const INCOMING: usize = 16;
/// Bytes of what is here already that are read at once.
const PIECE: u64 = 256 << 10;

pub(super) const ROUTES: &[Route] = &[
    get("/muster/images/{}/offer", |call| Box::pin(offer(call))),
    get("/muster/blobs/{}/json", |call| Box::pin(size(call))),
    get("/muster/blobs/{}", |call| Box::pin(blob(call))),
    post("/muster/images/receive", |call| Box::pin(receive(call))),
];

async fn offer(call: Call) -> Outcome {
    let offer = call.engine.offer_image(&call.name).await?;
    Ok(body::ok(&ImageOffer {
        id: offer.id.to_string(),
        manifest: offer.manifest.to_string(),
    }))
}

fn digest(text: &str) -> Result<Digest, HttpError> {
    text.parse()
        .map_err(|_| HttpError::bad_request(format!("{text:?} is no digest")))
}

async fn size_of(call: &Call, blob: Digest) -> Result<u64, HttpError> {
    let sizes = call.engine.blob_sizes(vec![blob]).await?;
    let size = sizes.first().map(|(_, size)| *size);
    size.ok_or_else(|| HttpError::not_found(format!("no such blob: {blob}")))
}

async fn size(call: Call) -> Outcome {
    let size = size_of(&call, digest(&call.name)?).await?;
    Ok(body::ok(&BlobSize { size }))
}

async fn blob(call: Call) -> Outcome {
    let blob = digest(&call.name)?;
    size_of(&call, blob).await?;
    let offset = call.query.integer("offset")?.unwrap_or(0);
    let offset =
        u64::try_from(offset).map_err(|_| HttpError::bad_request("a blob begins at its byte 0"))?;
    let bytes = stream::unfold(
        call.engine.read_blob(blob, offset),
        |mut bytes| async move {
            let piece = bytes.recv().await?;
            let piece = piece.map_err(|failure| BrokenOff(failure.to_string()));
            Some((piece, bytes))
        },
    );
    Ok(body::stream("application/octet-stream", bytes))
}

async fn receive(call: Call) -> Outcome {
    let name = call.query.text("name").to_owned();
    agent_image::Reference::parse(&name)
        .map_err(|error| HttpError::bad_request(error.to_string()))?;
    let manifest = digest(call.query.text("manifest"))?;
    let engine = call.engine.clone();
    call.takeover
        .take(move |taken| async move {
            if let Err(error) = talk(taken, engine, &name, manifest).await {
                tracing::debug!(%error, "the connection of a copy broke");
            }
        })
        .await
}

async fn talk(taken: Taken, engine: Engine, name: &str, manifest: Digest) -> io::Result<()> {
    let (read, mut write) = taken.stream.into_split();
    let head =
        format!("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {COPY_PROTOCOL}\r\n\r\n");
    write.write_all(head.as_bytes()).await?;
    let (frames, outgoing) = mpsc::channel(OUTGOING);
    let writer = tokio::spawn(write_frames(write, outgoing));
    let line = Line {
        frames,
        channels: Arc::default(),
        store: Arc::clone(&engine.shared().images),
    };
    let mut reader = FramedRead::new(read, FrameCodec);
    reader.read_buffer_mut().extend_from_slice(&taken.early);
    let (asked, source) = (Arc::clone(&line.channels), line.clone());
    let outcome = tokio::select! {
        outcome = engine.receive_image(name, manifest, Accept::Any, source) => outcome,
        // The client has left: dropping the work cancels it, and what its threads wait for has ended.
        () = hear(reader, &asked) => {
            asked.lock().close();
            return Ok(());
        }
    };
    let message = match outcome {
        Ok(()) => {
            line.forget();
            match engine.offer_image(name).await {
                Ok(offer) => CopyMessage::Done {
                    id: offer.id.to_string(),
                },
                Err(error) => CopyMessage::Failed {
                    message: error.to_string(),
                },
            }
        }
        Err(error) => {
            // What was wrong must not be gone on with.
            if matches!(error, Error::InvalidParameter(_)) {
                line.forget();
            }
            CopyMessage::Failed {
                message: error.to_string(),
            }
        }
    };
    let _ = line.frames.send(message.frame()).await;
    drop(line);
    let _ = writer.await;
    Ok(())
}

async fn write_frames(write: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Frame>) {
    let mut write = FramedWrite::new(write, FrameCodec);
    while let Some(frame) = outgoing.recv().await {
        if write.send(frame).await.is_err() {
            break;
        }
    }
    let _ = write.close().await;
}

/// Hands the client's frames to their channels. Ends when the client leaves or breaks the protocol.
async fn hear(mut reader: FramedRead<OwnedReadHalf, FrameCodec>, channels: &Mutex<Channels>) {
    while let Some(Ok(frame)) = reader.next().await {
        let (channel, piece) = match frame.kind {
            FrameKind::Data => (frame.channel, Piece::Data(frame.payload)),
            FrameKind::End => (frame.channel, Piece::End),
            FrameKind::Reset => {
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                (frame.channel, Piece::Reset(reason))
            }
            FrameKind::Message => match CopyMessage::of(&frame) {
                Some(CopyMessage::Have { channel, size }) => (channel, Piece::Size(size)),
                _ => return,
            },
        };
        if channel == CONTROL {
            return;
        }
        let to = channels.lock().open.get(&channel).cloned();
        // What comes for a channel that is closed was on its way when it closed.
        if let Some(to) = to {
            let _ = to.send(piece).await;
        }
    }
}

/// What comes on a channel.
enum Piece {
    Size(u64),
    Data(Bytes),
    End,
    Reset(String),
}

#[derive(Default)]
struct Channels {
    last: u32,
    open: HashMap<u32, mpsc::Sender<Piece>>,
    /// Blobs of which something may be kept.
    asked: Vec<Digest>,
    /// The client has left: whoever asks now would wait for ever.
    closed: bool,
}

impl Channels {
    /// A number for a channel whose pieces go to `to`; none when nobody is there to send any.
    fn open(&mut self, blob: Digest, to: mpsc::Sender<Piece>) -> Option<u32> {
        if self.closed {
            return None;
        }
        self.last += 1;
        self.open.insert(self.last, to);
        self.asked.push(blob);
        Some(self.last)
    }

    /// Ends all channels, those of later also.
    fn close(&mut self) {
        self.closed = true;
        self.open.clear();
    }
}

/// The client's blobs. Its calls block their thread.
#[derive(Clone)]
struct Line {
    frames: mpsc::Sender<Frame>,
    channels: Arc<Mutex<Channels>>,
    store: Arc<Store>,
}

impl Line {
    fn say(&self, message: &CopyMessage) -> io::Result<()> {
        let sent = self.frames.blocking_send(message.frame());
        sent.map_err(|_| gone())
    }

    /// Nothing of the blobs needs to be kept any more.
    fn forget(&self) {
        for blob in std::mem::take(&mut self.channels.lock().asked) {
            self.store.forget_partial(&blob);
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the sender has left")
}

impl BlobSource for Line {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send + '_>> {
        let (sender, mut pieces) = mpsc::channel(INCOMING);
        let channel = self.channels.lock().open(*blob, sender);
        let channel = channel.ok_or_else(gone)?;
        let closing = Closing {
            line: self,
            channel,
        };
        self.say(&CopyMessage::Want {
            channel,
            digest: blob.to_string(),
        })?;
        let size = match pieces.blocking_recv() {
            Some(Piece::Size(size)) => size,
            Some(Piece::Reset(reason)) => return Err(io::Error::other(reason)),
            Some(_) => return Err(io::Error::other("the sender breaks the protocol")),
            None => return Err(gone()),
        };
        let partial = self.store.partial(blob, size);
        let offset = partial.as_ref().map_or(0, Partial::len);
        self.say(&CopyMessage::Send { channel, offset })?;
        Ok(Box::new(Arriving {
            _closing: closing,
            pieces,
            partial,
            kept: offset,
            at: 0,
            size,
            piece: Bytes::new(),
        }))
    }
}

/// Forgets a channel when nobody reads it any more.
struct Closing<'a> {
    line: &'a Line,
    channel: u32,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.line.channels.lock().open.remove(&self.channel);
    }
}

/// One blob: what is here of it, then what comes.
struct Arriving<'a> {
    _closing: Closing<'a>,
    pieces: mpsc::Receiver<Piece>,
    partial: Option<Partial>,
    /// Bytes that were here.
    kept: u64,
    /// Bytes read.
    at: u64,
    size: u64,
    piece: Bytes,
}

impl Arriving<'_> {
    fn fill(&mut self) -> io::Result<()> {
        if self.at < self.kept
            && let Some(partial) = &self.partial
        {
            let mut piece = vec![0; PIECE.min(self.kept - self.at) as usize];
            let len = partial.read(self.at, &mut piece)?;
            if len == 0 {
                return Err(io::Error::other("what was kept of a layer is gone"));
            }
            piece.truncate(len);
            self.piece = Bytes::from(piece);
            return Ok(());
        }
        match self.pieces.blocking_recv() {
            Some(Piece::Data(piece)) => {
                if piece.len() as u64 > self.size - self.at {
                    let reason = format!("it is longer than the promised {} bytes", self.size);
                    return Err(io::Error::other(reason));
                }
                if let Some(partial) = &mut self.partial
                    && let Err(error) = partial.append(&piece)
                {
                    tracing::debug!(%error, "a layer on its way is not kept");
                    self.partial = None;
                }
                self.piece = piece;
                Ok(())
            }
            Some(Piece::End) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ended after {} of {} bytes", self.at, self.size),
            )),
            Some(Piece::Reset(reason)) => Err(io::Error::other(reason)),
            Some(Piece::Size(_)) => Err(io::Error::other("the sender breaks the protocol")),
            None => Err(gone()),
        }
    }
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.at == self.size {
                return Ok(0);
            }
            self.fill()?;
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_when_the_client_has_left_does_not_wait() {
        let mut channels = Channels::default();
        let blob = Digest::of(b"blob");
        let (to, mut pieces) = mpsc::channel(1);
        assert_eq!(channels.open(blob, to), Some(1));
        channels.close();
        // What waited has its answer; what comes later gets none to wait for.
        assert!(pieces.blocking_recv().is_none());
        let (to, _pieces) = mpsc::channel(1);
        assert_eq!(channels.open(blob, to), None);
        assert!(channels.open.is_empty());
    }
}
