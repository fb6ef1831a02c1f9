//! The executable `muster`: every command a user types, the daemon, and the processes the daemon starts.
//!
//! `keeper` and `oci` are handed over to `agent_runtime` before any thread exists: they clone, and a clone of a process
//! with threads is not safe. Everything else is parsed, run once and turned into an exit code.

mod args;
mod attached;
mod buildx;
mod connect;
mod failure;
mod flags;
mod out;
mod render;
mod terminal;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // No thread exists up to here, and none may be made before these.
    match words.get(1).and_then(|word| word.to_str()) {
        _ if buildx::plugin::is_called(words.first()) => end(buildx::plugin::main(words)),
        Some("keeper") => agent_runtime::keeper::main(words.into_iter().skip(2)),
        Some("oci") => agent_runtime::oci::main(words.into_iter().skip(1)),
        _ => run(words),
    }
}

/// Parses the line, runs one verb, and ends. Threads that still read stdin are not waited for.
fn run(words: Vec<OsString>) -> ! {
    match args::parse(words) {
        Ok(line) => end(line.run()),
        Err(code) => std::process::exit(code.into()),
    }
}

/// Says why a command failed, and ends with its code.
fn end(outcome: failure::Outcome) -> ! {
    let code = outcome.unwrap_or_else(|error| {
        let (code, text) = failure::report(&error);
        if !text.is_empty() {
            out::note(text);
        }
        code
    });
    std::process::exit(code.into());
}
