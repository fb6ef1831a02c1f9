//! External build caches: what one daemon has built another one does not run again.

use e2e::Host;

use super::depot::Depot;

const DOCKERFILE: &str = "FROM busybox AS deps\nRUN cat /proc/sys/kernel/random/uuid > /deps\nFROM busybox\nCOPY --from=deps /deps /deps\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n";

/// What the two RUN steps wrote; they write something else each time they are run.
fn stamps(host: &Host, name: &str) -> String {
    host.muster(&["run", "--rm", name, "cat", "/deps", "/stamp"])
        .ok()
}

fn build(host: &Host, arguments: &[&str]) {
    let arguments = [&["build", "-t", "made"], arguments, &["project"]].concat();
    host.muster(&arguments).ok();
}

/// Nothing is left here of what was built.
fn forget(host: &Host) {
    host.muster(&["rmi", "-f", "made"]).ok();
    host.muster(&["builder", "prune", "-af"]).ok();
}

#[test]
fn a_build_goes_on_from_a_cache_in_a_registry_a_directory_or_an_image() {
    let host = Host::start();
    host.write("project/Dockerfile", DOCKERFILE);
    let Some(depot) = Depot::start(&host, "127.0.0.1:5000", |_| {}) else {
        return host.finish();
    };
    build(
        &host,
        &[
            "--cache-to",
            "type=registry,ref=127.0.0.1:5000/cache:1,mode=max",
            "--cache-to",
            "type=local,dest=kept,mode=max",
        ],
    );
    let first = stamps(&host, "made");
    forget(&host);
    build(&host, &[]);
    assert_ne!(
        stamps(&host, "made"),
        first,
        "without a cache all is run again"
    );
    for from in [
        "type=registry,ref=127.0.0.1:5000/cache:1",
        "type=local,src=kept",
    ] {
        forget(&host);
        build(&host, &["--cache-from", from]);
        assert_eq!(stamps(&host, "made"), first, "{from}");
    }

    // Inside of the image: what its layers are made by, and no more.
    let name = "127.0.0.1:5000/made:1";
    forget(&host);
    build(&host, &["--cache-to", "type=inline"]);
    let second = stamps(&host, "made");
    host.muster(&["tag", "made", name]).ok();
    host.muster(&["push", name]).ok();
    host.muster(&["rmi", name]).ok();
    forget(&host);
    build(&host, &["--cache-from", name]);
    assert_eq!(stamps(&host, "made"), second);

    // A cache that is not there is a miss.
    forget(&host);
    build(&host, &["--cache-from", "127.0.0.1:5000/nowhere:1"]);
    assert_ne!(stamps(&host, "made"), second);
    drop(depot);
    host.muster(&["builder", "prune", "-af"]).ok();
    host.finish();
}
