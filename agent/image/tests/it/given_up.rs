//! Whoever wanted an image leaves, at any moment: nothing of it is there afterwards, and the next one gets it.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_image::{
    Accept, BlobSource, Digest, ImageError, ImportOptions, ListFilter, LoadOptions, Reference,
    Store, silent,
};
use tokio_util::sync::CancellationToken;

use crate::Bed;
use crate::archive::{Tar, docker_archive, gzip, oci_archive};

/// Between two moments, in bytes of an archive: never at the same place of a member.
const STEP: usize = 509;

/// A client that is gone after so many bytes.
struct Leaving<'a>(&'a [u8]);

impl Read for Leaving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.is_empty() {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => self.0.read(buffer),
        }
    }
}

fn layers() -> [Vec<u8>; 2] {
    [
        Tar::new().dir("bin/").file("bin/sh", vec![7; 3000]).end(),
        Tar::new().file("etc/motd", "hello").end(),
    ]
}

/// Does something with the beginnings of an archive, and in the end with all of it.
fn at_every_moment(
    archive: &[u8],
    work: impl Fn(&Store, &mut (dyn Read + Send)) -> Result<(), ImageError>,
) {
    let bed = Bed::new();
    let before = bed.files();
    for left in (0..archive.len()).step_by(STEP) {
        let done = work(&bed.store, &mut Leaving(&archive[..left]));
        assert!(done.is_err(), "{left} of {} bytes", archive.len());
        assert_eq!(bed.files(), before, "{left} of {} bytes", archive.len());
        assert!(bed.store.list(&ListFilter::default()).unwrap().is_empty());
    }
    work(&bed.store, &mut &archive[..]).unwrap();
    assert_eq!(bed.store.list(&ListFilter::default()).unwrap().len(), 1);
}

#[test]
fn of_a_load() {
    let layers = layers();
    let refs = [&layers[0][..], &layers[1][..]];
    let docker = docker_archive(&[(&refs, &["app:1"])]);
    let oci = oci_archive(&refs, "app:1", gzip);
    for archive in [&docker, &oci, &gzip(&docker)] {
        at_every_moment(archive, |store, mut input| {
            let options = LoadOptions::default();
            store.load(&mut input, &options, &silent).map(drop)
        });
    }
}

#[test]
fn of_an_import() {
    let [layer, _] = layers();
    for archive in [&layer, &gzip(&layer)] {
        at_every_moment(archive, |store, mut input| {
            let options = ImportOptions {
                reference: Some(Reference::parse("app:1").unwrap()),
                ..ImportOptions::default()
            };
            store.import(&mut input, &options, &silent).map(drop)
        });
    }
}

/// Another store, whose receiver is given up when it reads for the so-manieth time.
struct Source<'a> {
    store: &'a Store,
    cancel: CancellationToken,
    reads: &'a AtomicUsize,
    at: usize,
}

impl Source<'_> {
    fn tick(&self) {
        if self.reads.fetch_add(1, Ordering::SeqCst) == self.at {
            self.cancel.cancel();
        }
    }
}

impl BlobSource for Source<'_> {
    fn open(&self, blob: &Digest) -> io::Result<Box<dyn Read + Send + '_>> {
        self.tick();
        let mut bytes = Vec::new();
        let written = self.store.write_blob(blob, 0, &mut bytes);
        written.map_err(io::Error::other)?;
        Ok(Box::new(Ticking {
            bytes: io::Cursor::new(bytes),
            source: self,
        }))
    }
}

struct Ticking<'a> {
    bytes: io::Cursor<Vec<u8>>,
    source: &'a Source<'a>,
}

impl Read for Ticking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.tick();
        // Little at a time: more moments.
        let len = buffer.len().min(700);
        self.bytes.read(&mut buffer[..len])
    }
}

#[test]
fn of_a_copy_between_stores() {
    let layers = layers();
    let from = Bed::new();
    let refs = [&layers[0][..], &layers[1][..]];
    from.load(&docker_archive(&[(&refs, &["app:1"])])).unwrap();
    let offer = from.store.offer("app:1").unwrap();
    let name = Reference::parse("app:1").unwrap();
    let to = Bed::new();
    let before = to.files();
    let mut given_up = 0;
    for at in 0.. {
        let (cancel, reads) = (CancellationToken::new(), AtomicUsize::new(0));
        let source = Source {
            store: &from.store,
            cancel: cancel.clone(),
            reads: &reads,
            at,
        };
        let done = to
            .store
            .receive(&name, &offer.manifest, Accept::Any, &source, &cancel);
        match done {
            Ok(_) if !cancel.is_cancelled() => break,
            // Given up when everything was there: it is there whole, or not at all.
            Ok(id) => {
                assert_eq!(to.store.layers(&id).unwrap().len(), 2);
                break;
            }
            Err(_) => {
                given_up += 1;
                assert_eq!(to.files(), before, "at read {at}");
            }
        }
    }
    assert!(given_up > 10, "{given_up} moments");
    assert_eq!(to.store.resolve("app:1").unwrap(), offer.id);
}
