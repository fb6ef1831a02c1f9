//! End-to-end scenarios: real daemons, real containers, one private host each.

mod compose;
mod docker_cli;
mod examples;
mod harness;
mod images;
mod networks;
mod run;
mod survive;
mod web;
