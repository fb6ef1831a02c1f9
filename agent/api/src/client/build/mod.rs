//! Building: sends a [`BuildRequest`], serves what the daemon asks for meanwhile, hands on progress, ends with the result.
//!
//! ```text
//! mod.rs      Client::build, BuildError: reads frames, hands each to its channel
//! offers.rs   what the daemon may ask for: contexts, secrets, SSH agents, caches; where outputs go
//! serve.rs    one task per channel: feeds it or drains it
//! ssh/        an SSH agent that holds keys of files
//! layout.rs   an image of an OCI layout         logins.rs  who the user is at a registry
//! place.rs    paths in which no link is followed
//! directory.rs  a directory as a filtered tar    unpack.rs  a tar into a directory
//! spec/       a build in the client's own terms, and the languages of its options
//! ```
//! Dropping the future of a build closes its connection, which cancels the build; what outputs have written by then
//! stays. Nothing is served that the request did not name. Must not: read flags or the environment.

mod cache;
mod directory;
mod layout;
mod logins;
mod offers;
mod place;
mod serve;
mod spec;
mod ssh;
mod unpack;

pub use cache::PruneBuildsOptions;
pub use directory::OpenDirectory;
pub use layout::LayoutImage;
pub use logins::Logins;
pub use offers::{ContextSource, Offers, OutputSink, SecretSource};
pub use spec::{
    BuildSpec, CacheDestination, CacheSource, DockerfilePlace, OutputSpec, OutputTarget, Reach,
    SecretSpec, SpecError, SshSpec, image_context, is_remote, option_fields, option_values,
};
pub use ssh::{KeyAgent, KeyError, SshSource};

use super::error::ClientError;
use super::request::Query;
use super::{Client, Hijacked};
use crate::types::build::{
    BUILD_PROTOCOL, BuildFailure, BuildRequest, BuildResult, CONTROL, Frame, FrameCodec,
    FrameError, FrameKind, MAX_BUILD_REQUEST, MAX_CHANNELS, Message, SolveStatus,
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Method;
use serve::{Reply, Service};
use std::collections::HashMap;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, FramedWrite};

/// Frames that wait for the connection.
const OUTGOING: usize = 16;
/// Frames that wait for one channel's task; when they are as many, nothing is read until it takes one.
const INCOMING: usize = 64;

/// A build that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The request is too large.
    #[error(
        "the build request has {0} bytes, more than {MAX_BUILD_REQUEST}: put less into build arguments and labels"
    )]
    TooLarge(usize),
    /// The build failed, and how.
    #[error("{}", .0.message)]
    Failed(Box<BuildFailure>),
    /// The connection broke, or what came is not the protocol.
    #[error("lost the build: {0}")]
    Frame(#[from] FrameError),
    /// The daemon closed the connection before it said how the build ended.
    #[error("the daemon closed the connection before the build ended: did it stop?")]
    Ended,
    /// An output could not be stored.
    #[error("cannot store the output: {0}")]
    Output(String),
}

/// One piece of a channel, as its task gets it.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// No more from the daemon.
    End,
    /// The daemon gave the channel up.
    Reset(String),
}

impl Client {
    /// Builds. `offers` holds everything that the request names by id; `progress` gets the news as they come.
    ///
    /// Cancelled by dropping: the daemon sees the connection close and gives the build up.
    ///
    /// # Errors
    /// [`BuildError::Failed`] when the daemon could not build it; the rest when it could not be asked or heard.
    pub async fn build(
        &self,
        request: &BuildRequest,
        offers: Offers,
        mut progress: impl FnMut(SolveStatus) + Send,
    ) -> Result<BuildResult, BuildError> {
        let size = serde_json::to_vec(request)
            .expect("API types serialise")
            .len();
        if size > MAX_BUILD_REQUEST {
            return Err(BuildError::TooLarge(size));
        }
        let http = self
            .json_request(Method::POST, "/build", &Query::new(), request)
            .await?;
        let connection = self.upgrade(http, BUILD_PROTOCOL).await?;
        Session::new(connection, offers).run(&mut progress).await
    }
}

