//! An image of the engine's store.
//!
//! ```text
//! snapshots become layers ─▶ configuration and names are added ─▶ events
//! ```
//!
//! Nothing is copied or packed. Source of texts: moby `builder-next/exporter/mobyexporter/export.go`.

use agent_api::build::{BuildResult, ImageOutput};
use agent_image::build::{Clamped, Stack};
use agent_image::{Digest, ImageId, PushRequest, Reference};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

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
    /// Those of them that were made for this export alone.
    pub(super) own: OwnLayers,
}

/// Layers that were made for one export alone. Those that no image has when this is dropped go, on a thread that may block.
pub(super) struct OwnLayers {
    clamped: Option<Clamped>,
    tasks: TaskTracker,
}

impl Drop for OwnLayers {
    fn drop(&mut self) {
        let Some(clamped) = self.clamped.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) => drop(
                self.tasks
                    .spawn_blocking_on(move || drop(clamped), &runtime),
            ),
            Err(_) => drop(clamped),
        }
    }
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
        let texts = self.request.tags.iter().chain(&options.names);
        let (names, told) = (names(texts.clone())?, told(texts));
        let image = self.make(built, options.rewrite_timestamp, seat).await?;
        let digest = Digest::of(&image.config).to_string();
        let part = seat.part(&format!("writing image {digest}"));
        let (store, own) = (self.shop.engine.shared().images.clone(), names.clone());
        let added = blocking(move || {
            let added = store.add(&image.config, &own, None);
            drop(image.own);
            Ok(added?)
        });
        let id: ImageId = added.await?;
        part.done();
        for name in &told {
            seat.part(&format!("naming to {name}")).done();
        }
        let (shared, named) = (self.shop.engine.shared().clone(), names.clone());
        let events = blocking(move || {
            for name in &named {
                shared.image_named(&id, name);
            }
            shared.image_event(&id, "create");
            Ok(())
        });
        events.await?;
        let (made, id) = (id, id.to_string());
        result.names = names.iter().map(Reference::familiar).collect();
        let metadata = &mut result.metadata;
        metadata.insert("containerimage.config.digest".to_owned(), json!(id));
        metadata.insert("containerimage.digest".to_owned(), json!(id));
        if !told.is_empty() {
            metadata.insert("image.name".to_owned(), json!(told.join(",")));
        }
        result.image_id = id;
        match options.push {
            true => self.push(&names, made, seat, result).await,
            false => Ok(()),
        }
    }

    /// Sends the image to the registries of its names, which may stand for another one here by then.
    async fn push(
        &self,
        names: &[Reference],
        image: ImageId,
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
                image: Some(image),
                credentials: options::credentials(self.request, self.session, &name.to_string())
                    .await,
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
            Ok(match epoch.filter(|_| rewrite_timestamp) {
                None => (snapshots.adopt(&entries).map_err(files)?, None),
                Some(epoch) => {
                    let clamped = snapshots.adopt_clamped(&entries, epoch).map_err(files)?;
                    (clamped.diff_ids().to_vec(), Some(clamped))
                }
            })
        });
        let (diff_ids, clamped) = adopted.await?;
        let own = OwnLayers {
            clamped,
            tasks: self.shop.engine.shared().tasks.clone(),
        };
        part.done();
        let inline = match options::inline_cache(self.request) {
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
            own,
        })
    }
}

/// The names of an image as clients are told of them: whole, with a tag where one was given, none twice.
fn told<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for name in texts.filter_map(|text| Reference::parse(text).ok()) {
        let name = name.to_string();
        if !told.contains(&name) {
            told.push(name);
        }
    }
    told
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_names_as_they_gave_them() {
        let texts = ["app", "app", "app:latest", "h.example/x:1"].map(str::to_owned);
        // As Docker 28.2 with BuildKit does.
        assert_eq!(
            told(texts.iter()),
            [
                "docker.io/library/app",
                "docker.io/library/app:latest",
                "h.example/x:1"
            ]
        );
        assert_eq!(names(texts.iter()).unwrap().len(), 2);
    }
}
