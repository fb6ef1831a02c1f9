//! `push`: an image into a registry. What the repository has is not sent again, what another repository of the registry
//! has is mounted, and what must be sent is compressed on all processors while it is on its way, five layers at a time.
//!
//! A layer's compressed form is remembered with its size and the repositories that have it ([`crate::layers::Form`]): an
//! image that was pulled keeps its manifest, byte for byte, as long as the registry has its blobs or can mount them. If one
//! must be compressed anew, its digest is another, and so is the manifest's, as with Docker; it stays of the family (Docker
//! or OCI) that the image came in. Images that did not come out of a registry get Docker's.
//!
//! Source of the texts and their order: moby `daemon/internal/distribution/push_v2.go`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use agent_build::go_json;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::workers::all_at_once;
use super::{Additions, HeldFor, Result, Store};
use crate::deflate::Workers;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::layers::Form;
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor, LayerSource, Manifest,
    OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST,
};
use crate::progress::{ProgressDetail, ProgressMessage, ProgressSink};
use crate::reference::Reference;
use crate::registry::{
    Credentials, LayerBlob, Mounting, Registry, RegistryError, Session, UploadError,
};

/// A layer whose tar is this long at most is compressed first, so that its digest can be asked for.
const SMALL: u64 = 1 << 20;
/// Repositories that a blob is asked to be mounted from.
const MOUNTS_MAX: usize = 3;
/// Between two progress messages of one layer.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Name with a tag; without one all tags of the repository that are here.
    pub reference: Reference,
    /// What is pushed there, if it is not what the name means here.
    pub image: Option<ImageId>,
    /// For whom.
    pub credentials: Option<Credentials>,
}

/// What a push put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Name with its tag.
    pub reference: Reference,
    /// Of the manifest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Documents of Docker or of the OCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Docker,
    Oci,
}

impl Store {
    /// Pushes one tag of an image, or all of a repository. Blocks, and must not be called on a thread of the registry's
    /// runtime. Cancelling leaves no tag behind that is not whole.
    ///
    /// # Errors
    /// There is no such image, the registry does not take it, or a layer is damaged.
    pub fn push(
        &self,
        registry: &Registry,
        request: &PushRequest,
        cancel: &CancellationToken,
        progress: ProgressSink<'_>,
    ) -> Result<Vec<Pushed>> {
        let reference = &request.reference;
        if reference.digest().is_some() {
            let reason = "cannot push a digest reference".to_owned();
            return Err(ImageError::Invalid(reason));
        }
        let repository = reference.repository();
        progress(ProgressMessage::status(format!(
            "The push refers to repository [{repository}]"
        )));
        let tags = match request.image {
            Some(id) => vec![(reference.clone().with_default_tag(), id)],
            None => self.tags_of(reference)?,
        };
        let credentials = request.credentials.as_ref();
        let session = registry.writer(reference, credentials, cancel)?;
        let mut pushed = Vec::new();
        for (tag, id) in tags {
            // Nothing of it may be removed while it is being read.
            let (_, _hold) = self.hold(&id.to_string(), HeldFor::Push)?;
            let push = Push {
                store: self,
                session: &session,
                repository: &repository,
                host: reference.domain(),
                progress,
            };
            let done = push.tag(&tag, &id)?;
            let digest = tag.with_digest(done.digest);
            self.change(Additions::default(), |catalog| {
                if catalog.images.contains_key(&id) {
                    catalog.names.insert(digest, id);
                }
                Ok(())
            })?;
            pushed.push(done);
        }
        Ok(pushed)
    }

    /// The manifest an image came with, or the one it was given here.
    fn stored_manifest(&self, id: &ImageId) -> Result<(Vec<u8>, Manifest)> {
        let catalog = self.snapshot();
        let record = catalog
            .images
            .get(id)
            .ok_or_else(|| ImageError::NoSuchImage(id.to_string()))?;
        let bytes = self.content.get(&record.manifest)?;
        let manifest = go_json::from_slice(&bytes).map_err(|error| ImageError::Damaged {
            path: self.content.root().join(record.manifest.to_string()),
            reason: error.to_string(),
        })?;
        Ok((bytes, manifest))
    }

