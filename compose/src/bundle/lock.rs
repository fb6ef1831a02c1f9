//! The lock: what every entry of a bundle must be, which image each service runs, and what was left out.
//!
//! Blobs are named by their digests; the lock says which of them an image consists of. The documents of the OCI layout
//! and of the docker-archive follow from the lock alone, so they cannot say anything else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{BundleError, VERSION, name};

/// Most layers of an image.
const MAX_LAYERS: usize = 1_000;

/// The whole lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Lock {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the project.
    pub project: String,
    /// Version of the muster that wrote the bundle.
    pub muster: String,
    /// When what is in it was made: the youngest image's time, or `SOURCE_DATE_EPOCH`. Not when the bundle was written,
    /// so that writing it again gives the same bytes.
    pub created: String,
    /// Digest of the model.
    pub model: String,
    /// Digest of the variables, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<String>,
    /// What each service runs.
    pub services: BTreeMap<String, LockedService>,
    /// Images by id.
    pub images: BTreeMap<String, LockedImage>,
    /// Files by path below `muster/`.
    pub files: BTreeMap<String, LockedFile>,
    /// Directories that have to be there though they are empty, by path below `muster/`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub directories: BTreeSet<String>,
    /// What the project refers to and the bundle does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// What a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedService {
    /// Image as the service names it.
    pub image: String,
    /// Id of the image.
    pub id: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// The names by which the project refers to it.
    pub names: BTreeSet<String>,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// What it consists of; unset: it is not in the bundle, and the site has to have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ImageContent>,
}

/// The blobs of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageContent {
    /// Bytes of its configuration, whose digest is the image's id.
    pub config_size: u64,
    /// Its manifest.
    pub manifest: Blob,
    /// Its layers as plain tars, lowest first; digests are diff ids.
    pub layers: Vec<Blob>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A file of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// It is bind-mounted: what containers or people make of it at the site is theirs, and is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bind: bool,
}

/// Something the site has to have by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// `secret token`, `bind mount of service web`.
    pub what: String,
    /// Where it is expected: a path as the model has it, or a variable as `$NAME`.
    pub place: String,
}

