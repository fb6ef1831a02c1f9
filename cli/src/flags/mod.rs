//! Docker's flag syntaxes: text to Engine API values. Pure; nothing here talks to a daemon.

pub(crate) mod bools;
pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod devices;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod platform;
pub(crate) mod ports;
pub(crate) mod service;
pub(crate) mod time;
