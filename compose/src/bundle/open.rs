//! Opening a bundle: the list of its entries against its lock, then every byte against its digest.
//!
//! [`Bundle::open`] reads what is small and says what the bundle is; [`Bundle::verify`] reads the rest. Nothing is
//! written anywhere before both have passed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek};

use serde::Deserialize;

use super::archive::{self, Entry, Index};
use super::lock::{Blob, ImageContent, Lock};
use super::name::{self, Kind};
use super::{BundleError, MAX_DOCUMENT};

/// A bundle whose lock and documents are in order.
#[derive(Debug)]
pub struct Bundle<R> {
    input: R,
    index: Index,
    /// What it must hold.
    pub lock: Lock,
    /// The model, as text.
    pub model: String,
    /// Values of secrets from variables.
    pub variables: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl<R: Read + Seek> Bundle<R> {
    /// Reads the lock and holds the list of entries, the model, the documents, and every image's configuration and
    /// manifest against it.
    ///
    /// # Errors
    /// [`BundleError::Damaged`] with the first entry that is not what it must be.
    pub fn open(mut input: R) -> Result<Self, BundleError> {
        let index = Index::read(&mut input)?;
        let Some(lock) = index.entries.get(name::LOCK) else {
            let reason = format!("it has no {}", name::LOCK);
            return Err(BundleError::NotABundle(reason));
        };
        let lock = Lock::parse(&document(&mut input, name::LOCK, lock)?)?;
        let mut bundle = Self {
            input,
            index,
            lock,
            model: String::new(),
            variables: BTreeMap::new(),
        };
        bundle.check_entries()?;
        bundle.read_model()?;
        bundle.check_documents()?;
        bundle.check_images()?;
        Ok(bundle)
    }

    /// Reads every file and blob and holds it against its digest. `progress` hears of bytes done.
    ///
    /// # Errors
    /// [`BundleError::Damaged`] with the first entry that has another digest.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), BundleError> {
        for (name, entry) in &self.index.entries {
            let expected = match name::kind(name) {
                Some(Kind::Blob(hex)) => format!("sha256:{hex}"),
                Some(Kind::File(path)) => self.lock.files[path].digest.clone(),
                _ => continue,
            };
            let mut bytes = archive::at(&mut self.input, entry)?;
            let actual = digest_of(name, entry.size, &mut bytes, progress)?;
            same(name, &expected, &actual)?;
        }
        Ok(())
    }

