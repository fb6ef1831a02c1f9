//! Containers on disk. The only writer of:
//!
//! ```text
//! <root>/containers/<id>/config.json      Definition; written when it changes
//! <root>/containers/<id>/state.json       State; written on every transition; absent until the first start
//! <root>/containers/<id>/auto-remove      empty; only where the container removes itself after its run
//! <root>/containers/<id>/{upper,work}     writable layer, made when the container is created
//! <root>/containers/<id>/<id>-json.log    written by the keeper
//! <root>/containers/<id>/{hosts,hostname,resolv.conf}   written at every start
//! <root>/trash/<anything>                 being deleted; whatever is there when the engine starts is deleted
//! ```
//!
//! Every file is replaced by writing a temporary one and renaming it, so a reader sees the old or the new content. That
//! alone is not enough for a power failure: a file system may bring the new name to the disk before the bytes, and then
//! the file is empty. Definitions are therefore flushed, and so are states in which a container rests (that it was
//! stopped by hand, or ended well, must be known after the next boot). States of a container that runs are not: after a
//! power failure it does not run, and an empty file counts as a run that was cut off. Containers that remove themselves
//! after their run do not survive a reboot: nothing of theirs is flushed, and a mark says so.
//!
//! A directory whose `config.json` is missing or empty is a creation that was cut short, and deleted, only if nothing
//! was ever written in the container. With anything in it, and where the record does not parse, it is kept and reported.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use agent_api::ContainerStatus;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::container::{DEFINITION_FORMAT, Definition, State};
use crate::error::{Error, Result};

const DEFINITION: &str = "config.json";
const STATE: &str = "state.json";
const AUTO_REMOVE: &str = "auto-remove";
const UPPER: &str = "upper";
/// State writes that may wait for the writer.
const QUEUE: usize = 256;

/// The containers' directories. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    containers: PathBuf,
    trash: PathBuf,
    writer: mpsc::Sender<Job>,
    /// Wakes the thread that empties the trash.
    bell: SyncSender<()>,
    boot: String,
}

#[derive(Debug)]
enum Job {
    State {
        id: String,
        state: Box<State>,
        durability: Durability,
        /// Whether it is written.
        done: oneshot::Sender<bool>,
    },
    /// Answer when everything queued before is written.
    Flush(oneshot::Sender<()>),
}

/// Whether a write must be on the disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Flushed,
    Buffered,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) containers: Vec<(Definition, State)>,
    /// Records that could not be read, each worded for the user.
    pub(crate) problems: Vec<String>,
}

impl Records {
    /// Opens the directories below `root`, deletes half-made ones and reads the rest. Blocks.
    pub(crate) fn open(root: &Path) -> Result<(Self, Found)> {
        let containers = root.join("containers");
        let trash = root.join("trash");
        for directory in [&containers, &trash] {
            make_private_directory(directory)?;
        }
        let (writer, jobs) = mpsc::channel(QUEUE);
        let states = containers.clone();
        std::thread::Builder::new()
            .name("records".into())
            .spawn(move || write_jobs(&states, jobs))
            .map_err(|error| Error::system(format!("cannot start the records thread: {error}")))?;
        let (bell, rings) = std::sync::mpsc::sync_channel(1);
        let doomed = trash.clone();
        // On a thread of its own: a large directory must not hold up states.
        std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || empty_trash(&doomed, &rings))
            .map_err(|error| Error::system(format!("cannot start the trash thread: {error}")))?;
        let records = Self {
            containers,
            trash,
            writer,
            bell,
            boot: boot_id(),
        };
        let found = records.load()?;
        records.ring();
        Ok((records, found))
    }

    /// The directory of a container.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.containers.join(id)
    }

    /// Identifies the present boot of the machine.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Makes the directory of a new container and records its definition. Blocks.
    pub(crate) fn create(&self, definition: &Definition) -> Result<()> {
        let durability = durability(definition);
        let directory = self.directory(&definition.id);
        let made = (|| {
            fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
            set_mode(&directory, 0o710)?;
            if definition.host.auto_remove {
                let path = directory.join(AUTO_REMOVE);
                File::create(&path).map_err(Error::io("create", &path))?;
            }
            for name in [UPPER, "work"] {
                let path = directory.join(name);
                fs::create_dir(&path).map_err(Error::io("create", &path))?;
            }
            replace(&directory, DEFINITION, definition, durability)?;
            if durability == Durability::Flushed {
                sync_directory(&self.containers)?;
            }
            Ok(())
        })();
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    /// Records a changed definition. Blocks.
    pub(crate) fn write_definition(&self, definition: &Definition) -> Result<()> {
        let directory = self.directory(&definition.id);
        replace(&directory, DEFINITION, definition, durability(definition))
    }

    /// Queues a state for writing, in the order of the calls; await the receiver where the answer to a request depends
    /// on it. A failed write is logged: the container goes on.
    pub(crate) async fn write_state(
        &self,
        definition: &Definition,
        state: &State,
    ) -> oneshot::Receiver<bool> {
        let id = definition.id.as_str();
        let (done, receiver) = oneshot::channel();
        let durability = match state.status {
            ContainerStatus::Exited => durability(definition),
            _ => Durability::Buffered,
        };
        let mut state = Box::new(state.clone());
        state.boot.clone_from(&self.boot);
        if self
            .writer
            .send(Job::State {
                id: id.to_owned(),
                state,
                durability,
                done,
            })
            .await
            .is_err()
        {
            tracing::error!(container.id = id, "the records thread is gone");
        }
        receiver
    }

    /// Waits until every state queued so far is written.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.writer.send(Job::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Makes a container's directory vanish at once; its content is deleted afterwards. Blocks.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        self.discard(&self.directory(id))
    }

    /// Makes any directory of the same file system vanish at once; one that is not there is no error. Blocks.
    pub(crate) fn discard(&self, directory: &Path) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let doomed = self
            .trash
            .join(format!("{name}-{}-{number}", std::process::id()));
        match fs::rename(directory, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("remove", directory))?,
        }
        self.ring();
        Ok(())
    }

    fn ring(&self) {
        // A full channel has rung already.
        let _ = self.bell.try_send(());
    }

    fn load(&self) -> Result<Found> {
        let mut found = Found::default();
        let entries =
            fs::read_dir(&self.containers).map_err(Error::io("read", &self.containers))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &self.containers))?;
            let directory = entry.path();
            match read_container(&directory) {
                Ok(Some(container)) => found.containers.push(container),
                Ok(None) => {
                    tracing::warn!(path = %directory.display(), "a container whose creation was cut short is removed");
                    self.discard(&directory)?;
                }
                Err(problem) => found.problems.push(problem.to_string()),
            }
        }
        found
            .containers
            .sort_by(|(a, _), (b, _)| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }
}

