//! The Dockerfile corpus: one small file per rule of the language, and what BuildKit makes of each.
//!
//! ```text
//! e2e/corpus/cases/<group>/<rule>.case   context, Dockerfile and flags in one text            [case]
//! e2e/corpus/cases/<group>/<rule>.json   what the peer made of it: configuration, history,
//!                                        every file; or its error                              [outcome]
//! ```
//!
//! `cargo run -p e2e --bin corpus` records the second from a Docker Engine with BuildKit; `tests/it/corpus.rs` builds
//! the first with muster and compares. Both go the same way: `build`, `save`, then [`outcome::read`] on the archive.

pub mod case;
pub mod outcome;

use std::path::{Path, PathBuf};

/// The folder of the cases.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/cases")
}

/// All cases of a group, or of all groups, sorted by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn cases(group: Option<&str>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory())? {
        let entry = entry?;
        if group.is_some_and(|group| entry.file_name() != group) || !entry.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(entry.path())? {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "case")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
