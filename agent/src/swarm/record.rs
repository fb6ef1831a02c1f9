//! What this host remembers of its swarm, besides its identity: `<root>/swarm/node.json`.
//!
//! ```text
//! <root>/swarm/node.json        addresses, and the managers known last
//! <root>/swarm/certificates/    root, certificate and key of the node, key of the log
//! <root>/swarm/raft/            the log of a manager
//! <root>/swarm/worker/          tasks
//! <run>/swarm/files/            secrets of running tasks
//! ```
//!
//! The record is written when a host has become a node; without it the rest is what a crash left of an attempt.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cluster::dispatcher::Contact;
use serde::{Deserialize, Serialize};

use super::address::Addresses;
use crate::error::{Error, Result};

const NAME: &str = "node.json";

/// A host's part in a swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) node_id: String,
    pub(super) cluster_id: String,
    pub(super) addresses: Addresses,
    /// Where a leader can be asked for.
    pub(super) managers: Vec<Contact>,
}

/// The directories of a node.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// `<root>/swarm`
    pub(super) root: PathBuf,
    /// `<run>/swarm`
    pub(super) run: PathBuf,
}

impl Places {
    pub(super) fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    pub(super) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    pub(super) fn worker(&self) -> PathBuf {
        self.root.join("worker")
    }

    /// The record, if this host is in a swarm. Blocks.
    pub(super) fn load(&self) -> Result<Option<NodeRecord>> {
        let path = self.root.join(NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::system(format!(
                "{} is damaged: {error}; repair it, or leave the swarm with `swarm leave --force` and join again",
                path.display()
            ))
        })
    }

    /// Durable when this returns. Blocks.
    pub(super) fn save(&self, record: &NodeRecord) -> Result<()> {
        use std::io::Write as _;
        // Two writers may come at once: a join that ends, and a leader that names the managers.
        static WRITING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
        let _writing = WRITING.lock();
        let (path, new) = (self.root.join(NAME), self.root.join(".node.json.new"));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.root)?;
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            fs::File::open(&self.root)?.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Forgets everything; the record first, so that a crash leaves an attempt and not half a node. Blocks.
    pub(super) fn clear(&self) -> Result<()> {
        let path = self.root.join(NAME);
        absent(fs::remove_file(&path), &path)?;
        absent(fs::remove_dir_all(&self.root), &self.root)
    }

    /// A worker has no log. Blocks.
    pub(super) fn clear_raft(&self) -> Result<()> {
        let path = self.raft();
        absent(fs::remove_dir_all(&path), &path)
    }
}

/// Absent is as good as removed.
fn absent(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_until_it_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        let places = Places {
            root: root.path().join("swarm"),
            run: root.path().join("run"),
        };
        assert_eq!(places.load().unwrap(), None);
        let record = NodeRecord {
            node_id: "n1".into(),
            cluster_id: "c1".into(),
            addresses: Addresses {
                listen: "0.0.0.0:2377".parse().unwrap(),
                advertise: "192.0.2.1:2377".parse().unwrap(),
                data_path: "192.0.2.1".parse().unwrap(),
            },
            managers: vec![Contact {
                node_id: "n2".into(),
                address: "192.0.2.2:2377".into(),
            }],
        };
        places.save(&record).unwrap();
        assert_eq!(places.load().unwrap(), Some(record));
        fs::write(places.root.join(NAME), "{").unwrap();
        assert!(
            places
                .load()
                .unwrap_err()
                .to_string()
                .contains("node.json is damaged")
        );
        fs::create_dir(places.raft()).unwrap();
        places.clear_raft().unwrap();
        places.clear().unwrap();
        places.clear().unwrap();
        assert!(!places.root.exists());
    }
}
