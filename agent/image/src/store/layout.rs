//! An artifact as an OCI layout in a tar: written for a client that unpacks it, read from one that packed it.
//!
//! Layers are packed into a scratch file first, since a blob's name is the digest of what it is not known before; one
//! layer at a time. What is read is spooled to a scratch file and looked into there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use agent_build::go_json;
use tokio_util::sync::CancellationToken;

use super::artifact::ArtifactConfig;
use super::load::Pins;
use super::{Result, Store};
use crate::deflate::Workers;
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::manifest::{
    ANNOTATION_REF_NAME, Descriptor, Index, Manifest, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_MANIFEST,
};
use crate::registry::{Artifact, LayerBlob};
use crate::stopping::Stopping;

/// Bytes of a document in a layout.
const DOCUMENT_MAX: u64 = 8 << 20;
/// Members of a layout.
const MEMBERS_MAX: usize = 65_536;
/// Enough of a layer to tell its compression.
const HEAD_BYTES: u64 = 512;

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// With gzip.
    Gzip,
    /// Not at all.
    Plain,
}

/// How a layout is written.
#[derive(Debug, Clone)]
pub struct LayoutRequest {
    /// What the artifact is called in it.
    pub tag: String,
    /// How layers are packed.
    pub packing: Packing,
    /// A directory for what is packed; the caller removes it.
    pub scratch: PathBuf,
    /// Ends it when it is not wanted any more.
    pub cancel: CancellationToken,
}

/// A layout that was read.
#[derive(Debug)]
pub struct Layout {
    spool: File,
    /// Place and length of each blob in the spool.
    blobs: HashMap<Digest, (u64, u64)>,
    index: Index,
}

impl Layout {
    /// Reads a layout from a tar, through a file in `scratch` that has no name any more afterwards.
    ///
    /// # Errors
    /// It is no layout, or the disk fails.
    pub fn read(input: &mut dyn Read, scratch: &Path) -> Result<Self> {
        let path = scratch.join("layout.tar");
        let mut spool = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(ImageError::io("create", &path))?;
        std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        io::copy(input, &mut spool).map_err(ImageError::Input)?;
        let mut blobs = HashMap::new();
        let mut index = None;
        io::Seek::rewind(&mut spool).map_err(ImageError::io("read", &path))?;
        let mut archive = tar::Archive::new(&spool);
        for (count, entry) in archive.entries().map_err(ImageError::Input)?.enumerate() {
            if count >= MEMBERS_MAX {
                let reason = format!("it has more than {MEMBERS_MAX} members");
                return Err(ImageError::Archive(reason));
            }
            let mut entry = entry.map_err(ImageError::Input)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path_bytes().into_owned();
            let name = String::from_utf8_lossy(&name).into_owned();
            let name = name.trim_start_matches("./");
            if name == "index.json" {
                let mut json = Vec::new();
                (&mut entry)
                    .take(DOCUMENT_MAX)
                    .read_to_end(&mut json)
                    .map_err(ImageError::Input)?;
                let read = go_json::from_slice(&json)
                    .map_err(|error| ImageError::Archive(format!("index.json: {error}")))?;
                index = Some(read);
            } else if let Some(digest) = name
                .strip_prefix("blobs/sha256/")
                .and_then(|hex| Digest::from_hex(hex).ok())
            {
                blobs.insert(digest, (entry.raw_file_position(), entry.size()));
            }
        }
        let missing =
            || ImageError::Archive("it has no index.json: it is no OCI layout".to_owned());
        Ok(Self {
            index: index.ok_or_else(missing)?,
            spool,
            blobs,
        })
    }

