//! Verbs that change containers that exist: start, stop, restart, kill, rm, pause, unpause, wait, rename, update.

use super::each;
use crate::attached::{self, Ended};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::{devices, filter};
use crate::out;
use crate::terminal::{DetachKeys, RawMode};
use agent_api::client::{AttachOptions, RemoveContainerOptions, StopOptions, WaitCondition};
use agent_api::{Client, ContainerUpdateRequest, Resources, RestartPolicy};
use clap::Args;

/// Start one or more stopped containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster start web
  muster start -ai shell")]
pub(crate) struct StartArgs {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach the container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop one or more running containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster stop -t 5 web db")]
pub(crate) struct StopArgs {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing the container (-1: without limit)
    #[arg(short, long = "timeout", alias = "time", value_name = "SECONDS")]
    timeout: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Kill one or more running containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster kill -s HUP web")]
pub(crate) struct KillArgs {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Remove one or more containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster rm -fv web")]
pub(crate) struct RmArgs {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Containers and nothing else.
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Rename a container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster rename web old-web")]
pub(crate) struct RenameArgs {
    container: String,
    new_name: String,
}

/// Remove all stopped containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster container prune -f --filter until=24h")]
pub(crate) struct PruneArgs {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Provide filter values (e.g. "until=24h", "label=app")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

/// Update configuration of one or more containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster update --memory 512m --restart unless-stopped web")]
pub(crate) struct UpdateArgs {
    /// CPU shares (relative weight)
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    cpu_shares: i64,
    /// Limit the CPU CFS period, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    cpu_period: i64,
    /// Limit the CPU CFS quota, microseconds
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    cpu_quota: i64,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_cpus: String,
    /// Memory nodes in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "", hide_default_value = true)]
    cpuset_mems: String,
    /// Memory limit
    #[arg(short, long, value_parser = devices::memory)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_parser = devices::memory)]
    memory_reservation: Option<i64>,
    /// Limit of memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_parser = devices::memory_or_unlimited)]
    memory_swap: Option<i64>,
    /// Tune the container's pids limit (-1 for unlimited)
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when the container exits
    #[arg(long)]
    restart: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) async fn start(session: &Session, args: StartArgs) -> Outcome {
    let client = session.client().await?;
    if args.attach || args.interactive {
        let [id] = args.containers.as_slice() else {
            return Err(
                Failure::new(1, "you cannot start and attach multiple containers at once").into(),
            );
        };
        return start_attached(client, id, &args).await;
    }
    let mut failed = Vec::new();
    for name in &args.containers {
        match client.start_container(name).await {
            Ok(_) => out::line(name)?,
            Err(error) => {
                out::note(describe(&error.into()));
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(0);
    }
    out::note(format!(
        "Error: failed to start containers: {}",
        failed.join(", ")
    ));
    Ok(1)
}

async fn start_attached(client: &Client, id: &str, args: &StartArgs) -> Outcome {
    let keys =
        DetachKeys::parse(args.detach_keys.as_deref()).map_err(|reason| Failure::new(1, reason))?;
    let container = client.inspect_container(id).await?;
    let tty = container.config.tty;
    let stdin = args.interactive && container.config.open_stdin;
    let signals = attached::catch_signals()?;
    let options = AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        stream: true,
        logs: false,
        detach_keys: args.detach_keys.clone(),
    };
    let hijacked = client.attach_container(&container.id, &options).await?;
    let condition = if container.host_config.auto_remove {
        WaitCondition::Removed
    } else {
        WaitCondition::NextExit
    };
    let wait = client.wait_container(&container.id, condition).await?;
    client.start_container(&container.id).await?;
    let raw = if tty && stdin {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let session = attached::pump(hijacked, stdin, tty, &keys);
    let ended = attached::accompany(client, &container.id, tty, signals, session).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Ok(0);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "exit takes the low byte"
    )]
    Ok(wait.result().await?.status_code as u8)
}

pub(crate) async fn stop(session: &Session, args: StopArgs) -> Outcome {
    let client = session.client().await?;
    let options = StopOptions {
        signal: args.signal,
        timeout: args.timeout,
    };
    each(&args.containers, async |name| {
        Ok(client.stop_container(name, &options).await.map(drop)?)
    })
    .await
}

pub(crate) async fn restart(session: &Session, args: StopArgs) -> Outcome {
    let client = session.client().await?;
    let options = StopOptions {
        signal: args.signal,
        timeout: args.timeout,
    };
    each(&args.containers, async |name| {
        Ok(client.restart_container(name, &options).await?)
    })
    .await
}

pub(crate) async fn kill(session: &Session, args: KillArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.containers, async |name| {
        Ok(client.kill_container(name, args.signal.as_deref()).await?)
    })
    .await
}

pub(crate) async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    let options = RemoveContainerOptions {
        force: args.force,
        volumes: args.volumes,
        link: args.link,
    };
    each(&args.containers, async |name| {
        match client
            .remove_container(name.trim_start_matches('/'), options)
            .await
        {
            // As `rm -f` of files: what is not there needs no removing, but it is said.
            Err(error) if args.force && error.is_not_found() => {
                out::note(format!("Error response from daemon: {error}"));
                Err(Failure::silent(0).into())
            }
            result => Ok(result?),
        }
    })
    .await
}

pub(crate) async fn pause(session: &Session, args: NamesArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.containers, async |name| {
        Ok(client.pause_container(name).await?)
    })
    .await
}

pub(crate) async fn unpause(session: &Session, args: NamesArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.containers, async |name| {
        Ok(client.unpause_container(name).await?)
    })
    .await
}

pub(crate) async fn wait(session: &Session, args: NamesArgs) -> Outcome {
    let client = session.client().await?;
    let mut code = 0;
    for name in &args.containers {
        let result = async {
            client
                .wait_container(name, WaitCondition::NotRunning)
                .await?
                .result()
                .await
        };
        match result.await {
            Ok(result) => out::line(result.status_code.to_string())?,
            Err(error) => {
                out::note(describe(&error.into()));
                code = 1;
            }
        }
    }
    Ok(code)
}

pub(crate) async fn rename(session: &Session, args: RenameArgs) -> Outcome {
    session
        .client()
        .await?
        .rename_container(&args.container, &args.new_name)
        .await?;
    Ok(0)
}

pub(crate) async fn update(session: &Session, args: UpdateArgs) -> Outcome {
    let bad = |reason| Failure::new(1, reason);
    let resources = Resources {
        cpu_shares: args.cpu_shares,
        cpu_period: args.cpu_period,
        cpu_quota: args.cpu_quota,
        nano_cpus: args
            .cpus
            .as_deref()
            .map(devices::nano_cpus)
            .transpose()
            .map_err(bad)?
            .unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus,
        cpuset_mems: args.cpuset_mems,
        memory: args.memory.unwrap_or(0),
        memory_reservation: args.memory_reservation.unwrap_or(0),
        memory_swap: args.memory_swap.unwrap_or(0),
        pids_limit: args.pids_limit,
        ..Default::default()
    };
    let restart_policy = match args.restart.as_deref() {
        Some(flag) => devices::restart(flag).map_err(bad)?,
        None => RestartPolicy::default(),
    };
    if resources == Resources::default() && args.restart.is_none() {
        return Err(
            bad("you must provide one or more flags when using this command".to_owned()).into(),
        );
    }
    let request = ContainerUpdateRequest {
        resources,
        restart_policy,
    };
    let client = session.client().await?;
    each(&args.containers, async |name| {
        for warning in client.update_container(name, &request).await?.warnings {
            out::note(format!("WARNING: {warning}"));
        }
        Ok(())
    })
    .await
}

pub(crate) async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    if !args.force && !super::confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let pruned = session.client().await?.prune_containers(&filters).await?;
    super::show_pruned(
        "Deleted Containers:",
        pruned.containers_deleted.as_deref().unwrap_or_default(),
    )?;
    super::show_reclaimed(pruned.space_reclaimed)?;
    Ok(0)
}

