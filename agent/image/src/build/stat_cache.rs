//! Digests of files of contexts that did not change since they were read, so that an unchanged file costs one stat.
//!
//! ```text
//! "muster stat cache 1\n"  generation:u32  count:u64
//! count × (device inode size mtime mtime_ns ctime ctime_ns: 7 × u64, mode used: 2 × u32, digest: 32)
//! crc32:u32 of everything before
//! ```
//!
//! All numbers little endian. A file that is damaged, or of another version, counts as empty: nothing is lost but time.
//!
//! What changes a file sets its ctime, which nobody can set to anything else. Only a change in the same tick of the clock as the
//! one before goes unseen, so a file that changed just before it was read is not remembered (git calls such entries racy).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::Stat;
use rustix::time::{ClockId, clock_gettime};

use crate::digest::Digest;

const MAGIC: &[u8] = b"muster stat cache 1\n";
const RECORD: usize = 7 * 8 + 2 * 4 + 32;
/// Files remembered.
const FILES_MAX: usize = 1_000_000;
/// Writings after which a file that was not looked up is forgotten.
const UNUSED_MAX: u32 = 16;
/// How long before it is read a file must have been quiet, in nanoseconds: the coarsest clock of a file system, FAT's.
const QUIET_NS: i128 = 2_000_000_000;

/// Digests by device, inode, size, times and mode. Shared by all builds at work; written when the last one drops it.
pub struct StatCache {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    generation: u32,
    files: HashMap<(u64, u64), Known>,
    changed: bool,
    /// Room was made since it was opened.
    tidied: bool,
}

struct Known {
    stamp: Stamp,
    digest: Digest,
    /// Generation in which it was last looked up.
    used: u32,
}

/// What a file looked like when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, u64),
    ctime: (i64, u64),
    mode: u32,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode,
        }
    }
}

/// The time on the clock that file systems use, in nanoseconds.
pub(super) fn now() -> i128 {
    let now = clock_gettime(ClockId::Realtime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

impl StatCache {
    pub(super) fn open(path: PathBuf) -> Self {
        let state = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).unwrap_or_default(),
            Err(_) => State::default(),
        };
        Self {
            path,
            state: Mutex::new(state),
        }
    }

    /// The digest of a file's content, if it is known and the file has no attributes of its own.
    pub(super) fn get(&self, stamp: &Stamp) -> Option<Digest> {
        let mut state = self.state.lock();
        let generation = state.generation;
        let known = state.files.get_mut(&(stamp.device, stamp.inode))?;
        if known.stamp != *stamp {
            return None;
        }
        known.used = generation;
        Some(known.digest)
    }

    /// Remembers the digest of a file without attributes of its own that was stat'ed and then read from `started` on.
    pub(super) fn learn(&self, stamp: Stamp, digest: Digest, started: i128) {
        let changed = i128::from(stamp.ctime.0) * 1_000_000_000 + i128::from(stamp.ctime.1);
        if changed + QUIET_NS > started {
            return;
        }
        let mut state = self.state.lock();
        let file = (stamp.device, stamp.inode);
        if state.files.len() >= FILES_MAX && !state.files.contains_key(&file) {
            state.make_room();
            if state.files.len() >= FILES_MAX {
                return;
            }
        }
        let known = Known {
            stamp,
            digest,
            used: state.generation,
        };
        state.files.insert(file, known);
        state.changed = true;
    }
}

impl State {
    /// Forgets what was not looked up since the cache was opened, once; what builds at work use stays.
    fn make_room(&mut self) {
        if !std::mem::replace(&mut self.tidied, true) {
            let generation = self.generation;
            self.files.retain(|_, known| known.used == generation);
            self.changed = true;
        }
    }
}

impl Drop for StatCache {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if !state.changed {
            return;
        }
        if let Err(error) = write(&self.path, state) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write the cache of file digests");
        }
    }
}

/// Whole, by rename; not synced, since the checksum tells.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let oldest = state.generation.saturating_sub(UNUSED_MAX);
    let kept: Vec<&Known> = state
        .files
        .values()
        .filter(|known| known.used >= oldest)
        .collect();
    let mut bytes = Vec::with_capacity(MAGIC.len() + 16 + kept.len() * RECORD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&state.generation.wrapping_add(1).to_le_bytes());
    bytes.extend_from_slice(&(kept.len() as u64).to_le_bytes());
    for known in kept {
        let stamp = &known.stamp;
        for number in [
            stamp.device,
            stamp.inode,
            stamp.size,
            stamp.mtime.0 as u64,
            stamp.mtime.1,
            stamp.ctime.0 as u64,
            stamp.ctime.1,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&stamp.mode.to_le_bytes());
        bytes.extend_from_slice(&known.used.to_le_bytes());
        bytes.extend_from_slice(known.digest.bytes());
    }
    bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