    /// The artifact with a configuration of type `config_type`, by its digest or else its tag.
    ///
    /// # Errors
    /// There is none.
    pub fn artifact(&self, tag: &str, digest: &str, config_type: &str) -> Result<Artifact> {
        let wanted = if digest.is_empty() { tag } else { digest };
        let called = |entry: &&Descriptor| match digest.is_empty() {
            true => {
                entry
                    .annotations
                    .get(ANNOTATION_REF_NAME)
                    .map(String::as_str)
                    == Some(tag)
            }
            false => entry.digest.to_string() == digest,
        };
        let found = self.index.manifests.iter().find(called);
        let found = found.ok_or_else(|| {
            ImageError::Archive(format!("the layout has nothing that is called {wanted:?}"))
        })?;
        let wrong =
            |error: serde_json::Error| ImageError::Archive(format!("{}: {error}", found.digest));
        let bytes = self.document(&found.digest)?;
        let (config, layers) = if found.is_index() {
            let index: Index = go_json::from_slice(&bytes).map_err(wrong)?;
            let (config, layers): (Vec<_>, Vec<_>) = index
                .manifests
                .into_iter()
                .partition(|entry| entry.media_type == config_type);
            (config.into_iter().next(), layers)
        } else {
            let manifest: Manifest = go_json::from_slice(&bytes).map_err(wrong)?;
            (Some(manifest.config), manifest.layers)
        };
        let config = config.filter(|config| config.media_type == config_type);
        let config = config.ok_or_else(|| {
            ImageError::Archive(format!("{wanted:?} of the layout has no {config_type}"))
        })?;
        Ok(Artifact {
            config: self.document(&config.digest)?,
            config_type: config.media_type,
            layers: layers.iter().map(LayerBlob::from).collect(),
        })
    }

    fn place(&self, blob: &Digest) -> Result<(u64, u64)> {
        let place = self.blobs.get(blob).copied();
        place.ok_or_else(|| ImageError::Archive(format!("the layout lacks {blob}")))
    }

    /// A document, verified.
    fn document(&self, blob: &Digest) -> Result<Vec<u8>> {
        let (at, len) = self.place(blob)?;
        if len > DOCUMENT_MAX {
            let reason = format!("{blob} is longer than {DOCUMENT_MAX} bytes");
            return Err(ImageError::Archive(reason));
        }
        let mut bytes = vec![0; len as usize];
        self.spool
            .read_exact_at(&mut bytes, at)
            .map_err(ImageError::Input)?;
        let actual = Digest::of(&bytes);
        match actual == *blob {
            true => Ok(bytes),
            false => Err(ImageError::WrongDigest {
                what: "a blob of the layout".to_owned(),
                expected: *blob,
                actual,
            }),
        }
    }
}