/// `None` for a directory whose creation was cut short.
fn read_container(directory: &Path) -> Result<Option<(Definition, State)>> {
    let path = directory.join(DEFINITION);
    if fs::metadata(&path).map_or(true, |metadata| metadata.len() == 0) && holds_nothing(directory)
    {
        return Ok(None);
    }
    let definition = read_json::<Definition>(&path)?.ok_or_else(|| {
        Error::system(format!(
            "record {} is missing, but the container's files are there: put the record back, or move the directory away",
            path.display()
        ))
    })?;
    if definition.format > DEFINITION_FORMAT {
        return Err(Error::system(format!(
            "container {} was written by a newer version (format {}): use that version, or move {} away",
            definition.name,
            definition.format,
            directory.display()
        )));
    }
    let state = match read_json::<State>(&directory.join(STATE)) {
        Ok(state) => state.unwrap_or_default(),
        Err(error) => {
            tracing::error!(%error, "a damaged state counts as an unexpected exit");
            State {
                status: ContainerStatus::Running,
                ..State::default()
            }
        }
    };
    Ok(Some((definition, state)))
}

/// Whether a directory without a record can go: its container never started and has no file, or would not have outlived
/// the reboot that lost the record. What cannot be read counts as something.
fn holds_nothing(directory: &Path) -> bool {
    let is_missing = |name: &str| {
        fs::symlink_metadata(directory.join(name))
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let is_empty = match fs::read_dir(directory.join(UPPER)) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    !is_missing(AUTO_REMOVE) || is_missing(STATE) && is_empty
}

/// `None` when the file is missing.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::system(format!(
                "record {} is damaged: {error}; repair it or move its directory away",
                path.display()
            ))
        }),
    }
}

/// What a container's records need to survive.
fn durability(definition: &Definition) -> Durability {
    match definition.host.auto_remove {
        true => Durability::Buffered,
        false => Durability::Flushed,
    }
}

/// Replaces a file by a new one.
pub(super) fn replace<T: Serialize>(
    directory: &Path,
    name: &str,
    value: &T,
    durability: Durability,
) -> Result<()> {
    let path = directory.join(name);
    let temporary = directory.join(format!(".{name}.new"));
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::system(format!("cannot encode {}: {error}", path.display())))?;
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        if durability == Durability::Flushed {
            file.sync_data()?;
        }
        fs::rename(&temporary, &path)
    };
    write().map_err(Error::io("write", &path))?;
    match durability {
        Durability::Flushed => sync_directory(directory),
        Durability::Buffered => Ok(()),
    }
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("flush", directory))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

/// Makes a directory that only its owner may list.
pub(super) fn make_private_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    set_mode(directory, 0o711)
}

