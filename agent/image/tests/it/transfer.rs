//! Images from one store to another.

use std::collections::BTreeMap;
use std::io::{self, Read};

use agent_image::{Accept, BlobSource, Digest, Reference, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::archive::{Tar, config, gzip, oci_archive, oci_archive_of};
use crate::layers::tree;
use crate::{Bed, files};

/// Asks another store directly, and remembers for what.
struct Direct<'a> {
    store: &'a Store,
    asked: Mutex<Vec<Digest>>,
    /// What is given instead of a blob's bytes.
    forged: BTreeMap<Digest, Vec<u8>>,
}

impl<'a> Direct<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            asked: Mutex::default(),
            forged: BTreeMap::new(),
        }
    }
}

impl BlobSource for Direct<'_> {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send + '_>> {
        self.asked.lock().push(*blob);
        let mut bytes = self.forged.get(blob).cloned().unwrap_or_default();
        if bytes.is_empty() {
            self.store
                .write_blob(blob, 0, &mut bytes)
                .map_err(io::Error::other)?;
        }
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

fn sample() -> (Bed, Vec<Vec<u8>>) {
    let layers = vec![
        Tar::new().file("base", vec![7; 200_000]).end(),
        Tar::new().file("top", "top").symlink("link", "base").end(),
    ];
    let bed = Bed::new();
    let refs: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    bed.load(&oci_archive(&refs, "app:1", gzip)).unwrap();
    (bed, layers)
}

fn receive(from: &Direct<'_>, to: &Bed) -> Result<agent_image::ImageId, agent_image::ImageError> {
    let offer = from.store.offer("app:1").unwrap();
    let name = Reference::parse("app:1").unwrap();
    take(from, to, &name, &offer.manifest, Accept::Any)
}

fn take(
    from: &Direct<'_>,
    to: &Bed,
    name: &Reference,
    manifest: &Digest,
    accept: Accept,
) -> Result<agent_image::ImageId, agent_image::ImageError> {
    let cancel = CancellationToken::new();
    to.store.receive(name, manifest, accept, from, &cancel)
}

#[test]
fn an_image_arrives_whole_and_only_missing_layers_travel() {
    let (from, layers) = sample();
    let to = Bed::new();
    // The base is there already.
    to.load(&oci_archive(&[&layers[0]], "base:1", gzip))
        .unwrap();
    let source = Direct::new(&from.store);
    let id = receive(&source, &to).unwrap();
    assert_eq!(id, from.store.resolve("app:1").unwrap());
    assert_eq!(to.store.resolve("app:1").unwrap(), id);
    let asked = source.asked.lock();
    assert!(!asked.contains(&Digest::of(&layers[0])));
    assert!(asked.contains(&Digest::of(&layers[1])));
    let (ours, theirs) = (
        to.store.layers(&id).unwrap(),
        from.store.layers(&id).unwrap(),
    );
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(tree(ours), tree(theirs));
    }
    // It can be passed on.
    let third = Bed::new();
    receive(&Direct::new(&to.store), &third).unwrap();
    assert_eq!(third.store.resolve("app:1").unwrap(), id);
}

#[test]
fn a_blob_can_be_read_from_any_offset_and_says_its_length() {
    let (from, layers) = sample();
    let digest = Digest::of(&layers[0]);
    assert_eq!(from.store.blob_size(&digest), Some(layers[0].len() as u64));
    for offset in [0, 1, 700, layers[0].len() - 1, layers[0].len()] {
        let mut bytes = Vec::new();
        from.store
            .write_blob(&digest, offset as u64, &mut bytes)
            .unwrap();
        assert!(bytes == layers[0][offset..], "from {offset}");
    }
    let stranger = Digest::of(b"stranger");
    assert_eq!(from.store.blob_size(&stranger), None);
    assert!(
        from.store
            .write_blob(&stranger, 0, &mut Vec::new())
            .is_err()
    );
}

#[test]
fn nothing_is_believed_that_does_not_have_its_digest() {
    let (from, layers) = sample();
    let offer = from.store.offer("app:1").unwrap();
    let other = Tar::new().file("top", "evil").end();
    for (blob, bytes, text) in [
        (Digest::of(&layers[1]), other, "came with the content of"),
        (Digest::of(&layers[1]), vec![1; 3000], "layer sha256:"),
        (
            *offer.id.digest(),
            b"{}".to_vec(),
            "came with the content of",
        ),
        (offer.manifest, b"{}".to_vec(), "came with the content of"),
        (offer.manifest, vec![b' '; (8 << 20) + 1], "is longer than"),
    ] {
        let to = Bed::new();
        let before = files(to.directory.path());
        let mut source = Direct::new(&from.store);
        source.forged.insert(blob, bytes);
        let error = receive(&source, &to).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(files(to.directory.path()), before);
    }
}

#[test]
fn a_cancelled_transfer_leaves_nothing() {
    let (from, _) = sample();
    let to = Bed::new();
    let before = files(to.directory.path());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let offer = from.store.offer("app:1").unwrap();
    let name = Reference::parse("app:1").unwrap();
    let source = Direct::new(&from.store);
    let outcome = to
        .store
        .receive(&name, &offer.manifest, Accept::Any, &source, &cancel);
    assert!(outcome.is_err());
    assert_eq!(files(to.directory.path()), before);
}

/// What a node answers for a pinned name is believed only if it is what the name says.
#[test]
fn a_pinned_name_takes_its_own_manifest_only() {
    let (from, _) = sample();
    let to = Bed::new();
    let source = Direct::new(&from.store);
    let manifest = from.store.offer("app:1").unwrap().manifest;
    let name = Reference::parse("app").unwrap();
    let other = name.with_digest(Digest::of(b"what was asked for"));
    let refused = take(&source, &to, &other, &manifest, Accept::Any);
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("not what its name is pinned to"), "{told}");
    assert!(source.asked.lock().is_empty());
    let own = name.with_digest(manifest);
    let id = take(&source, &to, &own, &manifest, Accept::Any).unwrap();
    assert_eq!(id, from.store.resolve("app:1").unwrap());
}

#[test]
fn an_image_for_another_machine_is_taken_only_where_it_need_not_run() {
    let layer = Tar::new().file("f", "f").end();
    let config = String::from_utf8(config(&[&layer], "")).unwrap();
    let config = config.replace("amd64", "of-no-machine");
    let foreign = oci_archive_of(config.as_bytes(), &[&layer], "app:1", gzip);
    let (from, to) = (Bed::new(), Bed::new());
    from.load(&foreign).unwrap();
    let source = Direct::new(&from.store);
    let offer = from.store.offer("app:1").unwrap();
    assert_eq!(offer.platform, "linux/of-no-machine");
    let name = Reference::parse("app:1").unwrap();
    let refused = take(&source, &to, &name, &offer.manifest, Accept::Runnable);
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("of-no-machine"), "{told}");
    assert!(to.store.resolve("app:1").is_err());
    take(&source, &to, &name, &offer.manifest, Accept::Any).unwrap();
}
