//! An image of an OCI layout as a context (`oci-layout://path[:tag][@digest]`): of the layout only what the image needs is
//! sent, as a layout of its own without names. Source: OCI image-spec `image-layout.md`, buildx `build/opt.go`.
//!
//! Must not: look into layers. What is sent is verified where it arrives.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Longest manifest or index.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Blobs of one image, its platforms together.
const MAX_BLOBS: usize = 10_000;
/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// The annotation that is a tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// An image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutImage {
    path: PathBuf,
    /// `index.json` with this image alone.
    index: Vec<u8>,
    digest: String,
    /// Names of the files below `blobs/`.
    blobs: BTreeSet<String>,
}

impl LayoutImage {
    /// Finds an image: by digest, by tag, else `latest` or the only one there is.
    ///
    /// # Errors
    /// The directory is no layout, has no such image, or lacks a part of it; the text names the file.
    pub fn find(path: &Path, reference: &str) -> io::Result<Self> {
        let index = document(&path.join("index.json")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => other(format!(
                "{} is no OCI layout: it has no index.json",
                path.display()
            )),
            _ => error,
        })?;
        let mut descriptor = match reference.contains(':') {
            true => by_digest(path, &index, reference)?,
            false => by_tag(path, &index, reference)?,
        };
        // A name would be given to the image where it arrives.
        if let Some(members) = descriptor.as_object_mut() {
            members.shift_remove("annotations");
        }
        let digest = text(&descriptor, "digest").to_owned();
        let mut blobs = BTreeSet::new();
        collect(path, &descriptor, &mut blobs, 0)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        Ok(Self {
            path: path.to_owned(),
            index: index.to_string().into_bytes(),
            digest,
            blobs,
        })
    }

    /// Digest of its manifest or index.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes it as a tar.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(to);
        for (name, bytes) in [
            ("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
            ("index.json", &self.index),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)?;
        }
        for blob in &self.blobs {
            let name = format!("blobs/{blob}");
            let path = self.path.join(&name);
            let mut file = File::open(&path).map_err(|error| at(&path, error))?;
            let mut header = tar::Header::new_ustar();
            let metadata = file.metadata()?;
            header.set_mode(0o644);
            header.set_size(metadata.len());
            tar.append_data(&mut header, &name, &mut file)
                .map_err(|error| at(&path, error))?;
        }
        tar.into_inner()?.flush()
    }
}

fn other(reason: String) -> io::Error {
    io::Error::other(reason)
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// A JSON file, bounded.
fn document(path: &Path) -> io::Result<Value> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| at(path, error))?;
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let reason = format!("it has more than {MAX_DOCUMENT} bytes");
        return Err(at(path, other(reason)));
    }
    serde_json::from_slice(&bytes).map_err(|error| at(path, error.into()))
}

fn manifests(index: &Value) -> impl Iterator<Item = &Value> {
    index["manifests"].as_array().into_iter().flatten()
}

fn by_tag(path: &Path, index: &Value, tag: &str) -> io::Result<Value> {
    let wanted = if tag.is_empty() { "latest" } else { tag };
    let named = |descriptor: &&Value| descriptor["annotations"][TAG].as_str() == Some(wanted);
    if let Some(found) = manifests(index).find(named) {
        return Ok(found.clone());
    }
    if let (true, [only]) = (tag.is_empty(), &manifests(index).collect::<Vec<_>>()[..]) {
        return Ok((*only).clone());
    }
    let tags = manifests(index).filter_map(|descriptor| descriptor["annotations"][TAG].as_str());
    let tags: Vec<&str> = tags.collect();
    Err(other(format!(
        "{} has no image with the tag {wanted:?}, only {tags:?}: write oci-layout://path:tag or path@digest",
        path.display()
    )))
}

/// A descriptor of the index, or one made of the blob itself.
fn by_digest(path: &Path, index: &Value, digest: &str) -> io::Result<Value> {
    if let Some(found) = manifests(index).find(|found| text(found, "digest") == digest) {
        return Ok(found.clone());
    }
    let blob = path.join("blobs").join(file_of(digest)?);
    let manifest = document(&blob)?;
    let size = std::fs::metadata(&blob)?.len();
    let kind = match text(&manifest, "mediaType") {
        "" if manifest["manifests"].is_array() => "application/vnd.oci.image.index.v1+json",
        "" => "application/vnd.oci.image.manifest.v1+json",
        kind => kind,
    };
    Ok(json!({"mediaType": kind, "digest": digest, "size": size}))
}

/// `sha256:<hex>` as a name below `blobs/`.
fn file_of(digest: &str) -> io::Result<String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(other(format!("{digest:?} is not sha256:<64 hex digits>")));
    }
    Ok(format!("sha256/{hex}"))
}