    /// The names that are meant, with their images.
    fn tags_of(&self, reference: &Reference) -> Result<Vec<(Reference, ImageId)>> {
        let catalog = self.snapshot();
        let repository = reference.name_only();
        let mut all = catalog
            .names
            .iter()
            .filter(|(name, _)| name.digest().is_none() && name.name_only() == repository)
            .map(|(name, id)| (name.clone(), *id))
            .peekable();
        if all.peek().is_none() {
            return Err(ImageError::NoSuchTag(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_repository()
            )));
        }
        if reference.is_name_only() {
            return Ok(all.collect());
        }
        match all.find(|(name, _)| name == reference) {
            Some(found) => Ok(vec![found]),
            None => Err(ImageError::NoSuchTag(format!(
                "tag does not exist: {}",
                reference.familiar()
            ))),
        }
    }
}

/// One image on its way.
pub(super) struct Push<'a> {
    pub(super) store: &'a Store,
    pub(super) session: &'a Session<'a>,
    /// `host/path`
    pub(super) repository: &'a str,
    pub(super) host: &'a str,
    pub(super) progress: ProgressSink<'a>,
}

/// A layer as the repository has it now.
#[derive(Debug, Clone)]
struct Placed {
    diff_id: Digest,
    form: LayerSource,
}

