//! Layers that are being downloaded: a pull that wants one of them waits for it instead of downloading it again.
//!
//! ```text
//! claim ─▶ Ours    download it, finish(): whoever waits gets the same unpacked layer
//!      └─▶ Theirs  wait ─▶ the layer, or nothing: it came to nothing there, or its pull is over ─▶ claim again
//! ```
//!
//! Whoever has a claim waits for nobody, so two pulls cannot wait for each other. A layer that is handed over belongs to
//! both pulls: the first that puts its image into the index makes it exist, and the other finds it there, since both have
//! pinned it before they asked for it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::layers::Unfinished;

/// Digest of the blob as the registry has it, and of the tar that it is said to hold.
type Key = (Digest, Digest);
/// Empty until the download is over.
type Outcome = Option<Weak<Unfinished>>;

#[derive(Default)]
pub(super) struct Downloads {
    running: Mutex<HashMap<Key, watch::Receiver<Outcome>>>,
}

/// Who downloads.
pub(super) enum Turn<'a> {
    Ours(Claim<'a>),
    Theirs(Waiter),
}

/// The right to download a layer. Dropped without [`Claim::finish`], the next one gets it.
pub(super) struct Claim<'a> {
    downloads: &'a Downloads,
    key: Key,
    tell: watch::Sender<Outcome>,
    finished: bool,
}

/// Somebody else's download.
pub(super) struct Waiter(watch::Receiver<Outcome>);

impl Downloads {
    pub(super) fn claim(&self, blob: Digest, diff_id: Digest) -> Turn<'_> {
        let key = (blob, diff_id);
        let mut running = self.running.lock();
        // Layers that were handed over and whose pulls have ended since.
        running.retain(|_, outcome| {
            let outcome = outcome.borrow();
            outcome
                .as_ref()
                .is_none_or(|layer| layer.strong_count() > 0)
        });
        if let Some(outcome) = running.get(&key) {
            return Turn::Theirs(Waiter(outcome.clone()));
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key, outcome);
        Turn::Ours(Claim {
            downloads: self,
            key,
            tell,
            finished: false,
        })
    }
}

impl Claim<'_> {
    pub(super) fn finish(mut self, layer: &Arc<Unfinished>) {
        self.finished = true;
        self.tell.send_replace(Some(Arc::downgrade(layer)));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Before those who wait are woken, by the end of the channel.
            self.downloads.running.lock().remove(&self.key);
        }
    }
}

impl Waiter {
    /// The layer, if there is one to share.
    pub(super) async fn wait(mut self) -> Option<Arc<Unfinished>> {
        let outcome = self.0.wait_for(Option::is_some).await.ok()?;
        outcome.as_ref()?.upgrade()
    }
}
