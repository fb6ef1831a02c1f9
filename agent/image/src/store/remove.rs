//! `docker rmi`: removing names, and with the last name the image.
//!
//! Rules, texts and order of the reply are those of moby `daemon/images/image_delete.go`. Deciding and doing are apart:
//! [`plan`] edits a copy of the index and lists what happens; the store then writes it in one step.
//!
//! An image that is removed by force although stopped containers were made from it departs: it is gone for everybody who
//! asks, but its layers stay, as a container's writable layer keeps those below it in Docker, until
//! [`Store::collect_departed`] is told that the last of these containers has gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::index::Catalog;
use super::inspect::{name_of, resolve};
use super::{Additions, HeldFor, Result, Store};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::reference::Reference;

/// A container that needs an image: the caller of [`Store::remove`] and [`Store::prune`] knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The image.
    pub image: ImageId,
    /// Full id of the container.
    pub container: String,
    /// Whether it runs (or is paused or restarting).
    pub running: bool,
}

/// How to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemoveOptions {
    /// Remove although stopped containers use it or several names point to it.
    pub force: bool,
    /// Keep unnamed parents.
    pub no_prune: bool,
}

/// One thing a removal did, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Removed {
    /// A name went (`Untagged`, familiar form), which had belonged to this image of this configuration, if that can be read.
    Untagged(Reference, ImageId, Option<Arc<ImageConfig>>),
    /// An image went (`Deleted`).
    Image(ImageId),
    /// A layer went (`Deleted`); the digest is the chain id Docker prints.
    Layer(Digest),
}

impl Store {
    /// Removes a name, and the image with its last name, by Docker's rules. `uses` is asked for the containers while no
    /// image can be held, so that none can be made from the image in between.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        uses: impl FnOnce() -> Vec<ImageUse>,
    ) -> Result<Vec<Removed>> {
        self.remove_all(|catalog, users| plan(catalog, name, options, users), uses)
            .map(|(removed, _)| removed)
    }

    /// Carries out what `plan` decides. Also returns the bytes of the layers that went.
    pub(super) fn remove_all(
        &self,
        plan: impl FnOnce(&mut Catalog, &Users) -> Result<Vec<Removed>>,
        uses: impl FnOnce() -> Vec<ImageUse>,
    ) -> Result<(Vec<Removed>, u64)> {
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let ((steps, chains), gone) = self.change(Additions::default(), |catalog| {
            let mut steps = plan(catalog, &self.users(uses))?;
            let mut chains = HashMap::new();
            for step in &mut steps {
                if let Removed::Untagged(_, id, config) = step {
                    *config = self.readable(id);
                }
                if let Removed::Image(id) = step {
                    // A damaged image can be removed, too.
                    let Some(config) = self.readable(id) else {
                        continue;
                    };
                    for diff_id in &config.rootfs.diff_ids {
                        if let Ok(layer) = self.layers.get(diff_id) {
                            sizes.insert(*diff_id, layer.size);
                        }
                    }
                    chains.insert(*id, config);
                }
            }
            Ok((steps, chains))
        })?;
        let space = gone.iter().filter_map(|diff_id| sizes.get(diff_id)).sum();
        let mut gone: HashSet<Digest> = gone.into_iter().collect();
        let mut reply = Vec::new();
        for step in steps {
            let config = match &step {
                Removed::Image(id) => chains.get(id),
                _ => None,
            };
            reply.push(step);
            if let Some(config) = config {
                // Docker lists layers top first, by chain id.
                let layers = config.rootfs.diff_ids.iter().zip(config.chain_ids());
                for (diff_id, chain_id) in layers.rev() {
                    if gone.remove(diff_id) {
                        reply.push(Removed::Layer(chain_id));
                    }
                }
            }
        }
        Ok((reply, space))
    }

    /// Removes the images that were removed before, by force, and that no container needs any more. To be called when a
    /// container has gone; as good as free when there is none.
    ///
    /// # Errors
    /// The store cannot be changed.
    pub fn collect_departed(&self, uses: impl Fn() -> Vec<ImageUse>) -> Result<()> {
        let unused = |catalog: &Catalog| -> Vec<ImageId> {
            if catalog.departed.is_empty() {
                return Vec::new();
            }
            let used: HashSet<ImageId> = uses().into_iter().map(|user| user.image).collect();
            let departed = catalog.departed.keys();
            departed.filter(|id| !used.contains(id)).copied().collect()
        };
        if unused(&self.snapshot()).is_empty() {
            return Ok(());
        }
        self.change(Additions::default(), |catalog| {
            for id in unused(catalog) {
                catalog.departed.remove(&id);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Who needs which image now.
    pub(super) fn users(&self, uses: impl FnOnce() -> Vec<ImageUse>) -> Users {
        // In this order: who lets go of an image in between is a user of it already.
        let held = {
            let held = self.held.lock();
            let first = held.iter().map(|(id, purposes)| (*id, purposes[0]));
            first.collect()
        };
        Users { uses: uses(), held }
    }
}

/// Who needs which image.
pub(super) struct Users {
    pub(super) uses: Vec<ImageUse>,
    /// What somebody else is at.
    pub(super) held: HashMap<ImageId, HeldFor>,
}

impl Users {
    /// Whether any container needs the image.
    pub(super) fn holds(&self, id: &ImageId) -> bool {
        self.held.contains_key(id) || self.uses.iter().any(|user| user.image == *id)
    }
}

/// What stands against deleting an image.
struct Obstacle {
    /// Force does not help.
    hard: bool,
    /// A container stands against it.
    used: bool,
    message: String,
}

/// Removes `name` from `catalog` and says what that did (`ImageDelete`).
pub(super) fn plan(
    catalog: &mut Catalog,
    name: &str,
    options: RemoveOptions,
    users: &Users,
) -> Result<Vec<Removed>> {
    let id = resolve(catalog, name)?;
    let mut removed = Vec::new();
    let by_id = id.hex().starts_with(name) || id.to_string().starts_with(name);
    if by_id {
        if is_single(&catalog.names_of(&id)) {
            if let Some(obstacle) = obstacle(catalog, &id, options.force, Names::Disregarded, users)
            {
                return Err(obstacle.conflict(&id));
            }
            untag_all(catalog, &id, &mut removed);
        }
        delete(catalog, &id, options, Quiet::No, users, &mut removed)?;
        return Ok(removed);
    }
    if !options.force && is_single(&catalog.names_of(&id)) {
        if let Some(user) = users.uses.iter().find(|user| user.image == id) {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - \
                 container {} is using its referenced image {}",
                short(&user.container),
                id.short()
            )));
        }
        if let Some(purpose) = users.held.get(&id) {
            return Err(Obstacle::held(*purpose).conflict(&id));
        }
    }
    let reference = Reference::parse(name)?.with_default_tag();
    if catalog.names.remove(&name_of(&reference)).is_none() {
        return Err(ImageError::NoSuchImage(reference.familiar()));
    }
    removed.push(Removed::Untagged(reference.clone(), id, None));
    // The last tag of a repository takes the repository's digests along.
    let repository = reference.name_only();
    let rest = catalog.names_of(&id);
    let same = |name: &&Reference| name.name_only() == repository;
    if reference.digest().is_none() && !rest.iter().filter(same).any(|name| name.digest().is_none())
    {
        for digest in rest.iter().filter(same) {
            catalog.names.remove(digest);
            removed.push(Removed::Untagged(digest.clone(), id, None));
        }
    }
    if catalog.names_of(&id).is_empty() {
        delete(catalog, &id, options, Quiet::Yes, users, &mut removed)?;
    }
    Ok(removed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Regarded,
    Disregarded,
}

/// Whether an obstacle is passed over in silence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quiet {
    Yes,
    No,
}

