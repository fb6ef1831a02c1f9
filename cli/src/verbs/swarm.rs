//! The cluster as a whole. Source: docker/cli `cli/command/swarm`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::duration;
use crate::out;
use agent_api::Client;
use agent_api::client::Rotate;
use agent_api::swarm::{NodeAvailability, SwarmInitRequest, SwarmJoinRequest, SwarmSpec};
use clap::{Args, Subcommand, ValueEnum};

/// Where managers listen unless it is said.
const LISTEN: &str = "0.0.0.0:2377";

#[derive(Debug, Subcommand)]
pub(crate) enum SwarmVerb {
    Ca(CaArgs),
    Init(Box<InitArgs>),
    Join(JoinArgs),
    JoinToken(JoinTokenArgs),
    Leave(LeaveArgs),
    /// Unlock swarm (not supported: managers are never locked)
    Unlock,
    UnlockKey(UnlockKeyArgs),
    Update(Box<UpdateArgs>),
}

pub(crate) async fn run(session: &Session, verb: SwarmVerb) -> Outcome {
    match verb {
        SwarmVerb::Init(args) => init(session, *args).await,
        SwarmVerb::Join(args) => join(session, args).await,
        SwarmVerb::JoinToken(args) => join_token(session, &args).await,
        SwarmVerb::Leave(args) => leave(session, &args).await,
        SwarmVerb::Update(args) => update(session, &args).await,
        SwarmVerb::Ca(args) => ca(session, &args).await,
        SwarmVerb::Unlock | SwarmVerb::UnlockKey(_) => Err(refused(
            "swarm unlock",
            "managers are never locked: their keys lie on their disks, readable by root only",
        )),
    }
}

fn refused(what: &str, why: &str) -> anyhow::Error {
    Failure::new(1, format!("{what} is not supported yet: {why}")).into()
}

/// Settings of a cluster.
#[derive(Debug, Clone, Default, Args)]
struct Settings {
    /// Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    cert_expiry: Option<i64>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = duration::positive)]
    dispatcher_heartbeat: Option<i64>,
    /// Specifications of one or more certificate signing endpoints (not supported)
    #[arg(long, hide = true)]
    external_ca: Vec<String>,
    /// Number of additional Raft snapshots to retain
    #[arg(long)]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots (default 10000)
    #[arg(long)]
    snapshot_interval: Option<u64>,
    /// Task history retention limit (default 5)
    #[arg(long)]
    task_history_limit: Option<i64>,
    /// Manager autolocking (not supported)
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    autolock: Option<bool>,
}

impl Settings {
    fn merge(&self, spec: &mut SwarmSpec) -> anyhow::Result<()> {
        if self.autolock == Some(true) {
            return Err(refused("--autolock", "managers are never locked"));
        }
        if !self.external_ca.is_empty() {
            return Err(refused(
                "--external-ca",
                "the managers sign certificates themselves",
            ));
        }
        let unsigned = |nanoseconds: i64| nanoseconds.unsigned_abs();
        if let Some(limit) = self.task_history_limit {
            spec.orchestration.task_history_retention_limit = Some(limit);
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec.dispatcher.heartbeat_period = unsigned(period);
        }
        if let Some(expiry) = self.cert_expiry {
            spec.ca_config.node_cert_expiry = unsigned(expiry);
        }
        if let Some(snapshots) = self.max_snapshots {
            spec.raft.keep_old_snapshots = Some(snapshots);
        }
        if let Some(interval) = self.snapshot_interval {
            spec.raft.snapshot_interval = interval;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.cert_expiry.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.external_ca.is_empty()
            && self.max_snapshots.is_none()
            && self.snapshot_interval.is_none()
            && self.task_history_limit.is_none()
            && self.autolock.is_none()
    }
}

/// Whether tasks may run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Availability {
    Active,
    Pause,
    Drain,
}

