//! Keeping an image while something is done with it that is no container yet, or none at all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Result, Store};
use crate::digest::ImageId;

/// What images are held for, each at least for one thing, as often as it is.
pub(super) type Holds = HashMap<ImageId, Vec<HeldFor>>;

/// Keeps an image from being removed while something is done with it. Release by dropping.
#[must_use]
pub struct Hold {
    id: ImageId,
    purpose: HeldFor,
    held: Arc<Mutex<Holds>>,
}

/// What is being done with an image that must not go meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldFor {
    /// A container is being made from it.
    Container,
    /// A build starts from it, or copies out of it.
    Build,
    /// It is being written into an archive.
    Save,
    /// It has just come from a registry.
    Pull,
    /// It is on its way to a registry.
    Push,
    /// An image is being made of one of its containers.
    Commit,
}

impl HeldFor {
    /// Why it cannot be removed, and what to do about it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Container => "image is being used by a container that is being created",
            Self::Build => "image is being used by a build: wait for it, or stop it",
            Self::Save => "image is being saved: wait for it, or stop it",
            Self::Pull => "image is being pulled: wait for it, or stop it",
            Self::Push => "image is being pushed: wait for it, or stop it",
            Self::Commit => "a container of the image is being committed: wait for it",
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(purposes) = held.get_mut(&self.id) {
            if let Some(at) = purposes.iter().position(|other| *other == self.purpose) {
                purposes.swap_remove(at);
            }
            if purposes.is_empty() {
                held.remove(&self.id);
            }
        }
    }
}

impl Store {
    /// Like [`Store::resolve`], and keeps the image until the hold is dropped.
    pub fn hold(&self, name: &str, purpose: HeldFor) -> Result<(ImageId, Hold)> {
        // Under the writers' lock, so that no removal is between its check and its deed.
        let _writing = self.writing.lock();
        let id = self.resolve(name)?;
        Ok((id, self.hold_known(id, purpose)))
    }

    /// Keeps an image that is here. The caller has the writers' lock.
    pub(super) fn hold_known(&self, id: ImageId, purpose: HeldFor) -> Hold {
        self.used(&id);
        self.take_hold(id, purpose)
    }

    /// Keeps an image that is here, or is about to be. The caller has the writers' lock.
    pub(super) fn take_hold(&self, id: ImageId, purpose: HeldFor) -> Hold {
        self.held.lock().entry(id).or_default().push(purpose);
        let held = Arc::clone(&self.held);
        Hold { id, purpose, held }
    }
}