impl Push<'_> {
    fn tag(&self, name: &Reference, id: &ImageId) -> Result<Pushed> {
        let config = self.store.config(id)?;
        let stored = self.store.stored_manifest(id)?;
        let (stored_bytes, stored_manifest) = &stored;
        let family = family(stored_manifest);
        let diff_ids = &config.rootfs.diff_ids;
        let placed = self.layers(diff_ids, &stored_manifest.layers, family)?;

        let config_bytes = self.store.content.get(id.digest())?;
        let config_size = config_bytes.len() as u64;
        if !self.session.blob_there(id.digest())? {
            let bytes = Bytes::from(config_bytes);
            self.session.put_blob(id.digest(), bytes, None)?;
        }
        let forms: Vec<&LayerSource> = diff_ids
            .iter()
            .map(|diff_id| {
                let found = placed.iter().find(|placed| placed.diff_id == *diff_id);
                &found.expect("every layer of the image is placed").form
            })
            .collect();
        let unchanged = stored_manifest.layers.len() == forms.len()
            && stored_manifest
                .layers
                .iter()
                .zip(&forms)
                .all(|(before, now)| before.digest == now.digest)
            && matches!(
                &*stored_manifest.media_type,
                "" | OCI_MANIFEST | DOCKER_MANIFEST
            );
        let (media_type, bytes) = match unchanged {
            true => {
                let media_type = match (&*stored_manifest.media_type, family) {
                    ("", Family::Oci) => OCI_MANIFEST,
                    ("", Family::Docker) => DOCKER_MANIFEST,
                    (own, _) => own,
                };
                (media_type.to_owned(), stored_bytes.clone())
            }
            false => family.manifest((*id.digest(), config_size), &forms),
        };
        let tag = name.tag().expect("what is pushed has a tag");
        self.session.put_manifest(tag, &media_type, &bytes)?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        (self.progress)(ProgressMessage::status(format!(
            "{tag}: digest: {digest} size: {size}"
        )));
        (self.progress)(ProgressMessage {
            progress_detail: Some(ProgressDetail::default()),
            aux: Some(json!({ "Tag": tag, "Digest": digest.to_string(), "Size": size })),
            ..ProgressMessage::default()
        });
        Ok(Pushed {
            reference: name.clone(),
            digest,
            size,
        })
    }

    /// Places layers that belong to no image, and tells how each is packed.
    pub(super) fn blobs(&self, diff_ids: &[Digest]) -> Result<Vec<LayerBlob>> {
        let placed = self.layers(diff_ids, &[], Family::Oci)?;
        let blob = |diff_id: &Digest| {
            let found = placed.iter().find(|placed| placed.diff_id == *diff_id);
            let form = &found.expect("every layer is placed").form;
            LayerBlob {
                digest: form.digest,
                size: form.size,
                media_type: form.media_type.clone(),
            }
        };
        Ok(diff_ids.iter().map(blob).collect())
    }

    /// Places all layers, the uppermost first.
    fn layers(
        &self,
        diff_ids: &[Digest],
        stored: &[Descriptor],
        family: Family,
    ) -> Result<Vec<Placed>> {
        let mut queue = VecDeque::new();
        for (at, diff_id) in diff_ids.iter().enumerate().rev() {
            if queue.iter().any(|(_, queued)| *queued == diff_id) {
                continue;
            }
            self.say(diff_id, "Preparing");
            queue.push_back((stored.get(at), diff_id));
        }
        for (_, diff_id) in queue.iter().skip(self.session.parallel()) {
            self.say(diff_id, "Waiting");
        }
        std::thread::scope(|scope| {
            let deflate = Workers::start(scope);
            let place = |(stored, diff_id): (Option<&Descriptor>, &Digest)| {
                let form = self.layer(diff_id, stored, family, &deflate)?;
                let diff_id = *diff_id;
                Ok(Placed { diff_id, form })
            };
            let session = self.session;
            all_at_once(queue, session.parallel(), || session.give_up(), place)
        })
    }

    /// Sees to it that the repository has a layer.
    fn layer(
        &self,
        diff_id: &Digest,
        stored: Option<&Descriptor>,
        family: Family,
        deflate: &Workers,
    ) -> Result<LayerSource> {
        let layers = &self.store.layers;
        let forms = self.known_forms(diff_id, stored, family);
        let found = |form: &Form, text: &str| {
            let key = (form.digest, form.size);
            layers.remember_form(diff_id, key, &form.media_type, self.repository);
            self.say(diff_id, text);
            Ok(family.layer(form))
        };
        for form in &forms {
            if self.session.blob_there(&form.digest)? {
                return found(form, "Layer already exists");
            }
            layers.forget_form(diff_id, &form.digest, self.repository);
        }
        let mut begun = None;
        for (form, from) in self.mountable(&forms) {
            if let Some(upload) = begun.take() {
                self.session.abandon(upload);
            }
            let path = from.split_once('/').map_or(from, |(_, path)| path);
            match self.session.mount(&form.digest, path)? {
                Mounting::Mounted => return found(form, &format!("Mounted from {path}")),
                Mounting::Refused(upload) => {
                    begun = Some(upload);
                    layers.forget_form(diff_id, &form.digest, from);
                }
            }
        }
        self.send(diff_id, family, begun, deflate)
    }

    /// The forms the layer may be known in there: those that it was pushed or pulled in, and the one it arrived in.
    fn known_forms(
        &self,
        diff_id: &Digest,
        stored: Option<&Descriptor>,
        family: Family,
    ) -> Vec<Form> {
        let mut forms = self.store.layers.forms(diff_id);
        forms.retain(|form| family.takes(&form.media_type));
        // What the image's own manifest says is what keeps its digest, if it is true: of a layer that was here before the
        // image was pulled, nobody has seen the blob.
        let own = stored.filter(|own| own.digest != *diff_id && family.takes(&own.media_type));
        let own = own.filter(|own| self.store.layers.has_form(diff_id, &own.digest));
        if let Some(own) = own {
            let known = forms.iter().position(|form| form.digest == own.digest);
            let form = known.map_or_else(
                || Form {
                    digest: own.digest,
                    size: own.size,
                    media_type: own.media_type.clone(),
                    repositories: Vec::new(),
                },
                |at| forms.remove(at),
            );
            forms.insert(0, form);
        }
        forms
    }

    /// Other repositories of the same registry, those nearest in name first.
    fn mountable<'f>(&self, forms: &'f [Form]) -> Vec<(&'f Form, &'f str)> {
        let ours = |name: &str| {
            let same = name
                .split_once('/')
                .is_some_and(|(host, _)| host == self.host);
            same && name != self.repository
        };
        let near = |name: &str| {
            let pairs = name.split('/').zip(self.repository.split('/'));
            pairs.take_while(|(one, other)| one == other).count()
        };
        let mut found: Vec<(&Form, &str)> = forms
            .iter()
            .flat_map(|form| form.repositories.iter().map(move |name| (form, &**name)))
            .filter(|(_, name)| ours(name))
            .collect();
        found.sort_by_key(|(_, name)| std::cmp::Reverse(near(name)));
        found.truncate(MOUNTS_MAX);
        found
    }

    /// Compresses and uploads.
    fn send(
        &self,
        diff_id: &Digest,
        family: Family,
        begun: Option<url::Url>,
        deflate: &Workers,
    ) -> Result<LayerSource> {
        let layers = &self.store.layers;
        let tar_size = layers.get(diff_id)?.tar_size;
        let shown = Mutex::new(Instant::now());
        let told = |count: u64| {
            let mut shown = shown.lock();
            if count == tar_size || shown.elapsed() >= PROGRESS_PAUSE {
                *shown = Instant::now();
                drop(shown);
                let short = diff_id.short();
                (self.progress)(ProgressMessage::layer(&short, "Pushing", count, tar_size));
            }
        };
        let content = |output: &mut dyn Write| {
            let mut counted = Counted {
                count: 0,
                told: &told,
                output: deflate.writer(output),
            };
            layers.write_tar(diff_id, &mut counted)?;
            counted
                .output
                .finish()
                .map_err(ImageError::Output)
                .map(drop)
        };
        let (digest, size) = if tar_size <= SMALL {
            let mut bytes = Vec::new();
            content(&mut bytes)?;
            let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
            if !self.session.blob_there(&digest)? {
                self.session.put_blob(&digest, bytes.into(), begun)?;
            } else if let Some(upload) = begun {
                self.session.abandon(upload);
            }
            (digest, size)
        } else {
            self.session
                .stream_blob(&content, begun)
                .map_err(|error| match error {
                    // The way there failed, which the registry's own error tells better.
                    UploadError::Content(ImageError::Output(_)) => {
                        ImageError::from(RegistryError::Cancelled)
                    }
                    other => other.into(),
                })?
        };
        let form = Form {
            digest,
            size,
            media_type: family.gzip().to_owned(),
            repositories: Vec::new(),
        };
        layers.remember_form(diff_id, (digest, size), &form.media_type, self.repository);
        self.say(diff_id, "Pushed");
        Ok(family.layer(&form))
    }

    fn say(&self, diff_id: &Digest, status: &str) {
        (self.progress)(ProgressMessage::of_layer(&diff_id.short(), status));
    }
}

