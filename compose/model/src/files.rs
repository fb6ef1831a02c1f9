//! Reads files, bounded, and finds the files of a project.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::read::MAX_FILE_BYTES;

/// Names of a compose file, best first.
const COMPOSE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// Names of an override file, best first.
const OVERRIDE_NAMES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Why a file could not be read; the message names it.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is no such file.
    Missing,
    /// Anything else.
    Other(String),
}

impl ReadError {
    /// What to tell the user about `path`.
    pub(crate) fn message(&self, path: &Path) -> String {
        match self {
            ReadError::Missing => format!("cannot read {}: no such file", path.display()),
            ReadError::Other(why) => format!("cannot read {}: {why}", path.display()),
        }
    }
}

/// The text of a file of at most [`MAX_FILE_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String, ReadError> {
    let other = |why: String| ReadError::Other(why);
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::Missing,
        std::io::ErrorKind::IsADirectory => other("it is a directory".into()),
        _ => other(error.to_string()),
    };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(other("it is a directory".into()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(other(format!(
            "it is larger than {} MiB",
            MAX_FILE_BYTES >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        other(format!("it is not UTF-8 (byte {at})"))
    })
}

/// A compose file found in a directory, others that were passed over, and the override file beside it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) passed_over: Vec<PathBuf>,
}

/// Looks for a compose file in `directory` and its parents.
pub(crate) fn discover(directory: &Path) -> Option<Found> {
    for directory in directory.ancestors() {
        let mut candidates = existing(directory, &COMPOSE_NAMES);
        if candidates.is_empty() {
            continue;
        }
        let mut files = vec![candidates.remove(0)];
        files.extend(existing(directory, &OVERRIDE_NAMES).into_iter().next());
        return Some(Found {
            files,
            passed_over: candidates,
        });
    }
    None
}

fn existing(directory: &Path, names: &[&str]) -> Vec<PathBuf> {
    let paths = names.iter().map(|name| directory.join(name));
    paths.filter(|path| path.exists()).collect()
}

/// Whether a compose file is named by a URL or an OCI reference.
pub(crate) fn is_remote(name: &str) -> bool {
    [
        "http://",
        "https://",
        "ssh://",
        "git://",
        "git@",
        "oci://",
        "github.com/",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}
