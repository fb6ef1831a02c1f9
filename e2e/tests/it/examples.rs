//! Every example is brought up as its README says, from a copy of its folder.

use std::path::Path;

use e2e::Host;

use crate::web;

/// A host with the images of the examples and a copy of one example's folder.
fn with_example(name: &str) -> Host {
    let host = Host::start();
    host.muster(&["import", e2e::servers().to_str().unwrap(), "muster/servers"])
        .ok();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name);
    copy(&source, &host.path(name));
    host
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn hello_serves_its_page_and_counts_visits() {
    let host = with_example("hello");
    host.muster_in("hello", &["up", "-d", "--wait"]).ok();
    let first = web::get_soon(&host, "127.0.0.1:8080");
    assert!(
        first.starts_with("HTTP/1.") && first.contains("200"),
        "{first}"
    );
    let second = web::get_soon(&host, "127.0.0.1:8080");
    assert_ne!(first, second, "the page counts visits");
    assert_eq!(
        host.muster_in("hello", &["compose", "plan"]).code,
        0,
        "nothing to do"
    );
    host.muster_in("hello", &["down", "--volumes"]).ok();
    host.finish();
}
