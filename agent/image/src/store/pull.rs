//! `pull`: an image out of a registry. Layers that are here already are not fetched; the others arrive three at a time,
//! each straight from the connection into its directory. Nothing exists until everything is verified; what was
//! unpacked when a pull fails or is cancelled goes with it.
//!
//! Source of the texts and their order: moby `daemon/internal/distribution/pull_v2.go`, `xfer/download.go`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_build::plan::Platform;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::downloads::Turn;
use super::index::Record;
use super::inspect::other_platform;
use super::load::Pins;
use super::tag::give_name;
use super::workers::all_at_once;
use super::{Additions, Catalog, Durability, HeldFor, Hold, Result, Store};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::layers::Unfinished;
use crate::manifest::{Descriptor, Manifest};
use crate::progress::{ProgressMessage, ProgressSink};
use crate::reference::Reference;
use crate::registry::{BlobReader, Credentials, Found, Registry, RegistryError, Session};

/// Between two progress messages of one layer.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// What an interrupted pull left is gone on with for a day.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Name with tag or digest; `latest` without.
    pub reference: Reference,
    /// This machine's if not given.
    pub platform: Option<Platform>,
    /// For whom.
    pub credentials: Option<Credentials>,
}

/// What a pull brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: ImageId,
    /// Of the manifest or index that the name stands for at the registry.
    pub digest: Digest,
    /// Whether the name stands for another image than before.
    pub newer: bool,
}

/// An image that a registry has, and what of it was not here.
struct Brought {
    /// Of the manifest or index that the name stands for.
    digest: Digest,
    /// Its manifest.
    image: Found,
    manifest: Manifest,
    /// The image was here already.
    known: bool,
    additions: Additions,
}

impl Store {
    /// Pulls one image. All or nothing; cancelling leaves nothing behind. A name that stands for one image, not for an index
    /// of several platforms, brings that one; if it is not for the platform asked for, `progress` is told. Blocks, and must
    /// not be called on a thread of the registry's runtime.
    ///
    /// # Errors
    /// The registry does not have it, or it is not what its digests promise.
    pub fn pull(
        &self,
        registry: &Registry,
        request: &PullRequest,
        cancel: &CancellationToken,
        progress: ProgressSink<'_>,
    ) -> Result<Pulled> {
        let held = self.pull_held(registry, request, HeldFor::Pull, cancel, progress);
        held.map(|(pulled, _)| pulled)
    }