    /// Bytes that [`Bundle::verify`] reads.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.index.entries.values().map(|entry| entry.size).sum()
    }

    /// Digest of the lock: it names the bundle.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub fn digest(&mut self) -> Result<String, BundleError> {
        let entry = self.index.entries[name::LOCK];
        Ok(super::digest(&document(
            &mut self.input,
            name::LOCK,
            &entry,
        )?))
    }

    /// Reads a file of the project.
    ///
    /// # Errors
    /// When there is none of this path, or the archive cannot be read.
    pub fn file(&mut self, path: &str) -> Result<io::Take<&mut R>, BundleError> {
        self.entry(&name::of_file(path))
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// When there is none of this digest, or the archive cannot be read.
    pub fn blob(&mut self, digest: &str) -> Result<io::Take<&mut R>, BundleError> {
        self.entry(&name::of_blob(digest).unwrap_or_default())
    }

    fn entry(&mut self, name: &str) -> Result<io::Take<&mut R>, BundleError> {
        let entry = self.index.entries.get(name).copied();
        let entry = entry.ok_or_else(|| BundleError::damaged(name, "it is missing"))?;
        archive::at(&mut self.input, &entry)
    }

    /// Every entry is expected, every expected one is there, and is as long as it must be.
    fn check_entries(&self) -> Result<(), BundleError> {
        let mut expected: BTreeMap<String, Option<u64>> = BTreeMap::from([
            (name::LOCK.to_owned(), None),
            (name::MODEL.to_owned(), None),
        ]);
        if self.lock.variables.is_some() {
            expected.insert(name::VARIABLES.to_owned(), None);
        }
        for (path, file) in &self.lock.files {
            expected.insert(name::of_file(path), Some(file.size));
        }
        expected.extend(name::DOCUMENTS.map(|name| (name.to_owned(), None)));
        for (digest, size) in self.lock.blobs()? {
            let name = name::of_blob(digest).expect("the lock's digests were checked");
            expected.insert(name, Some(size));
        }
        for (name, size) in &expected {
            let Some(entry) = self.index.entries.get(name) else {
                return Err(BundleError::damaged(
                    name,
                    "the lock names it, and the bundle does not hold it",
                ));
            };
            if size.is_some_and(|size| size != entry.size) {
                let reason = format!(
                    "it has {} bytes, and the lock says {}",
                    entry.size,
                    size.unwrap_or_default()
                );
                return Err(BundleError::damaged(name, reason));
            }
        }
        let own: BTreeSet<&String> = self.index.entries.keys().collect();
        match own.into_iter().find(|name| !expected.contains_key(*name)) {
            Some(name) => Err(BundleError::damaged(name, "the lock does not name it")),
            None => Ok(()),
        }
    }

    fn read_model(&mut self) -> Result<(), BundleError> {
        let entry = self.index.entries[name::MODEL];
        let bytes = document(&mut self.input, name::MODEL, &entry)?;
        same(name::MODEL, &self.lock.model, &super::digest(&bytes))?;
        self.model = String::from_utf8(bytes)
            .map_err(|_| BundleError::damaged(name::MODEL, "it is not UTF-8"))?;
        if let Some(expected) = &self.lock.variables {
            let entry = self.index.entries[name::VARIABLES];
            let bytes = document(&mut self.input, name::VARIABLES, &entry)?;
            same(name::VARIABLES, expected, &super::digest(&bytes))?;
            self.variables = serde_json::from_slice(&bytes)
                .map_err(|error| BundleError::damaged(name::VARIABLES, error.to_string()))?;
        }
        Ok(())
    }

    fn check_documents(&mut self) -> Result<(), BundleError> {
        for (name, expected) in self.lock.documents() {
            let entry = self.index.entries[name];
            if document(&mut self.input, name, &entry)? != expected {
                return Err(BundleError::damaged(
                    name,
                    "it does not say what the lock says",
                ));
            }
        }
        Ok(())
    }

    /// An image's configuration and manifest have their digests and name the layers that the lock names.
    fn check_images(&mut self) -> Result<(), BundleError> {
        let contents: Vec<(String, ImageContent)> = self
            .lock
            .contents()
            .map(|(id, content)| (id.to_owned(), content.clone()))
            .collect();
        for (id, content) in contents {
            let bytes = self.small_blob(&id)?;
            let entry = name::of_blob(&id).unwrap_or_default();
            let config: Config = serde_json::from_slice(&bytes)
                .map_err(|error| BundleError::damaged(&entry, error.to_string()))?;
            let layers = content.layers.iter().map(|layer| &layer.digest);
            if !config.rootfs.diff_ids.iter().eq(layers) {
                return Err(BundleError::damaged(
                    &entry,
                    format!("image {id} has other layers than the lock says"),
                ));
            }
            let manifest = self.small_blob(&content.manifest.digest)?;
            if manifest != super::lock::manifest(&id, content.config_size, &content.layers) {
                return Err(BundleError::damaged(
                    name::of_blob(&content.manifest.digest).unwrap_or_default(),
                    format!("it is not the manifest of image {id}"),
                ));
            }
        }
        Ok(())
    }

    fn small_blob(&mut self, digest: &str) -> Result<Vec<u8>, BundleError> {
        let name = name::of_blob(digest).unwrap_or_default();
        let entry = self.index.entries[&name];
        let bytes = document(&mut self.input, &name, &entry)?;
        same(&name, digest, &super::digest(&bytes))?;
        Ok(bytes)
    }
}

