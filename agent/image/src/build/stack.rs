//! What a stage's file system consists of, and holding it while it is in use.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::snapshots::Pins;
use super::{SnapshotId, View};
use crate::digest::Digest;

/// One layer of a stage's file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A layer of the image store.
    Layer(Digest),
    /// A snapshot of the builder.
    Loose(SnapshotId),
}

/// A stage's file system: layers, lowest first. The empty stack is the empty file system (`scratch`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stack {
    /// The layers, lowest first.
    pub entries: Vec<Entry>,
}

impl Stack {
    /// The layers of an image, lowest first.
    pub fn of_layers(diff_ids: impl IntoIterator<Item = Digest>) -> Self {
        Self {
            entries: diff_ids.into_iter().map(Entry::Layer).collect(),
        }
    }

    /// This stack with one layer more on top.
    #[must_use]
    pub fn with(&self, entry: Entry) -> Self {
        let mut entries = self.entries.clone();
        entries.push(entry);
        Self { entries }
    }
}

/// A stack that cannot go away: its directories are open and are not deleted before this is dropped, whatever becomes
/// of their names.
#[derive(Clone)]
pub struct Held {
    pub(super) lowers: Arc<Vec<OwnedFd>>,
    pub(super) view: View,
    pub(super) _pins: Arc<Pins>,
}

impl Held {
    /// Directories for an overlay mount, uppermost first, as `/proc/<pid>/fd/<n>`: short, so that many fit
    /// into a page, and right even when the directory is renamed into the image store meanwhile. Valid as long as this is
    /// held, for any process that sees this one's `/proc`. A directory that occurs twice in the stack is here once. Empty for the empty stack.
    pub fn lowers(&self) -> Vec<PathBuf> {
        let pid = std::process::id();
        let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/{pid}/fd/{}", fd.as_raw_fd()));
        self.lowers.iter().map(path).collect()
    }

    /// Reads the stack. The view keeps it, too.
    pub fn view(&self) -> View {
        self.view.clone()
    }
}
