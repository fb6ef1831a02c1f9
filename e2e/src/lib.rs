//! The harness of the end-to-end scenarios: hosts that are network and mount namespaces of their own, each with its
//! own daemon, and the checks a scenario is written in.
//!
//! A scenario is a test function that starts a [`Host`], does what a person would do with the `muster` command or a
//! client with the socket, and checks states, not times. Whatever a host made is gone when it is dropped; and
//! [`Host::finish`] asserts that the daemon itself left nothing: no mount, cgroup, interface, table or process.
#![allow(
    clippy::print_stderr,
    reason = "a test's notes go to its captured stderr"
)]

pub mod corpus;
mod host;
mod images;
mod leftovers;
mod output;
pub mod swarm;

pub use host::{Daemon, Host, muster_executable, read_until};
pub use images::{busybox, image_directory, servers};
pub use output::Output;
pub use swarm::Swarm;
