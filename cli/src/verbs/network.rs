//! Networks. Source: docker/cli `cli/command/network`, `cli/command/formatter/network.go`.

use super::each;
use super::inspect::{self, InspectKindArgs};
use super::ps::short_id;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{env, filter, network};
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use agent_api::client::ObjectKind;
use agent_api::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest,
};
use clap::{Args, Subcommand};

/// Manage networks
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkVerb {
    Connect(ConnectArgs),
    Create(CreateArgs),
    Disconnect(DisconnectArgs),
    /// Display detailed information on one or more networks
    Inspect(InspectKindArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(PruneArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

pub(crate) async fn run(session: &Session, verb: NetworkVerb) -> Outcome {
    match verb {
        NetworkVerb::Connect(args) => connect(session, args).await,
        NetworkVerb::Create(args) => create(session, args).await,
        NetworkVerb::Disconnect(args) => disconnect(session, args).await,
        NetworkVerb::Inspect(args) => inspect::kind(session, ObjectKind::Network, args).await,
        NetworkVerb::Ls(args) => ls(session, args).await,
        NetworkVerb::Prune(args) => prune(session, args).await,
        NetworkVerb::Rm(args) => rm(session, args).await,
    }
}

/// Create a network
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network create --subnet 10.9.0.0/24 backend")]
pub(crate) struct CreateArgs {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by the network driver
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long)]
    config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the network
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 gateway for the subnet
    #[arg(long)]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container IPs from a sub-range
    #[arg(long)]
    ip_range: Vec<String>,
    /// IP address management driver
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "NAME=VALUE")]
    ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, default_value = "", hide_default_value = true)]
    scope: String,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long)]
    subnet: Vec<String>,
    name: String,
}

async fn create(session: &Session, args: CreateArgs) -> Outcome {
    let request = args.request().map_err(|reason| Failure::new(1, reason))?;
    let created = session.client().await?.create_network(&request).await?;
    if !created.warning.is_empty() {
        out::note(format!("WARNING: {}", created.warning));
    }
    out::line(created.id)?;
    Ok(0)
}

impl CreateArgs {
    fn request(&self) -> Result<NetworkCreateRequest, String> {
        Ok(NetworkCreateRequest {
            name: self.name.clone(),
            driver: self.driver.clone(),
            scope: self.scope.clone(),
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Some(Ipam {
                driver: self.ipam_driver.clone(),
                options: Some(env::options(&self.ipam_opt)),
                config: self.pools()?,
            }),
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            config_only: self.config_only,
            config_from: self
                .config_from
                .clone()
                .map(|network| ConfigReference { network }),
            options: env::options(&self.opt),
            labels: env::labels(&[], &self.label)?,
            ..Default::default()
        })
    }

    /// A pool per subnet, with the ranges, gateways and auxiliary addresses that lie in it.
    fn pools(&self) -> Result<Vec<IpamConfig>, String> {
        let mut pools = Vec::new();
        for subnet in &self.subnet {
            pools.push((
                Net::parse(subnet)?,
                IpamConfig {
                    subnet: subnet.clone(),
                    ..Default::default()
                },
            ));
        }
        let pool_of =
            |pools: &mut Vec<(Net, IpamConfig)>, what: &str, text: &str| -> Result<usize, String> {
                let net = Net::parse(text)?;
                if pools.is_empty() {
                    return Err(format!("{what} {text} needs a --subnet that it lies in"));
                }
                pools
                    .iter()
                    .position(|(pool, _)| pool.contains(&net))
                    .ok_or_else(|| format!("no matching subnet for {what} {text}"))
            };
        for range in &self.ip_range {
            let at = pool_of(&mut pools, "range", range)?;
            pools[at].1.ip_range.clone_from(range);
        }
        for gateway in &self.gateway {
            let at = pool_of(&mut pools, "gateway", gateway)?;
            pools[at].1.gateway.clone_from(gateway);
        }
        for flag in &self.aux_address {
            let (name, address) = flag
                .split_once('=')
                .ok_or_else(|| format!("invalid --aux-address {flag:?}: write name=address"))?;
            let at = pool_of(&mut pools, "aux-address", address)?;
            pools[at]
                .1
                .aux_addresses
                .insert(name.to_owned(), address.to_owned());
        }
        Ok(pools.into_iter().map(|(_, pool)| pool).collect())
    }
}

/// An address with the number of its leading bits that count, as 128 bits (IPv4 is mapped).
struct Net {
    bits: u128,
    length: u32,
}

impl Net {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid network address {text:?}: write it like 10.9.0.0/24");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: std::net::IpAddr = address.parse().map_err(|_| bad())?;
        let (bits, most) = match address {
            std::net::IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 32),
            std::net::IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let length = length.unwrap_or(most);
        if length > most {
            Err(bad())
        } else {
            Ok(Self {
                bits,
                length: 128 - most + length,
            })
        }
    }

    fn contains(&self, other: &Net) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.length).unwrap_or(0);
        self.length <= other.length && self.bits & mask == other.bits & mask
    }
}

