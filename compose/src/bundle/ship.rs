//! What a daemon is sent: a docker-archive with the images it lacks, in which layers it has are empty entries.
//!
//! Daemons look for a layer in their store before they look into the archive. Docker finds layers by their place above
//! others, so a layer counts as known only when an image of the daemon begins with the same layers up to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, Write};

use serde_json::Value;

use super::lock::{self, Lock};
use super::{Bundle, BundleError, name};

/// What is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    /// Images by id.
    pub images: BTreeSet<String>,
    /// Their blobs by digest: whether the bytes go along.
    pub blobs: BTreeMap<String, Bytes>,
}

/// Whether a blob's bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// The daemon lacks them.
    Sent,
    /// The daemon has the layer.
    Known,
}

/// Picks the images that are not among `known` (id → diff ids of the daemon's images), and of their layers those that no
/// known image has in the same place.
#[must_use]
pub fn lacking(lock: &Lock, known: &BTreeMap<String, Vec<String>>) -> Shipment {
    let mut shipment = Shipment::default();
    for (id, content) in lock.contents().filter(|(id, _)| !known.contains_key(*id)) {
        shipment.images.insert(id.to_owned());
        shipment.blobs.insert(id.to_owned(), Bytes::Sent);
        let layers: Vec<&str> = content
            .layers
            .iter()
            .map(|layer| layer.digest.as_str())
            .collect();
        let shared = known.values().map(|other| {
            let pairs = layers.iter().zip(other);
            pairs.take_while(|(own, other)| *own == other).count()
        });
        let shared = shared.max().unwrap_or(0);
        for (place, layer) in layers.into_iter().enumerate() {
            let bytes = match place < shared {
                true => Bytes::Known,
                false => Bytes::Sent,
            };
            let blob = shipment.blobs.entry(layer.to_owned()).or_insert(bytes);
            // One that is needed in another place, too, has to come.
            if bytes == Bytes::Sent {
                *blob = Bytes::Sent;
            }
        }
    }
    shipment
}

impl Shipment {
    /// Bytes of blobs that are sent.
    #[must_use]
    pub fn size(&self, lock: &Lock) -> u64 {
        let sizes = lock.blobs().unwrap_or_default();
        let sent = self
            .blobs
            .iter()
            .filter(|(_, bytes)| **bytes == Bytes::Sent);
        sent.filter_map(|(digest, _)| sizes.get(digest.as_str()))
            .sum()
    }

    /// Writes the archive, without names: an image of the same name stays as it is. `progress` hears of bytes done.
    ///
    /// # Errors
    /// When the bundle cannot be read or the archive cannot be written.
    pub fn write<R: Read + Seek>(
        &self,
        bundle: &mut Bundle<R>,
        output: impl Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BundleError> {
        let sizes: BTreeMap<String, u64> = bundle
            .lock
            .blobs()?
            .into_iter()
            .map(|(digest, size)| (digest.to_owned(), size))
            .collect();
        let mut writer = super::Writer::new(output);
        for (digest, bytes) in &self.blobs {
            let entry = name::of_blob(digest).unwrap_or_default();
            match bytes {
                Bytes::Known => writer.bytes(&entry, 0o644, b"")?,
                Bytes::Sent => {
                    let size = sizes.get(digest).copied().unwrap_or_default();
                    let mut blob = bundle.blob(digest)?;
                    let actual = writer.stream(&entry, 0o644, size, &mut blob, progress)?;
                    if actual != *digest {
                        return Err(BundleError::damaged(entry, "it changed while it was read"));
                    }
                }
            }
        }
        let contents = bundle.lock.contents();
        let sent = contents.filter(|(id, _)| self.images.contains(*id));
        let items = sent.map(|(id, content)| {
            let layers = content.layers.iter();
            lock::archive_item(id, &[], layers.map(|layer| layer.digest.as_str()))
        });
        let items = Value::Array(items.collect()).to_string();
        writer.bytes("manifest.json", 0o644, items.as_bytes())?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock::tests::{digest, lock};
    use super::*;

    #[test]
    fn only_what_is_lacking_is_sent() {
        let lock = lock();
        let all = lacking(&lock, &BTreeMap::new());
        assert_eq!(all.images.len(), 2);
        assert!(all.blobs.values().all(|bytes| *bytes == Bytes::Sent));
        assert_eq!(all.size(&lock), 10 + 10 + 100 + 50);

        let db = BTreeMap::from([(digest(10), vec![digest(1)])]);
        let rest = lacking(&lock, &db);
        assert_eq!(rest.images, BTreeSet::from([digest(20)]));
        assert_eq!(rest.blobs[&digest(1)], Bytes::Known);
        assert_eq!(rest.blobs[&digest(2)], Bytes::Sent);
        assert_eq!(rest.size(&lock), 10 + 50);

        let both = BTreeMap::from([(digest(10), vec![]), (digest(20), vec![])]);
        assert_eq!(lacking(&lock, &both), Shipment::default());
    }

    #[test]
    fn a_layer_above_other_layers_does_not_count() {
        let lock = lock();
        let other = BTreeMap::from([(digest(77), vec![digest(3), digest(2), digest(1)])]);
        let all = lacking(&lock, &other);
        assert!(all.blobs.values().all(|bytes| *bytes == Bytes::Sent));
    }
}
