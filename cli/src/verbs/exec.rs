//! `exec`. Source: docker/cli `cli/command/container/exec.go`.

use crate::attached::{self, Ended, Target};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, start_code};
use crate::flags::env;
use crate::out;
use crate::terminal::{DetachKeys, RawMode};
use agent_api::{Client, ExecCreateRequest, ExecStartRequest};
use clap::Args;
use std::io::IsTerminal as _;

/// Execute a command in a running container
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster exec -it web sh
  muster exec -e DEBUG=1 -w /srv web ls -l")]
pub(crate) struct ExecArgs {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, default_value = "", hide_default_value = true)]
    user: String,
    /// Working directory inside the container
    #[arg(short, long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// Container, and the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]")]
    container_and_command: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: ExecArgs) -> Outcome {
    let [container, command @ ..] = args.container_and_command.as_slice() else {
        return Err(Failure::new(1, "a container and a command are needed").into());
    };
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            1,
            "the input device is not a TTY: leave out -t when input is piped",
        )
        .into());
    }
    let request = ExecCreateRequest {
        user: args.user.clone(),
        privileged: args.privileged,
        tty: args.tty,
        console_size: console_size(args.tty),
        attach_stdin: args.interactive && !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        detach: args.detach,
        detach_keys: args.detach_keys.clone().unwrap_or_default(),
        env: env::environment(&args.env_file, &args.env)
            .map_err(|reason| Failure::new(1, reason))?,
        working_dir: args.workdir.clone(),
        cmd: command.to_vec(),
    };
    exec(session.client().await?, container, &request).await
}

pub(crate) fn console_size(tty: bool) -> Option<[u32; 2]> {
    crate::terminal::size()
        .filter(|_| tty)
        .map(|(rows, columns)| [rows.into(), columns.into()])
}

/// Runs a command in a container as the request says; the exit code is the command's.
pub(crate) async fn exec(client: &Client, container: &str, request: &ExecCreateRequest) -> Outcome {
    let keys = Some(request.detach_keys.as_str());
    let keys = DetachKeys::parse(keys).map_err(|reason| Failure::new(1, reason))?;
    let id = client.create_exec(container, request).await?.id;
    if request.detach {
        client
            .start_exec_detached(&id, request.tty)
            .await
            .map_err(start_failure)?;
        return Ok(0);
    }
    let start = ExecStartRequest {
        detach: false,
        tty: request.tty,
        console_size: request.console_size,
    };
    let hijacked = client
        .start_exec(&id, &start)
        .await
        .map_err(start_failure)?;
    let raw = if request.tty && request.attach_stdin {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let size = async {
        if request.tty {
            attached::follow_size(client.clone(), Target::Exec(id.clone())).await;
        }
        std::future::pending::<()>().await
    };
    let ended = tokio::select! {
        ended = attached::pump(hijacked, request.attach_stdin, request.tty, &keys) => ended,
        () = size => unreachable!("it never ends"),
    };
    drop(raw);
    if ended? == Ended::Detached {
        out::note("read escape sequence");
        return Ok(1);
    }
    let code = client.inspect_exec(&id).await?.exit_code.unwrap_or(0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "exit takes the low byte"
    )]
    Ok(code as u8)
}

fn start_failure(error: agent_api::client::ClientError) -> anyhow::Error {
    match start_code(&error.to_string()) {
        code @ (126 | 127) => {
            Failure::new(code, format!("Error response from daemon: {error}")).into()
        }
        _ => error.into(),
    }
}
