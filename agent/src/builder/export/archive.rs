//! An image, or one for each of several platforms, as one archive: an OCI layout, and for `docker` what `docker load` of
//! any age reads, too.
//!
//! ```text
//! blobs/sha256/<hex>…   configurations, layers, manifests, and with several platforms an index
//! index.json            what is named
//! manifest.json         docker only
//! oci-layout
//! ```
//!
//! Layers come straight from the store. Those that are compressed go through a file of the build's own, one after the
//! other, because a blob's name is its digest. Source: buildkit `exporter/oci`, containerd `images/archive/exporter.go`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::Path;

use agent_api::build::{ArchiveOutput, BuildResult, CompressionKind};
use agent_image::{Digest, Hasher, Reference, Stopping, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::image::names;
use super::{Built, Export};
use crate::builder::failure::Failure;
use crate::builder::progress::Seat;

/// Which programs are to read the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Oci,
    Docker,
}

/// Words for the parts of an image.
struct MediaTypes {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
    gzip_layer: &'static str,
    index: &'static str,
}

const OCI: MediaTypes = MediaTypes {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar",
    gzip_layer: "application/vnd.oci.image.layer.v1.tar+gzip",
    index: "application/vnd.oci.image.index.v1+json",
};

const DOCKER: MediaTypes = MediaTypes {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar",
    gzip_layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
};

/// One image of the archive.
struct Part {
    config: Vec<u8>,
    layers: Vec<Digest>,
    platform: Value,
}

/// What an archive is to be like.
struct Plan {
    kind: Kind,
    parts: Vec<Part>,
    /// There is an index, also of one image.
    index: bool,
    names: Vec<Reference>,
    types: &'static MediaTypes,
    /// Level of gzip; none: layers are plain.
    gzip: Option<u32>,
    annotations: Value,
    /// Ends it when it is not wanted any more.
    cancel: CancellationToken,
}

impl Export<'_> {
    /// Sends an archive on a channel.
    pub(super) async fn archive(
        &self,
        kind: Kind,
        built: &[Built],
        options: &ArchiveOutput,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        let seat = Seat::begin(
            self.progress,
            match kind {
                Kind::Oci => "exporting to oci image format",
                Kind::Docker => "exporting to docker image format",
            },
        );
        let sent = self.send_archive(kind, built, options, &seat, result).await;
        match &sent {
            Ok(()) => seat.done(),
            Err(failure) => seat.failed(failure.message()),
        }
        sent
    }

    async fn send_archive(
        &self,
        kind: Kind,
        built: &[Built],
        options: &ArchiveOutput,
        seat: &Seat,
        result: &mut BuildResult,
    ) -> Result<(), Failure> {
        let names = names(self.request.tags.iter().chain(&options.names))?;
        let (mut parts, mut own) = (Vec::new(), Vec::new());
        for one in built {
            let image = self.make(one, options.rewrite_timestamp, seat).await?;
            own.push(image.own);
            parts.push(Part {
                config: image.config,
                layers: image.layers.iter().map(|layer| layer.diff_id).collect(),
                platform: json!(one.platform()),
            });
        }
        let oci = options.oci_media_types.unwrap_or(kind == Kind::Oci);
        let plan = Plan {
            kind,
            parts,
            index: self.index,
            names: names.clone(),
            types: if oci { &OCI } else { &DOCKER },
            gzip: gzip(kind, options),
            annotations: annotations(self.request),
            cancel: self.cancel.clone(),
        };
        let mut output = self.open(&options.id).await?;
        let part = seat.part("sending tarball");
        let work = self.shop.work.directory()?;
        let store = self.shop.engine.shared().images.clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = plan.write(&store, work.path(), &mut output.bytes);
            drop(own);
            let described = written
                .map_err(|error| Failure::system(format!("cannot send the image: {error}")))?;
            Ok::<_, Failure>((described, output.taken))
        });
        let (described, taken) = written.await.map_err(|_| Failure::cancelled())??;
        if !matches!(taken.await, Ok(true)) {
            return Err(Failure::system("the client did not take the whole output"));
        }
        part.done();
        let metadata = &mut result.metadata;
        if let Some(config) = described.config {
            metadata.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        metadata.insert(
            "containerimage.digest".to_owned(),
            described.descriptor["digest"].clone(),
        );
        metadata.insert("containerimage.descriptor".to_owned(), described.descriptor);
        if !names.is_empty() {
            let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
            metadata.insert("image.name".to_owned(), json!(joined.join(",")));
        }
        result.names = names.iter().map(Reference::familiar).collect();
        Ok(())
    }
}

/// What was written.
struct Described {
    descriptor: Value,
    /// Digest of the configuration, if there is one.
    config: Option<String>,
}

/// Docker's own archives have plain layers, which cost nothing to make; an OCI layout is what is carried to registries.
fn gzip(kind: Kind, options: &ArchiveOutput) -> Option<u32> {
    let level = options
        .compression
        .level
        .and_then(|level| u32::try_from(level).ok());
    match (options.compression.kind, kind) {
        (Some(CompressionKind::Uncompressed), _) | (None, Kind::Docker) => None,
        (Some(CompressionKind::Gzip | CompressionKind::Zstd), _) | (None, Kind::Oci) => {
            Some(level.unwrap_or(6))
        }
    }
}

/// Annotations of manifests.
fn annotations(request: &agent_api::build::BuildRequest) -> Value {
    let own = request.annotations.iter().map(|(key, value)| {
        let key = key.strip_prefix("manifest:").unwrap_or(key);
        (key.to_owned(), json!(value))
    });
    Value::Object(own.collect())
}

