//! End-to-end scenarios: real daemons, real containers, one private host each.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, and notes in their captured output"
)]

mod autostart;
mod bake;
mod build;
mod build_apt;
mod build_arguments;
mod build_cancel;
mod build_changes;
mod build_crash;
mod build_run;
mod build_space;
mod build_terminal;
mod buildx;
mod bundle;
mod compat;
mod compose;
mod copy;
mod corpus;
mod crash;
mod docker_cli;
mod examples;
mod harness;
mod image_copy;
mod images;
mod images_cli;
mod images_docker;
mod images_kept;
mod images_space;
mod networks;
mod registry;
mod run;
mod sharing;
mod survive;
mod swarm;
mod terminal;
mod web;