/// `imageDeleteHelper`.
fn delete(
    catalog: &mut Catalog,
    id: &ImageId,
    options: RemoveOptions,
    quiet: Quiet,
    users: &Users,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let (mut next, mut force, mut quiet) = (Some(*id), options.force, quiet);
    while let Some(id) = next.filter(|id| catalog.images.contains_key(id)) {
        if let Some(obstacle) = obstacle(catalog, &id, force, Names::Regarded, users) {
            let dangling = catalog.names_of(&id).is_empty() && !catalog.has_children(&id);
            if quiet == Quiet::Yes && (!dangling || obstacle.used) {
                return Ok(());
            }
            return Err(obstacle.conflict(&id));
        }
        untag_all(catalog, &id, removed);
        let mut record = catalog.images.remove(&id);
        let parent = record.as_mut().and_then(|record| record.parent.take());
        if let Some(record) = record.filter(|_| users.holds(&id)) {
            catalog.departed.insert(id, record);
        }
        removed.push(Removed::Image(id));
        // Then the parents that nobody needs, one after the other.
        next = parent.filter(|_| !options.no_prune);
        (force, quiet) = (false, Quiet::Yes);
    }
    Ok(())
}

/// `checkImageDeleteConflict`.
fn obstacle(
    catalog: &Catalog,
    id: &ImageId,
    force: bool,
    names: Names,
    users: &Users,
) -> Option<Obstacle> {
    if catalog.has_children(id) {
        return Some(Obstacle {
            hard: true,
            used: false,
            message: "image has dependent child images".to_owned(),
        });
    }
    let user = |running| {
        users
            .uses
            .iter()
            .find(|user| user.image == *id && user.running == running)
    };
    if let Some(user) = user(true) {
        return Some(Obstacle {
            hard: true,
            used: true,
            message: format!(
                "image is being used by running container {}",
                short(&user.container)
            ),
        });
    }
    if let Some(purpose) = users.held.get(id) {
        return Some(Obstacle::held(*purpose));
    }
    if force {
        return None;
    }
    if names == Names::Regarded && !catalog.names_of(id).is_empty() {
        return Some(Obstacle {
            hard: false,
            used: false,
            message: "image is referenced in multiple repositories".to_owned(),
        });
    }
    user(false).map(|user| Obstacle {
        hard: false,
        used: true,
        message: format!(
            "image is being used by stopped container {}",
            short(&user.container)
        ),
    })
}

impl Obstacle {
    fn held(purpose: HeldFor) -> Self {
        Self {
            hard: true,
            used: true,
            message: purpose.reason().to_owned(),
        }
    }

    fn conflict(&self, id: &ImageId) -> ImageError {
        let force = if self.hard {
            "cannot be forced"
        } else {
            "must be forced"
        };
        ImageError::Conflict(format!(
            "conflict: unable to delete {} ({force}) - {}",
            id.short(),
            self.message
        ))
    }
}

fn untag_all(catalog: &mut Catalog, id: &ImageId, removed: &mut Vec<Removed>) {
    for name in catalog.names_of(id) {
        catalog.names.remove(&name);
        removed.push(Removed::Untagged(name, *id, None));
    }
}

/// `isSingleReference`: all names are of one repository, with at most one tag.
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return names.len() == 1;
    }
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    let repository = names[0].name_only();
    tags <= 1 && names.iter().all(|name| name.name_only() == repository)
}

/// The first 12 characters of a container id.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
