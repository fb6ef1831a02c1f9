//! The executable `muster`: every command a user types, the daemon, and the processes the daemon starts.
//!
//! `keeper`, `oci` and the init of containers are handed over to `agent_runtime` before any thread exists: they clone,
//! and a clone of a process with threads is not safe. Everything else is parsed, run once and turned into an exit code.

mod args;
mod attached;
mod connect;
mod failure;
mod flags;
mod out;
mod render;
mod terminal;
mod verbs;

fn main() {
    let words: Vec<_> = std::env::args_os().collect();
    let code = match args::parse(words) {
        Ok(line) => line.run().unwrap_or_else(|error| {
            let (code, text) = failure::report(&error);
            if !text.is_empty() {
                out::note(text);
            }
            code
        }),
        Err(code) => code,
    };
    std::process::exit(code.into());
}
