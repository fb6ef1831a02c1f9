//! Getting the image of a task: what is here is used, else nodes that have it are asked, else its registry.
//!
//! A node answers with the digest of a manifest; from there on everything is believed by its digest only. What a tag
//! means is the word of the node that has it, which only nodes of the cluster can give; what a name with a digest means is
//! nobody's word: an image pinned by the digest of an index comes from its registry.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Weak};

use agent_api::swarm::ContainerSpec;
use agent_image::{Accept, BlobSource, Digest, ImageConfig};
use bytes::{Buf as _, Bytes};
use cluster::dispatcher::Contact;
use cluster::rpc::{Messages, Peers};
use cluster_api::proto::{BlobPiece, ManagerAddress, ResolveImageRequest};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit, watch};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::registry_auth;

/// Images that are fetched at the same time (Docker's `max-concurrent-downloads`).
const FETCHED_AT_ONCE: usize = 3;

/// Nodes asked for one image before its registry is.
const ASKED_MAX: usize = 16;

/// Where images come from.
#[derive(Clone)]
pub(crate) struct Images {
    pub(crate) peers: Arc<Peers>,
    /// The nodes that can be asked, as the managers see it.
    pub(crate) contacts: watch::Receiver<Vec<Contact>>,
    pub(crate) arriving: Arrivals,
}

/// Images that are on their way: tasks of one service come together, and each image is to travel once.
#[derive(Clone)]
pub(crate) struct Arrivals {
    turns: Arc<Mutex<HashMap<String, Weak<Turn>>>>,
    room: Arc<Semaphore>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            turns: Arc::default(),
            room: Arc::new(Semaphore::new(FETCHED_AT_ONCE)),
        }
    }
}

/// Whose turn it is to fetch one image.
type Turn = tokio::sync::Mutex<()>;

impl Arrivals {
    /// Waits for whoever fetches `name` now. Until the guard is dropped nobody else does.
    async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(name).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(Turn::default());
                turns.insert(name.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Waits until few enough images are fetched. Until the permit is dropped this one counts.
    async fn room(&self) -> SemaphorePermit<'_> {
        let room = self.room.acquire().await;
        room.expect("the semaphore is never closed")
    }
}

impl Images {
    /// Makes sure that the image is here. A name with a digest means exactly that image; a tag means what this node has
    /// under it, so that a task started again runs what it ran before and needs no registry.
    pub(crate) async fn ensure(&self, engine: &Engine, spec: &ContainerSpec) -> Result<()> {
        if present(engine, &spec.image).await? {
            return Ok(());
        }
        let _turn = self.arriving.turn(&spec.image).await;
        if present(engine, &spec.image).await? {
            return Ok(());
        }
        let _room = self.arriving.room().await;
        let from_nodes = match self.fetch(engine, &spec.image).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        pull(engine, spec).await.map_err(|error| {
            let reason = format!("No such image: {}: {from_nodes}; {error}", spec.image);
            Error::not_found(reason)
        })
    }

    /// From other nodes.
    async fn fetch(&self, engine: &Engine, name: &str) -> Result<()> {
        let contacts: Vec<Contact> = self.contacts.borrow().clone();
        let machine = ImageConfig::machine();
        let (os, architecture) = machine.split_once('/').unwrap_or((&machine, ""));
        let mut failure = Error::not_found("no other node of the swarm has it");
        for contact in contacts.iter().take(ASKED_MAX) {
            let question = ResolveImageRequest {
                reference: name.to_owned(),
                os: os.to_owned(),
                architecture: architecture.to_owned(),
            };
            let found = match self.peers.resolve_image(&address(contact), question).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(refusal) => {
                    tracing::debug!(node.id = contact.node_id, %refusal, "a node was not asked for an image");
                    continue;
                }
            };
            let Ok(manifest) = found.digest.parse::<Digest>() else {
                continue;
            };
            let source = NodeBlobs {
                peers: Arc::clone(&self.peers),
                nodes: first(contact, &contacts),
                runtime: Handle::current(),
            };
            match engine
                .receive_image(name, manifest, Accept::Runnable, source)
                .await
            {
                Ok(()) => {
                    tracing::info!(
                        image = name,
                        node.id = contact.node_id,
                        "image fetched from a node"
                    );
                    return Ok(());
                }
                Err(error) => {
                    failure = error.context(format!("fetch it from node {}", contact.node_id));
                }
            }
        }
        Err(failure)
    }
}

