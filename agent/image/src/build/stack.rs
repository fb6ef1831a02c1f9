//! What a stage's file system consists of, and holding it while it is in use.

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

/// A stack that cannot go away: its directories are not deleted before this is dropped.
#[derive(Clone)]
pub struct Held {
    pub(super) lowers: Arc<[PathBuf]>,
    pub(super) view: View,
    pub(super) _pins: Arc<Pins>,
}

impl Held {
    /// Directories for an overlay mount, uppermost first. They stay right as long as this is held, even when a snapshot
    /// becomes a layer meanwhile. A directory that occurs twice in the stack is here once. Empty for the empty stack.
    pub fn lowers(&self) -> Vec<PathBuf> {
        self.lowers.to_vec()
    }

    /// Reads the stack. The view keeps it, too.
    pub fn view(&self) -> View {
        self.view.clone()
    }
}