    /// The same, for who goes on with the image that was pulled: nobody removes it before the hold is dropped, whatever its
    /// name comes to mean.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub fn pull_held(
        &self,
        registry: &Registry,
        request: &PullRequest,
        purpose: HeldFor,
        cancel: &CancellationToken,
        progress: ProgressSink<'_>,
    ) -> Result<(Pulled, Hold)> {
        self.sweep_partials(PARTIAL_LIFE);
        let reference = request.reference.clone().with_default_tag();
        let credentials = request.credentials.as_ref();
        // Held until the image is in the index.
        let pins = Pins::new(self);
        let bring = |session: &Session<'_>, found: Found| {
            self.bring(session, found, request, &pins, progress)
        };
        let Brought {
            digest,
            image,
            manifest,
            known,
            additions,
        } = registry.at_first(
            &reference,
            credentials,
            cancel,
            |session| session.resolve(),
            bring,
        )?;
        let id = ImageId::new(manifest.config.digest);
        let fetched: HashSet<Digest> = additions
            .shared
            .iter()
            .map(|unfinished| unfinished.layer.diff_id)
            .collect();
        if cancel.is_cancelled() {
            return Err(RegistryError::Cancelled.into());
        }
        let record = Record {
            media_type: image.media_type,
            manifest: image.digest,
            manifest_size: image.bytes.len() as u64,
            parent: None,
            last_tagged: None,
        };
        let pinned = reference.with_digest(digest);
        let manifest_alone = reference.with_digest(image.digest);
        let ((newer, hold), _) = self.change(additions, |catalog| {
            if known && !catalog.images.contains_key(&id) {
                return Err(ImageError::Conflict(format!(
                    "{} was removed while it was being pulled: pull it again",
                    reference.familiar()
                )));
            }
            catalog.images.entry(id).or_insert(record);
            let (name, pinned) = match reference.digest() {
                _ if self.keeps_name(catalog, request, purpose) => {
                    (&manifest_alone, &manifest_alone)
                }
                Some(_) => (&pinned, &pinned),
                None => (&reference, &pinned),
            };
            let newer = catalog.names.get(name) != Some(&id);
            if newer {
                give_name(catalog, name.clone(), id);
            }
            catalog.names.insert(pinned.clone(), id);
            // Who wants to remove it waits for the index.
            Ok((newer, self.take_hold(id, purpose)))
        })?;
        let config = self.config(&id)?;
        let repository = reference.repository();
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            // Of a layer that was here already the manifest may tell lies: nobody has seen that blob.
            if fetched.contains(diff_id) || self.layers.has_form(diff_id, &layer.digest) {
                let form = (layer.digest, layer.size);
                self.layers
                    .remember_form(diff_id, form, &layer.media_type, &repository);
            }
            self.partials.forget(&layer.digest);
        }
        progress(ProgressMessage::status(format!("Digest: {digest}")));
        let outcome = match newer {
            true => "Downloaded newer image for",
            false => "Image is up to date for",
        };
        progress(ProgressMessage::status(format!(
            "Status: {outcome} {}",
            reference.familiar()
        )));
        if let Some(wanted) = &request.platform
            && !config.runs_on(wanted)
        {
            let what = other_platform(&reference.to_string(), &config, wanted);
            progress(ProgressMessage::status(format!("WARNING: {what}")));
        }
        Ok((Pulled { id, digest, newer }, hold))
    }

    /// Whether a name stays with the image it has here. A build for another platform needs an image for itself; whoever
    /// called one for this platform so goes on with that.
    fn keeps_name(&self, catalog: &Catalog, request: &PullRequest, purpose: HeldFor) -> bool {
        let reference = request.reference.clone().with_default_tag();
        let (HeldFor::Build, Some(platform), Some(present)) =
            (purpose, &request.platform, catalog.names.get(&reference))
        else {
            return false;
        };
        let config = self.config(present);
        config.is_ok_and(|config| !config.runs_on(platform))
    }

    /// Fetches everything of an image that is not here, from one endpoint.
    fn bring(
        &self,
        session: &Session<'_>,
        found: Found,
        request: &PullRequest,
        pins: &Pins<'_>,
        progress: ProgressSink<'_>,
    ) -> Result<Brought> {
        let reference = request.reference.clone().with_default_tag();
        progress(ProgressMessage {
            status: Some(format!("Pulling from {}", reference.path())),
            id: reference
                .tag()
                .filter(|_| reference.digest().is_none())
                .map_or_else(
                    || Some(found.digest.to_string()),
                    |tag| Some(tag.to_owned()),
                ),
            ..ProgressMessage::default()
        });
        let (image, manifest) = session.image(&found, request.platform.as_ref())?;
        let id = ImageId::new(manifest.config.digest);
        let mut additions = Additions {
            used: vec![id],
            durability: Durability::Later,
            ..Additions::default()
        };
        let known = self.snapshot().images.contains_key(&id);
        if known {
            let config = self.config(&id)?;
            for diff_id in &config.rootfs.diff_ids {
                pins.find(diff_id);
            }
        } else {
            let bytes = session.small_blob(&manifest.config)?;
            let config = self.check(&manifest, &bytes, request)?;
            let layers: Vec<(&Descriptor, &Digest)> = manifest
                .layers
                .iter()
                .zip(&config.rootfs.diff_ids)
                .collect();
            additions.shared = self.fetch(session, pins, &layers, Download::Shared, progress)?;
            additions.blobs = vec![bytes, image.bytes.clone()];
        }
        Ok(Brought {
            digest: found.digest,
            image,
            manifest,
            known,
            additions,
        })
    }

    fn check(
        &self,
        manifest: &Manifest,
        config: &[u8],
        request: &PullRequest,
    ) -> Result<ImageConfig> {
        let name = request.reference.familiar();
        let config = ImageConfig::from_json(config)
            .map_err(|error| ImageError::Archive(format!("{name}: configuration: {error}")))?;
        config
            .check_history()
            .map_err(|what| ImageError::Archive(format!("{name}: configuration: {what}")))?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids || layers > self.limits.layers {
            return Err(ImageError::Archive(format!(
                "{name} has {layers} layers, its configuration {diff_ids}; at most {} are possible",
                self.limits.layers
            )));
        }
        Ok(config)
    }

    /// Brings the layers here that are missing, each given with its diff id.
    pub(super) fn fetch(
        &self,
        session: &Session<'_>,
        pins: &Pins<'_>,
        layers: &[(&Descriptor, &Digest)],
        download: Download,
        progress: ProgressSink<'_>,
    ) -> Result<Vec<Arc<Unfinished>>> {
        let mut queue = VecDeque::new();
        let mut seen = HashMap::new();
        for (layer, diff_id) in layers.iter().copied() {
            let short = layer.digest.short();
            if let Some(before) = seen.insert(*diff_id, layer.digest) {
                if before != layer.digest {
                    return Err(ImageError::Archive(format!(
                        "{} and {before} are said to be the same layer",
                        layer.digest
                    )));
                }
                continue;
            }
            if pins.find(diff_id).is_some() {
                progress(ProgressMessage::of_layer(&short, "Already exists"));
            } else {
                progress(ProgressMessage::of_layer(&short, "Pulling fs layer"));
                queue.push_back((layer, diff_id));
            }
        }
        for (layer, _) in queue.iter().skip(session.parallel()) {
            progress(ProgressMessage::of_layer(&layer.digest.short(), "Waiting"));
        }
        let fetched = all_at_once(
            queue,
            session.parallel(),
            || session.give_up(),
            |(layer, diff_id)| {
                let fetched = match download {
                    Download::Alone => self
                        .fetch_layer(session, layer, diff_id, progress)
                        .map(|unfinished| Some(Arc::new(unfinished))),
                    Download::Shared => self.share_layer(session, pins, layer, diff_id, progress),
                };
                fetched.inspect_err(|error| {
                    if !matches!(error, ImageError::Registry(error) if error.may_pass_later()) {
                        self.partials.forget(&layer.digest);
                    }
                })
            },
        )?;
        Ok(fetched.into_iter().flatten().collect())
    }

    /// One layer, by its own download or that of another pull. `None`: it has come to be here meanwhile.
    fn share_layer(
        &self,
        session: &Session<'_>,
        pins: &Pins<'_>,
        layer: &Descriptor,
        diff_id: &Digest,
        progress: ProgressSink<'_>,
    ) -> Result<Option<Arc<Unfinished>>> {
        let say = |text: &str| {
            progress(ProgressMessage::of_layer(&layer.digest.short(), text));
        };
        // From now on whoever makes it exist makes it exist for this pull, too.
        pins.reserve(diff_id);
        loop {
            if pins.find(diff_id).is_some() {
                say("Already exists");
                return Ok(None);
            }
            match self.downloads.claim(layer.digest, *diff_id) {
                Turn::Ours(claim) => {
                    let fetched = self.fetch_layer(session, layer, diff_id, progress)?;
                    let fetched = Arc::new(fetched);
                    claim.finish(&fetched);
                    return Ok(Some(fetched));
                }
                Turn::Theirs(waiter) => {
                    say("Waiting");
                    let waited = session.wait(OTHERS_LIMIT, async { Ok(waiter.wait().await) })?;
                    if let Some(fetched) = waited {
                        say("Pull complete");
                        return Ok(Some(fetched));
                    }
                }
            }
        }
    }

    fn fetch_layer(
        &self,
        session: &Session<'_>,
        layer: &Descriptor,
        diff_id: &Digest,
        progress: ProgressSink<'_>,
    ) -> Result<Unfinished> {
        let short = layer.digest.short();
        let failure = Mutex::new(None);
        let mut reader =
            BlobReader::new(session, layer, &failure).resumable(&self.partials, &layer.digest);
        let mut head = Vec::new();
        let begun = std::io::Read::read_to_end(
            &mut std::io::Read::take(&mut reader, HEAD_BYTES),
            &mut head,
        );
        let shown = Mutex::new(Instant::now());
        let told = |count: u64| {
            let mut shown = shown.lock();
            if count == layer.size || shown.elapsed() >= PROGRESS_PAUSE {
                *shown = Instant::now();
                drop(shown);
                let message = ProgressMessage::layer(&short, "Downloading", count, layer.size);
                progress(message);
            }
        };
        let ingested = match begun {
            Ok(_) => self.layers.ingest(&head, &mut reader, &told),
            Err(error) => Err(error).map_err(|source| crate::layers::UnpackError::Machine {
                path: short.clone().into(),
                source,
            }),
        };
        let (unfinished, blob) = ingested.map_err(|source| match failure.lock().take() {
            Some(error) => ImageError::from(error),
            None => ImageError::Layer {
                layer: layer.digest.to_string(),
                source,
            },
        })?;
        progress(ProgressMessage::of_layer(&short, "Download complete"));
        for (expected, actual) in [(&layer.digest, blob), (diff_id, unfinished.layer.diff_id)] {
            if *expected != actual {
                return Err(RegistryError::Digest {
                    what: format!("layer {}", layer.digest),
                    expected: *expected,
                    actual,
                }
                .into());
            }
        }
        progress(ProgressMessage::of_layer(&short, "Pull complete"));
        Ok(unfinished)
    }
}

/// Whether a download may be another pull's, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Download {
    Shared,
    /// Whoever asks changes the layer's directory before it exists.
    Alone,
}

/// For another pull's download, which ends long before by limits of its own.
const OTHERS_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Enough of a layer to tell its compression.
const HEAD_BYTES: u64 = 512;
