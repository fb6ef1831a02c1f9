//! An image from one daemon to another that has no registry in between: the receiver asks for what it lacks, and whoever
//! speaks to both passes it on.
//!
//! ```text
//! receiver ── want{channel, digest} ──▶ client ── GET /muster/blobs/<digest>/json ──▶ sender
//! receiver ◀── have{channel, size} ──── client
//! receiver ── send{channel, offset} ──▶ client ── GET /muster/blobs/<digest>?offset= ─▶ sender
//! receiver ◀── data… end ────────────── client ◀── bytes ──────────────────────────────── sender
//! receiver ── done | failed ──────────▶ client
//! ```
//!
//! Frames are those of builds ([`FrameCodec`]). The receiver believes nothing that does not have its digest, keeps what it
//! has of large layers when the connection breaks, and asks from there the next time.

use super::Client;
use super::empty;
use super::error::{ClientError, Result};
use super::hijack::Hijacked;
use super::request::{Query, segment};
use super::stream::{ByteStream, bytes_of};
use crate::build::{CONTROL, Frame, FrameCodec, FrameKind, MAX_DATA};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

/// What the connection is upgraded to.
pub const COPY_PROTOCOL: &str = "muster-image-copy";
/// Frames that wait for the connection to the receiver.
const OUTGOING: usize = 8;

/// What a daemon has under a name, for another to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageOffer {
    /// The image.
    pub id: String,
    /// Digest of its manifest.
    pub manifest: String,
}

/// How long a blob is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlobSize {
    /// Bytes.
    pub size: u64,
}

/// What the two sides of a copy tell each other, on channel 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CopyMessage {
    /// The receiver lacks a blob.
    Want {
        /// Where it is to come.
        channel: u32,
        /// Which one.
        digest: String,
    },
    /// The client can get it.
    Have {
        /// As asked.
        channel: u32,
        /// Its bytes.
        size: u64,
    },
    /// The receiver wants the bytes from here on.
    Send {
        /// As asked.
        channel: u32,
        /// Bytes it has.
        offset: u64,
    },
    /// The image is there.
    Done {
        /// Its id.
        id: String,
    },
    /// It will not be.
    Failed {
        /// Why.
        message: String,
    },
}

impl CopyMessage {
    /// As a frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame {
            kind: FrameKind::Message,
            channel: CONTROL,
            payload: serde_json::to_vec(self)
                .expect("plain data has a JSON form")
                .into(),
        }
    }

    /// Out of a frame; `None`: it is another kind of frame, or cannot be read.
    #[must_use]
    pub fn of(frame: &Frame) -> Option<Self> {
        let message = frame.kind == FrameKind::Message && frame.channel == CONTROL;
        message
            .then(|| serde_json::from_slice(&frame.payload).ok())
            .flatten()
    }
}

/// What happens while an image is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyEvent {
    /// So much of a blob is there.
    Moved {
        /// Which one.
        digest: String,
        /// Bytes the receiver has.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A blob is there.
    Arrived {
        /// Which one.
        digest: String,
    },
}

impl Client {
    /// What the daemon has under a name.
    ///
    /// # Errors
    /// 404 when it has nothing.
    pub async fn image_offer(&self, name: &str) -> Result<ImageOffer> {
        let path = format!("/muster/images/{}/offer", segment(name));
        self.get(&path, &Query::new()).await
    }

    /// Copies an image to another daemon, which calls it `name`. Returns its id there. Dropping the future ends the copy;
    /// the other daemon has nothing new then but the beginnings of layers, with which the next copy goes on.
    ///
    /// # Errors
    /// One of the daemons refuses, or a connection breaks: [`ClientError::Transport`], after which it can be tried again.
    pub async fn copy_image(
        &self,
        offer: &ImageOffer,
        to: &Self,
        name: &str,
        mut event: impl FnMut(CopyEvent),
    ) -> Result<String> {
        let stream = to.receive_image(name, &offer.manifest).await?;
        let (read, write) = tokio::io::split(stream);
        let mut frames = FramedRead::new(read, FrameCodec);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let writer = write_frames(FramedWrite::new(write, FrameCodec), queue);
        let (tell, mut told) = mpsc::channel(OUTGOING);
        let talk = async {
            let mut wanted: HashMap<u32, (String, u64)> = HashMap::new();
            let mut sending = tokio::task::JoinSet::new();
            loop {
                let message = tokio::select! {
                    frame = frames.next() => message(frame)?,
                    Some(heard) = told.recv() => {
                        event(heard);
                        continue;
                    }
                };
                match message {
                    CopyMessage::Want { channel, digest } => {
                        let reply = match self.blob_size(&digest).await {
                            Ok(size) => {
                                wanted.insert(channel, (digest, size));
                                CopyMessage::Have { channel, size }.frame()
                            }
                            Err(error) => Frame::reset(channel, &error.to_string()),
                        };
                        let _ = outgoing.send(reply).await;
                    }
                    CopyMessage::Send { channel, offset } => {
                        let Some((digest, size)) = wanted.remove(&channel) else {
                            return Err(broken(
                                "it wants bytes of a blob that it has not asked for",
                            ));
                        };
                        let blob = Sending {
                            from: self.clone(),
                            channel,
                            digest,
                            size,
                            offset,
                        };
                        sending.spawn(blob.run(outgoing.clone(), tell.clone()));
                    }
                    CopyMessage::Done { id } => {
                        while let Ok(heard) = told.try_recv() {
                            event(heard);
                        }
                        return Ok(id);
                    }
                    CopyMessage::Failed { message } => {
                        return Err(ClientError::Api {
                            status: 500,
                            message,
                        });
                    }
                    CopyMessage::Have { .. } => return Err(broken("it answers what nobody asked")),
                }
            }
        };
        tokio::select! {
            done = talk => done,
            never = writer => match never {},
        }
    }

