//! The durable half of a member.

mod directory;
mod key;

use cluster_api::IdSource;

pub use super::write::Recovered;
use super::{Membership, RaftId, WriteBatch};
pub use directory::Directory;
pub use key::Key;

/// How a member begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// The first of a new group.
    Found(Membership),
    /// Waits for the leader of an existing group to send it everything.
    Join,
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct LogError;

/// The log on disk.
pub struct Log<D> {
    dir: D,
}

impl<D: Directory> Log<D> {
    /// Whether there is a log in the directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn exists(dir: &mut D) -> Result<bool, LogError> {
        let _ = dir;
        todo!()
    }

    /// A new log in an empty directory.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub fn create(
        dir: D,
        cluster_id: &str,
        id: RaftId,
        key: &Key,
        nonces: IdSource,
        start: Start,
    ) -> Result<(Self, Recovered), LogError> {
        let _ = (cluster_id, id, key, nonces, start);
        let _ = Self { dir }.dir;
        todo!()
    }

    /// The log there is, its torn tail repaired.
    ///
    /// # Errors
    /// Says what is wrong and what to do. Nothing was changed then.
    pub fn open(dir: D, cluster_id: &str, key: &Key, nonces: IdSource) -> Result<(Self, Recovered), LogError> {
        let _ = (dir, cluster_id, key, nonces);
        todo!()
    }

    /// Writes a batch; it is durable after [`Log::sync`].
    ///
    /// # Errors
    /// The disk's. The log must not be used any more then: reopen it.
    pub fn append(&mut self, batch: &WriteBatch) -> Result<(), LogError> {
        let _ = batch;
        todo!()
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        todo!()
    }
}
