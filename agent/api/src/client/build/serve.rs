//! Serving channels: each task feeds its channel from what the client offers, or drains it to where an output goes.

use super::super::WholeFile;
use super::directory::{self, OpenDirectory};
use super::layout::LayoutImage;
use super::logins::Logins;
use super::offers::{OutputSink, SecretSource};
use super::place::{Links, Place};
use super::ssh::{KeyAgent, SshSource};
use super::{BuildError, Piece, unpack};
use crate::types::build::{Frame, MAX_DATA};
use bytes::{Bytes, BytesMut};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// What a channel is connected to.
pub(super) enum Service {
    Feed(Feed),
    Output(OutputSink, Links),
}

/// Where what the daemon gets comes from.
pub(super) enum Feed {
    Directory(OpenDirectory),
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    Layout(PathBuf, Links),
    Image(LayoutImage),
    Secret(SecretSource, Links),
    Agent(SshSource),
    Login(Logins, String),
}

/// The way back to the daemon.
pub(super) struct Reply {
    channel: u32,
    outgoing: mpsc::Sender<Frame>,
}

impl Reply {
    pub(super) fn new(channel: u32, outgoing: mpsc::Sender<Frame>) -> Self {
        Self { channel, outgoing }
    }

    /// False when the connection is gone.
    async fn send(&self, frame: Frame) -> bool {
        self.outgoing.send(frame).await.is_ok()
    }
}

/// Feeds a channel to its end. What goes wrong is told to the daemon, which fails the build with it if it matters.
pub(super) async fn feed(feed: Feed, reply: Reply, incoming: mpsc::Receiver<Piece>) {
    let fed = match feed {
        Feed::Directory(root) => {
            written(&reply, incoming, move |pipe| directory::write(&root, pipe)).await
        }
        Feed::Layout(path, links) => {
            let write = move |pipe: &mut FrameWriter| {
                let place = Place::directory(&path, links)?;
                directory::write_layout(place.path(), pipe)
            };
            written(&reply, incoming, write).await
        }
        Feed::Image(image) => {
            let write = move |pipe: &mut FrameWriter| image.write(pipe);
            written(&reply, incoming, write).await
        }
        Feed::Archive(reader) => copied(&reply, incoming, reader).await,
        Feed::Secret(source, links) => match source.read(links).await {
            Ok(bytes) => copied(&reply, incoming, &bytes[..]).await,
            Err(reason) => Err(reason),
        },
        Feed::Login(logins, server) => match logins.of(&server).await {
            Ok(bytes) => copied(&reply, incoming, &bytes[..]).await,
            Err(reason) => Err(reason),
        },
        Feed::Agent(SshSource::Socket(socket)) => agent(&reply, incoming, &socket).await,
        Feed::Agent(SshSource::Keys(keys)) => key_agent(&reply, incoming, &keys).await,
    };
    if let Err(reason) = fed {
        reply.send(Frame::reset(reply.channel, &reason)).await;
    }
}

/// Returns when the daemon no longer wants the channel: it says nothing on one that it only reads, until it gives it up.
async fn given_up(incoming: &mut mpsc::Receiver<Piece>) {
    while let Some(piece) = incoming.recv().await {
        match piece {
            Piece::Reset(reason) => {
                tracing::debug!(reason, "the daemon gave a channel up");
                return;
            }
            // Its half has ended, which is no reason to stop.
            Piece::End => std::future::pending().await,
            Piece::Data(_) => {}
        }
    }
}

