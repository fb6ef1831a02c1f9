//! Why a log cannot be used, and what to do.

use std::io;

use super::super::membership::RaftId;

/// What is wrong with a log. None of these is repaired by trying again, except a full disk and another process.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused.
    #[error("cannot {doing} {name} of the manager's log")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// The file, in the log's directory.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An earlier operation failed.
    #[error("the manager's log failed before and is in an unknown state; restart this manager")]
    Failed,
    /// Two processes, one log.
    #[error("the manager's log is in use by another process; stop that one first")]
    InUse,
    /// There is none.
    #[error("there is no log of a manager here; join this manager to the swarm again")]
    NotFound,
    /// There is one.
    #[error(
        "there is a log of member {raft_id} of cluster {cluster_id} here already; leave that swarm first"
    )]
    Exists {
        /// Whose it is.
        cluster_id: String,
        /// The member.
        raft_id: RaftId,
    },
    /// Files without the one that says whose they are.
    #[error(
        "{name} is part of a manager's log whose file `meta` is missing; restore it from a backup, or move the rest away"
    )]
    Orphaned {
        /// One of them.
        name: String,
    },
    /// Of another cluster.
    #[error(
        "the manager's log belongs to cluster {found}, not to {expected}; move it away or leave that swarm"
    )]
    WrongCluster {
        /// The one asked for.
        expected: String,
        /// The one in the log.
        found: String,
    },
    /// Not readable with this key.
    #[error(
        "{name} of the manager's log cannot be read with this key; unlock the swarm with the key it was locked with"
    )]
    WrongKey {
        /// The file.
        name: String,
    },
    /// Of another version.
    #[error(
        "the manager's log has format {found}, this program knows {known}; run the version that wrote it"
    )]
    Version {
        /// In the log.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// Something acknowledged is not readable.
    #[error(
        "{name} of the manager's log is damaged at byte {offset}: {why}; restore this manager's state from a backup, or \
         remove the manager from the swarm and join it again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where.
        offset: usize,
        /// How.
        why: String,
    },
    /// A file is gone.
    #[error(
        "{what} of the manager's log is missing; restore this manager's state from a backup, or remove the manager from the \
         swarm and join it again"
    )]
    Missing {
        /// What is gone.
        what: String,
    },
}

impl LogError {
    pub(super) fn disk(doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk {
            doing,
            name: name.to_owned(),
            source,
        }
    }

    pub(super) fn damaged(name: &str, offset: usize, why: impl Into<String>) -> Self {
        Self::Damaged {
            name: name.to_owned(),
            offset,
            why: why.into(),
        }
    }
}
