//! Builds tar streams, good and bad, and image archives around them.

use std::io::Write;

use agent_image::Digest;
use serde_json::json;
use tar::{EntryType, Header};

/// A tar stream under construction.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.add(path, EntryType::Regular, "", content.as_ref(), |_| {})
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.add(path, EntryType::Directory, "", b"", |h| h.set_mode(0o755))
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, EntryType::Symlink, target, b"", |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(path, EntryType::Link, target, b"", |_| {})
    }

    pub(crate) fn device(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        self.add(path, kind, "", b"", |h| {
            h.set_device_major(major).unwrap();
            h.set_device_minor(minor).unwrap();
        })
    }

    /// An entry with any header; names are written as they are.
    pub(crate) fn add(
        mut self,
        path: &str,
        kind: EntryType,
        link: &str,
        content: &[u8],
        edit: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        assert!(
            path.len() <= 100 && link.len() <= 100,
            "use pax() for long names"
        );
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        edit(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.payload(content)
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(body, "{length} {key}=").unwrap();
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.add("PaxHeaders/x", EntryType::XHeader, "", &body, |_| {})
    }

    pub(crate) fn payload(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A configuration for these layers.
pub(crate) fn config(layers: &[&[u8]], label: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    let history: Vec<_> = layers
        .iter()
        .map(|_| json!({"created_by": "test"}))
        .collect();
    serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "Labels": {"which": label}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }))
    .unwrap()
}

/// A docker-archive in the manner of `docker save` before 25: a directory per layer.
pub(crate) fn docker_archive(images: &[(&[&[u8]], &[&str])]) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut manifest = Vec::new();
    for (number, (layers, tags)) in images.iter().enumerate() {
        let config = config(layers, &number.to_string());
        let name = format!("{}.json", Digest::of(&config).hex());
        let mut members = Vec::new();
        for (level, layer) in layers.iter().enumerate() {
            let directory = format!("{number}-{level}");
            tar = tar
                .dir(&format!("{directory}/"))
                .file(&format!("{directory}/VERSION"), "1.0")
                .file(&format!("{directory}/layer.tar"), layer);
            members.push(format!("{directory}/layer.tar"));
        }
        tar = tar.add("x", EntryType::Directory, "", b"", |_| {});
        tar = add_long(tar, &name, &config);
        manifest.push(json!({"Config": name, "RepoTags": tags, "Layers": members}));
    }
    tar.file("manifest.json", serde_json::to_vec(&manifest).unwrap())
        .end()
}

/// An OCI layout with one image; `compress` makes the blob of a layer.
pub(crate) fn oci_archive(
    layers: &[&[u8]],
    name: &str,
    compress: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    oci_archive_of(&config(layers, "oci"), layers, name, compress)
}

/// The same with this configuration.
pub(crate) fn oci_archive_of(
    config: &[u8],
    layers: &[&[u8]],
    name: &str,
    compress: impl Fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let blob = |bytes: &[u8], media_type: &str| json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()});
    let mut descriptors = Vec::new();
    for layer in layers {
        let bytes = compress(layer);
        descriptors.push(blob(&bytes, "application/vnd.oci.image.layer.v1.tar+gzip"));
        tar = add_blob(tar, &bytes);
    }
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(config, "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }))
    .unwrap();
    let mut entry = blob(&manifest, "application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]})).unwrap();
    tar = add_blob(add_blob(tar, config), &manifest);
    tar.file("index.json", index).end()
}

pub(crate) fn add_blob(tar: Tar, bytes: &[u8]) -> Tar {
    add_long(
        tar,
        &format!("blobs/sha256/{}", Digest::of(bytes).hex()),
        bytes,
    )
}

fn add_long(tar: Tar, name: &str, bytes: &[u8]) -> Tar {
    tar.file(name, bytes)
}
