//! The OCI layout: `index.json` leads to manifests, these to a configuration and layers, all by digest.

use agent_build::go_json;
use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::archive::Archive;
use super::docker::{no_such_platform, parse_config};
use super::{Candidate, Result};
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::manifest::{ANNOTATION_NAME, ANNOTATION_REF_NAME, Descriptor, Index, Manifest};
use crate::reference::Reference;

/// An image manifest with its configuration.
struct Found {
    descriptor: Descriptor,
    manifest: Manifest,
    config: ImageConfig,
}

pub(super) fn images(
    archive: &Archive,
    limits: &Limits,
    platform: Option<&str>,
) -> Result<Vec<Candidate>> {
    let index: Index = parse("index.json", archive.json("index.json")?)?;
    // Several descriptors of one name are its platforms; so are those without any name.
    let mut by_name: IndexMap<Option<Reference>, Vec<Found>> = IndexMap::new();
    let mut budget = limits.images;
    for descriptor in index.manifests {
        let name = name_of(&descriptor)?;
        let found = by_name.entry(name).or_default();
        collect(
            archive,
            limits,
            descriptor,
            limits.index_depth,
            &mut budget,
            found,
        )?;
    }
    let mut candidates: IndexMap<_, Candidate> = IndexMap::new();
    for (name, found) in by_name {
        for image in choose(found, platform)? {
            let digest = image.manifest.config.digest;
            if let Some(candidate) = candidates.get_mut(&digest) {
                candidate.tags.extend(name.clone());
                continue;
            }
            candidates.insert(digest, candidate(archive, image, name.clone())?);
        }
    }
    Ok(candidates.into_values().collect())
}

/// containerd's full name, or OCI's free text where that is more than a bare tag (as skopeo writes it).
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>> {
    let text = match descriptor.annotations.get(ANNOTATION_NAME) {
        Some(name) => name,
        None => match descriptor.annotations.get(ANNOTATION_REF_NAME) {
            Some(name) if name.contains([':', '/']) => name,
            _ => return Ok(None),
        },
    };
    let reference = Reference::parse(text)?.with_default_tag();
    Ok(reference.tag().is_some().then_some(reference))
}

/// All image manifests that `descriptor` leads to.
fn collect(
    archive: &Archive,
    limits: &Limits,
    descriptor: Descriptor,
    depth: usize,
    budget: &mut usize,
    found: &mut Vec<Found>,
) -> Result<()> {
    if descriptor.is_attestation() {
        return Ok(());
    }
    *budget = budget.checked_sub(1).ok_or_else(|| {
        ImageError::Archive(format!("it holds more than {} images", limits.images))
    })?;
    let name = blob(&descriptor);
    if descriptor.is_index() {
        let depth = depth.checked_sub(1).ok_or_else(|| {
            ImageError::Archive(format!(
                "{name}: indexes are nested more than {} deep",
                limits.index_depth
            ))
        })?;
        // A `docker save` of one platform keeps the whole index but not the other platforms' blobs.
        let index: Index = parse(&name, archive.json(&name)?)?;
        for child in index.manifests {
            if archive.has(&blob(&child)) {
                collect(archive, limits, child, depth, budget, found)?;
            }
        }
        return Ok(());
    }
    if !descriptor.is_manifest() {
        return Err(ImageError::Archive(format!(
            "{name} has the media type {:?}, which is neither an image manifest nor an index",
            descriptor.media_type
        )));
    }
    let manifest: Manifest = parse(&name, archive.json(&name)?)?;
    if !manifest.config.is_config() {
        return Err(ImageError::Archive(format!(
            "{name} is not a container image: its configuration is {:?}",
            manifest.config.media_type
        )));
    }
    let config_name = blob(&manifest.config);
    let config = parse_config(&config_name, archive.json(&config_name)?, limits)?;
    found.push(Found {
        descriptor,
        manifest,
        config,
    });
    Ok(())
}

/// The images of one name that are wanted: the platform asked for, else this machine's, else the only one.
fn choose(found: Vec<Found>, platform: Option<&str>) -> Result<Vec<Found>> {
    let offered: Vec<String> = found.iter().map(|image| image.config.platform()).collect();
    let only = found.len() == 1;
    let (mut fitting, rest): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|image| match platform {
            Some(wanted) => image.config.matches(wanted),
            None => image.config.check_platform().is_ok(),
        });
    match (fitting.len(), platform) {
        (0, None) if only => Ok(rest),
        (0, _) if rest.is_empty() => Ok(Vec::new()),
        (0, Some(wanted)) => Err(no_such_platform(wanted, &offered)),
        (0, None) => Err(no_such_platform(&ImageConfig::machine(), &offered)),
        _ => {
            // Unnamed images of one platform are different images; of several variants the first is the best.
            let first = fitting[0].config.platform();
            fitting.retain(|image| image.config.platform() == first);
            Ok(fitting)
        }
    }
}

fn candidate(archive: &Archive, image: Found, name: Option<Reference>) -> Result<Candidate> {
    let manifest_name = blob(&image.descriptor);
    let (expected, actual) = (
        image.manifest.layers.len(),
        image.config.rootfs.diff_ids.len(),
    );
    if expected != actual {
        return Err(ImageError::Archive(format!(
            "{manifest_name} has {expected} layers, its configuration {actual}"
        )));
    }
    let mut layers = Vec::new();
    for (number, (layer, expected)) in image
        .manifest
        .layers
        .iter()
        .zip(&image.config.rootfs.diff_ids)
        .enumerate()
    {
        let (at, actual) = archive.layer(&blob(layer))?;
        if actual != *expected {
            return Err(ImageError::Archive(format!(
                "invalid diffID for layer {number}: expected \"{expected}\", got \"{actual}\""
            )));
        }
        layers.push(at);
    }
    Ok(Candidate {
        config: archive.json(&blob(&image.manifest.config))?.to_vec(),
        manifest: Some((
            image.descriptor.media_type,
            archive.json(&manifest_name)?.to_vec(),
        )),
        parsed: image.config,
        layers,
        tags: name.into_iter().collect(),
        parent: None,
    })
}

/// Member of the archive that holds the blob. Its digest was checked when it was read.
fn blob(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    go_json::from_slice(bytes)
        .map_err(|e| ImageError::Archive(format!("failed to decode {name}: {e}")))
}