/// Everything that a descriptor leads to. Of several platforms a layout may lack some.
fn collect(
    path: &Path,
    descriptor: &Value,
    blobs: &mut BTreeSet<String>,
    depth: usize,
) -> io::Result<()> {
    let name = file_of(text(descriptor, "digest"))?;
    let blob = path.join("blobs").join(&name);
    let manifest = document(&blob)?;
    blobs.insert(name);
    if depth >= MAX_DEPTH || blobs.len() > MAX_BLOBS {
        let reason = "it is nested too deep, or has too many parts".to_owned();
        return Err(at(&blob, other(reason)));
    }
    for child in manifests(&manifest) {
        match collect(path, child, blobs, depth + 1) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            collected => collected?,
        }
    }
    let layers = manifest["layers"].as_array().into_iter().flatten();
    let config = Some(&manifest["config"]).filter(|config| config.is_object());
    for part in config.into_iter().chain(layers) {
        let name = file_of(text(part, "digest"))?;
        let file = path.join("blobs").join(&name);
        std::fs::metadata(&file).map_err(|error| at(&file, error))?;
        blobs.insert(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
            Self(directory)
        }

        /// A blob under a digest that is easy to tell; a descriptor of it.
        fn blob(&self, digit: char, content: &Value) -> Value {
            let hex = digit.to_string().repeat(64);
            let path = self.0.path().join(format!("blobs/sha256/{hex}"));
            fs::write(path, content.to_string()).unwrap();
            json!({"mediaType": "x", "digest": format!("sha256:{hex}"), "size": 1})
        }

        fn image(&self, digits: [char; 3]) -> Value {
            let [manifest, config, layer] = digits;
            let config = self.blob(config, &json!({}));
            let layer = self.blob(layer, &json!("layer"));
            self.blob(manifest, &json!({"config": config, "layers": [layer]}))
        }

        fn index(&self, manifests: Value) {
            let text = json!({"manifests": manifests}).to_string();
            fs::write(self.0.path().join("index.json"), text).unwrap();
        }

        fn find(&self, reference: &str) -> io::Result<LayoutImage> {
            LayoutImage::find(self.0.path(), reference)
        }
    }

    fn tagged(mut descriptor: Value, tag: &str) -> Value {
        descriptor["annotations"] = json!({TAG: tag});
        descriptor
    }

    fn names(image: &LayoutImage) -> String {
        let blobs = image.blobs.iter().map(|blob| &blob["sha256/".len()..][..1]);
        blobs.collect()
    }

    #[test]
    fn images_are_found_by_tag_and_digest_with_what_they_need() {
        let layout = Layout::new();
        let one = layout.image(['1', 'a', 'b']);
        let two = layout.image(['2', 'c', 'b']);
        layout.index(json!([tagged(one, "1"), tagged(two, "latest")]));
        assert_eq!(names(&layout.find("1").unwrap()), "1ab");
        assert_eq!(names(&layout.find("").unwrap()), "2bc");
        let digest = format!("sha256:{}", "1".repeat(64));
        let found = layout.find(&digest).unwrap();
        assert_eq!((names(&found).as_str(), found.digest()), ("1ab", &*digest));
        let error = layout.find("3").unwrap_err().to_string();
        assert!(
            error.contains("\"3\"") && error.contains("latest"),
            "{error}"
        );
        let error = layout.find("sha256:../../../etc/passwd").unwrap_err();
        assert!(error.to_string().contains("64 hex"), "{error}");
    }

    #[test]
    fn of_an_index_the_platforms_that_are_there_are_sent() {
        let layout = Layout::new();
        let here = layout.image(['1', 'a', 'b']);
        let gone = json!({"digest": format!("sha256:{}", "9".repeat(64))});
        let index = layout.blob('5', &json!({"manifests": [here, gone]}));
        layout.index(json!([index]));
        let image = layout.find("").unwrap();
        assert_eq!(names(&image), "15ab");
        let mut tar = Vec::new();
        image.write(&mut tar).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths[..2], ["oci-layout", "index.json"]);
        assert_eq!(paths.len(), 6);
        assert!(!String::from_utf8_lossy(&image.index).contains("annotations"));
    }

    #[test]
    fn what_is_missing_or_endless_is_said() {
        let layout = Layout::new();
        let error = layout.find("").unwrap_err().to_string();
        assert!(error.contains("no OCI layout"), "{error}");
        let image = layout.image(['1', 'a', 'b']);
        fs::remove_file(
            layout
                .0
                .path()
                .join(format!("blobs/sha256/{}", "b".repeat(64))),
        )
        .unwrap();
        layout.index(json!([image]));
        let error = layout.find("").unwrap_err().to_string();
        assert!(error.contains(&"b".repeat(64)), "{error}");
        // An index that contains itself.
        let own = json!({"digest": format!("sha256:{}", "7".repeat(64))});
        let round = layout.blob('7', &json!({"manifests": [own]}));
        layout.index(json!([round]));
        assert!(
            layout
                .find("")
                .unwrap_err()
                .to_string()
                .contains("too deep")
        );
    }
}
