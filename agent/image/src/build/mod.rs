//! File trees of a build: what a stage's file system is made of between two steps, and the steps that only move files.
//!
//! ```text
//! <root>/build/snapshots/<id>/diff/           what one step changed, in overlay form          [snapshots]
//! <root>/build/snapshots/<id>/snapshot.json   its size, and the boot in which it was written
//! <root>/build/snapshots/<id>/synced          it is on the disk, whatever boot it was written in
//! <root>/build/snapshots/<id>                 a link to <root>/layers/<hex>: the store has it by now
//! <root>/build/snapshots/{new,doomed}-<n>/    being filled, being deleted; removed when the first build opens this
//! <root>/build/stat-cache                     digests of unchanged files of contexts           [stat_cache]
//! ```
//!
//! A [`Stack`] is a list of layers of the image store and of snapshots. A [`View`] reads it, or a client's directory,
//! without mounting anything. [`copy`] and [`make_directory`] carry out `COPY`, `ADD` and `WORKDIR` on them;
//! [`content_digest`] says what they would read. [`Snapshots::adopt`] makes layers of snapshots without copying.
//!
//! Must not: mount, run anything, know the cache's records, or talk to a network.

mod adopt;
mod archive;
mod content;
mod copy;
mod digest;
mod error;
mod export;
mod footing;
mod mode;
mod owner;
mod select;
mod snapshots;
mod stack;
mod stat_cache;
mod target;
mod usage;
mod view;

pub use adopt::{Clamped, Rewrite};
pub use copy::{copy, make_directory};
pub use digest::{Reading, content_digest, path_digest};
pub use error::FilesError;
pub use export::write_tar;
pub use footing::footing;
pub use snapshots::{Snapshot, SnapshotId, Snapshots, Work};
pub use stack::{Entry, Held, Stack};
pub use stat_cache::StatCache;
pub use view::View;

/// Deepest nesting of directories that is walked: recursion and open descriptors are bounded by it.
const DEPTH_MAX: usize = 256;
