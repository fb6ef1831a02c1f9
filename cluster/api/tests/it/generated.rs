//! The generated code is what the `.proto` files say. `UPDATE=1` writes it.

use std::path::{Path, PathBuf};

const PACKAGE: &str = "muster.cluster.v1";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.proto` file of the package, in a fixed order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is in the repository")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|e| e == "proto"))
        .collect();
    files.sort();
    files
}

#[test]
fn generated_code_is_what_the_proto_files_say() {
    let include = root().join("proto");
    let files = sources(&include.join("muster/cluster/v1"));
    assert!(!files.is_empty());
    let descriptors = protox::compile(&files, [&include]).unwrap();

    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let fresh = std::fs::read_to_string(out.path().join(format!("{PACKAGE}.rs"))).unwrap();

    let committed = root().join("src/proto/generated.rs");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
        return;
    }
    let have = std::fs::read_to_string(&committed).unwrap();
    assert!(
        have == fresh,
        "{} is out of date: run this test with UPDATE=1",
        committed.display()
    );
}
