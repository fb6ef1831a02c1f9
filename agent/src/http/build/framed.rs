//! muster's own way of building: a request of JSON, then frames both ways on the same connection.
//!
//! ```text
//! reader   frames of the client ──▶ the channel they are for           a client that leaves cancels the build
//! speaker  progress, questions of the build (a channel each) ──▶ writer ──▶ client
//! ```
//!
//! Frames and messages are `agent_api::build`'s. Must not: decide anything about builds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agent_api::build::{
    BuildRequest, CONTROL, ChannelPurpose, Frame, FrameCodec, FrameKind, MAX_BUILD_REQUEST,
    MAX_CHANNELS, MAX_DATA, MAX_SECRET, Message, ProgressDetail, SolveStatus,
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::builder::{Ask, Builder, Job, Output, Progress, Session};
use crate::engine::byte_pipe;
use crate::http::hijack::Taken;
use crate::http::{Call, Outcome};

/// Frames that wait for the connection.
const OUTGOING: usize = 16;
/// Frames that wait for one channel; then the client waits.
const INCOMING: usize = 16;
/// Bytes that wait on either side of a connection to an agent.
const AGENT_BUFFER: usize = 64 << 10;
/// How long all of a client's frames wait for a step that does not read what its agent answers; then it has lost it.
const AGENT_PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn build(mut call: Call) -> Outcome {
    let request: BuildRequest = call.json_within(MAX_BUILD_REQUEST).await?;
    let builder = call.builder.clone();
    call.takeover
        .take(move |taken| async move {
            if let Err(error) = talk(taken, builder, request).await {
                tracing::debug!(%error, "the connection of a build broke");
            }
        })
        .await
}

/// One piece that came on a channel.
enum Piece {
    Data(Bytes),
    End,
    Reset(String),
}

/// Everything that goes to the client, and the channels that are open.
#[derive(Clone)]
struct Line {
    frames: mpsc::Sender<Frame>,
    channels: Arc<Mutex<Channels>>,
}

#[derive(Default)]
struct Channels {
    last: u32,
    open: HashMap<u32, Channel>,
    /// Nothing comes any more, and none opens.
    closed: bool,
}

/// Closes all channels when the build has ended or its client has left. Whoever waits for a client's answer holds the line
/// open, and is woken by nothing else.
struct Closing(Arc<Mutex<Channels>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut channels = self.0.lock();
        channels.closed = true;
        channels.open.clear();
    }
}

/// Where the frames of one channel go.
#[derive(Clone)]
struct Channel {
    pieces: mpsc::Sender<Piece>,
    /// How long the others wait for this one. `None`: what takes its frames is the daemon itself, which never stops.
    patience: Option<Duration>,
}

impl Channel {
    /// Whether it took the piece.
    async fn send(&self, piece: Piece) -> bool {
        match self.patience {
            None => self.pieces.send(piece).await.is_ok(),
            Some(patience) => self.pieces.send_timeout(piece, patience).await.is_ok(),
        }
    }
}

/// What the client said it has.
struct Offered {
    secrets: Vec<String>,
    agents: Vec<String>,
    credentials: bool,
}

