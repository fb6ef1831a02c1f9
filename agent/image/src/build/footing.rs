//! What a copy's layer depends on of the file system that it is laid over.
//!
//! ```text
//! COPY x /app/b          over a root with /app, without /app/b
//! the layer: /app        attributes as below: these count
//!            /app/b/...  where nothing is below: of x alone
//! ```
//!
//! A copy to where nothing is writes, apart from what it copies, only the directories on the way, with the attributes that they
//! have below. Over another root with the same way its layer is the same, and need not be made again, however much else in that
//! root is different. The way's modification times may be those of the root that the layer was made on, as with `--link`.
//! Where something is in the place of the destination, nothing is said: what is merged with it may depend on all of it.

use agent_build::plan::{CopyOp, CopySource};

use super::error::Result;
use super::select::Selection;
use super::view::{Directory, Found, LastLink, View, join, parts};
use crate::digest::{Digest, Hasher};
use crate::layers::kept_xattrs;

/// Digest of what the layer of a copy depends on of `root`, besides what is copied. `None`: on more than can be said.
/// `inputs` are the vertex's, in its order.
///
/// # Errors
/// As the copy itself would fail.
pub fn footing(op: &CopyOp, root: &View, inputs: &[View]) -> Result<Option<Digest>> {
    let all: Vec<&[u8]> = parts(op.destination.as_bytes()).collect();
    if all.contains(&&b".."[..]) {
        return Ok(None);
    }
    let mut hasher = Hasher::new();
    // The way to what is missing.
    let mut path: Vec<u8> = Vec::new();
    for part in &all {
        let next = join(&path, part);
        match root.resolve(&next, LastLink::Keep)? {
            Found::Directory(_) => path = next,
            Found::Missing => {
                way(root, &path, &mut hasher)?;
                hasher.update(b"missing");
                return Ok(Some(hasher.finish()));
            }
            // A link is resolved by the copy; a file is in the way.
            Found::Other(..) => return Ok(None),
        }
    }
    // The destination is a directory. Files in it are new if nothing has their name.
    for source in &op.sources {
        if !files_only(op, source, root, &path, inputs)? {
            return Ok(None);
        }
    }
    way(root, &path, &mut hasher)?;
    hasher.update(b"into");
    Ok(Some(hasher.finish()))
}

/// Whether a source copies nothing but files that the directory `into` has no names of.
fn files_only(
    op: &CopyOp,
    source: &CopySource,
    root: &View,
    into: &[u8],
    inputs: &[View],
) -> Result<bool> {
    let CopySource::Paths { parents: None, .. } = source else {
        return Ok(false);
    };
    let Some(selection) = Selection::of(op, source)?.filter(|selection| !selection.unpack) else {
        return Ok(false);
    };
    let Some(view) = inputs.get(selection.input.0) else {
        return Ok(false);
    };
    for source in selection.sources(view)? {
        let file = matches!(source.found, Found::Other(..)) && !source.name.is_empty();
        let place = root.resolve(&join(into, &source.name), LastLink::Keep)?;
        if !file || !matches!(place, Found::Missing) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The directories from the root to the one at `path`, which are no links.
fn way(root: &View, path: &[u8], hasher: &mut Hasher) -> Result<()> {
    let mut at: Vec<u8> = Vec::new();
    let top = root.root()?;
    if let Some(top) = &top {
        directory(top, hasher);
    }
    for part in parts(path) {
        at = join(&at, part);
        if let Found::Directory(found) = root.resolve(&at, LastLink::Keep)? {
            directory(&found, hasher);
        }
    }
    Ok(())
}

fn directory(directory: &Directory, hasher: &mut Hasher) {
    let stat = &directory.stat;
    let mut text = |text: &[u8]| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    text(&directory.path);
    for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
        text(&number.to_le_bytes());
    }
    for (key, value) in kept_xattrs(directory.fd()) {
        text(&key);
        text(&value);
    }
    text(b"");
}