    async fn blob_size(&self, digest: &str) -> Result<u64> {
        let path = format!("/muster/blobs/{}/json", segment(digest));
        let blob: BlobSize = self.get(&path, &Query::new()).await?;
        Ok(blob.size)
    }

    async fn blob(&self, digest: &str, offset: u64) -> Result<ByteStream> {
        let path = format!("/muster/blobs/{}", segment(digest));
        let query = Query::new().with("offset", offset);
        let request = self.request(Method::GET, &path, &query, empty()).await?;
        Ok(bytes_of(self.stream(request).await?, "blob"))
    }

    async fn receive_image(&self, name: &str, manifest: &str) -> Result<Hijacked> {
        let query = Query::new().with("name", name).with("manifest", manifest);
        let path = "/muster/images/receive";
        let request = self.request(Method::POST, path, &query, empty()).await?;
        self.upgrade(request, COPY_PROTOCOL).await
    }
}

/// One blob on its way.
struct Sending {
    from: Client,
    channel: u32,
    digest: String,
    size: u64,
    offset: u64,
}

impl Sending {
    async fn run(self, frames: mpsc::Sender<Frame>, tell: mpsc::Sender<CopyEvent>) {
        let end = match self.pass_on(&frames, &tell).await {
            Ok(()) => Frame::end(self.channel),
            Err(error) => Frame::reset(self.channel, &error.to_string()),
        };
        if frames.send(end).await.is_ok() {
            let digest = self.digest;
            let _ = tell.send(CopyEvent::Arrived { digest }).await;
        }
    }

    async fn pass_on(
        &self,
        frames: &mpsc::Sender<Frame>,
        tell: &mpsc::Sender<CopyEvent>,
    ) -> Result<()> {
        let mut current = self.offset;
        if current >= self.size {
            return Ok(());
        }
        let mut bytes = self.from.blob(&self.digest, self.offset).await?;
        while let Some(piece) = bytes.next().await {
            let mut piece: Bytes = piece?;
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(MAX_DATA));
                current += part.len() as u64;
                if frames.send(Frame::data(self.channel, part)).await.is_err() {
                    return Ok(());
                }
            }
            // News that nobody has the time for are left out.
            let _ = tell.try_send(CopyEvent::Moved {
                digest: self.digest.clone(),
                current,
                total: self.size,
            });
        }
        Ok(())
    }
}

async fn write_frames(
    mut write: FramedWrite<tokio::io::WriteHalf<Hijacked>, FrameCodec>,
    mut queue: mpsc::Receiver<Frame>,
) -> Infallible {
    let mut open = true;
    while let Some(frame) = queue.recv().await {
        // Once nobody takes frames any more, what the other side said last is still to be read.
        open = open && write.send(frame).await.is_ok();
    }
    std::future::pending().await
}

fn message(
    frame: Option<std::result::Result<Frame, impl std::fmt::Display>>,
) -> Result<CopyMessage> {
    match frame {
        None => Err(broken("the connection ended")),
        Some(Err(error)) => Err(broken(&error.to_string())),
        Some(Ok(frame)) => {
            CopyMessage::of(&frame).ok_or_else(|| broken("a frame that nobody expects"))
        }
    }
}

fn broken(reason: &str) -> ClientError {
    ClientError::Transport {
        what: "the copy of an image".to_owned(),
        source: reason.to_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_out_of_their_frames() {
        for message in [
            CopyMessage::Want {
                channel: 3,
                digest: "sha256:x".to_owned(),
            },
            CopyMessage::Send {
                channel: 3,
                offset: 7,
            },
            CopyMessage::Failed {
                message: "no".to_owned(),
            },
        ] {
            assert_eq!(CopyMessage::of(&message.frame()), Some(message));
        }
        assert_eq!(CopyMessage::of(&Frame::data(3, "x")), None);
        assert_eq!(CopyMessage::of(&Frame::end(CONTROL)), None);
    }
}
