//! `docker history` (moby `daemon/images/image_history.go`).

use jiff::Timestamp;

use super::{Result, Store};
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::reference::Reference;

/// One line of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image this step produced, where it is known; `<missing>` otherwise.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// Instruction.
    pub created_by: String,
    /// Names with a tag of the image `id`.
    pub tags: Vec<Reference>,
    /// Bytes of the layer the step made.
    pub size: u64,
    /// Message.
    pub comment: String,
}

impl Store {
    /// How the image came to be, newest step first.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let catalog = self.snapshot();
        let id = super::inspect::resolve(&catalog, name)?;
        let config = self.config(&id)?;
        let mut layers = config.rootfs.diff_ids.iter();
        let mut entries = Vec::with_capacity(config.history.len());
        for step in &config.history {
            let size = if step.empty_layer {
                0
            } else {
                let diff_id = layers.next().ok_or_else(|| {
                    ImageError::Invalid("too many non-empty layers in History section".to_owned())
                })?;
                self.layers.get(diff_id)?.size
            };
            entries.push(HistoryEntry {
                id: None,
                created: step.created,
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size,
                comment: step.comment.clone(),
            });
        }
        entries.reverse();
        let mut ancestor = Some(id);
        for entry in &mut entries {
            let Some(id) = ancestor else { break };
            let Some(record) = catalog.images.get(&id) else {
                break;
            };
            entry.id = Some(id);
            entry.tags = catalog.names_of(&id);
            entry.tags.retain(|name| name.tag().is_some());
            ancestor = record.parent;
        }
        Ok(entries)
    }
}
