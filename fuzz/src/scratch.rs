//! Places on disk for targets that write files: one for each process, in memory where TMPDIR says so.

use std::path::Path;
use std::sync::LazyLock;

use agent_image::{Limits, Store};
use tempfile::TempDir;

static ROOT: LazyLock<TempDir> = LazyLock::new(|| {
    tempfile::Builder::new()
        .prefix("fuzz-")
        .tempdir()
        .expect("a temporary directory")
});

/// A store that lives as long as the process. Bounds are small, so that inputs which reach them are cheap.
pub(crate) static STORE: LazyLock<Store> =
    LazyLock::new(|| Store::open(&ROOT.path().join("store"), limits()).expect("an empty store"));

/// Bounds that a fuzzer reaches.
pub(crate) fn limits() -> Limits {
    Limits {
        entries: 64,
        layer_bytes: 1 << 20,
        ratio_grace_bytes: 64 << 10,
        ..Limits::default()
    }
}

/// A directory of its own below the process's.
pub(crate) fn directory() -> TempDir {
    tempfile::Builder::new()
        .tempdir_in(ROOT.path())
        .expect("a directory")
}

/// Names in a directory.
pub(crate) fn names(path: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(path).expect("readable");
    let mut names: Vec<_> = entries.map(|e| e.expect("readable").file_name()).collect();
    names.sort();
    names
}
