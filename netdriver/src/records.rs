//! What is kept on disk, and nothing else is: everything in memory can be rebuilt from these files
//! and the kernel.
//!
//! ```text
//! <root>/<network id>.json       a network: written (tmp, fsync, rename) before its bridge exists, deleted after it is gone
//! <run>/sandboxes/<id>.json      a sandbox with endpoints and ports: the same, but without fsync, for a reboot ends sandboxes
//! <run>/netns/<id>               the sandbox's namespace, a bind mount
//! <run>/overlays/<id>.json       an overlay with all that was assigned to it: the same
//! <run>/overlays/<id>.net        the overlay's namespace, a bind mount
//! <run>/ingress.json             the ports published on every host: the same
//! <run>/unrouted.json            present when this daemon turned forwarding on: the interfaces there were then
//! ```
//!
//! A record says what may exist in the kernel, never that it does.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bridge::Bridge;
use crate::overlay::{Balanced, Ingress, Overlay, Peer};
use crate::spec::*;
use crate::{Error, Result};

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: SystemTime,
    pub(crate) driver: Driver,
    /// Subnets and gateways filled in.
    pub(crate) ipam: Vec<IpamConfig>,
    /// Whether the user chose the subnet; only then may endpoints choose their address.
    pub(crate) user_subnet: bool,
    pub(crate) internal: bool,
    pub(crate) enable_ipv4: bool,
    pub(crate) enable_ipv6: bool,
    pub(crate) attachable: bool,
    /// As given by the user.
    pub(crate) options: IndexMap<String, String>,
    pub(crate) labels: IndexMap<String, String>,
    pub(crate) predefined: bool,
    /// What the options mean; of bridge networks alone.
    pub(crate) bridge: Option<Bridge>,
    /// Of overlays alone, which are recorded as [`OverlayRecord`]s.
    #[serde(skip)]
    pub(crate) overlay: Option<Overlay>,
}

/// An overlay and what was assigned to it last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OverlayRecord {
    pub(crate) overlay: Overlay,
    pub(crate) peers_version: Option<u64>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) balanced: Vec<Balanced>,
}

/// A sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) spec: SandboxSpec,
    /// In order of connection.
    pub(crate) endpoints: Vec<EndpointRecord>,
    /// What was asked to be published: applied again when the gateway endpoint changes.
    pub(crate) port_requests: Vec<PortRequest>,
    pub(crate) ports: Vec<PortBinding>,
}

/// An endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) endpoint: Endpoint,
    pub(crate) aliases: Vec<String>,
    /// The host's end of the veth pair; `None` on `host` and `none`.
    pub(crate) host_interface: Option<String>,
    /// Nobody asked for it: it is the way out of a sandbox on overlays alone.
    #[serde(default)]
    pub(crate) gateway_only: bool,
}

const UNROUTED: &str = "unrouted.json";
const INGRESS: &str = "ingress.json";

/// The directories.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    root: PathBuf,
    run: PathBuf,
}

impl Records {
    /// Creates what is missing.
    pub(crate) fn open(root: &Path, run: &Path) -> Result<Records> {
        for directory in [
            root.to_owned(),
            run.join("sandboxes"),
            run.join("netns"),
            run.join("overlays"),
        ] {
            fs::create_dir_all(&directory).map_err(Error::file("create directory", directory))?;
        }
        Ok(Records {
            root: root.into(),
            run: run.into(),
        })
    }

    pub(crate) fn netns(&self, sandbox: &str) -> PathBuf {
        self.run.join("netns").join(sandbox)
    }

    pub(crate) fn has_unrouted(&self) -> bool {
        self.run.join(UNROUTED).exists()
    }

    /// Interfaces between which nothing is forwarded.
    pub(crate) fn unrouted(&self) -> Result<Vec<String>> {
        if self.has_unrouted() {
            read(&self.run.join(UNROUTED))
        } else {
            Ok(Vec::new())
        }
    }

    pub(crate) fn write_unrouted(&self, interfaces: &[String]) -> Result<()> {
        write(&self.run.join(UNROUTED), &interfaces, false)
    }

    pub(crate) fn write_network(&self, record: &NetworkRecord) -> Result<()> {
        write(&self.network(&record.id), record, true)
    }

    pub(crate) fn delete_network(&self, id: &str) -> Result<()> {
        delete(&self.network(id))
    }

    pub(crate) fn networks(&self) -> Result<Vec<NetworkRecord>> {
        let mut records: Vec<NetworkRecord> = read_all(&self.root)?;
        records.sort_by_key(|record| record.created);
        Ok(records)
    }