impl From<Availability> for NodeAvailability {
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::Active => Self::Active,
            Availability::Pause => Self::Pause,
            Availability::Drain => Self::Drain,
        }
    }
}

/// Initialize a swarm
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster swarm init
  muster swarm init --advertise-addr 192.168.99.100")]
pub(crate) struct InitArgs {
    #[arg(
        help = "Advertised address (format: \"<ip|interface>[:port]\")",
        long,
        default_value = "",
        hide_default_value = true
    )]
    advertise_addr: String,
    /// Availability of the node
    #[arg(long, value_enum, ignore_case = true, default_value = "active")]
    availability: Availability,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port
    /// (4789) is used.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    data_path_port: u32,
    /// default address pool in CIDR format
    #[arg(long, value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// default address pool subnet mask length
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
    #[arg(help = "Listen address (format: \"<ip|interface>[:port]\")", long, default_value = LISTEN)]
    listen_addr: String,
    #[command(flatten)]
    settings: Settings,
}

async fn init(session: &Session, args: InitArgs) -> Outcome {
    let client = session.client().await?;
    let mut spec = SwarmSpec::default();
    args.settings.merge(&mut spec)?;
    let request = SwarmInitRequest {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        data_path_addr: args.data_path_addr,
        data_path_port: args.data_path_port,
        force_new_cluster: args.force_new_cluster,
        spec,
        auto_lock_managers: false,
        availability: Some(args.availability.into()),
        default_addr_pool: args.default_addr_pool,
        subnet_size: args.default_addr_pool_mask_length,
    };
    let id = client.init_swarm(&request).await.map_err(|error| {
        let text = error.to_string();
        let unclear = [
            "could not choose an IP address",
            "could not find the system's IP",
        ];
        if unclear.iter().any(|words| text.contains(words)) {
            anyhow::Error::from(Failure::new(
                1,
                format!("{text} - specify one with --advertise-addr"),
            ))
        } else {
            error.into()
        }
    })?;
    out::line(format!(
        "Swarm initialized: current node ({id}) is now a manager.\n"
    ))?;
    show_join_command(client, &id, Role::Worker).await?;
    out::line(
        "To add a manager to this swarm, run 'muster swarm join-token manager' and follow the instructions.",
    )?;
    Ok(0)
}

/// Join a swarm as a node and/or manager
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster swarm join --token SWMTKN-1-… 192.168.99.100:2377")]
pub(crate) struct JoinArgs {
    #[arg(
        help = "Advertised address (format: \"<ip|interface>[:port]\")",
        long,
        default_value = "",
        hide_default_value = true
    )]
    advertise_addr: String,
    /// Availability of the node
    #[arg(long, value_enum, ignore_case = true, default_value = "active")]
    availability: Availability,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "", hide_default_value = true)]
    data_path_addr: String,
    #[arg(help = "Listen address (format: \"<ip|interface>[:port]\")", long, default_value = LISTEN)]
    listen_addr: String,
    /// Token for entry into the swarm
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Address of a manager
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

async fn join(session: &Session, args: JoinArgs) -> Outcome {
    let client = session.client().await?;
    let request = SwarmJoinRequest {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        data_path_addr: args.data_path_addr,
        remote_addrs: vec![args.remote],
        join_token: args.token,
        availability: Some(args.availability.into()),
    };
    client.join_swarm(&request).await?;
    let role = match client.info().await?.swarm.control_available {
        true => "manager",
        false => "worker",
    };
    out::line(format!("This node joined a swarm as a {role}."))?;
    Ok(0)
}

/// A role that has a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Worker,
    Manager,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Manage join tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster swarm join-token worker
  muster swarm join-token --rotate -q manager")]
pub(crate) struct JoinTokenArgs {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    #[arg(value_enum, value_name = "worker|manager")]
    role: Role,
}

