//! The runtime's entry points as an executable of their own, for tests: `runtime keeper …`, `runtime oci …`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|verb| verb.to_str()) {
        Some("keeper") => agent_runtime::keeper::main(arguments),
        _ => ExitCode::from(2),
    }
}