    pub(crate) fn write_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        write(&self.sandbox(&record.spec.id), record, false)
    }

    pub(crate) fn delete_sandbox(&self, id: &str) -> Result<()> {
        delete(&self.sandbox(id))
    }

    pub(crate) fn sandboxes(&self) -> Result<Vec<SandboxRecord>> {
        read_all(&self.run.join("sandboxes"))
    }

    pub(crate) fn write_overlay(&self, record: &OverlayRecord) -> Result<()> {
        write(&self.overlay(&record.overlay.id), record, false)
    }

    pub(crate) fn delete_overlay(&self, id: &str) -> Result<()> {
        delete(&self.overlay(id))
    }

    pub(crate) fn overlays(&self) -> Result<Vec<OverlayRecord>> {
        let mut records: Vec<OverlayRecord> = read_all(&self.run.join("overlays"))?;
        records.sort_by(|a, b| a.overlay.id.cmp(&b.overlay.id));
        Ok(records)
    }

    /// Overlay namespace files, with or without a record: the networks' ids.
    pub(crate) fn overlay_netns_files(&self) -> Result<Vec<String>> {
        let directory = self.run.join("overlays");
        let list = fs::read_dir(&directory).map_err(Error::file("read directory", directory))?;
        let id = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".net").map(str::to_owned)
        };
        Ok(list.flatten().filter_map(id).collect())
    }

    pub(crate) fn overlay_netns(&self, network: &str) -> PathBuf {
        self.run.join("overlays").join(format!("{network}.net"))
    }

    fn overlay(&self, id: &str) -> PathBuf {
        self.run.join("overlays").join(format!("{id}.json"))
    }

    /// `None` takes the record back.
    pub(crate) fn write_ingress(&self, ingress: Option<&Ingress>) -> Result<()> {
        let path = self.run.join(INGRESS);
        match ingress {
            Some(ingress) => write(&path, ingress, false),
            None => delete(&path),
        }
    }

    pub(crate) fn ingress(&self) -> Result<Option<Ingress>> {
        let path = self.run.join(INGRESS);
        if path.exists() {
            read(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Namespace files, with or without a record.
    pub(crate) fn netns_files(&self) -> Result<Vec<String>> {
        let directory = self.run.join("netns");
        let list = fs::read_dir(&directory).map_err(Error::file("read directory", directory))?;
        Ok(list
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect())
    }

    fn network(&self, id: &str) -> PathBuf {
        self.root.join(format!("{id}.json"))
    }

    fn sandbox(&self, id: &str) -> PathBuf {
        self.run.join("sandboxes").join(format!("{id}.json"))
    }
}

fn write(path: &Path, record: &impl Serialize, durable: bool) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let bytes =
        serde_json::to_vec(record).expect("records have string keys and no failing serialisers");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) if durable => File::open(directory)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(Error::file("write record", path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::file("read record", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record {
        path: path.to_owned(),
        source,
    })
}

fn delete(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::file("delete record", path)(error))
        }
        _ => Ok(()),
    }
}

/// All records of a directory. A write that a crash cut short left a `.tmp` file, which goes.
fn read_all<T: DeserializeOwned>(directory: &Path) -> Result<Vec<T>> {
    let mut records = Vec::new();
    let list = fs::read_dir(directory).map_err(Error::file("read directory", directory))?;
    for entry in list {
        let path = entry
            .map_err(Error::file("read directory", directory))?
            .path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => delete(&path)?,
            // A power failure can leave a file that was never synced without content: it was of the
            // volatile kind, and what it spoke of is gone too.
            Some("json") if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0) => {
                tracing::warn!(path = %path.display(), "empty record removed");
                delete(&path)?;
            }
            Some("json") => records.push(read(&path)?),
            _ => {}
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_cut_short_leaves_the_old_record() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(&root.path().join("n"), root.path()).unwrap();
        let spec = SandboxSpec {
            id: "a1".into(),
            name: "web".into(),
            hostname: String::new(),
            mode: SandboxMode::Private,
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
        };
        let record = SandboxRecord {
            spec,
            endpoints: Vec::new(),
            port_requests: Vec::new(),
            ports: Vec::new(),
        };
        records.write_sandbox(&record).unwrap();
        let half = root.path().join("sandboxes/a1.tmp");
        fs::write(&half, "{\"spec\":").unwrap();
        assert_eq!(records.sandboxes().unwrap().len(), 1);
        assert!(!half.exists());
        fs::write(root.path().join("sandboxes/c3.json"), "").unwrap();
        assert_eq!(records.sandboxes().unwrap().len(), 1);
        fs::write(root.path().join("sandboxes/b2.json"), "{").unwrap();
        let error = records.sandboxes().unwrap_err().to_string();
        assert!(error.contains("sandboxes/b2.json is damaged"), "{error}");
    }
}
