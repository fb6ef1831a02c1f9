//! Which containers there are: the way from a reference to a container's driver and to its latest picture.
//!
//! Reading never waits for a container: pictures come from watch channels that the drivers write. The lock here is held
//! for map operations only.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use super::container::Container;
use super::driver::Command;
use super::names::{self, Names};
use crate::error::{Error, Result};

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    inner: RwLock<Inner>,
    files: Mutex<HashMap<String, Weak<FilesLock>>>,
}

/// Held by whoever works on a container's file system from outside (`cp`, `export`), and while it is started: a root
/// that is not running is mounted by one of them at a time.
pub(crate) type FilesLock = tokio::sync::Mutex<()>;

#[derive(Debug, Default)]
struct Inner {
    containers: HashMap<String, Handle>,
    names: Names,
}

/// The way to one container.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) picture: watch::Receiver<Arc<Container>>,
}

impl Handle {
    /// The container as it is now.
    pub(crate) fn container(&self) -> Arc<Container> {
        Arc::clone(&self.picture.borrow())
    }

    /// Sends a request to the driver and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let gone =
            || Error::not_found(format!("No such container: {}", self.picture.borrow().id()));
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Registry {
    /// Takes a name for a container that is being created: the given one, or a random one.
    pub(crate) fn reserve_name(&self, wanted: Option<&str>, id: &str) -> Result<String> {
        let mut inner = self.inner.write();
        let name = match wanted {
            Some(name) => names::validate(name)?.to_owned(),
            None => names::random(|name| inner.names.contains(name)),
        };
        inner.names.reserve(&name, id)?;
        Ok(name)
    }

    /// Gives a name back.
    pub(crate) fn release_name(&self, name: &str, id: &str) {
        self.inner.write().names.release(name, id);
    }

    /// Enters a container whose name is reserved.
    pub(crate) fn insert(&self, id: &str, handle: Handle) {
        self.inner.write().containers.insert(id.to_owned(), handle);
    }

    /// Takes a container and its name out.
    pub(crate) fn remove(&self, id: &str, name: &str) {
        let mut inner = self.inner.write();
        inner.containers.remove(id);
        inner.names.release(name, id);
    }

    /// What a user's reference means.
    pub(crate) fn find(&self, reference: &str) -> Result<Handle> {
        let inner = self.inner.read();
        let ids = inner.containers.keys().map(String::as_str);
        let id = names::resolve(reference, &inner.names, ids, |id| {
            inner.containers.contains_key(id)
        })?;
        // A name is reserved before its container is entered.
        inner
            .containers
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("No such container: {reference}")))
    }

    /// A container by its full id.
    pub(crate) fn get(&self, id: &str) -> Option<Handle> {
        self.inner.read().containers.get(id).cloned()
    }

    /// The lock on a container's file system.
    pub(crate) fn files(&self, id: &str) -> Arc<FilesLock> {
        let mut files = self.files.lock();
        if let Some(lock) = files.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        files.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        files.insert(id.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Pictures of all containers, newest first.
    pub(crate) fn pictures(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<Arc<Container>> = self
            .inner
            .read()
            .containers
            .values()
            .map(Handle::container)
            .collect();
        all.sort_by(|a, b| (b.definition.created, b.id()).cmp(&(a.definition.created, a.id())));
        all
    }

    /// Ids of the containers that use a volume.
    pub(crate) fn volume_users(&self, volume: &str) -> Vec<String> {
        let inner = self.inner.read();
        let uses = |handle: &&Handle| {
            let container = handle.picture.borrow();
            container
                .definition
                .mounts
                .iter()
                .any(|plan| plan.volume().is_some_and(|used| used.name == volume))
        };
        inner
            .containers
            .values()
            .filter(uses)
            .map(|handle| handle.picture.borrow().id().to_owned())
            .collect()
    }
}
