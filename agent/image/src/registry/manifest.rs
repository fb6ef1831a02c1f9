//! Which image a reference means: the manifest, verified, and one platform out of an index.

use agent_build::go_json;
use agent_build::plan::Platform;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::de::DeserializeOwned;

use super::Session;
use super::error::RegistryError;
use super::transport::Ask;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Index, Manifest, OCI_INDEX, OCI_MANIFEST,
};
use crate::platform::rank;

/// Bytes of a manifest or index, as distribution and Docker have it.
const MANIFEST_MAX: u64 = 4 << 20;
/// Levels of indexes within indexes.
const DEPTH_MAX: usize = 4;
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// A manifest or index as it came.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Found {
    /// Whether it is an index rather than an image.
    pub(super) fn is_index(&self) -> bool {
        self.descriptor().is_index()
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.bytes.len() as u64)
    }
}

impl Session<'_> {
    /// What the session's reference names.
    pub(crate) fn resolve(&self) -> Result<Found, RegistryError> {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => self.manifest(&digest.to_string(), Some(digest)),
            (None, tag) => self.manifest(tag.unwrap_or("latest"), None),
        }
    }

    /// The image manifest for a platform (this machine's by default), out of what [`Session::resolve`] found.
    pub(crate) fn image(
        &self,
        found: &Found,
        platform: Option<&Platform>,
    ) -> Result<(Found, Manifest), RegistryError> {
        let mut found = found.clone();
        for _ in 0..DEPTH_MAX {
            if !found.is_index() {
                let manifest: Manifest = self.parse(&found)?;
                if !manifest.config.is_config() {
                    let reason = format!(
                        "it is not a container image: its configuration is {:?}",
                        manifest.config.media_type
                    );
                    return Err(self.protocol(&found.digest.to_string(), reason));
                }
                return Ok((found, manifest));
            }
            let index: Index = self.parse(&found)?;
            let descriptor = choose(&index.manifests, platform).ok_or_else(|| {
                let offered: Vec<String> = index.manifests.iter().filter_map(platform_of).collect();
                RegistryError::NoPlatform {
                    reference: self.reference.familiar(),
                    wanted: platform.map_or_else(ImageConfig::machine, Platform::to_string),
                    offered: offered.join(", "),
                }
            })?;
            found = self.manifest(&descriptor.digest.to_string(), Some(&descriptor.digest))?;
        }
        let reason = format!("indexes are nested more than {DEPTH_MAX} deep");
        Err(self.protocol(&found.digest.to_string(), reason))
    }

    /// The platforms of what [`Session::resolve`] found.
    pub(super) fn platforms(&self, found: &Found) -> Result<Vec<String>, RegistryError> {
        if found.is_index() {
            let index: Index = self.parse(found)?;
            return Ok(index.manifests.iter().filter_map(platform_of).collect());
        }
        let manifest: Manifest = self.parse(found)?;
        let bytes = self.small_blob(&manifest.config)?;
        let config = ImageConfig::from_json(&bytes)
            .map_err(|error| self.protocol(&manifest.config.digest.to_string(), error))?;
        Ok(vec![config.platform()])
    }

    fn manifest(&self, name: &str, digest: Option<&Digest>) -> Result<Found, RegistryError> {
        let path = format!("/v2/{}/manifests/{name}", self.reference.path());
        let mut ask = Ask::get(&*path);
        for kind in [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST] {
            ask = ask.header(ACCEPT, kind);
        }
        let reply = self.ask(ask).map_err(|error| match error {
            RegistryError::Status { status, .. } if status == StatusCode::NOT_FOUND.as_u16() => {
                RegistryError::ManifestUnknown(self.reference.familiar())
            }
            other => other,
        })?;
        let header = |name: &str| reply.headers().get(name)?.to_str().ok().map(str::to_owned);
        let told: Option<Digest> = match header("docker-content-digest").map(|text| text.parse()) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            // Another algorithm: the content is verified with ours where it matters.
            Some(Err(_)) => None,
        };
        let kind = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = self.read_all(&path, reply, MANIFEST_MAX)?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = digest
            .copied()
            .or(told)
            .filter(|expected| *expected != actual)
        {
            return Err(RegistryError::Digest {
                what: self.endpoint.url(&path),
                expected,
                actual,
            });
        }
        let media_type = media_type(kind, &bytes).map_err(|reason| self.protocol(&path, reason))?;
        Ok(Found {
            media_type,
            digest: actual,
            bytes,
        })
    }

    fn parse<T: DeserializeOwned>(&self, found: &Found) -> Result<T, RegistryError> {
        go_json::from_slice(&found.bytes)
            .map_err(|error| self.protocol(&found.digest.to_string(), error))
    }
}

