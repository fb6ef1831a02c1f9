//! Where the root file systems of the test images are.

use std::path::PathBuf;

/// Directory with `busybox.tar` and `servers.tar`: `MUSTER_TEST_IMAGES`, else `.cache/images` of the project.
///
/// # Panics
/// When the images have not been made: `make images` makes them, `make test` does it by itself.
#[must_use]
pub fn image_directory() -> PathBuf {
    let directory = std::env::var_os("MUSTER_TEST_IMAGES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/images")),
        PathBuf::from,
    );
    assert!(
        directory.join("busybox.tar").exists(),
        "no test images in {}: run `make images`",
        directory.display()
    );
    directory
}

/// Root file system of the busybox image.
#[must_use]
pub fn busybox() -> PathBuf {
    image_directory().join("busybox.tar")
}

/// Root file system of the image with redis-server, nginx, postgresql and python3.
#[must_use]
pub fn servers() -> PathBuf {
    image_directory().join("servers.tar")
}
