//! Which images there are and how they are called: `content/index.json`, an OCI index with one descriptor
//! per name (and one for each image without a name), read once and then kept in memory.
//!
//! Annotations of a descriptor, besides the usual `io.containerd.image.name` and
//! `org.opencontainers.image.ref.name`:
//!
//! ```text
//! muster.image.id          digest of the configuration, so that nothing else needs to be read at start
//! muster.image.parent      the image it was built on here
//! muster.image.last-tagged when a name was last put on it
//! muster.image.departed    removed, but containers made from it are left
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::content;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::manifest::{ANNOTATION_NAME, ANNOTATION_REF_NAME, Descriptor, Index, OCI_INDEX};
use crate::reference::Reference;

const ANNOTATION_ID: &str = "muster.image.id";
const ANNOTATION_PARENT: &str = "muster.image.parent";
const ANNOTATION_LAST_TAGGED: &str = "muster.image.last-tagged";
const ANNOTATION_DEPARTED: &str = "muster.image.departed";

/// All images and names. Cloned for each change and swapped in once it is on disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Catalog {
    pub(super) images: HashMap<ImageId, Record>,
    /// Every name has a tag or a digest.
    pub(super) names: BTreeMap<Reference, ImageId>,
    /// Images that are removed for everybody but the containers made from them: they have no name and are in no list, and
    /// their layers stay until the last of these containers goes. None of them is in `images`, too.
    pub(super) departed: HashMap<ImageId, Record>,
}

/// One image.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) media_type: String,
    /// The manifest and its size.
    pub(super) manifest: Digest,
    pub(super) manifest_size: u64,
    pub(super) parent: Option<ImageId>,
    pub(super) last_tagged: Option<Timestamp>,
}

impl Catalog {
    /// Everything that is here, departed images too.
    pub(super) fn ids(&self) -> impl Iterator<Item = &ImageId> {
        self.images.keys().chain(self.departed.keys())
    }

    /// Of an image that is here, departed or not.
    pub(super) fn record(&self, id: &ImageId) -> Option<&Record> {
        self.images.get(id).or_else(|| self.departed.get(id))
    }

    /// The configurations and manifests that are needed.
    pub(super) fn blobs(&self) -> HashSet<Digest> {
        let records = self.images.iter().chain(&self.departed);
        records
            .flat_map(|(id, record)| [*id.digest(), record.manifest])
            .collect()
    }

    pub(super) fn read(path: &Path) -> Result<Self, ImageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(ImageError::io("read", path)(error)),
        };
        let damaged = |reason: String| ImageError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let mut catalog = Self::default();
        for descriptor in index.manifests {
            let note = |key: &str| descriptor.annotations.get(key);
            let id: ImageId = note(ANNOTATION_ID)
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| damaged(format!("{} has no {ANNOTATION_ID}", descriptor.digest)))?;
            if let Some(name) = note(ANNOTATION_NAME) {
                let name = Reference::parse(name).map_err(|e| damaged(format!("{name}: {e}")))?;
                catalog.names.insert(name, id);
            }
            let record = Record {
                parent: note(ANNOTATION_PARENT).and_then(|id| id.parse().ok()),
                last_tagged: note(ANNOTATION_LAST_TAGGED).and_then(|time| time.parse().ok()),
                manifest: descriptor.digest,
                manifest_size: descriptor.size,
                media_type: descriptor.media_type,
            };
            let images = match descriptor.annotations.contains_key(ANNOTATION_DEPARTED) {
                true => &mut catalog.departed,
                false => &mut catalog.images,
            };
            images.entry(id).or_insert(record);
        }
        catalog.break_circles();
        Ok(catalog)
    }

    /// No image that is its own ancestor could ever be removed.
    fn break_circles(&mut self) {
        let parent = |images: &HashMap<ImageId, Record>, id| images.get(&id)?.parent;
        let ids: Vec<ImageId> = self.images.keys().copied().collect();
        let mut straight = HashSet::new();
        for id in ids {
            let mut seen = HashSet::new();
            let mut at = id;
            while !straight.contains(&at) && seen.insert(at) {
                match parent(&self.images, at) {
                    Some(next) if seen.contains(&next) => {
                        let record = self.images.get_mut(&at).expect("it has a parent");
                        record.parent = None;
                    }
                    Some(next) => at = next,
                    None => {}
                }
            }
            straight.extend(seen);
        }
    }

    /// Writes the index durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), ImageError> {
        let mut manifests = Vec::new();
        let mut ids: Vec<_> = self.images.keys().collect();
        ids.sort();
        let mut names: HashMap<ImageId, Vec<&Reference>> = HashMap::new();
        for (name, id) in &self.names {
            names.entry(*id).or_default().push(name);
        }
        for id in ids {
            let plain = self.images[id].descriptor(id);
            match names.get(id) {
                None => manifests.push(plain),
                Some(names) => manifests.extend(names.iter().map(|name| plain.clone().named(name))),
            }
        }
        let mut departed: Vec<_> = self.departed.iter().collect();
        departed.sort_by_key(|(id, _)| **id);
        for (id, record) in departed {
            let mut descriptor = record.descriptor(id);
            let (name, value) = (ANNOTATION_DEPARTED.to_owned(), "true".to_owned());
            descriptor.annotations.insert(name, value);
            manifests.push(descriptor);
        }
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests,
        };
        let json = serde_json::to_vec(&index).expect("plain data has a JSON form");
        content::replace_from_reserve(path, &json)
    }

    /// The names of an image, sorted.
    pub(super) fn names_of(&self, id: &ImageId) -> Vec<Reference> {
        self.names
            .iter()
            .filter(|(_, image)| *image == id)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether another image was built on this one.
    pub(super) fn has_children(&self, id: &ImageId) -> bool {
        self.images
            .values()
            .any(|record| record.parent == Some(*id))
    }
}

impl Record {
    fn descriptor(&self, id: &ImageId) -> Descriptor {
        let mut annotations = IndexMap::new();
        annotations.insert(ANNOTATION_ID.to_owned(), id.to_string());
        if let Some(parent) = &self.parent {
            annotations.insert(ANNOTATION_PARENT.to_owned(), parent.to_string());
        }
        if let Some(time) = &self.last_tagged {
            annotations.insert(ANNOTATION_LAST_TAGGED.to_owned(), time.to_string());
        }
        Descriptor {
            annotations,
            ..Descriptor::new(&self.media_type, self.manifest, self.manifest_size)
        }
    }
}

impl Descriptor {
    /// The same descriptor under a name, as Docker annotates it.
    pub(super) fn named(mut self, name: &Reference) -> Self {
        self.annotations
            .insert(ANNOTATION_NAME.to_owned(), name.to_string());
        if let Some(tag) = name.tag() {
            self.annotations
                .insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
        }
        self
    }
}
