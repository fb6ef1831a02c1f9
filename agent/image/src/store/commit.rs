//! `commit`: an image out of a container's changes; and `export`: a file tree as a tar
//! (moby `daemon/images/image_commit.go`, `daemon/internal/image/image.go:NewChildImage`).

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{HeldFor, Result, Store};
use crate::config::{HistoryStep, ImageConfig, RunConfig};
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::layers::{PackError, Stream, Tree, Unfinished, pack};
use crate::limits::Limits;
use crate::reference::Reference;

/// How to make an image of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The image the container was made from; `None`: an empty one.
    pub parent: Option<ImageId>,
    /// The container's configuration: the new image's, before the changes.
    pub config: RunConfig,
    /// Dockerfile instructions applied on top (`--change`).
    pub changes: Vec<String>,
    /// What the container ran, for the history.
    pub created_by: String,
    /// Author.
    pub author: String,
    /// Message.
    pub message: String,
    /// Name of the new image.
    pub reference: Option<Reference>,
    /// Paths of the changes, relative to the root, that are not the container's doing and are left out with everything
    /// below them: places that were made to mount on.
    pub without: BTreeSet<PathBuf>,
}

impl Store {
    /// Makes an image of a container: its parent's layers plus one of the changes in `upper`, the upper
    /// directory of the container's overlay mount (mounted with `redirect_dir=off,metacopy=off`). The caller pauses the container
    /// if it wants a consistent picture. Without any change there is no new layer.
    pub fn commit(&self, upper: &Path, options: &CommitOptions) -> Result<ImageId> {
        let mut run = options.config.clone();
        super::changes::apply(&mut run, &options.changes)?;
        let held = match &options.parent {
            Some(parent) => Some(self.hold(&parent.to_string(), HeldFor::Commit)?),
            None => None,
        };
        let mut config = match &held {
            Some((parent, _)) => ImageConfig::clone(&*self.config(parent)?),
            None => {
                let machine = ImageConfig::machine();
                let (os, architecture) = machine.split_once('/').unwrap_or(("linux", ""));
                ImageConfig {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    ..ImageConfig::default()
                }
            }
        };
        let layer = self.changes_layer(upper, &options.without, None)?;
        // An empty tar is nothing but the end mark.
        let empty = layer.layer.tar_size <= 1024;
        let created = Some(Timestamp::now());
        config.config = run;
        config.created = created;
        config.author.clone_from(&options.author);
        config.comment.clone_from(&options.message);
        config.rootfs.kind = "layers".to_owned();
        config.history.push(HistoryStep {
            created,
            author: options.author.clone(),
            created_by: options.created_by.clone(),
            comment: options.message.clone(),
            empty_layer: empty,
        });
        let mut layers = Vec::new();
        if !empty {
            if config.rootfs.diff_ids.len() >= self.limits.layers {
                return Err(ImageError::Invalid(format!(
                    "cannot commit: the image would have more than {} layers",
                    self.limits.layers
                )));
            }
            config.rootfs.diff_ids.push(layer.layer.diff_id);
            layers.push(layer);
        }
        let parent = held.as_ref().map(|(parent, _)| *parent);
        self.create(config, layers, options.reference.clone(), parent)
    }

    /// Packs `upper` at one end of a pipe and unpacks it at the other, so that a committed layer goes through the same
    /// checks as any other. No modification time in it is later than `clamp`.
    pub(super) fn changes_layer(
        &self,
        upper: &Path,
        without: &BTreeSet<PathBuf>,
        clamp: Option<i64>,
    ) -> Result<Unfinished> {
        let (mut reader, writer) =
            std::io::pipe().map_err(ImageError::io("make a pipe for", upper))?;
        let (packed, unpacked) = std::thread::scope(|scope| {
            let packing = scope.spawn(|| {
                let mut writer = BufWriter::with_capacity(64 << 10, writer);
                pack(
                    upper,
                    Tree::Upper,
                    without,
                    &self.limits,
                    clamp,
                    &mut Stream(&mut writer),
                )
            });
            let unpacked = self.layers.ingest(&[], &mut reader, &|_| {});
            drop(reader);
            let packed = packing
                .join()
                .expect("packing does not panic: it only reads and writes");
            (packed, unpacked)
        });
        match (packed.map(drop), unpacked) {
            // Writing failed because unpacking did.
            (Err(PackError::Write(_)), Err(source)) | (Ok(()), Err(source)) => {
                Err(ImageError::Layer {
                    layer: "of the container's changes".to_owned(),
                    source,
                })
            }
            (Err(error), _) => Err(pack_error(error)),
            (Ok(()), Ok((layer, _))) => Ok(layer),
        }
    }
}

/// Writes the tree below `root` as a tar (`docker export`). `root` is what the container sees, so whiteouts have no meaning in it.
pub fn export(root: &Path, output: &mut dyn Write) -> Result<()> {
    let mut output = Stream(output);
    pack(
        root,
        Tree::Plain,
        &BTreeSet::new(),
        &Limits::default(),
        None,
        &mut output,
    )
    .map(drop)
    .map_err(pack_error)
}

pub(crate) fn pack_error(error: PackError) -> ImageError {
    match error {
        PackError::Read { path, source } => ImageError::Io {
            what: "read",
            path,
            source,
        },
        PackError::Write(error) => ImageError::Output(error),
        error @ PackError::Unfit { .. } => ImageError::Invalid(error.to_string()),
    }
}
