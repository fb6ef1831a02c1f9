//! What is known of a container between two calls, and what its status is.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{OciError, failed};
use crate::cgroup::{Cgroup, CgroupPath, Hierarchy};

/// Version of the OCI runtime specification.
pub(crate) const OCI_VERSION: &str = "1.2.1";

/// The directory of all containers.
pub(crate) struct Store {
    root: PathBuf,
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Process id in the caller's pid namespace, and when it started: together they are the process.
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) cgroup: CgroupPath,
    /// RFC 3339.
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Hooks of later verbs, as they were at creation.
    #[serde(default)]
    pub(crate) hooks: super::hooks::Hooks,
    /// `--no-new-keyring` at creation; an exec does the same.
    #[serde(default)]
    pub(crate) keep_keyring: bool,
}

/// The specification's status, with runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// One container's directory, locked while this lives.
pub(crate) struct Container {
    pub(crate) directory: PathBuf,
    pub(crate) record: Record,
    _lock: OwnedFd,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Result<Store, OciError> {
        std::fs::create_dir_all(root).map_err(failed(format!("make {}", root.display())))?;
        let root = root
            .canonicalize()
            .map_err(failed(format!("resolve {}", root.display())))?;
        Ok(Store { root })
    }

    /// The directory of an id that is safe as a file name.
    fn directory(&self, id: &str) -> Result<PathBuf, OciError> {
        let plain = id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_+-.@".contains(c));
        if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !plain {
            return Err(OciError::Invalid(format!(
                "invalid container id {id:?}: use letters, digits and _ + - . @"
            )));
        }
        Ok(self.root.join(id))
    }

    /// Makes the directory of a new container.
    pub(crate) fn claim(&self, id: &str) -> Result<Claim, OciError> {
        let directory = self.directory(id)?;
        match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o711)) {
            Ok(()) => Ok(Claim {
                directory,
                keep: false,
            }),
            Err(rustix::io::Errno::EXIST) => Err(OciError::Status(format!(
                "container with given ID already exists: {id}"
            ))),
            Err(errno) => Err(failed(format!("make {}", directory.display()))(
                errno.into(),
            )),
        }
    }

    /// Opens and locks a container.
    pub(crate) fn open(&self, id: &str) -> Result<Container, OciError> {
        let directory = self.directory(id)?;
        let lock = match rustix::fs::open(
            &directory,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(lock) => lock,
            Err(rustix::io::Errno::NOENT) => return Err(OciError::NoSuchContainer(id.to_owned())),
            Err(errno) => {
                return Err(failed(format!("open {}", directory.display()))(
                    errno.into(),
                ));
            }
        };
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| failed(format!("lock {}", directory.display()))(errno.into()))?;
        let path = directory.join("state.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OciError::NoSuchContainer(id.to_owned()));
            }
            Err(error) => return Err(failed(format!("read {}", path.display()))(error)),
        };
        let record = serde_json::from_slice(&text)
            .map_err(|error| OciError::Invalid(format!("{}: {error}", path.display())))?;
        Ok(Container {
            directory,
            record,
            _lock: lock,
        })
    }

    /// Removes what is left of a creation that never finished. Whether there was anything.
    pub(crate) fn remove_unfinished(&self, id: &str) -> Result<bool, OciError> {
        let directory = self.directory(id)?;
        match std::fs::remove_dir_all(&directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(format!("remove {}", directory.display()))(error)),
        }
    }

    /// Ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>, OciError> {
        let entries = std::fs::read_dir(&self.root)
            .map_err(failed(format!("list {}", self.root.display())))?;
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

/// A new container's directory, removed unless the creation succeeds.
pub(crate) struct Claim {
    pub(crate) directory: PathBuf,
    keep: bool,
}

impl Claim {
    pub(crate) fn fifo(&self) -> PathBuf {
        self.directory.join("start")
    }

    /// Writes the record and keeps the directory.
    pub(crate) fn finish(mut self, record: &Record) -> Result<(), OciError> {
        write_record(&self.directory, record)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn write_record(directory: &Path, record: &Record) -> Result<(), OciError> {
    let path = directory.join("state.json");
    let new = directory.join("state.json.new");
    let text = serde_json::to_vec(record).map_err(|error| OciError::Invalid(error.to_string()))?;
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(failed(format!("write {}", path.display())))
}

impl Container {
    pub(crate) fn fifo(&self) -> PathBuf {
        self.directory.join("start")
    }

    pub(crate) fn cgroup(&self) -> Result<Cgroup, OciError> {
        Ok(Hierarchy::detect()?.open(&self.record.cgroup))
    }

    /// A descriptor of the init process if it is still the one that was started.
    pub(crate) fn process(&self) -> Option<OwnedFd> {
        let pid = rustix::process::Pid::from_raw(self.record.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        let stat = process_stat(self.record.pid)?;
        let ended = matches!(stat.state, 'Z' | 'X');
        (stat.start_time == self.record.start_time && !ended).then_some(pidfd)
    }

    pub(crate) fn status(&self) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        if self.fifo().exists() {
            return Status::Created;
        }
        match self.cgroup().map(|cgroup| cgroup.is_frozen()) {
            Ok(Ok(true)) => Status::Paused,
            _ => Status::Running,
        }
    }

    /// Removes the directory.
    pub(crate) fn remove(self) -> Result<(), OciError> {
        std::fs::remove_dir_all(&self.directory)
            .map_err(failed(format!("remove {}", self.directory.display())))
    }
}

impl Record {
    /// The state as the specification prints it and hooks get it.
    pub(crate) fn to_state(&self, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status.name(),
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
        });
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state
    }
}

/// What `/proc/PID/stat` says.
pub(crate) struct ProcessStat {
    pub(crate) state: char,
    /// Clock ticks after boot.
    pub(crate) start_time: u64,
}

/// Reads `/proc/PID/stat`; the program's name may contain anything, so fields are counted after its last parenthesis.
pub(crate) fn process_stat(pid: i32) -> Option<ProcessStat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(ProcessStat {
        state: fields.first()?.chars().next()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}
