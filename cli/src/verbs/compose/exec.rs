//! `compose exec`.

use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::env;
use agent_api::ExecCreateRequest;
use clap::Args;
use std::io::IsTerminal as _;

/// Execute a command in a running container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose exec db psql -U postgres")]
pub(crate) struct ExecArgs {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Index of the container if service has multiple replicas
    #[arg(long)]
    index: Option<u32>,
    /// Keep STDIN open (it is, unless detached; accepted for scripts)
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Allocate a TTY (it is when there is one; accepted for scripts)
    #[arg(short, long, hide = true)]
    tty: bool,
    /// Disable pseudo-TTY allocation
    #[arg(short = 'T', long, visible_alias = "no-TTY")]
    no_tty: bool,
    /// Give extended privileges to the process
    #[arg(long)]
    privileged: bool,
    /// Run the command as this user
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Path to workdir directory for this command
    #[arg(short, long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// Service, and the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "SERVICE COMMAND [ARG...]")]
    service_and_command: Vec<String>,
}

pub(super) async fn run(session: &Session, flags: &ProjectFlags, args: ExecArgs) -> Outcome {
    let [service, command @ ..] = args.service_and_command.as_slice() else {
        return Err(Failure::new(1, "a service and a command are needed").into());
    };
    let target = flags.target()?;
    target.require(std::slice::from_ref(service))?;
    let client = session.client().await?;
    let container = compose::read::ps::select(client, &target.name, service, args.index).await?;
    let tty = wants_terminal(args.no_tty, args.detach);
    let request = ExecCreateRequest {
        user: args.user,
        privileged: args.privileged,
        tty,
        console_size: crate::verbs::exec::console_size(tty),
        attach_stdin: !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        detach: args.detach,
        env: env::environment(&[], &args.env).map_err(|reason| Failure::new(1, reason))?,
        working_dir: args.workdir,
        cmd: command.to_vec(),
        ..Default::default()
    };
    crate::verbs::exec::exec(client, &container.summary.id, &request).await
}

/// A terminal is allocated when there is one on both sides and nobody refuses it.
pub(super) fn wants_terminal(refused: bool, detached: bool) -> bool {
    !refused && !detached && std::io::stdin().is_terminal() && crate::out::stdout_is_terminal()
}
