//! What `system prune` would remove, and how much comes free, without removing anything.
//!
//! The same choices as the prunes make, in their order: what containers would no longer need counts as unneeded for
//! networks, volumes and images. A container that is started between this and the prune stays, with all it needs.

use std::collections::HashSet;
use std::sync::Arc;

use agent_api::{Filters, ImageDeleteItem, PrunePreview, PruneTarget};
use agent_image::{PruneFilter, Removed};

use super::shared::blocking;
use super::{Engine, disk, images, list};
use crate::error::Result;

/// What would be pruned.
#[derive(Debug, Default)]
pub struct PreviewRequest {
    /// As all prunes take them: `until`, `label`, `label!`.
    pub filters: Filters,
    /// All images without a container, not only unnamed ones.
    pub all_images: bool,
    /// Anonymous volumes, too.
    pub volumes: bool,
}

impl Engine {
    /// What pruning containers, networks, volumes and images, in this order, would remove.
    pub async fn preview_prune(&self, request: PreviewRequest) -> Result<PrunePreview> {
        let filters = &request.filters;
        filters.allow(&["label", "label!", "until"])?;
        let containers = self.prunable_containers(filters)?;
        let gone: Vec<String> = containers
            .iter()
            .map(|container| container.id().to_owned())
            .collect();
        let networks = self.prunable_networks(filters, &gone)?;
        let shared = Arc::clone(&self.shared);
        let filter = PruneFilter {
            dangling_only: !request.all_images,
            until: list::until(filters)?,
            labels: filters.get("label").map(str::to_owned).collect(),
            labels_not: filters.get("label!").map(str::to_owned).collect(),
        };
        let volumes = request.volumes.then(|| {
            let mut filters = Filters::new();
            for name in ["label", "label!"] {
                for value in request.filters.get(name) {
                    filters.add(name, value);
                }
            }
            filters
        });
        blocking(move || {
            let gone: HashSet<String> = gone.into_iter().collect();
            let mut preview = PrunePreview::default();
            for container in &containers {
                let upper = shared.records.directory(container.id()).join("upper");
                preview.containers.push(PruneTarget {
                    id: container.id().to_owned(),
                    name: container.definition.name.clone(),
                    bytes: disk::size_of(&upper),
                });
            }
            preview.networks = networks.into_iter().map(|network| network.name).collect();
            if let Some(filters) = volumes {
                let users = |name: &str| {
                    let users = shared.registry.volume_users(name).into_iter();
                    users.filter(|id| !gone.contains(id)).count()
                };
                for name in shared.volumes.prunable(&filters, users)? {
                    preview.volumes.push(PruneTarget {
                        bytes: shared.volumes.size(&name),
                        id: String::new(),
                        name,
                    });
                }
            }
            let staying = || {
                let mut uses = images::uses(&shared);
                uses.retain(|user| !gone.contains(&user.container));
                uses
            };
            let pruned = shared.images.preview_prune(&filter, staying)?;
            preview.image_bytes = pruned.space_reclaimed;
            let item = |step: Removed| match step {
                Removed::Untagged(name, _, _) => ImageDeleteItem::Untagged(name.familiar()),
                Removed::Image(id) => ImageDeleteItem::Deleted(id.to_string()),
                Removed::Layer(chain) => ImageDeleteItem::Deleted(chain.to_string()),
            };
            preview.images = pruned.removed.into_iter().map(item).collect();
            Ok(preview)
        })
        .await
    }
}