/// `None`: damaged.
fn parse(bytes: &[u8]) -> Option<State> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != checksum(body) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    if count > FILES_MAX || rest.len() != count * RECORD {
        return None;
    }
    let mut files = HashMap::with_capacity(count);
    for record in rest.chunks_exact(RECORD) {
        let number = |at: usize| {
            let (bytes, _) = record[8 * at..].split_first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let small = |at: usize| {
            let (bytes, _) = record[at..].split_first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let stamp = Stamp {
            device: number(0)?,
            inode: number(1)?,
            size: number(2)?,
            mtime: (number(3)? as i64, number(4)?),
            ctime: (number(5)? as i64, number(6)?),
            mode: small(56)?,
        };
        let known = Known {
            stamp,
            used: small(60)?,
            digest: Digest::from_bytes(*record[64..].first_chunk::<32>()?),
        };
        files.insert((stamp.device, stamp.inode), known);
    }
    Some(State {
        generation: u32::from_le_bytes(*generation),
        files,
        changed: false,
        tidied: false,
    })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            size: 3,
            mtime: (5, 6),
            ctime: (7, 8),
            mode: 0o100_644,
        }
    }

    #[test]
    fn what_was_learnt_is_there_again_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stat-cache");
        let cache = StatCache::open(path.clone());
        for inode in 0..50 {
            cache.learn(stamp(inode), Digest::of(&[inode as u8]), now());
        }
        drop(cache);
        let cache = StatCache::open(path.clone());
        for inode in 0..50 {
            assert_eq!(cache.get(&stamp(inode)), Some(Digest::of(&[inode as u8])));
        }
        let changes: [fn(&mut Stamp); 5] = [
            |stamp| stamp.size += 1,
            |stamp| stamp.mtime.1 += 1,
            |stamp| stamp.ctime.0 += 1,
            |stamp| stamp.mode ^= 1,
            |stamp| stamp.inode = 99,
        ];
        for change in changes {
            let mut other = stamp(7);
            change(&mut other);
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(13) {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            assert!(parse(&broken).is_none(), "byte {at}");
            assert!(parse(&whole[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn what_builds_at_work_use_has_room_in_a_full_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stat-cache");
        let state = State {
            generation: 1,
            files: (0..FILES_MAX as u64)
                .map(|inode| {
                    let known = Known {
                        stamp: stamp(inode),
                        digest: Digest::of(b"old"),
                        used: 0,
                    };
                    ((1, inode), known)
                })
                .collect(),
            ..State::default()
        };
        let cache = StatCache {
            path,
            state: Mutex::new(state),
        };
        assert!(cache.get(&stamp(7)).is_some());
        let new = FILES_MAX as u64 + 1;
        cache.learn(stamp(new), Digest::of(b"new"), now());
        assert_eq!(cache.get(&stamp(new)), Some(Digest::of(b"new")));
        assert!(cache.get(&stamp(7)).is_some(), "in use");
        assert!(cache.get(&stamp(8)).is_none());
    }

    #[test]
    fn a_file_that_just_changed_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let cache = StatCache::open(directory.path().join("stat-cache"));
        let changed = 7_000_000_008;
        cache.learn(stamp(1), Digest::of(b"x"), changed + QUIET_NS - 1);
        assert_eq!(cache.get(&stamp(1)), None);
        cache.learn(stamp(1), Digest::of(b"x"), changed + QUIET_NS);
        assert_eq!(cache.get(&stamp(1)), Some(Digest::of(b"x")));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stat-cache");
        for round in 0..UNUSED_MAX + 3 {
            let cache = StatCache::open(path.clone());
            if round == 0 {
                cache.learn(stamp(1), Digest::of(b"old"), now());
            }
            cache.get(&stamp(2));
            cache.learn(stamp(2), Digest::of(b"new"), now());
        }
        let cache = StatCache::open(path);
        assert_eq!(cache.get(&stamp(1)), None);
        assert_eq!(cache.get(&stamp(2)), Some(Digest::of(b"new")));
    }
}
