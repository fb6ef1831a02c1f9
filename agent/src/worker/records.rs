//! What the worker keeps of its tasks across restarts of the daemon.
//!
//! ```text
//! <root>/swarm/worker/fence.json        the youngest order that was followed
//! <root>/swarm/worker/tasks/<id>.json   one task: assignment, status, what was begun last
//! ```
//!
//! A record is on the disk before what it announces is begun. Only this module writes there.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cluster::worker::{Fence, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged: {source}; move it away, and the managers assign anew", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0:?} is no id of a task")]
    Id(String),
}

/// The worker's directory.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    root: PathBuf,
    tasks: PathBuf,
}

const FENCE: &str = "fence.json";
/// Longest id of a task; SwarmKit's have 25 characters.
const ID_MAX: usize = 64;

impl Records {
    /// Makes the directory if need be.
    pub(crate) fn open(root: &Path) -> Result<Self, RecordError> {
        let tasks = root.join("tasks");
        fs::create_dir_all(&tasks).map_err(failed("make", &tasks))?;
        Ok(Self {
            root: root.to_owned(),
            tasks,
        })
    }

    /// Everything that was kept.
    pub(crate) fn load(&self) -> Result<(Fence, Vec<Record>), RecordError> {
        let fence = read(&self.root.join(FENCE))?.unwrap_or_default();
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.tasks).map_err(failed("list", &self.tasks))? {
            let path = entry.map_err(failed("list", &self.tasks))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.extend(read(&path)?);
            } else {
                // A write that a crash cut short.
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok((fence, records))
    }

    /// Durable when this returns.
    pub(crate) fn save(&self, record: &Record) -> Result<(), RecordError> {
        replace(&self.tasks, &file_name(&record.task.id)?, record)
    }

    /// Durable when this returns.
    pub(crate) fn save_fence(&self, fence: &Fence) -> Result<(), RecordError> {
        replace(&self.root, FENCE, fence)
    }

    /// A record that is not there is no error.
    pub(crate) fn forget(&self, task_id: &str) -> Result<(), RecordError> {
        let path = self.tasks.join(file_name(task_id)?);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// This node is in no swarm any more.
    pub(crate) fn clear(&self) -> Result<(), RecordError> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.root)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a text can be part of a path without leading anywhere else.
pub(crate) fn is_id(id: &str) -> bool {
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn file_name(task_id: &str) -> Result<String, RecordError> {
    if is_id(task_id) {
        Ok(format!("{task_id}.json"))
    } else {
        Err(RecordError::Id(task_id.to_owned()))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed("read", path))?,
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| RecordError::Damaged {
            path: path.to_owned(),
            source,
        })
}

fn replace(directory: &Path, name: &str, value: &impl Serialize) -> Result<(), RecordError> {
    let (path, new) = (directory.join(name), directory.join(format!(".{name}.new")));
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", &path))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::worker::Intent;
    use cluster_api::{Task, TaskStatus};

    use super::*;

    fn record(id: &str, intent: Intent) -> Record {
        Record {
            task: Arc::new(Task {
                id: id.to_owned(),
                ..Task::default()
            }),
            status: TaskStatus::default(),
            intent,
            assigned: true,
        }
    }

    #[test]
    fn what_was_kept_is_found_again_and_half_a_write_is_not() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(root.path()).unwrap();
        records.save(&record("a1", Intent::Accept)).unwrap();
        records.save(&record("b2", Intent::Prepare)).unwrap();
        records.save(&record("a1", Intent::Start)).unwrap();
        records.forget("b2").unwrap();
        records.forget("b2").unwrap();
        let fence = Fence { term: 3, index: 9 };
        records.save_fence(&fence).unwrap();
        fs::write(root.path().join("tasks/.c3.json.new"), "{").unwrap();
        let found = Records::open(root.path()).unwrap().load().unwrap();
        assert_eq!(found, (fence, vec![record("a1", Intent::Start)]));
        assert!(!root.path().join("tasks/.c3.json.new").exists());
        records.clear().unwrap();
        assert!(!root.path().exists());
    }

    #[test]
    fn an_id_is_no_path_and_damage_is_named() {
        let root = tempfile::tempdir().unwrap();
        let records = Records::open(root.path()).unwrap();
        for id in ["", "../x", "a/b", ".", &"a".repeat(65)] {
            assert!(
                matches!(records.forget(id), Err(RecordError::Id(_))),
                "{id}"
            );
        }
        fs::write(root.path().join("tasks/a1.json"), "{").unwrap();
        let error = records.load().unwrap_err().to_string();
        assert!(error.contains("tasks/a1.json is damaged"), "{error}");
    }
}