fn same(name: &str, expected: &str, actual: &str) -> Result<(), BundleError> {
    if expected == actual {
        return Ok(());
    }
    let reason = format!("its digest is {actual}, and must be {expected}: copy the bundle again");
    Err(BundleError::damaged(name, reason))
}

/// A small entry, whole.
fn document(
    input: &mut (impl Read + Seek),
    name: &str,
    entry: &Entry,
) -> Result<Vec<u8>, BundleError> {
    if entry.size > MAX_DOCUMENT {
        let reason = format!("it is larger than {} MiB", MAX_DOCUMENT >> 20);
        return Err(BundleError::damaged(name, reason));
    }
    let mut bytes = Vec::new();
    archive::at(input, entry)?
        .read_to_end(&mut bytes)
        .map_err(BundleError::io(format!("read {name}")))?;
    Ok(bytes)
}

fn digest_of(
    name: &str,
    size: u64,
    input: &mut dyn Read,
    progress: &mut dyn FnMut(u64),
) -> Result<String, BundleError> {
    archive::copy(name, size, input, &mut io::sink(), progress)
}

/// A blob's length in the lock and digest.
#[must_use]
pub fn blob_of(bytes: &[u8]) -> Blob {
    Blob {
        digest: super::digest(bytes),
        size: bytes.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock::{LockedImage, LockedService, manifest};
    use super::super::{LockedFile, VERSION, Writer, digest};
    use super::*;
    use std::io::Cursor;

    /// What goes into a small bundle, entry by entry, in order.
    fn parts() -> (Lock, Vec<(String, Vec<u8>)>) {
        let model = b"services: {}\n".to_vec();
        let layers = [vec![1; 3000], vec![2; 10]];
        let mut blobs: BTreeMap<String, Vec<u8>> = layers
            .iter()
            .map(|layer| (digest(layer), layer.clone()))
            .collect();
        let mut images = BTreeMap::new();
        let mut services = BTreeMap::new();
        for (service, used) in [("db", &layers[..1]), ("web", &layers[..])] {
            let diff_ids: Vec<String> = used.iter().map(|layer| digest(layer)).collect();
            let config = serde_json::json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
            let config = config.to_string().into_bytes();
            let (id, layers) = (
                digest(&config),
                used.iter().map(|layer| blob_of(layer)).collect::<Vec<_>>(),
            );
            let manifest = manifest(&id, config.len() as u64, &layers);
            let locked = LockedImage {
                names: BTreeSet::from([format!("{service}:1")]),
                platform: "linux/amd64".to_owned(),
                content: Some(ImageContent {
                    config_size: config.len() as u64,
                    manifest: blob_of(&manifest),
                    layers,
                }),
            };
            let image = format!("{service}:1");
            services.insert(
                service.to_owned(),
                LockedService {
                    image,
                    id: id.clone(),
                },
            );
            images.insert(id.clone(), locked);
            blobs.insert(id, config);
            blobs.insert(digest(&manifest), manifest);
        }
        let lock = Lock {
            version: VERSION,
            project: "shop".to_owned(),
            muster: "0".to_owned(),
            created: String::new(),
            model: digest(&model),
            variables: None,
            services,
            images,
            files: BTreeMap::from([(
                "project/app.conf".to_owned(),
                LockedFile {
                    digest: digest(b"x=1"),
                    size: 3,
                    mode: 0o644,
                    bind: false,
                },
            )]),
            directories: BTreeSet::new(),
            left_out: Vec::new(),
        };
        let mut entries = vec![
            (name::MODEL.to_owned(), model),
            ("muster/project/app.conf".to_owned(), b"x=1".to_vec()),
        ];
        entries.extend(
            blobs
                .into_iter()
                .map(|(digest, bytes)| (name::of_blob(&digest).unwrap(), bytes)),
        );
        entries.extend(
            lock.documents()
                .into_iter()
                .map(|(name, bytes)| (name.to_owned(), bytes)),
        );
        (lock, entries)
    }

    fn archive(lock: &Lock, entries: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (name, bytes) in entries {
            writer.bytes(name, 0o644, bytes).unwrap();
        }
        writer.bytes(name::LOCK, 0o644, &lock.to_bytes()).unwrap();
        writer.finish().unwrap()
    }

    fn open(bytes: Vec<u8>) -> Result<Bundle<Cursor<Vec<u8>>>, BundleError> {
        let mut bundle = Bundle::open(Cursor::new(bytes))?;
        bundle.verify(&mut |_| {})?;
        Ok(bundle)
    }

    #[test]
    fn a_whole_bundle_opens() {
        let (lock, entries) = parts();
        let mut bundle = open(archive(&lock, &entries)).unwrap();
        assert_eq!(bundle.lock, lock);
        assert_eq!(bundle.model, "services: {}\n");
        let mut text = String::new();
        bundle
            .file("project/app.conf")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x=1");
        assert_eq!(bundle.digest().unwrap(), digest(&lock.to_bytes()));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (lock, entries) = parts();
        let whole = archive(&lock, &entries);
        let index = Index::read(&mut Cursor::new(&whole)).unwrap();
        for (name, entry) in &index.entries {
            for at in [0, entry.size / 2, entry.size - 1] {
                let mut bytes = whole.clone();
                bytes[usize::try_from(entry.offset + at).unwrap()] ^= 1;
                let message = open(bytes).unwrap_err().to_string();
                // A lock that still is one speaks of the entry that it is wrong about.
                assert!(
                    name == name::LOCK || message.contains(name),
                    "{name}: {message}"
                );
            }
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let (lock, entries) = parts();
        for left_out in 0..entries.len() {
            let mut fewer = entries.clone();
            let (name, _) = fewer.remove(left_out);
            let message = open(archive(&lock, &fewer)).unwrap_err().to_string();
            assert!(message.contains(&name), "{message}");
        }
        let mut more = entries.clone();
        more.push(("muster/project/extra".to_owned(), Vec::new()));
        let message = open(archive(&lock, &more)).unwrap_err().to_string();
        assert!(
            message.contains("muster/project/extra: the lock does not name it"),
            "{message}"
        );
        let mut writer = Writer::new(Vec::new());
        writer.bytes(name::MODEL, 0o644, b"").unwrap();
        let message = open(writer.finish().unwrap()).unwrap_err().to_string();
        assert!(message.contains("it has no muster/lock.json"), "{message}");
    }

    #[test]
    fn a_lock_with_a_wrong_digest_names_what_it_is_about() {
        let (lock, entries) = parts();
        let other = digest(b"something else");
        let mut wrong = lock.clone();
        wrong.files.get_mut("project/app.conf").unwrap().digest = other.clone();
        let message = open(archive(&wrong, &entries)).unwrap_err().to_string();
        assert!(message.contains("muster/project/app.conf"), "{message}");
        let mut wrong = lock.clone();
        let id = lock.services["web"].id.clone();
        wrong
            .images
            .get_mut(&id)
            .unwrap()
            .content
            .as_mut()
            .unwrap()
            .layers[0]
            .digest = other.clone();
        let message = open(archive(&wrong, &entries)).unwrap_err().to_string();
        assert!(
            message.contains(other.trim_start_matches("sha256:")),
            "{message}"
        );
        // Layers in another order are other layers.
        let mut wrong = lock;
        wrong
            .images
            .get_mut(&id)
            .unwrap()
            .content
            .as_mut()
            .unwrap()
            .layers
            .reverse();
        let mut again = entries;
        again.retain(|(name, _)| !name::DOCUMENTS.contains(&name.as_str()));
        again.extend(
            wrong
                .documents()
                .into_iter()
                .map(|(name, bytes)| (name.to_owned(), bytes)),
        );
        let message = open(archive(&wrong, &again)).unwrap_err().to_string();
        assert!(
            message.contains("has other layers than the lock says"),
            "{message}"
        );
    }
}