async fn join_token(session: &Session, args: &JoinTokenArgs) -> Outcome {
    let client = session.client().await?;
    if args.rotate {
        let swarm = client.inspect_swarm().await?.cluster;
        let rotate = Rotate {
            worker_token: args.role == Role::Worker,
            manager_token: args.role == Role::Manager,
            unlock_key: false,
        };
        client
            .update_swarm(swarm.version, &swarm.spec, rotate)
            .await?;
        if !args.quiet {
            let role = args.role.word();
            out::line(format!("Successfully rotated {role} join token.\n"))?;
        }
    }
    if args.quiet {
        let tokens = client.inspect_swarm().await?.join_tokens;
        out::line(match args.role {
            Role::Worker => tokens.worker,
            Role::Manager => tokens.manager,
        })?;
        return Ok(0);
    }
    let id = client.info().await?.swarm.node_id;
    show_join_command(client, &id, args.role).await?;
    Ok(0)
}

async fn show_join_command(client: &Client, node: &str, role: Role) -> anyhow::Result<()> {
    let node = client.inspect_node(node).await?;
    let tokens = client.inspect_swarm().await?.join_tokens;
    let Some(manager) = node.manager_status else {
        return Ok(());
    };
    let token = match role {
        Role::Worker => tokens.worker,
        Role::Manager => tokens.manager,
    };
    out::line(format!(
        "To add a {} to this swarm, run the following command:\n\n    muster swarm join --token {token} {}\n",
        role.word(),
        manager.addr
    ))?;
    Ok(())
}

/// Leave the swarm
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster swarm leave")]
pub(crate) struct LeaveArgs {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(short, long)]
    force: bool,
}

async fn leave(session: &Session, args: &LeaveArgs) -> Outcome {
    session.client().await?.leave_swarm(args.force).await?;
    out::line("Node left the swarm.")?;
    Ok(0)
}

/// Update the swarm
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster swarm update --task-history-limit 2")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    settings: Settings,
}

async fn update(session: &Session, args: &UpdateArgs) -> Outcome {
    if args.settings.is_empty() {
        return Err(
            Failure::new(1, "nothing to update: see \"muster swarm update --help\"").into(),
        );
    }
    let client = session.client().await?;
    let mut swarm = client.inspect_swarm().await?.cluster;
    args.settings.merge(&mut swarm.spec)?;
    client
        .update_swarm(swarm.version, &swarm.spec, Rotate::default())
        .await?;
    out::line("Swarm updated.")?;
    Ok(0)
}

/// Display the root CA
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster swarm ca")]
pub(crate) struct CaArgs {
    /// Rotate the swarm CA (not supported)
    #[arg(long, hide = true)]
    rotate: bool,
    /// Flags of --rotate
    #[arg(long, hide = true)]
    ca_cert: Option<String>,
    #[arg(long, hide = true)]
    ca_key: Option<String>,
    #[arg(long, hide = true)]
    cert_expiry: Option<String>,
    #[arg(long, hide = true)]
    external_ca: Vec<String>,
    #[arg(short, long, hide = true)]
    detach: bool,
    #[arg(short, long, hide = true)]
    quiet: bool,
}

async fn ca(session: &Session, args: &CaArgs) -> Outcome {
    let given = args.rotate
        || args.ca_cert.is_some()
        || args.ca_key.is_some()
        || args.cert_expiry.is_some()
        || !args.external_ca.is_empty()
        || args.detach
        || args.quiet;
    if given {
        return Err(refused(
            "swarm ca --rotate",
            "the root certificate of a cluster stays for its life",
        ));
    }
    let swarm = session.client().await?.inspect_swarm().await?.cluster;
    if swarm.tls_info.trust_root.is_empty() {
        return Err(Failure::new(1, "No CA information available").into());
    }
    out::line(swarm.tls_info.trust_root.trim_end())?;
    Ok(0)
}

/// Manage the unlock key
#[derive(Debug, Args)]
pub(crate) struct UnlockKeyArgs {
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
}
