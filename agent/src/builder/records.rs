//! One cached result on disk: `<root>/build/records/<id>.json`, written whole, the snapshot it names being there before.
//!
//! A file that cannot be read is a result that is not there. Nothing here knows what else is cached.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use agent_image::build::{Entry, Snapshot, Stack};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::solve::Key;

/// Longest file that is read. A step on 127 layers has some 10 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// Characters of a description.
const DESCRIPTION_MAX: usize = 1000;
/// Length of an id, as BuildKit's.
const ID_LENGTH: usize = 25;

/// What kind of thing was cached, in BuildKit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The result of a step, or the layers of an image.
    #[serde(rename = "regular")]
    Regular,
    /// Files of a context.
    #[serde(rename = "source.local")]
    Local,
    /// A checkout of a repository.
    #[serde(rename = "source.git.checkout")]
    Git,
    /// A downloaded file.
    #[serde(rename = "source.http")]
    Http,
}

impl Kind {
    /// The word for clients.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Local => "source.local",
            Self::Git => "source.git.checkout",
            Self::Http => "source.http",
        }
    }
}

/// A cached result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Names it to users.
    pub(crate) id: String,
    /// What it is found by.
    pub(crate) keys: Vec<Key>,
    /// What kind of thing it is.
    pub(crate) kind: Kind,
    /// The step's name.
    pub(crate) description: String,
    /// When the step was run.
    pub(crate) created: Timestamp,
    /// When a build last used it; none: not since it was made.
    pub(crate) last_used: Option<Timestamp>,
    /// How many builds have used it.
    pub(crate) uses: u64,
    /// The file system.
    pub(crate) stack: Stack,
    /// How many of the stack's entries, from the top, it adds.
    pub(crate) own: usize,
    /// When each entry of the stack was made, for histories. Entries of images have none.
    pub(crate) times: Vec<Option<Timestamp>>,
}

/// A file system that was made.
pub(crate) struct Made {
    /// Its layers.
    pub(crate) stack: Stack,
    /// When each of them was made.
    pub(crate) times: Vec<Option<Timestamp>>,
    /// How many of them, from the top, are new.
    pub(crate) own: usize,
}

impl Made {
    /// A snapshot on top of another result.
    pub(crate) fn on(root: Option<&Record>, snapshot: Snapshot) -> Self {
        let layer = Entry::Loose(snapshot.id);
        Self::over(root, layer, Some(Timestamp::now()))
    }

    /// A layer that was made at some time on top of another result.
    pub(crate) fn over(root: Option<&Record>, layer: Entry, time: Option<Timestamp>) -> Self {
        let (below, mut times) = match root {
            Some(record) => (record.stack.clone(), record.times.clone()),
            None => (Stack::default(), Vec::new()),
        };
        times.push(time);
        Self {
            stack: below.with(layer),
            times,
            own: 1,
        }
    }
}

impl Record {
    /// A new one, with a file system that was made at `created`.
    pub(crate) fn new(
        kind: Kind,
        description: String,
        keys: Vec<Key>,
        created: Timestamp,
        made: Made,
    ) -> Self {
        Self {
            id: new_id(),
            keys,
            kind,
            // It may come from a heredoc, or from elsewhere.
            description: match description.char_indices().nth(DESCRIPTION_MAX) {
                None => description,
                Some((end, _)) => format!("{}…", &description[..end]),
            },
            created,
            last_used: None,
            uses: 0,
            stack: made.stack,
            own: made.own,
            times: made.times,
        }
    }

    /// The entries that it adds.
    pub(crate) fn own_entries(&self) -> &[Entry] {
        &self.stack.entries[self.stack.entries.len().saturating_sub(self.own)..]
    }

    /// The entries that it is made on.
    pub(crate) fn below(&self) -> &[Entry] {
        &self.stack.entries[..self.stack.entries.len().saturating_sub(self.own)]
    }

    /// Writes it. Not synced: after a crash of the machine it may be gone, or empty, which is the same.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let (path, temporary) = (
            self.path(directory),
            directory.join(format!(".{}", self.id)),
        );
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        File::create(&temporary)?.write_all(&json)?;
        std::fs::rename(&temporary, &path)
    }

    /// Removes its file.
    pub(crate) fn erase(&self, directory: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.path(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.json", self.id))
    }
}

/// Reads all records of a directory, making it if need be. What is no record is removed; what cannot be read now stays for the
/// next time.
pub(crate) fn read_all(directory: &Path) -> io::Result<Vec<Record>> {
    std::fs::create_dir_all(directory)?;
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        match read(&path) {
            Ok(Some(record)) if record.path(directory) == path => records.push(record),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a record of the build cache");
            }
            Ok(_) => {
                tracing::debug!(path = %path.display(), "removing a record of the build cache that cannot be read");
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(records)
}

fn read(path: &Path) -> io::Result<Option<Record>> {
    let mut json = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut json)?;
    let Ok(record) = serde_json::from_slice::<Record>(&json) else {
        return Ok(None);
    };
    let entries = record.stack.entries.len();
    let fits = record.own <= entries && record.times.len() == entries;
    Ok(fits.then_some(record))
}

/// 25 random characters of base 36, as BuildKit's `identity.NewID`.
pub(crate) fn new_id() -> String {
    use rand::RngExt as _;
    let mut rng = rand::rng();
    let digit = |_| {
        let digit = rng.random_range(0..36_u32);
        std::char::from_digit(digit, 36).expect("it is below the radix")
    };
    (0..ID_LENGTH).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_image::Digest;

    fn record() -> Record {
        let layers = [Digest::of(b"a"), Digest::of(b"b")];
        let now = Timestamp::now();
        let made = Made {
            stack: Stack::of_layers(layers),
            times: vec![None, Some(now)],
            own: 1,
        };
        let keys = vec![Digest::of(b"key")];
        Record::new(Kind::Regular, "[1/1] RUN true".to_owned(), keys, now, made)
    }

    #[test]
    fn records_come_back_and_damaged_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, torn) = (record(), record());
        kept.write(directory.path()).unwrap();
        torn.write(directory.path()).unwrap();
        let path = torn.path(directory.path());
        let half = std::fs::read(&path).unwrap();
        std::fs::write(&path, &half[..half.len() / 2]).unwrap();
        std::fs::write(directory.path().join(".left"), "").unwrap();
        assert_eq!(
            read_all(directory.path()).unwrap(),
            std::slice::from_ref(&kept)
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        kept.erase(directory.path()).unwrap();
        assert!(read_all(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn a_record_whose_parts_do_not_fit_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut wrong = record();
        wrong.times.pop();
        wrong.write(directory.path()).unwrap();
        assert!(read_all(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn ids_look_like_buildkits() {
        let id = new_id();
        assert_eq!(id.len(), 25);
        assert!(
            id.bytes()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        );
        assert_ne!(id, new_id());
    }
}