/// A build under way.
struct Session {
    frames: FramedRead<ReadHalf<Hijacked>, FrameCodec>,
    outgoing: mpsc::Sender<Frame>,
    channels: HashMap<u32, mpsc::Sender<Piece>>,
    offers: Offers,
    /// Feeders and the writer: of no more use once the build has ended.
    tasks: JoinSet<()>,
    /// Outputs that are being stored.
    outputs: JoinSet<Result<(), BuildError>>,
}

impl Session {
    fn new(connection: Hijacked, offers: Offers) -> Self {
        let (read, write) = tokio::io::split(connection);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let mut tasks = JoinSet::new();
        tasks.spawn(send(FramedWrite::new(write, FrameCodec), queue));
        Self {
            frames: FramedRead::new(read, FrameCodec),
            outgoing,
            channels: HashMap::new(),
            offers,
            tasks,
            outputs: JoinSet::new(),
        }
    }

    async fn run(
        mut self,
        progress: &mut (impl FnMut(SolveStatus) + Send),
    ) -> Result<BuildResult, BuildError> {
        while let Some(frame) = self.frames.next().await {
            let frame = frame?;
            if frame.channel != CONTROL {
                self.piece(frame).await;
                continue;
            }
            match frame.to_message()? {
                Message::Progress(status) => progress(status),
                Message::Open { channel, what } => self.open(channel, &what).await,
                Message::Done(result) => return self.finish(*result).await,
                Message::Failed(failure) => return Err(BuildError::Failed(failure)),
            }
        }
        Err(BuildError::Ended)
    }

    /// Starts a task for a channel, or refuses it by resetting it.
    async fn open(&mut self, channel: u32, what: &crate::types::build::ChannelPurpose) {
        self.channels.retain(|_, sender| !sender.is_closed());
        let service = if self.channels.len() >= MAX_CHANNELS {
            Err("too many channels are open".to_owned())
        } else if channel == CONTROL || self.channels.contains_key(&channel) {
            Err("the channel's number is taken".to_owned())
        } else {
            self.offers.take(what)
        };
        match service {
            Ok(service) => {
                let (sender, receiver) = mpsc::channel(INCOMING);
                self.channels.insert(channel, sender);
                let reply = Reply::new(channel, self.outgoing.clone());
                match service {
                    Service::Feed(feed) => self.tasks.spawn(serve::feed(feed, reply, receiver)),
                    Service::Output(sink, links) => self
                        .outputs
                        .spawn(serve::store(sink, links, reply, receiver)),
                };
            }
            // The writer has gone only when the connection has: reading will tell.
            Err(reason) => drop(self.outgoing.send(Frame::reset(channel, &reason)).await),
        }
    }

    /// Hands a piece to its channel. Pieces of channels that have ended are late and dropped.
    async fn piece(&mut self, frame: Frame) {
        let piece = match frame.kind {
            FrameKind::Data => Piece::Data(frame.payload),
            FrameKind::End => Piece::End,
            FrameKind::Reset => Piece::Reset(String::from_utf8_lossy(&frame.payload).into_owned()),
            FrameKind::Message => return,
        };
        let last = !matches!(piece, Piece::Data(_));
        if let Some(channel) = self.channels.get(&frame.channel) {
            let _ = channel.send(piece).await;
        }
        if last {
            self.channels.remove(&frame.channel);
        }
    }

    /// Waits until every output is stored.
    async fn finish(mut self, result: BuildResult) -> Result<BuildResult, BuildError> {
        self.channels.clear();
        while let Some(stored) = self.outputs.join_next().await {
            stored.map_err(|panic| BuildError::Output(panic.to_string()))??;
        }
        Ok(result)
    }
}

/// Puts frames onto the connection until nobody has any.
async fn send(
    mut sink: FramedWrite<WriteHalf<Hijacked>, FrameCodec>,
    mut queue: mpsc::Receiver<Frame>,
) {
    while let Some(frame) = queue.recv().await {
        let sent = async {
            sink.feed(frame).await?;
            while let Ok(frame) = queue.try_recv() {
                sink.feed(frame).await?;
            }
            sink.flush().await
        };
        if let Err(error) = sent.await {
            // Whoever reads hears of it as the end of the connection.
            tracing::debug!(%error, "the connection of a build takes nothing more");
            return;
        }
    }
}

#[cfg(test)]
mod tests;
