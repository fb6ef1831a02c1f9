//! The runtime's command line as an executable of its own: `oci create …` is `muster oci create …` without the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_runtime::oci::main(std::env::args_os())
}
