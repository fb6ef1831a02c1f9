//! Makes the image: twenty layers of files of this machine's `/usr`, a gigabyte in all, as a docker-archive.
//!
//! Whole directories go to one layer, chosen by the hash of their name: programs, libraries, text and many small files in
//! each, as images have them, and the same ones every time on the same machine. The first file of each layer says which
//! round of which run it is for, so that no peer has a layer from before.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde_json::json;

const LAYERS: usize = 20;
const TOTAL_BYTES: u64 = 1 << 30;
/// Larger files would make a layer all by themselves.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// How the image of a round is called.
pub(super) fn name(round: usize) -> String {
    format!("bench.example/big:{round}")
}

/// Writes the image of a round.
pub(super) fn write(path: &Path, round: usize) -> anyhow::Result<()> {
    let layers = choose()?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
    let mut diff_ids = Vec::new();
    for (number, files) in layers.iter().enumerate() {
        let bytes = layer(files, round)?;
        diff_ids.push(format!("sha256:{}", sha256(&bytes)?));
        append(&mut archive, &format!("{number}/layer.tar"), &bytes)?;
    }
    let history: Vec<_> = (0..LAYERS)
        .map(|number| json!({"created": "2024-01-01T00:00:00Z", "created_by": format!("layer {number}")}))
        .collect();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
    .to_string();
    append(&mut archive, "config.json", config.as_bytes())?;
    let names: Vec<String> = (0..LAYERS)
        .map(|number| format!("{number}/layer.tar"))
        .collect();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name(round)], "Layers": names}]).to_string();
    append(&mut archive, "manifest.json", manifest.as_bytes())?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, bytes)
}

/// The files of each layer.
fn choose() -> anyhow::Result<Vec<Vec<PathBuf>>> {
    let mut directories = Vec::new();
    for top in ["/usr/bin", "/usr/lib", "/usr/share", "/usr/include"] {
        gather(Path::new(top), &mut directories)?;
    }
    let hash = |path: &Path| {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        hasher.finish()
    };
    directories.sort_by_key(|directory| hash(directory));
    let mut layers = vec![Vec::new(); LAYERS];
    let mut total = 0;
    for (number, directory) in directories.iter().enumerate() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for file in files {
            let Ok(metadata) = file.symlink_metadata() else {
                continue;
            };
            if metadata.is_symlink() || metadata.is_file() && metadata.len() < FILE_BYTES_MAX {
                total += metadata.len() + 512;
                layers[number % LAYERS].push(file);
            }
        }
        if total >= TOTAL_BYTES {
            break;
        }
    }
    ensure!(
        total >= TOTAL_BYTES / 4,
        "/usr of this machine holds only {total} bytes"
    );
    Ok(layers)
}

fn gather(directory: &Path, all: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(());
    };
    all.push(directory.to_owned());
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            gather(&entry.path(), all)?;
        }
    }
    Ok(())
}

fn layer(files: &[PathBuf], round: usize) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mark = format!("round {round}, {since:?}\n");
    append(&mut tar, ".round", mark.as_bytes())?;
    for path in files {
        let name = path.strip_prefix("/").context("paths are absolute")?;
        let metadata = path.symlink_metadata()?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        header.set_mode(metadata.permissions().mode() & 0o7777);
        header.set_size(0);
        if metadata.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, name, std::fs::read_link(path)?)?;
        } else {
            let mut bytes = Vec::new();
            File::open(path)?.read_to_end(&mut bytes)?;
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, &bytes[..])?;
        }
    }
    Ok(tar.into_inner()?)
}

/// By `sha256sum`, which is on every machine.
fn sha256(bytes: &[u8]) -> anyhow::Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start sha256sum")?;
    child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(bytes)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let digest = text.split_whitespace().next();
    Ok(digest.context("sha256sum says nothing")?.to_owned())
}
