//! Real containers, as root: real clone, real overlay, the host's real cgroups. Every test has a root file system, a
//! cgroup and namespaces of its own and leaves nothing behind. Without root or a static busybox they skip, aloud.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests fail like tests

mod box_;
mod cgroups;
mod escape;
mod exec;
mod keeper;
mod launch;
mod oci;
mod process;