impl Plan {
    fn write(&self, store: &Store, work: &Path, output: &mut dyn Write) -> io::Result<Described> {
        let mut tar = Tar {
            output: &mut Stopping::new(output, &self.cancel),
            written: HashSet::new(),
        };
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        let (mut manifests, mut items, mut config_digest) = (Vec::new(), Vec::new(), None);
        for part in &self.parts {
            let mut layers = Vec::new();
            for layer in &part.layers {
                layers.push(self.layer(store, work, layer, &mut tar)?);
            }
            let config = Digest::of(&part.config);
            tar.blob(&config, &part.config)?;
            config_digest = Some(config.to_string());
            items.push(self.item(&config, &layers));
            let mut manifest = json!({
                "schemaVersion": 2,
                "mediaType": self.types.manifest,
                "config": descriptor(self.types.config, &config, part.config.len() as u64),
                "layers": layers,
            });
            if self
                .annotations
                .as_object()
                .is_some_and(|all| !all.is_empty())
            {
                manifest["annotations"] = self.annotations.clone();
            }
            let manifest = manifest.to_string().into_bytes();
            let digest = Digest::of(&manifest);
            tar.blob(&digest, &manifest)?;
            let mut entry = descriptor(self.types.manifest, &digest, manifest.len() as u64);
            entry["platform"] = part.platform.clone();
            manifests.push(entry);
        }
        let top = match self.index {
            false => manifests.remove(0),
            true => {
                let index = json!({
                    "schemaVersion": 2,
                    "mediaType": self.types.index,
                    "manifests": manifests,
                });
                let index = index.to_string().into_bytes();
                let digest = Digest::of(&index);
                tar.blob(&digest, &index)?;
                descriptor(self.types.index, &digest, index.len() as u64)
            }
        };
        tar.file("index.json", self.index(&top).to_string().as_bytes())?;
        if self.kind == Kind::Docker {
            tar.file("manifest.json", Value::Array(items).to_string().as_bytes())?;
        }
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.output.write_all(&[0; 1024])?;
        tar.output.flush()?;
        Ok(Described {
            descriptor: top,
            config: config_digest.filter(|_| !self.index),
        })
    }

    /// The index of the layout: the image once for each of its names.
    fn index(&self, top: &Value) -> Value {
        let named = self.names.iter().map(|name| {
            let mut entry = top.clone();
            entry["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag(),
            });
            entry
        });
        let mut manifests: Vec<Value> = named.collect();
        if manifests.is_empty() {
            manifests.push(top.clone());
        }
        json!({ "schemaVersion": 2, "mediaType": OCI.index, "manifests": manifests })
    }

    /// What `manifest.json` says of an image.
    fn item(&self, config: &Digest, layers: &[Value]) -> Value {
        let path = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        let layers: Vec<String> = layers
            .iter()
            .filter_map(|layer| Some(path(layer["digest"].as_str()?)))
            .collect();
        let tags: Vec<String> = self.names.iter().map(Reference::familiar).collect();
        json!({ "Config": path(&config.to_string()), "RepoTags": tags, "Layers": layers })
    }

    /// Writes a layer and describes it.
    fn layer(
        &self,
        store: &Store,
        work: &Path,
        layer: &Digest,
        tar: &mut Tar<'_>,
    ) -> io::Result<Value> {
        let Some(level) = self.gzip else {
            let size = store
                .blob_size(layer)
                .ok_or_else(|| io::Error::other(format!("the layer {layer} is gone")))?;
            if tar.begin(layer, size)? {
                store
                    .write_blob(layer, 0, tar.output)
                    .map_err(io::Error::other)?;
                tar.pad(size)?;
            }
            return Ok(descriptor(self.types.layer, layer, size));
        };
        let path = work.join("layer.gz");
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)?;
        let mut hashing = Hashing {
            file,
            digest: Hasher::new(),
            size: 0,
        };
        let mut encoder = GzEncoder::new(&mut hashing, Compression::new(level));
        store
            .write_blob(layer, 0, &mut Stopping::new(&mut encoder, &self.cancel))
            .map_err(io::Error::other)?;
        encoder.finish()?;
        let (digest, size, mut file) = (hashing.digest.finish(), hashing.size, hashing.file);
        if tar.begin(&digest, size)? {
            file.rewind()?;
            io::copy(&mut file, tar.output)?;
            tar.pad(size)?;
        }
        Ok(descriptor(self.types.gzip_layer, &digest, size))
    }
}

/// A file that knows the digest of what was written to it.
struct Hashing {
    file: File,
    digest: Hasher,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

/// Writes ustar members with times of 1970 and owner root, so that equal images make equal archives.
struct Tar<'a> {
    output: &'a mut dyn Write,
    written: HashSet<Digest>,
}

impl Tar<'_> {
    fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, 0, tar::EntryType::Directory, 0o755)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.header(name, size, tar::EntryType::Regular, 0o644)?;
        self.output.write_all(bytes)?;
        self.pad(size)
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        if self.begin(digest, size)? {
            self.output.write_all(bytes)?;
            self.pad(size)?;
        }
        Ok(())
    }

    /// Begins a blob; `false` when it is there already.
    fn begin(&mut self, digest: &Digest, size: u64) -> io::Result<bool> {
        if !self.written.insert(*digest) {
            return Ok(false);
        }
        let name = format!("blobs/sha256/{}", digest.hex());
        self.header(&name, size, tar::EntryType::Regular, 0o644)?;
        Ok(true)
    }

    fn header(&mut self, name: &str, size: u64, kind: tar::EntryType, mode: u32) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.output.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.output.write_all(&[0; 512][..padding])
    }
}