/// Attach local standard input, output, and error streams to a running container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster attach --detach-keys ctrl-x web")]
pub(crate) struct AttachArgs {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, default_value = "true", hide_default_value = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    container: String,
}

pub(crate) async fn attach(session: &Session, args: AttachArgs) -> Outcome {
    let keys =
        DetachKeys::parse(args.detach_keys.as_deref()).map_err(|reason| Failure::new(1, reason))?;
    let client = session.client().await?;
    let container = client.inspect_container(&args.container).await?;
    if !container.state.running {
        return Err(Failure::new(1, "cannot attach to a stopped container, start it first").into());
    }
    if container.state.paused {
        return Err(
            Failure::new(1, "cannot attach to a paused container, unpause it first").into(),
        );
    }
    let tty = container.config.tty;
    let stdin = !args.no_stdin && container.config.open_stdin;
    // Before attaching, so that an exit in between is not missed.
    let wait = client
        .wait_container(&container.id, WaitCondition::NotRunning)
        .await?;
    let options = AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        stream: true,
        logs: false,
        detach_keys: args.detach_keys.clone(),
    };
    let hijacked = client.attach_container(&container.id, &options).await?;
    let raw = if tty && stdin {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let signals = if args.sig_proxy && !tty {
        attached::catch_signals()?
    } else {
        Vec::new()
    };
    let session = attached::pump(hijacked, stdin, tty, &keys);
    let ended = attached::accompany(client, &container.id, tty, signals, session).await;
    drop(raw);
    if ended? == Ended::Detached {
        return Err(Failure::new(1, "read escape sequence").into());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "exit takes the low byte"
    )]
    Ok(wait.result().await?.status_code as u8)
}