impl Lock {
    /// As it stands in the bundle.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data has a JSON form");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a lock and checks what can be said of it alone.
    ///
    /// # Errors
    /// For another version, and for what no lock says.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let wrong = |reason: String| BundleError::damaged(name::LOCK, reason);
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(found) => {
                let by = value.get("muster").and_then(Value::as_str);
                return Err(BundleError::Version {
                    found,
                    by: by
                        .unwrap_or("of unknown version")
                        .chars()
                        .take(64)
                        .collect(),
                });
            }
            None => return Err(wrong("it has no version".to_owned())),
        }
        let lock: Self = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        lock.check().map_err(wrong)?;
        Ok(lock)
    }

    fn check(&self) -> Result<(), String> {
        for path in self.files.keys().chain(&self.directories) {
            if !name::is_file(path) {
                return Err(format!("{path:?} is not the path of a file in a bundle"));
            }
        }
        if let Some((path, _)) = self.files.iter().find(|(_, file)| file.mode > 0o777) {
            return Err(format!("{path} has a mode with more than permission bits"));
        }
        for (id, image) in &self.images {
            let layers = image
                .content
                .as_ref()
                .map_or(0, |content| content.layers.len());
            if layers > MAX_LAYERS {
                return Err(format!("image {id} has more than {MAX_LAYERS} layers"));
            }
        }
        let mut digests: Vec<&str> = vec![&self.model];
        digests.extend(self.variables.as_deref());
        digests.extend(self.files.values().map(|file| file.digest.as_str()));
        for (id, image) in &self.images {
            digests.push(id);
            if let Some(content) = &image.content {
                digests.push(&content.manifest.digest);
                digests.extend(content.layers.iter().map(|layer| layer.digest.as_str()));
            }
        }
        if let Some(digest) = digests
            .iter()
            .find(|digest| name::of_blob(digest).is_none())
        {
            return Err(format!("{digest:?} is not a SHA-256 digest"));
        }
        for (service, locked) in &self.services {
            match self.images.get(&locked.id) {
                Some(image) if image.names.contains(&locked.image) => {}
                Some(_) => {
                    return Err(format!(
                        "service {service} calls image {} {}, which is not one of its names",
                        locked.id, locked.image
                    ));
                }
                None => {
                    return Err(format!(
                        "service {service} runs image {}, which the lock does not have",
                        locked.id
                    ));
                }
            }
        }
        let mut known = BTreeMap::new();
        for (id, image) in &self.images {
            for reference in &image.names {
                if let Some(other) = known.insert(reference, id) {
                    return Err(format!("{reference} is the name of {other} and of {id}"));
                }
            }
        }
        Ok(())
    }

    /// The images by the names that the project uses.
    #[must_use]
    pub fn references(&self) -> BTreeMap<&str, &str> {
        let images = self.images.iter();
        images
            .flat_map(|(id, image)| image.names.iter().map(move |name| (&**name, &**id)))
            .collect()
    }

    /// The images that are in the bundle, by id.
    pub fn contents(&self) -> impl Iterator<Item = (&str, &ImageContent)> {
        let images = self.images.iter();
        images.filter_map(|(id, image)| Some((id.as_str(), image.content.as_ref()?)))
    }

    /// Every blob of the images, by digest, with its size.
    ///
    /// # Errors
    /// When one digest has two sizes.
    pub fn blobs(&self) -> Result<BTreeMap<&str, u64>, BundleError> {
        let mut blobs = BTreeMap::new();
        for (id, content) in self.contents() {
            let own = [
                (id, content.config_size),
                (content.manifest.digest.as_str(), content.manifest.size),
            ];
            let layers = content.layers.iter();
            let layers = layers.map(|layer| (layer.digest.as_str(), layer.size));
            for (digest, size) in own.into_iter().chain(layers) {
                if *blobs.entry(digest).or_insert(size) != size {
                    let reason = format!("{digest} has two sizes");
                    return Err(BundleError::damaged(name::LOCK, reason));
                }
            }
        }
        Ok(blobs)
    }

    /// The documents of the OCI layout and of the docker-archive, by name.
    #[must_use]
    pub fn documents(&self) -> BTreeMap<&'static str, Vec<u8>> {
        let mut manifests = Vec::new();
        let mut items = Vec::new();
        for (id, content) in self.contents() {
            let image = &self.images[id];
            let tags: Vec<String> = image.names.iter().filter_map(|name| tag_of(name)).collect();
            let plain = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": content.manifest.digest,
                "size": content.manifest.size,
            });
            for tag in &tags {
                let mut named = plain.clone();
                named["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
                manifests.push(named);
            }
            if tags.is_empty() {
                manifests.push(plain);
            }
            let layers = content.layers.iter().map(|layer| layer.digest.as_str());
            items.push(archive_item(id, &tags, layers));
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let text = |value: Value| value.to_string().into_bytes();
        BTreeMap::from([
            ("index.json", text(index)),
            ("manifest.json", text(Value::Array(items))),
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ])
    }
}

/// One image in the `manifest.json` of a docker-archive.
pub(super) fn archive_item<'a>(
    id: &str,
    tags: &[String],
    layers: impl Iterator<Item = &'a str>,
) -> Value {
    let place = |digest: &str| name::of_blob(digest).unwrap_or_default();
    json!({
        "Config": place(id),
        "RepoTags": (!tags.is_empty()).then_some(tags),
        "Layers": layers.map(place).collect::<Vec<_>>(),
    })
}

/// The manifest of an image whose layers are plain tars.
#[must_use]
pub fn manifest(id: &str, config_size: u64, layers: &[Blob]) -> Vec<u8> {
    // The order of the members is the specification's, as daemons write it.
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| descriptor("layer.v1.tar", layer))
        .collect();
    let config = Blob {
        digest: id.to_owned(),
        size: config_size,
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("config.v1+json", &config),
        layers.join(",")
    )
    .into_bytes()
}

fn descriptor(kind: &str, blob: &Blob) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{}","size":{}}}"#,
        blob.digest, blob.size
    )
}

