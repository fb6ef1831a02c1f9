//! `--cache-to`: steps, as far as they are cached here, are written where others find them.
//! Source of texts: buildkit `cache/remotecache/export.go`.

use std::sync::Arc;

use agent_api::build::{BuildRequest, CacheExport, CacheMode, CompressionKind, LayerCompression};
use agent_image::{
    ArtifactConfig, Digest, LayerBlob, LayoutRequest, Packing, PushRequest, Reference,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;

use super::config::{CONFIG_TYPE, CacheConfig, ChainLayer, Described, Facts};
use crate::builder::cache::{Lease, files};
use crate::builder::failure::Failure;
use crate::builder::options;
use crate::builder::progress::{Progress, Seat};
use crate::builder::session::Session;
use crate::builder::solve::Key;
use crate::builder::steps::Shop;
use crate::engine::blocking;

/// The member of an image's configuration that holds a cache.
const INLINE: &str = "moby.buildkit.cache.v0";
/// Keys of one step that are written.
const KEYS_MAX: usize = 16;

/// A step that is cached.
pub(crate) struct Step {
    /// What it is found by, besides what its record says.
    pub(crate) keys: Vec<Key>,
    /// Its result.
    pub(crate) lease: Lease,
    /// Its layers are the lowest of those of the image that was built.
    pub(crate) result: bool,
}

/// Exporting the caches of one build.
pub(crate) struct Export<'a> {
    pub(crate) shop: &'a Arc<Shop>,
    pub(crate) request: &'a BuildRequest,
    pub(crate) session: Option<&'a Session>,
    pub(crate) progress: &'a Progress,
    pub(crate) cancel: &'a CancellationToken,
}

impl Export<'_> {
    /// Writes the caches that the request wants in registries and directories.
    ///
    /// # Errors
    /// One of them cannot be written, and the request does not say that this does not matter.
    pub(crate) async fn run(&self, steps: &[&Step]) -> Result<(), Failure> {
        for to in &self.request.cache_to {
            let (name, ignore) = match to {
                CacheExport::Inline => continue,
                CacheExport::Registry { ignore_error, .. } => {
                    ("exporting cache to registry", *ignore_error)
                }
                CacheExport::Local { ignore_error, .. } => {
                    ("exporting cache to client directory", *ignore_error)
                }
            };
            let seat = Seat::begin(self.progress, name);
            match self.one(to, steps, &seat).await {
                Ok(()) => seat.done(),
                Err(failure) => {
                    seat.failed(failure.message());
                    if !ignore {
                        return Err(failure.context("failed to export the cache"));
                    }
                }
            }
        }
        Ok(())
    }

    async fn one(&self, to: &CacheExport, steps: &[&Step], seat: &Seat) -> Result<(), Failure> {
        let (mode, compression) = match to {
            CacheExport::Inline => return Ok(()),
            CacheExport::Registry {
                mode, compression, ..
            }
            | CacheExport::Local {
                mode, compression, ..
            } => (*mode, compression),
        };
        let packing = packing(compression);
        let part = seat.part("preparing build cache for export");
        let wanted = steps
            .iter()
            .copied()
            .filter(|step| mode == CacheMode::Max || step.result);
        let config = CacheConfig::of(&describe(self.shop, wanted).await?);
        part.done();
        if config.is_empty() {
            return Ok(());
        }
        let layers = config.diff_ids();
        let document = move |blobs: &[LayerBlob]| {
            let mut config = config.clone();
            config.place(blobs);
            serde_json::to_vec(&config).expect("plain data has a JSON form")
        };
        match to {
            CacheExport::Inline => Ok(()),
            CacheExport::Registry { reference, .. } => {
                let part = seat.part(&format!("writing cache manifest to {reference}"));
                let request = PushRequest {
                    image: None,
                    reference: parse(reference)?,
                    credentials: options::credentials(self.request, self.session, reference).await,
                };
                let (shared, cancel) = (Arc::clone(self.shop.engine.shared()), self.cancel.clone());
                blocking(move || {
                    let registries = &shared.registries;
                    let quiet = &agent_image::silent;
                    let images = &shared.images;
                    let config = ArtifactConfig {
                        media_type: CONFIG_TYPE,
                        make: &document,
                    };
                    images.push_artifact(registries, &request, &layers, &config, &cancel, quiet)?;
                    Ok(())
                })
                .await?;
                part.done();
                Ok(())
            }
            CacheExport::Local { id, tag, .. } => {
                let Some(session) = self.session else {
                    return Err(Failure::invalid(
                        "the client of this build has no directory to put a cache in",
                    ));
                };
                let Some(mut output) = session.output(id).await else {
                    return Err(Failure::invalid("the client does not take the cache"));
                };
                let part = seat.part("sending cache to the client");
                let tag = match tag.is_empty() {
                    true => "latest".to_owned(),
                    false => tag.clone(),
                };
                let scratch = self.shop.work.directory()?;
                let images = Arc::clone(&self.shop.engine.shared().images);
                let cancel = self.cancel.clone();
                blocking(move || {
                    let request = LayoutRequest {
                        tag,
                        packing,
                        scratch: scratch.path().to_owned(),
                        cancel,
                    };
                    let config = ArtifactConfig {
                        media_type: CONFIG_TYPE,
                        make: &document,
                    };
                    images.write_layout(&request, &layers, &config, &mut output.bytes)?;
                    std::io::Write::flush(&mut output.bytes)
                        .map_err(agent_image::ImageError::Output)?;
                    drop(output.bytes);
                    match output.taken.blocking_recv() {
                        Ok(true) => Ok(()),
                        _ => Err(crate::error::Error::system(
                            "the client left before it had the cache",
                        )),
                    }
                })
                .await?;
                part.done();
                Ok(())
            }
        }
    }
}

