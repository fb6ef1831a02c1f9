//! The package against the real kernel, as root, in network and mount namespaces made by each test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail the test, and skip aloud"
)]

mod balance;
mod cluster;
mod ingress;
mod lifecycle;
mod measure;
mod names;
mod overlay;
mod paths;
mod world;
