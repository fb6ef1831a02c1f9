//! System calls no crate wraps the way the runtime needs them.
//!
//! [`raw`] is for the child between clone and exec: no errno, no thread-local storage, no allocation. [`clone`] makes
//! that child. [`kernel`] has safe functions for the parent. Nothing here decides anything.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod kernel;
pub(crate) mod raw;
