//! What makes a layer of a directory in overlay form that is there already: its digest, its recipe, its `layer.json`.
//!
//! The directory is read once, its tar goes only to the hasher, and no file is written but those two.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::pack::{is_set, pack};
use super::recipe::RecipeWriter;
use super::tar_writer::TarSink;
use super::{Layer, PackError, Tree};
use crate::digest::Hasher;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::tar_stream::{Fragment, RawSink};

/// Writes `recipe` and `layer.json` into `directory` for its `diff/`, which nobody may write to any more. What an earlier try
/// left is overwritten.
pub(crate) fn describe(directory: &Path, limits: &Limits) -> Result<Layer, ImageError> {
    let diff = directory.join("diff");
    let path = directory.join("recipe");
    let recipe = File::create(&path)
        .and_then(|file| RecipeWriter::new(BufWriter::new(file)))
        .map_err(ImageError::io("create", &path))?;
    let mut sink = Description {
        recipe,
        hasher: Hasher::new(),
        tar_size: 0,
        files: 0,
    };
    let size = pack(
        &diff,
        Tree::Upper,
        &BTreeSet::new(),
        limits,
        None,
        &mut sink,
    )
    .map_err(|error| match error {
        PackError::Write(source) => ImageError::io("write", &path)(source),
        other => crate::store::pack_error(other),
    })?;
    let diff_id = sink.hasher.finish();
    sink.recipe
        .finish(sink.tar_size, &diff_id)
        .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
        .map_err(ImageError::io("write", &path))?;
    let root = File::open(&diff).map_err(ImageError::io("open", &diff))?;
    let layer = Layer {
        diff_id,
        tar_size: sink.tar_size,
        size,
        opaque_root: is_set(&root.into(), "trusted.overlay.opaque"),
        moves: Vec::new(),
        blob: None,
    };
    let path = directory.join("layer.json");
    let json = serde_json::to_vec(&layer).expect("plain data has a JSON form");
    std::fs::write(&path, json).map_err(ImageError::io("write", &path))?;
    Ok(layer)
}

struct Description<W: Write> {
    recipe: RecipeWriter<W>,
    hasher: Hasher,
    tar_size: u64,
    /// Numbers the files; no two entries of one name are in a directory, so any number does.
    files: u64,
}

impl<W: Write> Description<W> {
    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.tar_size += bytes.len() as u64;
    }
}

impl<W: Write> TarSink for Description<W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pass(bytes);
        self.recipe.raw(bytes)
    }

    fn file(&mut self, name: &[u8], len: u64) -> io::Result<()> {
        self.files += 1;
        let whole = [Fragment { offset: 0, len }];
        self.recipe.file(self.files, name, &whole)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pass(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