async fn present(engine: &Engine, name: &str) -> Result<bool> {
    match engine.inspect_image(name, None).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// From the registry its name points to.
async fn pull(engine: &Engine, spec: &ContainerSpec) -> Result<()> {
    let auth = spec.pull_options.as_ref();
    let credentials = match auth {
        Some(auth) => registry_auth::for_image(auth.registry_auth.as_bytes(), &spec.image)
            .map_err(|error| Error::invalid(error.to_string()))?,
        None => None,
    };
    let mut progress = engine.pull_image(&spec.image, None, credentials)?;
    while let Some(message) = progress.next().await {
        if let Some(text) = message?.error {
            return Err(Error::not_found(text));
        }
    }
    Ok(())
}

fn address(contact: &Contact) -> ManagerAddress {
    ManagerAddress {
        node_id: contact.node_id.clone(),
        address: contact.address.clone(),
    }
}

/// All nodes, the one that answered first.
fn first(chosen: &Contact, all: &[Contact]) -> Vec<ManagerAddress> {
    let others = all.iter().filter(|other| *other != chosen);
    std::iter::once(chosen)
        .chain(others)
        .take(ASKED_MAX)
        .map(address)
        .collect()
}

/// Blobs of other nodes, for a blocking thread. When one node breaks off, the next one goes on where it stopped.
struct NodeBlobs {
    peers: Arc<Peers>,
    nodes: Vec<ManagerAddress>,
    runtime: Handle,
}

impl BlobSource for NodeBlobs {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(NodeBlob {
            blobs: self,
            digest: blob.to_string(),
            node: 0,
            offset: 0,
            total: None,
            pieces: None,
            piece: Bytes::new(),
        }))
    }
}

struct NodeBlob<'a> {
    blobs: &'a NodeBlobs,
    digest: String,
    /// Index of the node that is asked.
    node: usize,
    /// Bytes received.
    offset: u64,
    /// Length of the blob, once a node has told it.
    total: Option<u64>,
    pieces: Option<Messages<BlobPiece>>,
    piece: Bytes,
}

impl NodeBlob<'_> {
    /// The next piece; empty at the end.
    fn next(&mut self) -> io::Result<Bytes> {
        loop {
            if self.total == Some(self.offset) {
                return Ok(Bytes::new());
            }
            let Some(node) = self.blobs.nodes.get(self.node) else {
                return Err(io::Error::other(format!(
                    "no node could send {} beyond byte {}",
                    self.digest, self.offset
                )));
            };
            let received = self.blobs.runtime.block_on(async {
                let mut pieces = match self.pieces.take() {
                    Some(pieces) => pieces,
                    None => {
                        let peers = &self.blobs.peers;
                        peers
                            .fetch_blob(node, self.digest.clone(), self.offset)
                            .await?
                    }
                };
                let piece = pieces.next().await.transpose()?;
                Ok::<_, cluster::rpc::Refusal>((piece, pieces))
            });
            match received {
                Ok((Some(piece), pieces)) => {
                    self.pieces = Some(pieces);
                    if piece.total_size > 0 {
                        self.total = Some(piece.total_size);
                    }
                    self.offset += piece.data.len() as u64;
                    if !piece.data.is_empty() {
                        return Ok(piece.data);
                    }
                }
                Ok((None, _)) => self.node += 1,
                Err(refusal) => {
                    tracing::debug!(node.id = node.node_id, blob = self.digest, %refusal, "a node broke off");
                    self.node += 1;
                }
            }
        }
    }
}

impl Read for NodeBlob<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.next()?;
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, FETCHED_AT_ONCE};
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn one_image_is_fetched_by_one_task_at_a_time() {
        let arrivals = Arrivals::default();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(arrivals.turn("web")).poll(&mut context) else {
            panic!("nobody else fetches it");
        };
        let mut second = Box::pin(arrivals.turn("web"));
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(
            pin!(arrivals.turn("database"))
                .poll(&mut context)
                .is_ready()
        );
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn only_so_many_images_are_fetched_at_once() {
        let arrivals = Arrivals::default();
        let mut rooms = Vec::new();
        for _ in 0..FETCHED_AT_ONCE {
            rooms.push(arrivals.room().await);
        }
        let mut next = Box::pin(arrivals.room());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        rooms.pop();
        drop(next.await);
    }
}
