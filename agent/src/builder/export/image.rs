//! An image of the engine's store.
//!
//! ```text
//! snapshots become layers ─▶ configuration and names are added ─▶ events
//! ```
//!
//! Nothing is copied or packed. Source of texts: moby `builder-next/exporter/mobyexporter/export.go`.

use agent_api::build::{BuildResult, ImageOutput};
use agent_image::build::{Rewrite, Stack};
use agent_image::{ImageId, Reference};
use serde_json::json;

use super::config::{ResultLayer, image_config};
use super::{Built, Export};
use crate::builder::cache::files;
use crate::builder::failure::Failure;
use crate::builder::progress::Seat;
use crate::builder::steps::Solved;
use crate::engine::blocking;

/// A result as an image: its layers are in the store.
pub(super) struct Image {
    /// The configuration file.
    pub(super) config: Vec<u8>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<ResultLayer>,
}

impl Export<'_> {
    /// Puts a result into the store.
    pub(super) async fn image(
        &self,
        built: &Built,
        options: &ImageOutput,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        if options.push_by_digest && !options.push {
            return Err(Failure::invalid("push-by-digest needs push=true"));
        }
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
        let digest = agent_image::Digest::of(&image.config).to_string();
        let part = seat.part(&format!("writing image {digest}"));
        let (store, own) = (self.shop.engine.shared().images.clone(), names.clone());
        let id: ImageId = blocking(move || Ok(store.add(&image.config, &own, None)?)).await?;
        part.done();
        let id = id.to_string();
        let events = &self.shop.engine.shared().events;
        for name in &names {
            let part = seat.part(&format!("naming to {name}"));
            events.image(&id, &name.familiar(), "tag");
            part.done();
        }
        events.image(&id, &id, "create");
        result.names = names.iter().map(Reference::familiar).collect();
        let metadata = &mut result.metadata;
        metadata.insert("containerimage.config.digest".to_owned(), json!(id));
        metadata.insert("containerimage.digest".to_owned(), json!(id));
        if !names.is_empty() {
            let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
            metadata.insert("image.name".to_owned(), json!(joined.join(",")));
        }
        result.image_id = id;
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
            shop.cache
                .snapshots()
                .adopt(&entries, rewrite)
                .map_err(files)
        });
        let diff_ids = adopted.await?;
        part.done();
        let layers: Vec<ResultLayer> = diff_ids
            .into_iter()
            .zip(times)
            .map(|(diff_id, created)| ResultLayer { diff_id, created })
            .collect();
        let config = image_config(&built.plan.config, &layers, built.base_history, epoch);
        Ok(Image { config, layers })
    }
}

/// The names of an image; each with a tag, none twice.
fn names<'a>(texts: impl Iterator<Item = &'a String>) -> Result<Vec<Reference>, Failure> {
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
