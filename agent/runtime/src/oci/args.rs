//! The command line, in runc's words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(
    name = "muster oci",
    about = "Run containers from OCI bundles",
    version,
    disable_help_subcommand = true
)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// Directory for the state of containers
    #[arg(long, global = true, default_value = "/run/muster/oci")]
    pub(crate) root: PathBuf,
    /// File to which messages are written besides standard error
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Format of messages
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Let systemd make the cgroups (not supported)
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Also log what is done
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Accepted for compatibility; rootless containers are not supported
    #[arg(long, global = true, value_parser = ["auto", "false"], hide = true)]
    pub(crate) rootless: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a container
    Create(CreateArgs),
    /// Create and start a container
    Run(RunArgs),
    /// Start a created container
    Start(IdArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Send a signal to a container's init process
    Kill(KillArgs),
    /// Delete a container
    Delete(DeleteArgs),
    /// Run a process in a container
    Exec(ExecArgs),
    /// Suspend all processes of a container
    Pause(IdArgs),
    /// Resume all processes of a container
    Resume(IdArgs),
    /// List the processes of a container
    Ps(PsArgs),
    /// List containers
    List(ListArgs),
    /// Change the limits of a container
    Update(UpdateArgs),
    /// Print out-of-memory events and usage
    Events(EventsArgs),
    /// Print what this runtime can do
    Features,
    /// Write a template of config.json
    Spec(SpecArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    pub(crate) id: String,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    pub(crate) id: String,
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Unix socket to which the terminal's master is sent
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// File to which the process id is written
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Pass this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Stay in the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Return when the container runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the state after the container has ended
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    pub(crate) id: String,
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
    /// Send it to every process of the container
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    pub(crate) id: String,
    /// Kill it first if it runs
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    pub(crate) id: String,
    /// File with the process in JSON
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Environment variable NAME=VALUE
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// UID[:GID]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Additional group id
    #[arg(short = 'g', long)]
    pub(crate) additional_gids: Vec<u32>,
    /// Return when the process runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Forbid gaining privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Capability to add
    #[arg(short, long)]
    pub(crate) cap: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    pub(crate) id: String,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    pub(crate) id: String,
    /// File with linux.resources in JSON, - for standard input
    #[arg(short, long)]
    pub(crate) resources: Option<PathBuf>,
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    #[arg(long)]
    pub(crate) cpu_burst: Option<u64>,
    #[arg(long, alias = "cpu-shares")]
    pub(crate) cpu_share: Option<u64>,
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    pub(crate) id: String,
    /// Print the usage once and end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Time between two prints: 5s
    #[arg(long, default_value = "5s")]
    pub(crate) interval: String,
}

#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Directory in which config.json is written
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
}