/// Connect a container to a network
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network connect --alias db backend postgres")]
pub(crate) struct ConnectArgs {
    /// Add network-scoped alias for the container
    #[arg(long)]
    alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    gw_priority: i64,
    /// IPv4 address
    #[arg(long, default_value = "", hide_default_value = true)]
    ip: String,
    /// IPv6 address
    #[arg(long, default_value = "", hide_default_value = true)]
    ip6: String,
    /// Add link to another container
    #[arg(long)]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long)]
    link_local_ip: Vec<String>,
    network: String,
    container: String,
}

async fn connect(session: &Session, args: ConnectArgs) -> Outcome {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let ipam = EndpointIpamConfig {
        ipv4_address: args.ip,
        ipv6_address: args.ip6,
        link_local_ips: args.link_local_ip,
    };
    let endpoint = EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: some(args.link),
        aliases: some(args.alias),
        driver_opts: (!args.driver_opt.is_empty()).then(|| env::options(&args.driver_opt)),
        gw_priority: args.gw_priority,
        ..Default::default()
    };
    let request = NetworkConnectRequest {
        container: args.container,
        endpoint_config: Some(endpoint),
    };
    let (name, _) = network::network(&args.network).map_err(|reason| Failure::new(1, reason))?;
    session
        .client()
        .await?
        .connect_network(&name, &request)
        .await?;
    Ok(0)
}

/// Disconnect a container from a network
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network disconnect -f backend postgres")]
pub(crate) struct DisconnectArgs {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    network: String,
    container: String,
}

async fn disconnect(session: &Session, args: DisconnectArgs) -> Outcome {
    let request = NetworkDisconnectRequest {
        container: args.container,
        force: args.force,
    };
    session
        .client()
        .await?
        .disconnect_network(&args.network, &request)
        .await?;
    Ok(0)
}

/// Remove one or more networks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network rm backend")]
pub(crate) struct RmArgs {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.networks, async |name| {
        match client.remove_network(name).await {
            Err(error) if args.force && error.is_not_found() => Err(Failure::silent(0).into()),
            result => Ok(result?),
        }
    })
    .await
}

/// Remove all unused networks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network prune -f")]
pub(crate) struct PruneArgs {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Provide filter values (e.g. "until=24h", "label=app")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    if !args.force
        && !super::confirm(
            "WARNING! This will remove all custom networks not used by at least one container.",
        )?
    {
        return Ok(0);
    }
    let pruned = session.client().await?.prune_networks(&filters).await?;
    super::show_pruned(
        "Deleted Networks:",
        pruned.networks_deleted.as_deref().unwrap_or_default(),
    )?;
    Ok(0)
}

/// List networks
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster network ls --format '{{.Name}} {{.Driver}}'")]
pub(crate) struct LsArgs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let mut networks = session.client().await?.list_networks(&filters).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        titles: &[
            ("ID", "NETWORK ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("Scope", "SCOPE"),
            ("IPv4", "IPV4"),
            ("IPv6", "IPV6"),
            ("Internal", "INTERNAL"),
            ("Labels", "LABELS"),
            ("CreatedAt", "CREATED AT"),
        ],
    };
    let rows = networks.into_iter().map(|network| {
        Row::new()
            .with(
                "ID",
                if args.no_trunc {
                    &network.id
                } else {
                    short_id(&network.id)
                },
            )
            .with("Name", network.name)
            .with("Driver", network.driver)
            .with("Scope", network.scope)
            .with("IPv4", network.enable_ipv4.to_string())
            .with("IPv6", network.enable_ipv6.to_string())
            .with("Internal", network.internal.to_string())
            .with("Labels", super::join_labels(&network.labels))
            .with(
                "CreatedAt",
                network
                    .created
                    .replacen('T', " ", 1)
                    .replace('Z', " +0000 UTC"),
            )
            .labels(network.labels)
    });
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_take_what_lies_in_them() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: CreateArgs,
        }
        let parse = |words: &[&str]| {
            let line =
                <Line as clap::Parser>::try_parse_from(std::iter::once(&"create").chain(words))
                    .unwrap();
            line.args.pools()
        };
        let pools = parse(&[
            "--subnet",
            "10.1.0.0/16",
            "--subnet",
            "fd00::/64",
            "--gateway",
            "10.1.0.254",
            "--gateway",
            "fd00::1",
            "--ip-range",
            "10.1.2.0/24",
            "--aux-address",
            "router=10.1.0.5",
            "n",
        ])
        .unwrap();
        assert_eq!(
            (pools[0].gateway.as_str(), pools[0].ip_range.as_str()),
            ("10.1.0.254", "10.1.2.0/24")
        );
        assert_eq!(
            (
                pools[0].aux_addresses["router"].as_str(),
                pools[1].gateway.as_str()
            ),
            ("10.1.0.5", "fd00::1")
        );
        assert!(
            parse(&["--subnet", "10.1.0.0/16", "--gateway", "10.2.0.1", "n"])
                .unwrap_err()
                .contains("no matching subnet")
        );
        assert!(parse(&["--gateway", "10.2.0.1", "n"]).is_err());
        assert!(parse(&["--subnet", "10.1.0.0/33", "n"]).is_err());
    }
}