/// The family a manifest belongs to. Those that `load` and `commit` make have plain tars as layers: nobody outside has seen
/// them, and the image becomes what it becomes with Docker.
fn family(stored: &Manifest) -> Family {
    let config_oci = stored.config.media_type == OCI_CONFIG;
    let plain = stored
        .layers
        .iter()
        .all(|layer| !layer.media_type.ends_with("gzip") && !layer.media_type.ends_with("+zstd"));
    match (plain, &*stored.media_type) {
        (true, _) | (_, DOCKER_MANIFEST) => Family::Docker,
        (_, "") if !config_oci => Family::Docker,
        _ => Family::Oci,
    }
}

impl Family {
    fn gzip(self) -> &'static str {
        match self {
            Self::Docker => DOCKER_LAYER_GZIP,
            Self::Oci => OCI_LAYER_GZIP,
        }
    }

    /// Whether a manifest of the family can name a layer of this kind.
    fn takes(self, media_type: &str) -> bool {
        match self {
            Self::Docker => media_type.ends_with("gzip"),
            Self::Oci => media_type.ends_with("gzip") || media_type == OCI_LAYER_ZSTD,
        }
    }

    fn layer(self, form: &Form) -> LayerSource {
        let media_type = match form.media_type.ends_with("gzip") {
            true => self.gzip(),
            false => &form.media_type,
        };
        LayerSource {
            media_type: media_type.to_owned(),
            size: form.size,
            digest: form.digest,
        }
    }

    /// A manifest, written as Docker does, so that equal blobs have equal manifests.
    fn manifest(self, config: (Digest, u64), layers: &[&LayerSource]) -> (String, Vec<u8>) {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            schema_version: u32,
            media_type: &'a str,
            config: LayerSource,
            layers: &'a [&'a LayerSource],
        }
        let (media_type, config_type) = match self {
            Self::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
            Self::Oci => (OCI_MANIFEST, OCI_CONFIG),
        };
        let written = Written {
            schema_version: 2,
            media_type,
            config: LayerSource {
                media_type: config_type.to_owned(),
                size: config.1,
                digest: config.0,
            },
            layers,
        };
        let mut bytes = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
        written
            .serialize(&mut writer)
            .expect("plain data has a JSON form");
        (media_type.to_owned(), bytes)
    }
}

/// Tells how much went by.
struct Counted<'a, W> {
    count: u64,
    told: &'a dyn Fn(u64),
    output: W,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write_all(bytes)?;
        self.count += bytes.len() as u64;
        (self.told)(self.count);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_written_as_docker_writes_it() {
        let digest = |text: &str| text.parse::<Digest>().unwrap();
        let config = "sha256:42ed1e1894f82855661b4b13733688fb9ce1d047ea97f42be1cee1e875b383bc";
        let layer = LayerSource {
            media_type: DOCKER_LAYER_GZIP.to_owned(),
            size: 1_083_691,
            digest: digest(
                "sha256:be41d6df38f5102e654ee4b9f02d075838ed2b88139d35b111386f6dbef4dc3b",
            ),
        };
        let (media_type, bytes) = Family::Docker.manifest((digest(config), 893), &[&layer]);
        assert_eq!(media_type, DOCKER_MANIFEST);
        assert_eq!(bytes.len(), 527);
        // What Docker 28.5 pushed with these blobs.
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "sha256:56a9633f077c0656a568205944197841a9395a234323ef94fdacfa5faf4291df"
        );
    }
}
