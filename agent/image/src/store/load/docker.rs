//! The docker-archive format: `manifest.json` names a configuration and layers for each image.

use agent_build::go_json;

use super::archive::Archive;
use super::{Candidate, Result};
use crate::config::{ImageConfig, RootFs};
use crate::error::ImageError;
use crate::limits::Limits;
use crate::manifest::ArchiveItem;
use crate::reference::Reference;

pub(super) fn images(
    archive: &Archive,
    limits: &Limits,
    platform: Option<&str>,
) -> Result<Vec<Candidate>> {
    let items: Option<Vec<ArchiveItem>> = go_json::from_slice(archive.json("manifest.json")?)
        .map_err(|e| ImageError::Archive(format!("failed to decode manifest.json: {e}")))?;
    let items = items.ok_or_else(|| {
        ImageError::Archive("manifest.json cannot be null (but can be [])".to_owned())
    })?;
    if items.len() > limits.images {
        return Err(ImageError::Archive(format!(
            "it holds more than {} images",
            limits.images
        )));
    }
    let mut candidates = Vec::new();
    let mut others = Vec::new();
    for item in items {
        let config = archive.json(&item.config)?;
        let parsed = parse_config(&item.config, config, limits)?;
        if platform.is_some_and(|wanted| !parsed.matches(wanted)) {
            others.push(parsed.platform());
            continue;
        }
        let (expected, actual) = (item.layers.len(), parsed.rootfs.diff_ids.len());
        if expected != actual {
            return Err(ImageError::Archive(format!(
                "invalid manifest, layers length mismatch: expected {expected}, got {actual}"
            )));
        }
        let mut layers = Vec::new();
        for (number, (name, expected)) in
            item.layers.iter().zip(&parsed.rootfs.diff_ids).enumerate()
        {
            let (at, actual) = archive.layer(name)?;
            if actual != *expected {
                return Err(ImageError::Archive(format!(
                    "invalid diffID for layer {number}: expected \"{expected}\", got \"{actual}\""
                )));
            }
            layers.push(at);
        }
        let mut tags = Vec::new();
        for tag in item.repo_tags.unwrap_or_default() {
            let reference = Reference::parse(&tag)?;
            if reference.tag().is_none() || reference.digest().is_some() {
                return Err(ImageError::Archive(format!("invalid tag {tag:?}")));
            }
            tags.push(reference);
        }
        candidates.push(Candidate {
            config: config.to_vec(),
            parsed,
            layers,
            manifest: None,
            tags,
            parent: item.parent.map(crate::digest::ImageId::new),
        });
    }
    if let (true, Some(wanted), false) = (candidates.is_empty(), platform, others.is_empty()) {
        return Err(no_such_platform(wanted, &others));
    }
    Ok(candidates)
}

pub(super) fn no_such_platform(wanted: &str, others: &[String]) -> ImageError {
    ImageError::Invalid(format!(
        "the archive has no image for {wanted}, only for {}",
        others.join(", ")
    ))
}

/// Reads a configuration and checks what everything else relies on.
pub(super) fn parse_config(name: &str, bytes: &[u8], limits: &Limits) -> Result<ImageConfig> {
    let invalid = |what: String| ImageError::Archive(format!("{name}: {what}"));
    let config = ImageConfig::from_json(bytes)
        .map_err(|e| invalid(format!("invalid image configuration: {e}")))?;
    if config.rootfs == RootFs::default() {
        return Err(invalid("invalid image JSON, no RootFS key".to_owned()));
    }
    if !matches!(&*config.rootfs.kind, "" | "layers") {
        return Err(invalid(format!(
            "unknown kind of rootfs {:?}",
            config.rootfs.kind
        )));
    }
    if !config.os.is_empty() && config.os != "linux" {
        return Err(ImageError::Invalid(format!(
            "cannot load {} image on linux",
            config.os
        )));
    }
    if config.rootfs.diff_ids.len() > limits.layers {
        return Err(invalid(format!(
            "it has more than {} layers",
            limits.layers
        )));
    }
    config
        .check_history()
        .map_err(|what| invalid(what.to_owned()))?;
    Ok(config)
}
