//! The runtime's command line as an executable of its own: `oci create …` is `muster oci create …` without the rest.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments
        .first()
        .is_some_and(|name| name == agent_runtime::init::NAME)
    {
        return agent_runtime::init::main(arguments.split_off(1));
    }
    agent_runtime::oci::main(arguments)
}
