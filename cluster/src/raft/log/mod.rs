//! The durable half of a member: what it has promised never to forget. Term and vote, the entries of the log, and the last
//! snapshot, in files of its own, because nothing else needs less: entries are only ever added at the end, and read back
//! only when a manager starts.
//!
//! ```text
//! meta                               which cluster, which member; in clear; written last when a log is made
//! log-<first record>                 segments of 8 MiB: records, consecutively numbered through all segments
//! snapshot-<index>-<term>            the state up to there, as records; whole before it gets its name
//! lock                               held while a process uses the log
//! *.tmp                              not finished when the process ended; removed
//!
//! segment:   header | record | record | …  | end          the end is written when the next segment is there
//!
//! record:    crc32c   u32    of all that follows
//!            length   u32    of the sealed body
//!            number   u64    one more than that of the record before it
//!            durable  u64    all records below this number were synced when this one was written
//!            index    u64    what the record is of
//!            term     u64
//!            kind     u8     1 header, 2 entry, 3 term and vote, 4 commit index, 5 restored, 6 end, 7 and 8 snapshot
//!            nonce    24
//!            body            XChaCha20-Poly1305; sealed with it: cluster id and the fields from number to kind
//! ```
//!
//! **Repair.** A crash leaves any part of what was not synced, in any order. A record that is incomplete or whose checksum
//! fails is therefore the torn end of the log if no later record says that it was durable: it is cut off, with all
//! behind it, and nobody was ever told of it. Everything else that is not as it should be — an acknowledged record damaged,
//! a segment missing, a wrong key, a foreign cluster, another process at work — is refused, and nothing is changed.
//!
//! **Compaction.** Segments are deleted whole, oldest first, when a durable snapshot covers them and no follower a little
//! behind needs them. Each segment's header repeats term, vote and commit index, so nothing is lost with its predecessors.

mod crc;
mod directory;
#[cfg(test)]
#[path = "../../../tests/it/disk.rs"]
pub(super) mod disk;
mod error;
mod files;
mod key;
mod record;
mod recover;
mod stored;
#[cfg(test)]
mod tests;

use cluster_api::IdSource;
use protobuf::Message as _;
use serde::{Deserialize, Serialize};

use super::membership::{Membership, RaftId};
use super::output::Snapshot;
pub use super::write::Recovered;
use super::write::{Operation, WriteBatch};
pub use directory::Directory;
pub use error::LogError;
pub use files::Files;
pub use key::Key;
use record::{Kind, Label, Seal};

/// A segment of this size is closed.
const SEGMENT_BYTES: usize = if cfg!(test) { 4 << 10 } else { 8 << 20 };

const META: &str = "meta";
const VERSION: u32 = 1;

/// How a member begins.
#[derive(Debug, Clone)]
pub enum Start {
    /// The first of a new group.
    Found(Membership),
    /// Waits for the leader of an existing group to send it everything.
    Join,
}

/// Whose log it is.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    version: u32,
    cluster_id: String,
    raft_id: RaftId,
}

/// The log on disk. Not to be used any more after an error: what is on disk is unknown then, and opening it again finds out.
pub struct Log<D> {
    dir: D,
    seal: Seal,
    raft_id: RaftId,
    /// Oldest first; the last is written to.
    segments: Vec<Segment>,
    /// Bytes of the last segment, and those not yet handed to the disk.
    size: usize,
    buffer: Vec<u8>,
    /// Number of the next record, and the first that is not durable.
    next: u64,
    durable: u64,
    state: Hard,
    snapshot: Option<(u64, u64)>,
    /// Files to remove when what replaces them is durable.
    obsolete: Vec<String>,
    failed: bool,
}

/// One file of records.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    first: u64,
    /// The highest index of an entry in it, replaced or not.
    highest: u64,
}

/// What each segment's header repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hard {
    pub(super) term: u64,
    pub(super) vote: RaftId,
    pub(super) commit: u64,
}

impl Segment {
    fn name(&self) -> String {
        format!("log-{:016x}", self.first)
    }
}