/// The tag that a reference stands for; `None`: it is a digest or an id, which is no name.
#[must_use]
pub fn tag_of(reference: &str) -> Option<String> {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    let id = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if reference.contains('@') || id {
        return None;
    }
    Some(match last.contains(':') {
        true => reference.to_owned(),
        false => format!("{reference}:latest"),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn digest(number: u8) -> String {
        format!("sha256:{}", hex::encode([number; 32]))
    }

    pub(in super::super) fn lock() -> Lock {
        let blob = |number, size| Blob {
            digest: digest(number),
            size,
        };
        let image = |name: &str, number: u8, layers: Vec<Blob>| LockedImage {
            names: BTreeSet::from([name.to_owned()]),
            platform: "linux/amd64".to_owned(),
            content: Some(ImageContent {
                config_size: 10,
                manifest: blob(number + 1, 20),
                layers,
            }),
        };
        let service = |image: &str, number| LockedService {
            image: image.to_owned(),
            id: digest(number),
        };
        Lock {
            version: VERSION,
            project: "shop".to_owned(),
            muster: "0.1.0".to_owned(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            model: digest(9),
            variables: None,
            services: BTreeMap::from([
                ("db".to_owned(), service("redis:7", 10)),
                ("web".to_owned(), service("team/web", 20)),
            ]),
            images: BTreeMap::from([
                (digest(10), image("redis:7", 10, vec![blob(1, 100)])),
                (
                    digest(20),
                    image("team/web", 20, vec![blob(1, 100), blob(2, 50)]),
                ),
            ]),
            files: BTreeMap::from([(
                "project/app.conf".to_owned(),
                LockedFile {
                    digest: digest(8),
                    size: 3,
                    mode: 0o644,
                    bind: false,
                },
            )]),
            directories: BTreeSet::from(["project/empty".to_owned()]),
            left_out: vec![LeftOut {
                what: "secret token".to_owned(),
                place: "./project/token".to_owned(),
            }],
        }
    }

    #[test]
    fn it_comes_back_and_shares_layers() {
        let lock = lock();
        assert_eq!(Lock::parse(&lock.to_bytes()).unwrap(), lock);
        assert_eq!(lock.blobs().unwrap().len(), 2 + 2 + 2);
        assert_eq!(lock.references()["team/web"], digest(20));
        let documents = lock.documents();
        let items: Value = serde_json::from_slice(&documents["manifest.json"]).unwrap();
        assert_eq!(items[0]["RepoTags"], json!(["redis:7"]));
        assert_eq!(items[1]["RepoTags"], json!(["team/web:latest"]));
        assert_eq!(items[1]["Layers"][0], items[0]["Layers"][0]);
    }

    #[test]
    fn what_no_lock_says_is_refused() {
        let refused = |change: &dyn Fn(&mut Value), word: &str| {
            let mut value = serde_json::to_value(lock()).unwrap();
            change(&mut value);
            let message = Lock::parse(value.to_string().as_bytes())
                .unwrap_err()
                .to_string();
            assert!(message.contains(word), "{message}");
        };
        refused(&|lock| lock["version"] = json!(2), "version 2");
        refused(&|lock| lock["version"] = Value::Null, "no version");
        refused(&|lock| lock["surprise"] = json!(1), "surprise");
        refused(
            &|lock| {
                lock["files"]["project/../../etc/passwd"] =
                    lock["files"]["project/app.conf"].clone()
            },
            "not the path of a file",
        );
        refused(
            &|lock| lock["directories"] = json!(["project/../../etc"]),
            "not the path of a file",
        );
        refused(
            &|lock| lock["files"]["project/app.conf"]["mode"] = json!(0o4755),
            "permission bits",
        );
        refused(
            &|lock| lock["model"] = json!("md5:1"),
            "not a SHA-256 digest",
        );
        refused(
            &|lock| lock["services"]["db"]["id"] = json!(digest(99)),
            "service db runs image",
        );
        refused(
            &|lock| lock["services"]["db"]["image"] = json!("other"),
            "not one of its names",
        );
        refused(
            &|lock| {
                lock["images"][digest(10)]["names"] = json!(["redis:7", "team/web"]);
            },
            "is the name of",
        );
    }

    #[test]
    fn ids_and_digests_are_no_tags() {
        for (reference, tag) in [
            ("redis", Some("redis:latest")),
            ("host:5000/a", Some("host:5000/a:latest")),
            ("host:5000/a:1", Some("host:5000/a:1")),
            ("a@sha256:00", None),
        ] {
            assert_eq!(tag_of(reference).as_deref(), tag, "{reference}");
        }
        assert_eq!(tag_of(&digest(1)), None);
    }

    #[test]
    fn manifests_are_those_daemons_write() {
        let layers = [Blob {
            digest: digest(1),
            size: 5,
        }];
        let text = String::from_utf8(manifest(&digest(2), 7, &layers)).unwrap();
        let (one, two) = (digest(1), digest(2));
        assert_eq!(
            text,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{two}","size":7}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{one}","size":5}}]}}"#
            )
        );
    }
}