/// The value of [`INLINE`] for an image with these layers. `None`: nothing of it is cached.
pub(crate) async fn inline(
    shop: &Arc<Shop>,
    steps: &[Step],
    layers: &[Digest],
) -> Result<Option<String>, Failure> {
    let results = describe(shop, steps.iter()).await?;
    let config = CacheConfig::inside(&results, layers);
    let json = serde_json::to_vec(&config).expect("plain data has a JSON form");
    Ok((!config.is_empty()).then(|| STANDARD.encode(json)))
}

/// The configuration of an image with a cache in it.
pub(crate) fn with_inline(config: &[u8], cache: &str) -> Vec<u8> {
    let parsed: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(config).expect("a configuration is made of an object");
    let mut parsed = parsed;
    parsed.insert(INLINE.to_owned(), cache.into());
    serde_json::to_vec(&parsed).expect("what was JSON has a JSON form")
}

/// Makes layers of the steps' results.
async fn describe(
    shop: &Arc<Shop>,
    steps: impl Iterator<Item = &Step>,
) -> Result<Vec<Described>, Failure> {
    let wanted: Vec<_> = steps
        .map(|step| (step.lease.record().clone(), step.keys.clone()))
        .collect();
    let shop = Arc::clone(shop);
    let described = blocking(move || {
        let snapshots = shop.cache.snapshots();
        let mut results: Vec<Described> = Vec::new();
        for (record, mut keys) in wanted {
            if results.iter().any(|known| known.facts.id == record.id) {
                continue;
            }
            let diff_ids = snapshots.adopt(&record.stack.entries).map_err(files)?;
            for key in &record.keys {
                if !keys.contains(key) {
                    keys.push(*key);
                }
            }
            keys.truncate(KEYS_MAX);
            let chain = diff_ids.into_iter().zip(&record.times);
            results.push(Described {
                keys,
                created: record.created,
                chain: chain
                    .map(|(diff_id, created)| ChainLayer {
                        diff_id,
                        created: *created,
                    })
                    .collect(),
                facts: Facts {
                    own: record.own,
                    kind: record.kind,
                    id: record.id,
                    description: record.description,
                },
            });
        }
        Ok(results)
    });
    Ok(described.await?)
}

/// Refuses what cannot be done, before anything is built.
pub(crate) fn check(request: &BuildRequest) -> Result<(), Failure> {
    request.cache_to.iter().try_for_each(possible)
}

fn possible(to: &CacheExport) -> Result<(), Failure> {
    let (compression, in_registry) = match to {
        CacheExport::Inline => return Ok(()),
        CacheExport::Registry { compression, .. } => (compression, true),
        CacheExport::Local { compression, .. } => (compression, false),
    };
    let reason = match compression.kind {
        _ if compression.level.is_some() => {
            "compression-level is not supported for caches: layers are packed as for a push"
        }
        Some(CompressionKind::Zstd) => "compression=zstd is not supported for caches: use gzip",
        Some(CompressionKind::Uncompressed) if in_registry => {
            "compression=uncompressed is not supported for a cache in a registry: use gzip"
        }
        // A local one is packed anew always.
        _ if compression.force && in_registry => {
            "force-compression is not supported for a cache in a registry: layers go there in the form that registries have"
        }
        _ => return Ok(()),
    };
    Err(Failure::invalid(reason))
}

fn packing(compression: &LayerCompression) -> Packing {
    match compression.kind {
        Some(CompressionKind::Uncompressed) => Packing::Plain,
        _ => Packing::Gzip,
    }
}

pub(super) fn parse(reference: &str) -> Result<Reference, Failure> {
    let parsed = Reference::parse(reference)
        .map_err(|error| Failure::invalid(format!("invalid cache {reference:?}: {error}")))?;
    Ok(parsed.with_default_tag())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_of_compression_is_swallowed() {
        use CompressionKind::{Gzip, Uncompressed, Zstd};
        for (kind, level, force, registry, local) in [
            (None, None, false, "", ""),
            (Some(Gzip), None, true, "force-compression ", ""),
            (
                Some(Uncompressed),
                None,
                false,
                "compression=uncompressed ",
                "",
            ),
            (
                Some(Zstd),
                None,
                false,
                "compression=zstd ",
                "compression=zstd ",
            ),
            (
                Some(Gzip),
                Some(9),
                false,
                "compression-level ",
                "compression-level ",
            ),
        ] {
            let compression = LayerCompression { kind, level, force };
            let to_registry = CacheExport::Registry {
                reference: "a".to_owned(),
                mode: CacheMode::Min,
                compression: compression.clone(),
                ignore_error: true,
            };
            let to_client = CacheExport::Local {
                id: "0".to_owned(),
                tag: String::new(),
                mode: CacheMode::Min,
                compression,
                ignore_error: true,
            };
            for (to, expected) in [(to_registry, registry), (to_client, local)] {
                let told = possible(&to)
                    .err()
                    .map_or(String::new(), |f| f.message().to_owned());
                assert!(told.starts_with(expected), "{told}");
                assert_eq!(told.is_empty(), expected.is_empty(), "{told}");
            }
        }
    }
}
