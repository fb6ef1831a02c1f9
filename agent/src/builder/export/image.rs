//! An image of the engine's store.
//!
//! ```text
//! snapshots become layers ─▶ configuration and names are added ─▶ events
//! ```
//!
//! Nothing is copied or packed. Source of texts: moby `builder-next/exporter/mobyexporter/export.go`.

use agent_api::build::{BuildResult, CacheExport, ImageOutput};
use agent_image::build::{Rewrite, Stack};
use agent_image::{Digest, ImageId, PushRequest, Reference};
use serde_json::json;

use super::config::{ResultLayer, image_config};
use super::{Built, Export};
use crate::builder::cache::files;
use crate::builder::failure::Failure;
use crate::builder::options;
use crate::builder::progress::Seat;
use crate::builder::remote_cache;
use crate::builder::steps::Solved;
use crate::engine::blocking;

/// A result as an image: its layers are in the store.
pub(super) struct Image {
    /// The configuration file.
    pub(super) config: Vec<u8>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<ResultLayer>,
    /// Those of them that were made for this export alone: to be released after it.
    pub(super) extra: Vec<Digest>,
}

impl Export<'_> {
    /// Puts a result into the store.
    pub(super) async fn image(
        &self,
        built: &Built,
        options: &ImageOutput,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        let seat = Seat::begin(self.progress, "exporting to image");
        let stored = self.store(built, options, &seat, result).await;
        match &stored {
            Ok(()) => seat.done(),
            Err(failure) => seat.failed(failure.message()),
        }
        stored
    }

    async fn store(
        &self,
        built: &Built,
        options: &ImageOutput,
        seat: &Seat,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        let names = names(self.request.tags.iter().chain(&options.names))?;
        let image = self.make(built, options.rewrite_timestamp, seat).await?;
        let digest = Digest::of(&image.config).to_string();
        let part = seat.part(&format!("writing image {digest}"));
        let (store, own) = (self.shop.engine.shared().images.clone(), names.clone());
        let cache = self.shop.cache.clone();
        let added = blocking(move || {
            let added = store.add(&image.config, &own, None);
            cache.release(image.extra)?;
            Ok(added?)
        });
        let id: ImageId = added.await?;
        part.done();
        for name in &names {
            seat.part(&format!("naming to {name}")).done();
        }
        let (shared, named) = (self.shop.engine.shared().clone(), names.clone());
        let told = blocking(move || {
            for name in &named {
                shared.image_named(&id, name);
            }
            shared.image_event(&id, "create");
            Ok(())
        });
        told.await?;
        let id = id.to_string();
        result.names = names.iter().map(Reference::familiar).collect();
        let metadata = &mut result.metadata;
        metadata.insert("containerimage.config.digest".to_owned(), json!(id));
        metadata.insert("containerimage.digest".to_owned(), json!(id));
        if !names.is_empty() {
            let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
            metadata.insert("image.name".to_owned(), json!(joined.join(",")));
        }
        result.image_id = id;
        match options.push {
            true => self.push(&names, seat, result).await,
            false => Ok(()),
        }
    }

    /// Sends the image to the registries of its names.
    async fn push(
        &self,
        names: &[Reference],
        seat: &Seat,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        if names.is_empty() {
            return Err(Failure::invalid("tag is needed when pushing to registry"));
        }
        for name in names {
            let part = seat.part(&format!("pushing {name}"));
            let request = PushRequest {
                reference: name.clone(),
                credentials: options::credentials(self.request, &name.to_string()),
            };
            let (shared, cancel) = (self.shop.engine.shared().clone(), self.cancel.clone());
            let pushed = blocking(move || {
                Ok(shared.images.push(
                    &shared.registries,
                    &request,
                    &cancel,
                    &agent_image::silent,
                )?)
            });
            let pushed = pushed.await?;
            part.done();
            let (shared, moved) = (self.shop.engine.shared().clone(), name.clone());
            let told = blocking(move || {
                shared.image_moved(&moved, "push");
                Ok(())
            });
            told.await?;
            if let Some(pushed) = pushed.first() {
                let digest = json!(pushed.digest.to_string());
                result
                    .metadata
                    .insert("containerimage.digest".to_owned(), digest);
            }
        }
        Ok(())
    }

    /// Makes layers of a result's snapshots, and its configuration.
    pub(super) async fn make(
        &self,
        built: &Built,
        rewrite_timestamp: bool,
        seat: &Seat,
    ) -> Result<Image, Failure> {
        let part = seat.part("exporting layers");
        let epoch = built.plan.source_date_epoch;
        let rewrite = match epoch {
            Some(epoch) if rewrite_timestamp => Rewrite::Clamp(epoch),
            _ => Rewrite::Keep,
        };
        let (stack, times) = match &built.files {
            Some(Solved::Files(lease)) => {
                (lease.record().stack.clone(), lease.record().times.clone())
            }
            Some(Solved::Context(_)) => {
                return Err(Failure::invalid("a context cannot be exported as an image"));
            }
            None => (Stack::default(), Vec::new()),
        };
        let shop = self.shop.clone();
        let entries = stack.entries;
        let adopted = blocking(move || {
            let snapshots = shop.cache.snapshots();
            let diff_ids = snapshots.adopt(&entries, rewrite).map_err(files)?;
            let made = diff_ids.iter().zip(&entries);
            let extra =
                made.filter(|(diff_id, entry)| snapshots.layer_of(entry) != Some(**diff_id));
            let extra: Vec<Digest> = extra.map(|(diff_id, _)| *diff_id).collect();
            Ok((diff_ids, extra))
        });
        let (diff_ids, extra) = adopted.await?;
        part.done();
        let inline = match self.request.cache_to.contains(&CacheExport::Inline) {
            true => remote_cache::inline(self.shop, &built.steps, &diff_ids).await?,
            false => None,
        };
        let layers: Vec<ResultLayer> = diff_ids
            .into_iter()
            .zip(times)
            .map(|(diff_id, created)| ResultLayer { diff_id, created })
            .collect();
        let mut config = image_config(&built.plan.config, &layers, built.base_history, epoch);
        if let Some(cache) = inline {
            config = remote_cache::with_inline(&config, &cache);
        }
        Ok(Image {
            config,
            layers,
            extra,
        })
    }
}

/// The names of an image; each with a tag, none twice.
pub(super) fn names<'a>(
    texts: impl Iterator<Item = &'a String>,
) -> Result<Vec<Reference>, Failure> {
    let mut names = Vec::new();
    for text in texts {
        let name = Reference::parse(text)
            .map_err(|error| Failure::invalid(format!("invalid tag {text:?}: {error}")))?;
        if name.digest().is_some() {
            return Err(Failure::invalid(format!(
                "invalid tag {text:?}: refusing to create a tag with a digest reference"
            )));
        }
        let name = name.with_default_tag();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
