//! Tests of whole managers: real ones over loopback, and whole swarms in simulated time.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, and notes in their captured output"
)]

mod managers;
mod sim;
