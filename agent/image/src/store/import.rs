//! `import`: an image with one layer out of a root file system (moby `daemon/images/image_import.go`).

use std::io::Read;

use agent_build::plan::Platform;
use jiff::Timestamp;

use super::{Additions, Result, Store};
use crate::config::{HistoryStep, ImageConfig, RootFs, RunConfig};
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::layers::Unfinished;
use crate::progress::{ProgressMessage, ProgressSink};
use crate::reference::Reference;

/// How to import a root file system.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the new image.
    pub reference: Option<Reference>,
    /// Dockerfile instructions applied to the configuration (`--change`).
    pub changes: Vec<String>,
    /// Commit message; empty: `Imported from -`, as Docker's server has it.
    pub message: String,
    /// `os/arch[/variant]`. Default: this machine's.
    pub platform: Option<String>,
}

impl Store {
    /// Makes an image of a root file system tar, plain, gzip or zstd.
    pub fn import(
        &self,
        input: &mut (dyn Read + Send),
        options: &ImportOptions,
        progress: ProgressSink<'_>,
    ) -> Result<ImageId> {
        let mut run = RunConfig::default();
        super::changes::apply(&mut run, &options.changes)?;
        let Platform {
            os,
            architecture,
            variant,
        } = platform(options.platform.as_deref())?;
        if options
            .reference
            .as_ref()
            .is_some_and(|name| name.digest().is_some())
        {
            return Err(ImageError::Invalid(
                "cannot import digest reference: give the image a name with a tag".to_owned(),
            ));
        }
        let layer = self.import_layer(input, progress)?;
        let created = Some(Timestamp::now());
        let comment = match &*options.message {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        };
        let config = ImageConfig {
            created,
            architecture,
            variant,
            os,
            config: run,
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![layer.layer.diff_id],
            },
            history: vec![HistoryStep {
                created,
                comment: comment.clone(),
                ..HistoryStep::default()
            }],
            comment,
            ..ImageConfig::default()
        };
        let reference = options.reference.clone();
        let id = self.create(config, vec![layer], reference, None)?;
        progress(ProgressMessage {
            status: Some(id.to_string()),
            ..ProgressMessage::default()
        });
        Ok(id)
    }

    fn import_layer(
        &self,
        input: &mut (dyn Read + Send),
        progress: ProgressSink<'_>,
    ) -> Result<Unfinished> {
        // Enough to recognise the compression; the layer is told the rest.
        let mut head = [0u8; 512];
        let mut len = 0;
        while len < head.len() {
            match input.read(&mut head[len..]).map_err(ImageError::Input)? {
                0 => break,
                more => len += more,
            }
        }
        let imported = std::sync::atomic::AtomicU64::new(0);
        let report = |count: u64| {
            const STEP: u64 = 16 << 20;
            let before = imported.swap(count / STEP, std::sync::atomic::Ordering::Relaxed);
            if before != count / STEP {
                progress(ProgressMessage {
                    status: Some("Importing".to_owned()),
                    progress_detail: Some(crate::progress::ProgressDetail {
                        current: Some(count),
                        total: None,
                    }),
                    ..ProgressMessage::default()
                });
            }
        };
        let layer = "the root file system".to_owned();
        match self.layers.ingest(&head[..len], input, &report) {
            Ok((unfinished, _)) => Ok(unfinished),
            Err(source) => Err(ImageError::Layer { layer, source }),
        }
    }

    /// Adds an image made here: its layers, configuration, manifest and name.
    pub(super) fn create(
        &self,
        config: ImageConfig,
        layers: Vec<Unfinished>,
        reference: Option<Reference>,
        parent: Option<ImageId>,
    ) -> Result<ImageId> {
        let bytes = serde_json::to_vec(&config).expect("plain data has a JSON form");
        let id = ImageId::new(crate::digest::Digest::of(&bytes));
        let mut sizes = std::collections::HashMap::new();
        for diff_id in &config.rootfs.diff_ids {
            let new = layers.iter().find(|layer| layer.layer.diff_id == *diff_id);
            let size = match new {
                Some(new) => new.layer.tar_size,
                None => self.layers.get(diff_id)?.tar_size,
            };
            sizes.insert(*diff_id, size);
        }
        let manifest = super::load::plain_manifest(&bytes, &config.rootfs.diff_ids, |id| sizes[id]);
        let record = super::index::Record {
            media_type: crate::manifest::OCI_MANIFEST.to_owned(),
            manifest: crate::digest::Digest::of(&manifest),
            manifest_size: manifest.len() as u64,
            parent,
            last_tagged: None,
        };
        let additions = Additions {
            layers,
            blobs: vec![bytes, manifest],
            ..Additions::default()
        };
        self.change(additions, |catalog| {
            catalog.images.entry(id).or_insert(record);
            if let Some(reference) = reference {
                super::tag::give_name(catalog, reference.with_default_tag(), id);
            }
            Ok(())
        })?;
        Ok(id)
    }
}

/// What an image is for: as it is written everywhere, whichever way the user wrote it; this machine if nothing is said.
fn platform(text: Option<&str>) -> Result<Platform> {
    let platform = match text {
        None => Platform::host(),
        Some(text) => text
            .parse::<Platform>()
            .map_err(|error| ImageError::Invalid(error.to_string()))?,
    };
    match &*platform.os {
        "linux" => Ok(platform.normalized()),
        os => Err(ImageError::Invalid(format!(
            "operating system is not supported: {os}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_written_in_one_way_or_refused() {
        let parse = |text: &str| platform(Some(text)).map_err(|error| error.to_string());
        let own = Platform::host();
        assert_eq!(platform(None).unwrap(), own);
        assert_eq!(parse("linux").unwrap(), own);
        for (text, written) in [
            ("arm64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("LINUX/AMD64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), written, "{text}");
        }
        for (bad, told) in [
            ("", "invalid component"),
            ("linux/", "invalid component"),
            ("linux/../x/y", "cannot parse platform specifier"),
            ("bad", "unknown operating system or architecture"),
            (
                "windows/amd64",
                "operating system is not supported: windows",
            ),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
        }
    }
}