async fn talk(taken: Taken, builder: Builder, request: BuildRequest) -> std::io::Result<()> {
    let peer = taken.stream.peer_cred().ok().and_then(|peer| peer.pid());
    let (read, mut write) = taken.stream.into_split();
    let head = format!(
        "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n",
        agent_api::build::BUILD_PROTOCOL
    );
    write.write_all(head.as_bytes()).await?;
    let (frames, outgoing) = mpsc::channel(OUTGOING);
    let line = Line {
        frames,
        channels: Arc::default(),
    };
    let closing = Closing(Arc::clone(&line.channels));
    let writer = tokio::spawn(write_frames(write, outgoing));
    let (session, questions) = Session::channel();
    let progress = Progress::default();
    let offered = Offered {
        secrets: request.secrets.clone(),
        agents: request.ssh.clone(),
        credentials: request.ask_credentials,
    };
    let only_warnings = request.progress == ProgressDetail::Warnings;
    let job = Job {
        request,
        session: Some(session),
        peer,
        classic: false,
    };
    let work = async {
        let told = tell(&progress, &line, only_warnings);
        let (result, ()) = tokio::join!(builder.build(&job, &progress), told);
        let message = match result {
            Ok(result) => Message::Done(Box::new(result)),
            Err(failure) => Message::Failed(failure),
        };
        let _ = line.frames.send(Frame::message(&message)).await;
        let _ = line.frames.send(Frame::end(CONTROL)).await;
    };
    let mut reader = FramedRead::new(read, FrameCodec);
    reader.read_buffer_mut().extend_from_slice(&taken.early);
    tokio::select! {
        () = work => {}
        () = answer(questions, &line, &offered) => {}
        () = hear(reader, &line) => {
            // The client has left: dropping the build cancels it.
            return Ok(());
        }
    }
    drop(closing);
    drop(line);
    let _ = writer.await;
    Ok(())
}

async fn write_frames(write: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Frame>) {
    let mut write = FramedWrite::new(write, FrameCodec);
    while let Some(frame) = outgoing.recv().await {
        let last = frame.channel == CONTROL && frame.kind == FrameKind::End;
        if write.send(frame).await.is_err() || last {
            break;
        }
    }
    let _ = write.close().await;
}

/// Hands the client's frames to their channels. Ends when the client leaves or breaks the protocol.
async fn hear(mut reader: FramedRead<OwnedReadHalf, FrameCodec>, line: &Line) {
    while let Some(Ok(frame)) = reader.next().await {
        let channel = line.channels.lock().open.get(&frame.channel).cloned();
        // What comes for a channel that is closed was on its way when it closed.
        let Some(channel) = channel else { continue };
        let (piece, last) = match frame.kind {
            FrameKind::Data => (Piece::Data(frame.payload), false),
            FrameKind::End => (Piece::End, true),
            FrameKind::Reset => {
                let reason = String::from_utf8_lossy(&frame.payload).into_owned();
                (Piece::Reset(reason), true)
            }
            FrameKind::Message => return,
        };
        if !channel.send(piece).await || last {
            line.channels.lock().open.remove(&frame.channel);
        }
    }
}

