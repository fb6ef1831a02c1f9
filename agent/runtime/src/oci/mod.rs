//! `muster oci`: the command line of an OCI runtime over the same plan code, without daemon or keeper.
//!
//! One verb = one file (or a small group). State is a directory per container below `--root`:
//!
//! ```text
//! <root>/<id>/state.json    who it is: pid and start time, bundle, cgroup, hooks still to run
//! <root>/<id>/start         FIFO; exists from create to start, the waiting child reads one byte from it
//! ```
//!
//! The status is never stored: it is derived from the process, the FIFO and the freezer each time. Sources: OCI
//! `runtime-spec/runtime.md`, runc's man pages for flags and texts.

mod args;
mod bundle;
mod console;
mod create;
mod exec;
mod hooks;
mod kill;
mod log;
mod mounts;
mod query;
mod resources;
mod spec_template;
mod state;
mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Globals, Verb};

/// Why a verb failed: a message for people and for the caller's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OciError {
    /// Refused before anything was done.
    #[error("{0}")]
    Invalid(String),
    /// The container is not there.
    #[error("container {0:?} does not exist")]
    NoSuchContainer(String),
    /// The container is in the wrong state for the verb.
    #[error("{0}")]
    Status(String),
    /// A file or call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The process could not be started.
    #[error("unable to start container process: {0}")]
    Launch(#[from] crate::launch::LaunchError),
    /// Limits, freezing, counting.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
}

/// Attaches what was attempted to an error of the system.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> OciError {
    let what = what.into();
    move |source| OciError::Io { what, source }
}

/// Runs one verb. Called by the executable before any thread exists; `arguments` start with the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = match args::CommandLine::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    let log = match log::Log::open(&parsed.globals) {
        Ok(log) => log,
        Err(error) => {
            log::to_stderr(&error.to_string());
            return ExitCode::from(1);
        }
    };
    if parsed.globals.systemd_cgroup {
        log.error(
            "--systemd-cgroup is not supported: cgroups are made by this runtime itself (cgroupfs)",
        );
        return ExitCode::from(1);
    }
    match run(parsed.verb, &parsed.globals, &log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.to_string());
            // A program that cannot be found or executed is told apart by exec's caller.
            ExitCode::from(match &error {
                OciError::Launch(error) if error.exit_code() != 125 => {
                    u8::try_from(error.exit_code()).unwrap_or(1)
                }
                _ => 1,
            })
        }
    }
}

fn run(verb: Verb, globals: &Globals, log: &log::Log) -> Result<ExitCode, OciError> {
    // Whoever comes into a container shows its executable there: run from a copy nobody can write to.
    if matches!(verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_)) {
        crate::init::run_from_sealed_copy()
            .map_err(failed("run from a sealed copy of the executable"))?;
    }
    let store = state::Store::new(&globals.root)?;
    let done = |()| ExitCode::SUCCESS;
    match verb {
        Verb::Create(args) => create::create(&store, &args, log).map(done),
        Verb::Run(args) => create::run(&store, &args, log),
        Verb::Start(args) => create::start(&store, &args.id, log).map(done),
        Verb::State(args) => query::state(&store, &args.id).map(done),
        Verb::Kill(args) => kill::kill(&store, &args).map(done),
        Verb::Delete(args) => kill::delete(&store, &args, log).map(done),
        Verb::Exec(args) => exec::exec(&store, &args, log),
        Verb::Pause(args) => kill::pause(&store, &args.id).map(done),
        Verb::Resume(args) => kill::resume(&store, &args.id).map(done),
        Verb::Ps(args) => query::ps(&store, &args).map(done),
        Verb::List(args) => query::list(&store, &args).map(done),
        Verb::Update(args) => update::update(&store, &args, log).map(done),
        Verb::Events(args) => query::events(&store, &args).map(done),
        Verb::Features => query::features().map(done),
        Verb::Spec(args) => spec_template::write(&args).map(done),
    }
}