fn write_jobs(containers: &Path, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::State {
                id,
                state,
                durability,
                done,
            } => {
                let directory = containers.join(&id);
                let written = match replace(&directory, STATE, &state, durability) {
                    // A container that was removed meanwhile needs no state.
                    Err(error) if directory.exists() => {
                        tracing::error!(container.id = id, %error, "cannot record the state");
                        false
                    }
                    _ => true,
                };
                let _ = done.send(written);
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

/// Deletes what is in the trash whenever the bell rings.
fn empty_trash(trash: &Path, rings: &Receiver<()>) {
    while rings.recv().is_ok() {
        for entry in fs::read_dir(trash).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Err(error) = agent_image::remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete; tried again later");
            }
        }
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::container::new_id;

    fn definition() -> Definition {
        Definition {
            format: DEFINITION_FORMAT,
            id: new_id(),
            name: "web".into(),
            created: jiff::Timestamp::now(),
            image: "sha256:00".into(),
            command: vec!["sleep".into(), "1".into()],
            config: agent_api::ContainerConfig::default(),
            host: agent_api::HostConfig::default(),
            mounts: Vec::new(),
            endpoints: indexmap::IndexMap::new(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    #[test]
    fn what_was_written_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        let definition = definition();
        records.create(&definition).unwrap();
        let state = State {
            exit_code: 7,
            exits: 3,
            ..State::default()
        };
        runtime().block_on(async {
            records
                .write_state(&definition, &state)
                .await
                .await
                .unwrap();
        });
        let (_, found) = Records::open(root.path()).unwrap();
        let (read, read_state) = &found.containers[0];
        assert_eq!((&read.id, &read.name), (&definition.id, &definition.name));
        assert_eq!((read_state.exit_code, read_state.exits), (7, 3));
        assert_eq!(read_state.boot, boot_id());
    }

    #[test]
    fn half_made_directories_go_and_damaged_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        for (id, content) in [
            ("none", None),
            ("empty", Some("")),
            ("damaged", Some("{\"format\":")),
        ] {
            fs::create_dir(records.directory(id)).unwrap();
            if let Some(content) = content {
                fs::write(records.directory(id).join(DEFINITION), content).unwrap();
            }
        }
        let (records, found) = Records::open(root.path()).unwrap();
        assert!(found.containers.is_empty());
        assert_eq!(found.problems.len(), 1);
        assert!(
            found.problems[0].contains("damaged"),
            "{:?}",
            found.problems
        );
        assert!(!records.directory("none").exists() && !records.directory("empty").exists());
        assert!(records.directory("damaged").exists());
    }

    #[test]
    fn what_a_container_wrote_outlives_its_record() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        for (lost, auto_remove) in [("missing", false), ("empty", false), ("temporary", true)] {
            let mut definition = Definition {
                id: lost.into(),
                ..definition()
            };
            definition.host.auto_remove = auto_remove;
            records.create(&definition).unwrap();
            let directory = records.directory(lost);
            fs::write(directory.join(UPPER).join("data"), "precious").unwrap();
            match lost {
                "missing" => fs::remove_file(directory.join(DEFINITION)).unwrap(),
                _ => fs::write(directory.join(DEFINITION), "").unwrap(),
            }
        }
        let (records, found) = Records::open(root.path()).unwrap();
        assert!(found.containers.is_empty());
        assert_eq!(found.problems.len(), 2, "{:?}", found.problems);
        for lost in ["missing", "empty"] {
            let directory = records.directory(lost);
            assert!(directory.join(UPPER).join("data").exists(), "{lost}");
            let path = directory.join(DEFINITION).display().to_string();
            let named = |problem: &String| problem.contains(&path);
            assert!(found.problems.iter().any(named), "{:?}", found.problems);
        }
        assert!(!records.directory("temporary").exists());
    }

    #[test]
    fn an_emptied_state_is_a_run_that_was_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        let definition = definition();
        records.create(&definition).unwrap();
        fs::write(records.directory(&definition.id).join(STATE), "").unwrap();
        let (_, found) = Records::open(root.path()).unwrap();
        assert_eq!(found.containers[0].1.status, ContainerStatus::Running);
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        let definition = Definition {
            format: DEFINITION_FORMAT + 1,
            ..definition()
        };
        records.create(&definition).unwrap();
        let (records, found) = Records::open(root.path()).unwrap();
        assert!(found.problems[0].contains("newer version"));
        assert!(records.directory(&definition.id).exists());
    }

    #[test]
    fn removal_is_immediate_and_repeatable() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        let definition = definition();
        records.create(&definition).unwrap();
        records.remove(&definition.id).unwrap();
        assert!(!records.directory(&definition.id).exists());
        records.remove(&definition.id).unwrap();
        let (_, found) = Records::open(root.path()).unwrap();
        assert!(found.containers.is_empty() && found.problems.is_empty());
    }

    #[test]
    fn creating_twice_fails_and_leaves_the_first() {
        let root = tempfile::tempdir().unwrap();
        let (records, _) = Records::open(root.path()).unwrap();
        let file = root.path().join("containers/blocked");
        fs::write(&file, "").unwrap();
        let error = records
            .create(&Definition {
                id: "blocked".into(),
                ..definition()
            })
            .unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
    }
}
