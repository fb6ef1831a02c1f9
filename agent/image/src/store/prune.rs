//! `docker image prune` (moby `daemon/images/image_prune.go`).

use jiff::Timestamp;

use super::index::Catalog;
use super::list::{matches_label, matches_labels};
use super::remove::{ImageUse, RemoveOptions, Removed, Users, plan};
use super::{Result, Store, gone};
use crate::digest::ImageId;
use crate::error::ImageError;

/// What [`Store::prune`] considers.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Only unnamed images (Docker's default); otherwise all that no container uses.
    pub dangling_only: bool,
    /// Only images made before this moment.
    pub until: Option<Timestamp>,
    /// `name[=value]`; all must match.
    pub labels: Vec<String>,
    /// `name[=value]`; images that match all of them stay (`label!=`).
    pub labels_not: Vec<String>,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pruned {
    /// Names, images and layers that went.
    pub removed: Vec<Removed>,
    /// Bytes of the layers that went.
    pub space_reclaimed: u64,
}

impl Store {
    /// Removes one image with all its names and unnamed parents, for the garbage collection. What a container uses, is being
    /// used right now, was used after `last_used` or was built on here stays: then nothing has happened.
    ///
    /// # Errors
    /// The store cannot be changed.
    pub fn collect_image(
        &self,
        id: &ImageId,
        last_used: Option<Timestamp>,
        uses: impl FnOnce() -> Vec<ImageUse>,
    ) -> Result<Pruned> {
        let options = RemoveOptions {
            force: true,
            no_prune: false,
        };
        let (removed, space_reclaimed) = self.remove_all(
            |catalog, users| {
                let used_since = self.last_used(id) > last_used;
                if used_since || users.holds(id) || !catalog.images.contains_key(id) {
                    return Ok(Vec::new());
                }
                match plan(catalog, &id.hex(), options, users) {
                    Err(ImageError::Conflict(_)) => Ok(Vec::new()),
                    other => other,
                }
            },
            uses,
        )?;
        Ok(Pruned {
            removed,
            space_reclaimed,
        })
    }

    /// Removes images nobody uses, all in one step.
    pub fn prune(
        &self,
        filter: &PruneFilter,
        uses: impl FnOnce() -> Vec<ImageUse>,
    ) -> Result<Pruned> {
        let (removed, space_reclaimed) =
            self.remove_all(|catalog, users| self.choose(filter, catalog, users), uses)?;
        Ok(Pruned {
            removed,
            space_reclaimed,
        })
    }

    /// What [`Store::prune`] would do now, without doing it. Layers are not named one by one.
    ///
    /// # Errors
    /// An image cannot be read.
    pub fn preview_prune(
        &self,
        filter: &PruneFilter,
        uses: impl FnOnce() -> Vec<ImageUse>,
    ) -> Result<Pruned> {
        let before = self.snapshot();
        let mut after = Catalog::clone(&before);
        let removed = self.choose(filter, &mut after, &self.users(uses))?;
        let mut layers = self.layers_of(gone(&before, &after).iter());
        let staying = self.layers_of(after.ids());
        layers.retain(|diff_id| !staying.contains(diff_id));
        let layers = self.unneeded(&layers, &self.pinned.lock())?;
        let layers: Vec<_> = layers.into_iter().collect();
        Ok(Pruned {
            removed,
            space_reclaimed: self.layer_sizes(&layers).iter().sum(),
        })
    }

    /// Takes the images that go out of `catalog` and says what that did.
    fn choose(
        &self,
        filter: &PruneFilter,
        catalog: &mut Catalog,
        users: &Users,
    ) -> Result<Vec<Removed>> {
        let mut ids: Vec<_> = catalog.images.keys().copied().collect();
        ids.sort();
        let mut removed = Vec::new();
        for id in ids {
            if !catalog.images.contains_key(&id) {
                // Went as the parent of another.
                continue;
            }
            let names = catalog.names_of(&id);
            if names.is_empty() && catalog.has_children(&id) {
                continue;
            }
            if filter.dangling_only && names.iter().any(|name| name.tag().is_some()) {
                continue;
            }
            // Docker takes all names but one from an image in use; here it keeps them.
            if users.holds(&id) {
                continue;
            }
            let Some(config) = self.readable(&id) else {
                continue;
            };
            let labels = &config.config.labels;
            let too_new = filter
                .until
                .is_some_and(|until| config.created.is_none_or(|created| created > until));
            let excluded = !filter.labels_not.is_empty()
                && filter
                    .labels_not
                    .iter()
                    .all(|label| matches_label(label, labels));
            if too_new || excluded || !matches_labels(&filter.labels, labels) {
                continue;
            }
            let targets = match names.is_empty() {
                true => vec![id.hex()],
                false => names.iter().map(ToString::to_string).collect(),
            };
            for target in targets {
                // A conflict means that it is in use: it stays.
                match plan(catalog, &target, RemoveOptions::default(), users) {
                    Ok(steps) => removed.extend(steps),
                    Err(ImageError::Conflict(_) | ImageError::NoSuchImage(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(removed)
    }
}