/// A part of the spool.
struct Section<'a> {
    spool: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.spool.read_at(&mut buffer[..len], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Store {
    /// Brings layers here that a layout has, and keeps them (see [`Store::keep`]), those that are here already as well.
    ///
    /// # Errors
    /// The layout lacks one, or it is not what it should be.
    pub fn layers_of_layout(&self, layout: &Layout, layers: &[(LayerBlob, Digest)]) -> Result<()> {
        // Held until they are kept.
        let pins = Pins::new(self);
        let mut unfinished = Vec::new();
        for (blob, diff_id) in layers {
            if pins.find(diff_id).is_some() {
                continue;
            }
            let (at, left) = layout.place(&blob.digest)?;
            let mut section = Section {
                spool: &layout.spool,
                at,
                left,
            };
            let mut head = Vec::new();
            (&mut section)
                .take(HEAD_BYTES)
                .read_to_end(&mut head)
                .map_err(ImageError::Input)?;
            let (layer, _) =
                self.layers
                    .ingest(&head, &mut section, &|_| {})
                    .map_err(|source| ImageError::Layer {
                        layer: blob.digest.to_string(),
                        source,
                    })?;
            let actual = layer.layer.diff_id;
            if actual != *diff_id {
                return Err(ImageError::WrongDigest {
                    what: format!("layer {}", blob.digest),
                    expected: *diff_id,
                    actual,
                });
            }
            unfinished.push(layer);
        }
        self.add_kept(unfinished)?;
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
        self.keep(&diff_ids)
    }

    /// Writes layers and a configuration, made of how the layers are packed, as a layout in a tar. Returns the digest of the
    /// manifest.
    ///
    /// # Errors
    /// A layer is not here or damaged, the scratch directory or the output fails.
    pub fn write_layout(
        &self,
        request: &LayoutRequest,
        layers: &[Digest],
        config: &ArtifactConfig<'_>,
        output: &mut dyn Write,
    ) -> Result<Digest> {
        // Nothing of them may be removed while it is being read.
        let pins = Pins::new(self);
        let mut packed: HashMap<Digest, LayerBlob> = HashMap::new();
        let mut output = Stopping::new(output, &request.cancel);
        let output: &mut dyn Write = &mut output;
        let mut tar = tar::Builder::new(output);
        add(
            &mut tar,
            "oci-layout",
            br#"{"imageLayoutVersion": "1.0.0"}"#,
        )?;
        for diff_id in layers {
            if packed.contains_key(diff_id) {
                continue;
            }
            pins.find(diff_id);
            let blob = self.pack_into(&mut tar, request, diff_id)?;
            packed.insert(*diff_id, blob);
        }
        let blobs: Vec<LayerBlob> = layers.iter().map(|id| packed[id].clone()).collect();
        let media_type = config.media_type;
        let config = (config.make)(&blobs);
        let config_digest = Digest::of(&config);
        add(&mut tar, &blob_name(&config_digest), &config)?;
        let mut named: Vec<Descriptor> = Vec::new();
        for blob in &blobs {
            if named.iter().all(|known| known.digest != blob.digest) {
                named.push(blob.descriptor());
            }
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::new(media_type, config_digest, config.len() as u64),
            layers: named,
        };
        let manifest = json(&manifest);
        let digest = Digest::of(&manifest);
        add(&mut tar, &blob_name(&digest), &manifest)?;
        let mut entry = Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64);
        entry
            .annotations
            .insert(ANNOTATION_REF_NAME.to_owned(), request.tag.clone());
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests: vec![entry],
        };
        add(&mut tar, "index.json", &json(&index))?;
        tar.into_inner().map_err(ImageError::Output)?;
        Ok(digest)
    }

    fn pack_into(
        &self,
        tar: &mut tar::Builder<&mut dyn Write>,
        request: &LayoutRequest,
        diff_id: &Digest,
    ) -> Result<LayerBlob> {
        if request.packing == Packing::Plain {
            let size = self.layers.get(diff_id)?.tar_size;
            // Named before it is written: its digest is known.
            let path = request.scratch.join("layer");
            let file = File::create(&path).map_err(ImageError::io("create", &path))?;
            let mut file = Stopping::new(file, &request.cancel);
            self.layers.write_tar(diff_id, &mut file)?;
            add_file(tar, diff_id, size, &path)?;
            return Ok(LayerBlob {
                digest: *diff_id,
                size,
                media_type: OCI_LAYER.to_owned(),
            });
        }
        let path = request.scratch.join("layer");
        let file = File::create(&path).map_err(ImageError::io("create", &path))?;
        let hashed = Hashed {
            hasher: Hasher::new(),
            size: 0,
            output: io::BufWriter::new(file),
        };
        let mut hashed = std::thread::scope(|scope| {
            let workers = Workers::start(scope);
            let mut gzip = workers.writer(hashed);
            let mut input = Stopping::new(&mut gzip, &request.cancel);
            self.layers.write_tar(diff_id, &mut input)?;
            gzip.finish().map_err(ImageError::io("write", &path))
        })?;
        hashed
            .output
            .flush()
            .map_err(ImageError::io("write", &path))?;
        let (digest, size) = (hashed.hasher.finish(), hashed.size);
        add_file(tar, &digest, size, &path)?;
        Ok(LayerBlob {
            digest,
            size,
            media_type: OCI_LAYER_GZIP.to_owned(),
        })
    }
}

fn add_file(
    tar: &mut tar::Builder<&mut dyn Write>,
    digest: &Digest,
    size: u64,
    path: &Path,
) -> Result<()> {
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    let mut header = header(size);
    tar.append_data(&mut header, blob_name(digest), file)
        .map_err(ImageError::Output)
}

fn add(tar: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = header(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes)
        .map_err(ImageError::Output)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data has a JSON form")
}

/// Hashes and counts what passes.
struct Hashed<W> {
    hasher: Hasher,
    size: u64,
    output: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