/// Tells the client how the build goes on.
async fn tell(progress: &Progress, line: &Line, only_warnings: bool) {
    while let Some(mut status) = progress.next().await {
        if only_warnings {
            status = SolveStatus {
                warnings: status.warnings,
                ..SolveStatus::default()
            };
            if status.is_empty() {
                continue;
            }
        }
        let frame = Frame::message(&Message::Progress(status));
        if line.frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Turns the build's questions into channels. Does not end before the build.
async fn answer(mut questions: mpsc::Receiver<Ask>, line: &Line, offered: &Offered) {
    while let Some(question) = questions.recv().await {
        match question {
            Ask::Secret { id, reply } if !offered.secrets.contains(&id) => {
                let _ = reply.send(None);
            }
            Ask::Ssh { id, reply } if !offered.agents.contains(&id) => {
                let _ = reply.send(None);
            }
            Ask::Context { name, reply } => {
                let _ = reply.send(stream_in(line, ChannelPurpose::Context { name }).await);
            }
            Ask::Cache { id, reply } => {
                let _ = reply.send(stream_in(line, ChannelPurpose::Cache { id }).await);
            }
            Ask::Secret { id, reply } => {
                hand_over(line, ChannelPurpose::Secret { id }, MAX_SECRET, reply);
            }
            Ask::Credentials { reply, .. } if !offered.credentials => {
                let _ = reply.send(None);
            }
            Ask::Credentials { server, reply } => {
                hand_over(
                    line,
                    ChannelPurpose::Credentials { server },
                    MAX_DATA,
                    reply,
                );
            }
            Ask::Ssh { id, reply } => {
                let _ = reply.send(agent(line, id).await);
            }
            Ask::Output { id, reply } => {
                let _ = reply.send(stream_out(line, id).await);
            }
        }
    }
    std::future::pending().await
}

impl Line {
    /// Opens a channel; `None` when there are too many, or the build has ended.
    async fn open(&self, what: ChannelPurpose) -> Option<(u32, mpsc::Receiver<Piece>)> {
        let (pieces, receiver) = mpsc::channel(INCOMING);
        let patience = matches!(what, ChannelPurpose::Ssh { .. }).then_some(AGENT_PATIENCE);
        let channel = {
            let mut channels = self.channels.lock();
            if channels.closed || channels.open.len() >= MAX_CHANNELS {
                return None;
            }
            channels.last += 1;
            let channel = channels.last;
            channels.open.insert(channel, Channel { pieces, patience });
            channel
        };
        let message = Message::Open { channel, what };
        self.frames.send(Frame::message(&message)).await.ok()?;
        Some((channel, receiver))
    }
}

/// Bytes that the client sends.
async fn stream_in(line: &Line, what: ChannelPurpose) -> Option<crate::engine::ByteReceiver> {
    let (_, mut pieces) = line.open(what).await?;
    let (sender, receiver) = byte_pipe();
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            let (chunk, last) = match piece {
                Piece::Data(bytes) => (Ok(bytes), false),
                Piece::End => return,
                Piece::Reset(reason) => (Err(std::io::Error::other(reason)), true),
            };
            if !sender.send(chunk).await || last {
                return;
            }
        }
        let gone = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the client has left");
        sender.send(Err(gone)).await;
    });
    Some(receiver)
}

/// Gets something small from the client for who asked, while other questions go on.
fn hand_over(
    line: &Line,
    what: ChannelPurpose,
    limit: usize,
    mut reply: oneshot::Sender<Option<Vec<u8>>>,
) {
    let line = line.clone();
    tokio::spawn(async move {
        let bytes = tokio::select! {
            bytes = whole(&line, what, limit) => bytes,
            // Nobody wants it any more.
            () = reply.closed() => return,
        };
        // Who has left has not said that there is nothing.
        if bytes.is_some() || !line.channels.lock().closed {
            let _ = reply.send(bytes);
        }
    });
}

/// All that the client sends, and one byte more than `limit` if it is too long; `None`: the client does not have it.
async fn whole(line: &Line, what: ChannelPurpose, limit: usize) -> Option<Vec<u8>> {
    let (_, mut pieces) = line.open(what).await?;
    let mut all = Vec::new();
    loop {
        match pieces.recv().await? {
            Piece::Data(bytes) => {
                let room = (limit + 1).saturating_sub(all.len());
                all.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Piece::End => return Some(all),
            Piece::Reset(_) => return None,
        }
    }
}

/// A connection to an agent of the client's. One that cannot be reached ends at once.
async fn agent(line: &Line, id: String) -> Option<DuplexStream> {
    let (channel, mut pieces) = line.open(ChannelPurpose::Ssh { id }).await?;
    let (ours, theirs) = tokio::io::duplex(AGENT_BUFFER);
    let (mut from_step, mut to_step) = tokio::io::split(ours);
    tokio::spawn(async move {
        while let Some(Piece::Data(bytes)) = pieces.recv().await {
            if to_step.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_step.shutdown().await;
    });
    let frames = line.frames.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; MAX_DATA];
        while let Ok(length @ 1..) = from_step.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..length]);
            if frames.send(Frame::data(channel, data)).await.is_err() {
                return;
            }
        }
        let _ = frames.send(Frame::end(channel)).await;
    });
    Some(theirs)
}