/// The document's own word goes before the header, which must not contradict it (CVE-2021-41190).
fn media_type(header: String, bytes: &[u8]) -> Result<String, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = go_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if shape.schema_version == 1 || header.starts_with(SCHEMA_1) {
        return Err(
            "the image is in the format schema 1 of before 2016: build or push it again with a newer tool"
                .to_owned(),
        );
    }
    if shape.manifests.is_some() && shape.layers.is_some() {
        return Err("it is a manifest and an index at once".to_owned());
    }
    let media_type = match (&*shape.media_type, &*header) {
        ("", header) => header,
        (own, _) => own,
    };
    let descriptor = Descriptor::new(media_type, Digest::of(bytes), 0);
    match (descriptor.is_index(), descriptor.is_manifest()) {
        (true, _) if shape.layers.is_none() => Ok(media_type.to_owned()),
        (_, true) if shape.manifests.is_none() => Ok(media_type.to_owned()),
        (false, false) => Err(format!(
            "it has the media type {media_type:?}, which is neither an image manifest nor an index"
        )),
        _ => Err(format!("it is not the {media_type} that it calls itself")),
    }
}

fn platform_of(descriptor: &Descriptor) -> Option<String> {
    let platform = descriptor.platform.as_ref()?;
    if descriptor.is_attestation() {
        return None;
    }
    Some(Platform::from(platform).to_string())
}

/// The entry that fits `wanted` (this machine by default) best.
fn choose<'a>(entries: &'a [Descriptor], wanted: Option<&Platform>) -> Option<&'a Descriptor> {
    let host = Platform::host();
    let wanted = wanted.unwrap_or(&host);
    let images = || entries.iter().filter(|entry| !entry.is_attestation());
    let best = images()
        .filter_map(|entry| Some((rank(wanted, &entry.platform.as_ref()?.into())?, entry)))
        // Of equals the first.
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry);
    // An index of one entry that does not say what it is for is taken at its silence.
    best.or_else(|| match images().collect::<Vec<_>>()[..] {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        let mut parts = platform.split('/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        Descriptor {
            platform: Some(crate::manifest::Platform {
                os: part(),
                architecture: part(),
                variant: part(),
            }),
            ..Descriptor::new(OCI_MANIFEST, Digest::of(platform.as_bytes()), 1)
        }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let offered = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm64/v8",
            "linux/amd64/v3",
            "linux/amd64",
            "windows/amd64",
            "unknown/unknown",
        ];
        let entries: Vec<Descriptor> = offered.iter().map(|text| entry(text)).collect();
        for (wanted, expected) in [
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64/v8", Some("linux/arm64/v8")),
            ("arm64", Some("linux/arm64/v8")),
            ("aarch64", Some("linux/arm64/v8")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("armel", Some("linux/arm/v6")),
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v4", Some("linux/amd64/v3")),
            ("linux/amd64/v2", Some("linux/amd64")),
            ("windows/amd64", Some("windows/amd64")),
            ("linux/s390x", None),
        ] {
            let wanted = wanted.parse().unwrap();
            let chosen = choose(&entries, Some(&wanted)).and_then(platform_of);
            assert_eq!(chosen.as_deref(), expected, "{wanted}");
        }
    }

    #[test]
    fn a_document_must_be_what_it_says() {
        let of = |header: &str, text: &str| media_type(header.to_owned(), text.as_bytes());
        let plain = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(of(DOCKER_MANIFEST, plain).as_deref(), Ok(DOCKER_MANIFEST));
        assert!(of("text/html", plain).is_err());
        assert!(of(OCI_INDEX, plain).is_err());
        assert!(
            of(
                OCI_INDEX,
                r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#
            )
            .is_err()
        );
        assert!(
            of("", r#"{"schemaVersion":1}"#)
                .unwrap_err()
                .contains("schema 1")
        );
        assert!(of(OCI_INDEX, "<html>").is_err());
    }
}
