//! Digests of what a step reads: the part of a cache key that files make up.
//!
//! ```text
//! walk (calling thread) ── small stream of open files ──▶ hashing threads
//!       └── entries in order of name, each with its file's digest when that is there ──▶ one digest
//! ```
//!
//! An entry is its name, kind, mode, owner, link target or device, attributes and the digest of its content, each with its
//! length, so that no two trees run together. Times are no part of it, and neither are inodes, hard links or holes: two checkouts
//! of one project have one digest. Whether files changed between two readings of one tree says a second number, made of what
//! every change of a file changes.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::available_parallelism;

use agent_build::plan::{CopyOp, InputIndex};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, Stat};
use tokio_util::sync::CancellationToken;

use super::error::{FilesError, Result};
use super::select::{Role, Selection, Visitor};
use super::stat_cache::Stamp;
use super::view::{Directory, Node};
use super::{StatCache, View};
use crate::Limits;
use crate::digest::{Digest, Hasher};
use crate::layers::kept_xattrs;

/// Open files that wait for a hashing thread.
const QUEUE: usize = 64;
/// Entries that wait for the digest of an earlier one.
const PENDING_MAX: usize = 1024;
/// Bytes of one of them.
const BYTES_MAX: usize = 64 << 10;
/// Part of every digest: changed together with what entries consist of.
const VERSION: &[u8] = b"muster files 1\n";

/// What a step reads of one of its inputs, as it was at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Of names, kinds, modes, owners, link targets, attributes and content; no times. The part of a cache key.
    pub digest: Digest,
    /// Of inodes and times of everything but directories. Of two equal readings of one tree it says that nothing was changed
    /// in between, not even to and fro; of two different trees it says nothing.
    pub stamp: u64,
}

/// Everything that `op` selects in one of its inputs. Selecting nothing is a reading, too.
///
/// # Errors
/// [`FilesError::NotFound`] as the copy itself would, and what cannot be read.
pub fn content_digest(
    op: &CopyOp,
    input: InputIndex,
    view: &View,
    stats: Option<&StatCache>,
    cancel: &CancellationToken,
) -> Result<Reading> {
    let mut selections = Vec::new();
    for source in &op.sources {
        selections.extend(Selection::of(op, source)?.filter(|selection| selection.input == input));
    }
    digest(&selections, view, stats, cancel)
}

/// One path and everything below it, links on the way followed (a bind mount's source).
///
/// # Errors
/// As [`content_digest`].
pub fn path_digest(
    view: &View,
    path: &str,
    stats: Option<&StatCache>,
    cancel: &CancellationToken,
) -> Result<Reading> {
    digest(&[Selection::everything(path)], view, stats, cancel)
}

fn digest(
    selections: &[Selection],
    view: &View,
    stats: Option<&StatCache>,
    cancel: &CancellationToken,
) -> Result<Reading> {
    let workers = available_parallelism().map_or(1, NonZero::get);
    let (to_hash, from_walk) = sync_channel::<Job>(QUEUE);
    let from_walk = Mutex::new(from_walk);
    let stats = stats.filter(|_| view.is_context());
    let mut digester = Digester {
        stats,
        to_hash,
        pending: VecDeque::new(),
        hasher: Hasher::new(),
        stamps: DefaultHasher::new(),
        contents: false,
    };
    digester.hasher.update(VERSION);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| hash_files(&from_walk, stats, cancel));
        }
        let walked = selections.iter().try_for_each(|selection| {
            digester.contents = selection.contents;
            digester.text(b'S', &[])?;
            for source in selection.sources(view)? {
                let name = if source.matched {
                    &source.name[..]
                } else {
                    &[]
                };
                digester.text(b'N', name)?;
                selection.walk(view, &source, cancel, &mut digester)?;
            }
            Ok(())
        });
        // The threads end when no more files come.
        digester.finish(walked)
    })
}

/// A file to be hashed.
struct Job {
    file: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
    /// It has no attributes that are part of the digest.
    plain: bool,
    result: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    value: Mutex<Option<Result<Digest>>>,
    ready: Condvar,
}

impl Slot {
    fn set(&self, value: Result<Digest>) {
        *self.value.lock() = Some(value);
        self.ready.notify_one();
    }

    fn take(&self, wait: bool) -> Option<Result<Digest>> {
        let mut value = self.value.lock();
        while wait && value.is_none() {
            self.ready.wait(&mut value);
        }
        value.take()
    }
}

fn hash_files(jobs: &Mutex<Receiver<Job>>, stats: Option<&StatCache>, cancel: &CancellationToken) {
    let mut buffer = vec![0u8; 128 << 10];
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        let started = stats.map(|_| super::stat_cache::now());
        let result = hash_file(&job, &mut buffer, cancel);
        if let (Some(stats), Some(started), Ok((digest, length))) = (stats, started, &result)
            && job.plain
            && *length == job.stat.st_size as u64
        {
            stats.learn(Stamp::of(&job.stat), *digest, started);
        }
        job.result.set(result.map(|(digest, _)| digest));
    }
}

fn hash_file(job: &Job, buffer: &mut [u8], cancel: &CancellationToken) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut at = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(FilesError::Cancelled);
        }
        match rustix::io::pread(&job.file, &mut *buffer, at) {
            Ok(0) => return Ok((hasher.finish(), at)),
            Ok(len) => {
                hasher.update(&buffer[..len]);
                at += len as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(FilesError::io("read", &job.path)(error)),
        }
    }
}