/// Sends everything a reader has.
async fn copied(
    reply: &Reply,
    mut incoming: mpsc::Receiver<Piece>,
    mut reader: impl AsyncRead + Unpin,
) -> Result<(), String> {
    let copy = async {
        loop {
            let mut buffer = BytesMut::with_capacity(MAX_DATA);
            let read = (&mut reader)
                .take(MAX_DATA as u64)
                .read_buf(&mut buffer)
                .await
                .map_err(|error| format!("cannot read what is to be sent: {error}"))?;
            let frame = match read {
                0 => Frame::end(reply.channel),
                _ => Frame::data(reply.channel, buffer.freeze()),
            };
            if !reply.send(frame).await || read == 0 {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = copy => result,
        () = given_up(&mut incoming) => Ok(()),
    }
}

/// Sends what a function writes on a thread of its own. When the daemon gives the channel up, the next write fails.
async fn written(
    reply: &Reply,
    mut incoming: mpsc::Receiver<Piece>,
    write: impl FnOnce(&mut FrameWriter) -> io::Result<()> + Send + 'static,
) -> Result<(), String> {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(4);
    let thread = tokio::task::spawn_blocking(move || {
        let mut pipe = FrameWriter {
            buffer: BytesMut::with_capacity(MAX_DATA),
            sender,
        };
        write(&mut pipe)?;
        pipe.flush()
    });
    let copy = async {
        while let Some(piece) = pieces.recv().await {
            if !reply.send(Frame::data(reply.channel, piece)).await {
                return Ok(());
            }
        }
        thread
            .await
            .map_err(|panic| panic.to_string())?
            .map_err(|error| error.to_string())?;
        reply.send(Frame::end(reply.channel)).await;
        Ok(())
    };
    tokio::select! {
        result = copy => result,
        () = given_up(&mut incoming) => Ok(()),
    }
}

/// Collects what is written into pieces of the size of a frame.
pub(super) struct FrameWriter {
    buffer: BytesMut,
    sender: mpsc::Sender<Bytes>,
}

impl Write for FrameWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(MAX_DATA - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == MAX_DATA {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(MAX_DATA));
        self.sender
            .blocking_send(piece.freeze())
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// One connection to the agent in here: requests are answered as they come whole, until the daemon has no more.
async fn key_agent(
    reply: &Reply,
    mut incoming: mpsc::Receiver<Piece>,
    agent: &KeyAgent,
) -> Result<(), String> {
    let mut received = BytesMut::new();
    while let Some(piece) = incoming.recv().await {
        match piece {
            Piece::Data(bytes) => {
                received.extend_from_slice(&bytes);
                let answers = agent
                    .answer(&mut received)
                    .map_err(|error| error.to_string())?;
                for part in answers.chunks(MAX_DATA) {
                    let data = Bytes::copy_from_slice(part);
                    if !reply.send(Frame::data(reply.channel, data)).await {
                        return Ok(());
                    }
                }
            }
            Piece::End => break,
            Piece::Reset(_) => return Ok(()),
        }
    }
    reply.send(Frame::end(reply.channel)).await;
    Ok(())
}

/// One connection to the user's SSH agent, both ways.
async fn agent(
    reply: &Reply,
    mut incoming: mpsc::Receiver<Piece>,
    socket: &Path,
) -> Result<(), String> {
    let failed =
        |error: io::Error| format!("the SSH agent at {} failed: {error}", socket.display());
    let (mut read, mut write) = UnixStream::connect(socket)
        .await
        .map_err(|error| {
            format!(
                "cannot reach the SSH agent at {}: {error}",
                socket.display()
            )
        })?
        .into_split();
    let requests = async {
        while let Some(piece) = incoming.recv().await {
            match piece {
                Piece::Data(bytes) => write.write_all(&bytes).await.map_err(failed)?,
                Piece::End => break,
                Piece::Reset(_) => return Ok(false),
            }
        }
        write.shutdown().await.map_err(failed)?;
        Ok::<_, String>(true)
    };
    let replies = async {
        loop {
            let mut buffer = BytesMut::with_capacity(8 << 10);
            let read = read.read_buf(&mut buffer).await.map_err(failed)?;
            let frame = match read {
                0 => Frame::end(reply.channel),
                _ => Frame::data(reply.channel, buffer.freeze()),
            };
            if !reply.send(frame).await || read == 0 {
                return Ok::<_, String>(());
            }
        }
    };
    tokio::pin!(requests, replies);
    tokio::select! {
        // The agent has hung up: whatever else is asked has no answer.
        ended = &mut replies => ended,
        asked = &mut requests => if asked? { replies.await } else { Ok(()) },
    }
}

/// Stores an output. What goes wrong is this side's to tell; the daemon hears that it need not go on.
pub(super) async fn store(
    sink: OutputSink,
    links: Links,
    reply: Reply,
    incoming: mpsc::Receiver<Piece>,
) -> Result<(), BuildError> {
    let thread = tokio::task::spawn_blocking(move || {
        let mut reader = PieceReader {
            incoming,
            current: Bytes::new(),
            ended: false,
        };
        let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        match sink {
            OutputSink::Directory(path) => Place::directory(&path, links)
                .and_then(|place| unpack::unpack(&mut reader, place.path()))
                .map_err(|error| at(&path, error)),
            OutputSink::File(path) => Place::file(&path, links)
                .and_then(|place| to_file(&mut reader, place.path()))
                .map_err(|error| at(&path, error)),
            OutputSink::Stdout => io::copy(&mut reader, &mut io::stdout().lock())
                .and_then(|_| io::stdout().flush())
                .map_err(|error| format!("standard output: {error}")),
        }
    });
    let stored = thread.await.unwrap_or_else(|panic| Err(panic.to_string()));
    let last = match &stored {
        Ok(()) => Frame::end(reply.channel),
        Err(reason) => Frame::reset(reply.channel, reason),
    };
    reply.send(last).await;
    stored.map_err(BuildError::Output)
}

/// A file that is there when it is complete.
fn to_file(reader: &mut PieceReader, path: &Path) -> io::Result<()> {
    let mut whole = WholeFile::create(path, 0o666)?;
    io::copy(reader, &mut whole)?;
    whole.finish()
}

/// A channel as a blocking reader. A channel that stops without its end is an error, so that half an output is none.
struct PieceReader {
    incoming: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.incoming.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Reset(reason)) => return Err(io::Error::other(reason)),
                None => return Err(io::Error::other("the daemon stopped in the middle of it")),
            }
        }
        let take = self.current.len().min(buffer.len());
        buffer[..take].copy_from_slice(&self.current.split_to(take));
        Ok(take)
    }
}
