//! The container runtime: namespaces, cgroups, mounts, capabilities, seccomp, and the keeper that holds containers.
#![warn(missing_docs)]

pub mod capabilities;
pub mod cgroup;
mod copyup;
mod defaults;
pub mod exec;
mod identity;
pub mod init;
pub mod keeper;
pub mod launch;
pub mod oci;
pub mod root;
pub mod seccomp;
pub mod spec;
mod sys;
pub mod terminal;
mod tree;
pub mod view;