/// What the digest is made of, in order.
enum Part {
    Bytes(Vec<u8>),
    Content(Arc<Slot>),
}

struct Digester<'a> {
    stats: Option<&'a StatCache>,
    to_hash: SyncSender<Job>,
    pending: VecDeque<Part>,
    hasher: Hasher,
    stamps: DefaultHasher,
    /// Of a directory that is the source only the content counts.
    contents: bool,
}

impl Digester<'_> {
    fn text(&mut self, tag: u8, text: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(9 + text.len());
        field(&mut bytes, tag, text);
        self.push(Part::Bytes(bytes))
    }

    fn push(&mut self, part: Part) -> Result<()> {
        match (part, self.pending.back_mut()) {
            (Part::Bytes(more), None) => {
                self.hasher.update(&more);
                return Ok(());
            }
            (Part::Bytes(more), Some(Part::Bytes(bytes))) if bytes.len() < BYTES_MAX => {
                bytes.extend_from_slice(&more);
            }
            (part, _) => self.pending.push_back(part),
        }
        self.drain(PENDING_MAX)
    }

    /// Takes in what is complete at the front; waits for it as long as more than `pending` parts are there.
    fn drain(&mut self, pending: usize) -> Result<()> {
        while let Some(part) = self.pending.front() {
            match part {
                Part::Bytes(bytes) => self.hasher.update(bytes),
                Part::Content(slot) => match slot.take(self.pending.len() > pending) {
                    Some(digest) => self.hasher.update(digest?.bytes()),
                    None => return Ok(()),
                },
            }
            self.pending.pop_front();
        }
        Ok(())
    }

    fn finish(mut self, walked: Result<()>) -> Result<Reading> {
        walked?;
        self.drain(0)?;
        Ok(Reading {
            digest: self.hasher.finish(),
            stamp: self.stamps.finish(),
        })
    }

    fn entry(&mut self, name: &[u8], stat: &Stat) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + name.len());
        field(&mut bytes, b'E', name);
        // The mode of a link means nothing.
        let mode = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => stat.st_mode | 0o777,
            _ => stat.st_mode,
        };
        for number in [mode, stat.st_uid, stat.st_gid] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }
}

/// Tag, length, text.
fn field(bytes: &mut Vec<u8>, tag: u8, text: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text);
}

/// Whether there are any.
fn attributes(bytes: &mut Vec<u8>, fd: &OwnedFd) -> bool {
    let attributes = kept_xattrs(fd);
    for (key, value) in &attributes {
        field(bytes, b'A', key);
        field(bytes, b'V', value);
    }
    !attributes.is_empty()
}

impl Visitor for Digester<'_> {
    fn enter(&mut self, _: &View, directory: &Directory, role: Role) -> Result<()> {
        if role == Role::Top && self.contents {
            return self.text(b'(', &[]);
        }
        let name = match role {
            Role::Top => &[],
            _ => directory.name(),
        };
        let mut bytes = self.entry(name, &directory.stat);
        attributes(&mut bytes, directory.fd());
        bytes.push(b'(');
        self.push(Part::Bytes(bytes))
    }

    fn leave(&mut self, _: &View, _: &Directory, _: Role) -> Result<()> {
        self.push(Part::Bytes(vec![b')']))
    }

    fn file(&mut self, view: &View, parent: &Directory, node: &Node, top: bool) -> Result<()> {
        let name = if top { &[][..] } else { &node.name };
        if node.kind() != FileType::RegularFile {
            Stamp::of(&node.stat).hash(&mut self.stamps);
            let mut bytes = self.entry(name, &node.stat);
            match node.kind() {
                FileType::Symlink => {
                    field(&mut bytes, b'L', &view.read_link(parent, node)?);
                }
                _ => bytes.extend_from_slice(&node.stat.st_rdev.to_le_bytes()),
            }
            return self.push(Part::Bytes(bytes));
        }
        if let Some(stats) = self.stats
            && let Some(digest) = stats.get(&Stamp::of(&node.stat))
        {
            Stamp::of(&node.stat).hash(&mut self.stamps);
            let mut bytes = self.entry(name, &node.stat);
            bytes.push(b'C');
            bytes.extend_from_slice(digest.bytes());
            return self.push(Part::Bytes(bytes));
        }
        let Some((file, stat)) = view.open_present(parent, node)? else {
            return Ok(());
        };
        let limit = Limits::default().layer_bytes;
        if stat.st_size as u64 > limit {
            return Err(FilesError::Limit {
                what: "bytes in one file",
                limit,
            });
        }
        Stamp::of(&stat).hash(&mut self.stamps);
        let mut bytes = self.entry(name, &stat);
        let plain = !attributes(&mut bytes, &file);
        bytes.push(b'C');
        self.push(Part::Bytes(bytes))?;
        let slot = Arc::new(Slot::default());
        let job = Job {
            file,
            stat,
            path: super::view::join(&parent.path, &node.name),
            plain,
            result: Arc::clone(&slot),
        };
        // The threads live as long as this sender.
        if self.to_hash.send(job).is_err() {
            return Err(FilesError::Cancelled);
        }
        self.push(Part::Content(slot))
    }
}