/// Where an output goes. A client that cannot store it resets the channel.
async fn stream_out(line: &Line, id: String) -> Option<Output> {
    let (channel, mut pieces) = line.open(ChannelPurpose::Output { id }).await?;
    let (sender, mut bytes) = byte_pipe();
    let (stored, taken) = oneshot::channel();
    let frames = line.frames.clone();
    tokio::spawn(async move {
        let send = async {
            while let Some(chunk) = bytes.recv().await {
                let Ok(mut chunk) = chunk else { return false };
                while !chunk.is_empty() {
                    let part = chunk.split_to(chunk.len().min(MAX_DATA));
                    if frames.send(Frame::data(channel, part)).await.is_err() {
                        return false;
                    }
                }
            }
            frames.send(Frame::end(channel)).await.is_ok()
        };
        let refused = async {
            loop {
                match pieces.recv().await {
                    Some(Piece::Data(_)) => {}
                    // It has nothing to say, which is no refusal.
                    Some(Piece::End) => std::future::pending().await,
                    Some(Piece::Reset(_)) | None => return,
                }
            }
        };
        let done = tokio::select! {
            sent = send => sent,
            () = refused => false,
        };
        let _ = stored.send(done);
    });
    Some(Output {
        bytes: sender,
        taken,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    /// A client that leaves while it is asked for a secret: nothing of its connection stays.
    #[tokio::test]
    async fn an_unanswered_question_ends_with_its_client() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = ours.into_split();
        let (frames, outgoing) = mpsc::channel(OUTGOING);
        let line = Line {
            frames,
            channels: Arc::default(),
        };
        let closing = Closing(Arc::clone(&line.channels));
        let writer = tokio::spawn(write_frames(write, outgoing));
        let (session, questions) = Session::channel();
        let offered = Offered {
            secrets: vec!["key".to_owned()],
            agents: Vec::new(),
            credentials: false,
        };
        let sessions = crate::builder::Sessions::default();
        sessions.add(session);
        let step = tokio::spawn(async move { sessions.secret("key").await });
        let client = async {
            let mut client = FramedRead::new(theirs, FrameCodec);
            let asked = client.next().await.unwrap().unwrap();
            assert_eq!(asked.kind, FrameKind::Message);
        };
        let reader = FramedRead::new(read, FrameCodec);
        tokio::select! {
            () = answer(questions, &line, &offered) => {}
            () = async { tokio::join!(hear(reader, &line), client); } => {}
        }
        drop(closing);
        drop(line);
        tokio::time::timeout(Duration::from_secs(20), writer)
            .await
            .expect("the connection is closed")
            .unwrap();
        assert!(step.await.unwrap().is_err(), "the client has left");
    }

    /// A step that asks its agent and never reads the answers: the others get theirs, and the client can leave.
    #[tokio::test]
    async fn a_channel_that_is_not_read_holds_up_no_other() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (frames, mut opened) = mpsc::channel(OUTGOING);
        let line = Line {
            frames,
            channels: Arc::default(),
        };
        let id = || "default".to_owned();
        let (full, unread) = line.open(ChannelPurpose::Ssh { id: id() }).await.unwrap();
        let (secret, mut read) = line
            .open(ChannelPurpose::Secret { id: id() })
            .await
            .unwrap();
        for _ in 0..2 {
            assert!(opened.recv().await.is_some());
        }
        let client = async {
            let mut write = FramedWrite::new(theirs, FrameCodec);
            for _ in 0..=INCOMING {
                let answer = Frame::data(full, Bytes::from_static(b"answer"));
                write.send(answer).await.unwrap();
            }
            let data = Frame::data(secret, Bytes::from_static(b"secret"));
            write.send(data).await.unwrap();
            let piece = read.recv().await;
            assert!(matches!(piece, Some(Piece::Data(data)) if data == "secret"));
        };
        let reader = FramedRead::new(ours.into_split().0, FrameCodec);
        let both = async { tokio::join!(hear(reader, &line), client) };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("the client has left");
        assert!(!line.channels.lock().open.contains_key(&full));
        drop(unread);
    }
}
