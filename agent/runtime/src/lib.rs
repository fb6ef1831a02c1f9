//! The container runtime: namespaces, cgroups, mounts, capabilities, seccomp, and the keeper that holds containers.
#![warn(missing_docs)]

pub mod capabilities;
pub mod cgroup;
mod defaults;
pub mod exec;
pub mod launch;
pub mod seccomp;
pub mod spec;
