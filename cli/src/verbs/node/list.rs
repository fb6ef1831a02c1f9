//! `node ls`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::verbs::natural;
use crate::verbs::tasks::title;
use agent_api::swarm::{Info, Node, NodeAvailability, NodeState, Reachability, TlsInfo};
use clap::Args;

/// List nodes in the swarm
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster node ls --filter role=manager")]
pub(crate) struct LsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(session: &Session, args: LsArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let client = session.client().await?;
    let mut nodes = client.list_nodes(&filters).await?;
    let info = match nodes.is_empty() || args.quiet {
        true => Info::default(),
        false => client.info().await?.swarm,
    };
    nodes.sort_by(|a, b| natural(&a.description.hostname, &b.description.hostname));
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: "{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
        titles: &[
            ("ID", "ID"),
            ("Self", ""),
            ("Hostname", "HOSTNAME"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
            ("ManagerStatus", "MANAGER STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
            ("TLSStatus", "TLS STATUS"),
        ],
    };
    let rows = nodes.iter().map(|node| row(node, &info));
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}

fn row(node: &Node, info: &Info) -> Row {
    Row::new()
        .with("ID", node.id.as_str())
        .with("Self", node.id == info.node_id)
        .with("Hostname", node.description.hostname.as_str())
        .with("Status", state(node.status.state))
        .with("Availability", availability(node.spec.availability))
        .with("ManagerStatus", manager(node))
        .with(
            "EngineVersion",
            node.description.engine.engine_version.as_str(),
        )
        .with("TLSStatus", tls(node, info))
}

pub(super) fn state(state: NodeState) -> String {
    title(match state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    })
}

pub(super) fn availability(availability: NodeAvailability) -> String {
    title(match availability {
        NodeAvailability::Active => "active",
        NodeAvailability::Pause => "pause",
        NodeAvailability::Drain => "drain",
    })
}

pub(super) fn reachability(reachability: Reachability) -> String {
    title(match reachability {
        Reachability::Unknown => "unknown",
        Reachability::Unreachable => "unreachable",
        Reachability::Reachable => "reachable",
    })
}

fn manager(node: &Node) -> String {
    match &node.manager_status {
        None => String::new(),
        Some(status) if status.leader => "Leader".to_owned(),
        Some(status) => reachability(status.reachability),
    }
}

fn tls(node: &Node, info: &Info) -> &'static str {
    let own = &node.description.tls_info;
    match &info.cluster {
        Some(cluster) if cluster.tls_info != TlsInfo::default() && *own != TlsInfo::default() => {
            if cluster.tls_info == *own {
                "Ready"
            } else {
                "Needs Rotation"
            }
        }
        _ => "Unknown",
    }
}