impl<D: Directory> Log<D> {
    /// Whether there is a log in the directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn exists(dir: &mut D) -> Result<bool, LogError> {
        Ok(names(dir)?.iter().any(|name| name == META))
    }

    /// A new log in an empty directory. It exists when this returns, or not at all.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub fn create(
        mut dir: D,
        cluster_id: &str,
        id: RaftId,
        key: &Key,
        nonces: IdSource,
        start: Start,
    ) -> Result<(Self, Recovered), LogError> {
        lock(&mut dir)?;
        recover::clear_unfinished(&mut dir)?;
        let mut log = Self {
            dir,
            seal: Seal::new(cluster_id, key, nonces),
            raft_id: id,
            segments: Vec::new(),
            size: 0,
            buffer: Vec::new(),
            next: 1,
            durable: 1,
            state: Hard::default(),
            snapshot: None,
            obsolete: Vec::new(),
            failed: false,
        };
        let mut recovered = Recovered {
            id,
            ..Recovered::default()
        };
        if let Start::Found(membership) = start {
            // The group begins with a state, so that its members are known before the first entry.
            let founding = Snapshot {
                index: 1,
                term: 1,
                membership,
                data: Vec::new(),
            };
            let founding = std::sync::Arc::new(founding);
            log.state = Hard {
                term: 1,
                vote: 0,
                commit: 1,
            };
            log.write_snapshot(&founding)?;
            recovered.snapshot = Some(founding);
        }
        recovered.set_state(log.state);
        log.add_segment()?;
        let meta = Meta {
            version: VERSION,
            cluster_id: cluster_id.to_owned(),
            raft_id: id,
        };
        let meta = serde_json::to_vec(&meta).expect("numbers and strings are valid JSON");
        log.publish(META, &meta)?;
        Ok((log, recovered))
    }

    /// The log there is, its torn end cut off.
    ///
    /// # Errors
    /// Says what is wrong and what to do. Nothing was changed then.
    pub fn open(
        mut dir: D,
        cluster_id: &str,
        key: &Key,
        nonces: IdSource,
    ) -> Result<(Self, Recovered), LogError> {
        lock(&mut dir)?;
        recover::open(dir, cluster_id, key, nonces)
    }

    /// Writes a batch; it is durable after [`Log::sync`]. A snapshot in it is durable at once.
    ///
    /// # Errors
    /// The disk's.
    pub fn append(&mut self, batch: &WriteBatch) -> Result<(), LogError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(LogError::Failed);
        }
        for operation in &batch.operations {
            match operation {
                Operation::State { term, vote } => {
                    self.state = Hard {
                        term: *term,
                        vote: *vote,
                        ..self.state
                    };
                    self.put(Kind::State, 0, *term, &vote.to_le_bytes());
                }
                Operation::Commit(commit) => {
                    self.state.commit = *commit;
                    self.put(Kind::Commit, *commit, 0, &[]);
                }
                Operation::Append(entries) => {
                    for entry in entries {
                        let body = entry
                            .write_to_bytes()
                            .expect("encoding into memory cannot fail");
                        self.put(Kind::Entry, entry.index, entry.term, &body);
                        if let Some(segment) = self.segments.last_mut() {
                            segment.highest = segment.highest.max(entry.index);
                        }
                    }
                }
                Operation::Restore(snapshot) => {
                    self.write_snapshot(snapshot)?;
                    self.put(Kind::Restored, snapshot.index, snapshot.term, &[]);
                    self.state.commit = snapshot.index;
                    self.drop_segments(u64::MAX);
                }
                Operation::Compact {
                    snapshot,
                    keep_from,
                } => {
                    self.write_snapshot(snapshot)?;
                    self.drop_segments(*keep_from);
                }
            }
        }
        self.flush()?;
        self.failed = false;
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(LogError::Failed);
        }
        let name = self.current();
        if self.durable < self.next {
            self.dir
                .sync(&name)
                .map_err(LogError::disk("make durable", &name))?;
            self.durable = self.next;
        }
        if self.size >= SEGMENT_BYTES {
            self.rotate()?;
        }
        if !self.obsolete.is_empty() {
            for name in std::mem::take(&mut self.obsolete) {
                self.dir
                    .remove(&name)
                    .map_err(LogError::disk("remove", &name))?;
            }
            self.sync_names()?;
        }
        self.failed = false;
        Ok(())
    }

    /// The directory, which another log may be opened in then.
    pub fn into_directory(self) -> D {
        self.dir
    }

    fn put(&mut self, kind: Kind, index: u64, term: u64, body: &[u8]) {
        let label = Label {
            number: self.next,
            durable: self.durable,
            index,
            term,
            kind,
        };
        self.seal.append(&mut self.buffer, &label, body);
        if kind != Kind::End {
            self.next += 1;
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let name = self.current();
        self.dir
            .append(&name, &self.buffer)
            .map_err(LogError::disk("write to", &name))?;
        self.size += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn current(&self) -> String {
        self.segments.last().map(Segment::name).unwrap_or_default()
    }

    /// The next segment is durable before the old one says that there is one: so a missing one is noticed.
    fn rotate(&mut self) -> Result<(), LogError> {
        let old = self.current();
        self.add_segment()?;
        self.end_segment(
            &old,
            self.segments.last().map_or(0, |segment| segment.first),
        )
    }

    fn end_segment(&mut self, name: &str, next: u64) -> Result<(), LogError> {
        let label = Label {
            number: next,
            durable: next,
            index: 0,
            term: 0,
            kind: Kind::End,
        };
        let mut end = Vec::new();
        self.seal.append(&mut end, &label, &[]);
        self.dir
            .append(name, &end)
            .map_err(LogError::disk("write to", name))?;
        self.dir
            .sync(name)
            .map_err(LogError::disk("make durable", name))
    }

    fn add_segment(&mut self) -> Result<(), LogError> {
        let segment = Segment {
            first: self.next,
            highest: 0,
        };
        let header = record::Header {
            version: VERSION,
            raft_id: self.raft_id,
            state: self.state,
        };
        self.put(Kind::Header, 0, 0, &header.encode());
        let bytes = std::mem::take(&mut self.buffer);
        self.publish(&segment.name(), &bytes)?;
        self.durable = self.next;
        self.size = bytes.len();
        self.segments.push(segment);
        Ok(())
    }

    fn write_snapshot(&mut self, snapshot: &std::sync::Arc<Snapshot>) -> Result<(), LogError> {
        let place = (snapshot.index, snapshot.term);
        stored::write(&mut self.dir, &mut self.seal, snapshot)?;
        if let Some(old) = self.snapshot.replace(place).filter(|old| *old != place) {
            self.obsolete.push(stored::name(old));
        }
        Ok(())
    }

    /// Segments without an entry from `keep_from` on are not needed, except the one written to.
    fn drop_segments(&mut self, keep_from: u64) {
        let last = self.segments.len().saturating_sub(1);
        let dead = self.segments[..last]
            .iter()
            .take_while(|segment| segment.highest < keep_from)
            .count();
        self.obsolete
            .extend(self.segments.drain(..dead).map(|segment| segment.name()));
    }

    /// A file is there whole or not at all.
    fn publish(&mut self, name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let unfinished = format!("{name}.tmp");
        self.dir
            .create(&unfinished)
            .map_err(LogError::disk("create", &unfinished))?;
        self.dir
            .append(&unfinished, bytes)
            .map_err(LogError::disk("write to", &unfinished))?;
        self.dir
            .sync(&unfinished)
            .map_err(LogError::disk("make durable", &unfinished))?;
        self.dir
            .rename(&unfinished, name)
            .map_err(LogError::disk("name", name))?;
        self.sync_names()
    }

    fn sync_names(&mut self) -> Result<(), LogError> {
        self.dir
            .sync_names()
            .map_err(LogError::disk("make durable the names in", "."))
    }
}

fn lock<D: Directory>(dir: &mut D) -> Result<(), LogError> {
    dir.lock().map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => LogError::InUse,
        _ => LogError::disk("lock", "lock")(source),
    })
}

fn names<D: Directory>(dir: &mut D) -> Result<Vec<String>, LogError> {
    let mut names = dir.list().map_err(LogError::disk("list", "."))?;
    names.sort();
    Ok(names)
}
