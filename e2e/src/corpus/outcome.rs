//! What a build made, read from a `docker save` archive: configuration, history and every file, without times.
//!
//! Layers are put on top of each other here, by the rules of the OCI image specification, for both engines alike. Files
//! that are the same in the base image are left out, so that an outcome shows what the case did.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

/// A file tree: path without a leading slash → what is there.
pub type Tree = BTreeMap<String, Value>;

/// What an archive of one image holds.
#[derive(Debug)]
pub struct Saved {
    /// The image's configuration.
    pub config: Value,
    /// Its files.
    pub tree: Tree,
}

/// Reads an archive that `save` wrote.
///
/// # Errors
/// When it is not one, or holds more than one image.
pub fn read(archive: &Path) -> Result<Saved> {
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let file = std::fs::File::open(archive)?;
    let mut links = Vec::new();
    for entry in tar::Archive::new(std::io::BufReader::new(file)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if let Some(target) = entry.link_name()? {
            links.push((name, target.to_string_lossy().into_owned()));
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        blobs.insert(name, bytes);
    }
    for (name, target) in links {
        let target = target.trim_start_matches("../").to_owned();
        if let Some(bytes) = blobs.get(&target).cloned() {
            blobs.insert(name, bytes);
        }
    }
    let manifest = blobs.get("manifest.json").context("no manifest.json")?;
    let manifest: Value = serde_json::from_slice(manifest)?;
    let images = manifest.as_array().context("manifest.json is a list")?;
    ensure!(images.len() == 1, "{} images in one archive", images.len());
    let blob = |name: &Value| {
        let name = name.as_str().context("a name of a blob")?;
        blobs
            .get(name)
            .with_context(|| format!("{name} is missing"))
    };
    let config = serde_json::from_slice(blob(&images[0]["Config"])?)?;
    let mut tree = Tree::new();
    for layer in images[0]["Layers"].as_array().context("layers")? {
        apply(&mut tree, blob(layer)?)?;
    }
    Ok(Saved { config, tree })
}

/// Puts a layer on top of a tree.
fn apply(tree: &mut Tree, layer: &[u8]) -> Result<()> {
    let below = std::mem::take(tree);
    let mut above = Tree::new();
    let mut hidden = Vec::new();
    let mut opaque = Vec::new();
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = raw.trim_start_matches("./").trim_matches('/').to_owned();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            opaque.push(parent.to_owned());
            continue;
        }
        if let Some(gone) = name.strip_prefix(".wh.") {
            hidden.push(
                format!("{parent}/{gone}")
                    .trim_start_matches('/')
                    .to_owned(),
            );
            continue;
        }
        let kind = entry.header().entry_type();
        let link = entry
            .link_name_bytes()
            .map(|target| String::from_utf8_lossy(&target).into_owned());
        if kind.is_hard_link() {
            let target = link.context("a hard link has a target")?;
            let target = target.trim_start_matches("./").trim_matches('/').to_owned();
            let mut node = above
                .get(&target)
                .or_else(|| below.get(&target))
                .with_context(|| format!("hard link to {target}, which is not there"))?
                .clone();
            node["hard link of"] =
                json!(node.get("hard link of").cloned().unwrap_or(json!(target)));
            above.insert(path, node);
            continue;
        }
        let mut node = Map::new();
        let mode = entry.header().mode()? & 0o7777;
        let (uid, gid) = (entry.header().uid()?, entry.header().gid()?);
        let mut attributes = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
                    attributes.insert(name.to_owned(), json!(hex(extension.value_bytes())));
                }
            }
        }
        if kind.is_dir() {
            node.insert("kind".into(), json!("directory"));
        } else if kind.is_symlink() {
            node.insert("kind".into(), json!("link"));
            node.insert("target".into(), json!(link));
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            node.insert("kind".into(), json!("file"));
            match std::str::from_utf8(&bytes) {
                Ok(text) if text.len() <= 4000 => node.insert("text".into(), json!(text)),
                _ => node.insert(
                    "content".into(),
                    json!(format!("{} bytes, crc {:08x}", bytes.len(), crc(&bytes))),
                ),
            };
        } else {
            node.insert("kind".into(), json!(format!("{kind:?}").to_lowercase()));
        }
        if !kind.is_symlink() {
            node.insert("mode".into(), json!(format!("{mode:04o}")));
        }
        node.insert("owner".into(), json!(format!("{uid}:{gid}")));
        if !attributes.is_empty() {
            node.insert("xattrs".into(), json!(attributes));
        }
        if !path.is_empty() {
            above.insert(path, Value::Object(node));
        }
    }
    let within = |path: &str, directory: &str| {
        directory.is_empty()
            || path
                .strip_prefix(directory)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    *tree = below;
    tree.retain(|path, _| {
        let replaced = above
            .iter()
            .any(|(new, node)| node["kind"] != "directory" && (within(path, new)));
        !(replaced
            || hidden.iter().any(|gone| path == gone || within(path, gone))
            || opaque.iter().any(|directory| within(path, directory)))
    });
    tree.extend(above);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CRC-32, enough to tell contents apart.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

/// What is compared: the configuration without times and digests, and the files that differ from the base's.
#[must_use]
pub fn outcome(saved: Saved, base: &Tree) -> Value {
    let Saved {
        mut config,
        mut tree,
    } = saved;
    let layers = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
    let mut removed = Vec::new();
    // An image that does not contain the base's executable is not made from it.
    if tree.contains_key("bin/busybox") {
        for (path, node) in base {
            match tree.get(path) {
                Some(now) if now == node => {
                    tree.remove(path);
                }
                Some(_) => {}
                None => removed.push(path.clone()),
            }
        }
    }
    if let Some(config) = config.as_object_mut() {
        config.remove("created");
        config.remove("rootfs");
        // An attestation of BuildKit's own cache, not of the image.
        config.remove("moby.buildkit.cache.v0");
    }
    if let Some(history) = config["history"].as_array_mut() {
        for step in history {
            if let Some(step) = step.as_object_mut() {
                step.remove("created");
            }
        }
    }
    json!({ "layers": layers, "config": config, "files": tree, "removed": removed })
}
