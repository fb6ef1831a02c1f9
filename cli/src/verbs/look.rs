//! Looking into a container: top, port, diff.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::table::align_with;
use agent_api::PortMap;
use clap::Args;

/// Display the running processes of a container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster top web -o pid,cmd")]
pub(crate) struct TopArgs {
    /// Container, and options of ps
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "CONTAINER [ps OPTIONS]"
    )]
    container_and_options: Vec<String>,
}

/// Columns of `top` are at least this wide.
const TOP_WIDTH: usize = 20;

pub(crate) async fn top(session: &Session, args: TopArgs) -> Outcome {
    let [container, options @ ..] = args.container_and_options.as_slice() else {
        return Err(Failure::new(1, "a container is needed").into());
    };
    let options = options.join(" ");
    let top = session
        .client()
        .await?
        .top_container(container, Some(&options))
        .await?;
    let mut lines = vec![top.titles.join("\t")];
    lines.extend(top.processes.iter().map(|process| process.join("\t")));
    out::text(&align_with(&lines, TOP_WIDTH))?;
    Ok(0)
}

/// List port mappings or a specific mapping for the container
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster port web 80/tcp")]
pub(crate) struct PortArgs {
    container: String,
    #[arg(value_name = "PRIVATE_PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(crate) async fn port(session: &Session, args: PortArgs) -> Outcome {
    let container = session
        .client()
        .await?
        .inspect_container(&args.container)
        .await?;
    let ports = &container.network_settings.ports;
    match &args.port {
        None => {
            for (port, address) in published(ports) {
                out::line(format!("{port} -> {address}"))?;
            }
        }
        Some(wanted) => {
            let name = if wanted.contains('/') {
                wanted.clone()
            } else {
                format!("{wanted}/tcp")
            };
            let found: Vec<_> = published(ports)
                .into_iter()
                .filter(|(port, _)| *port == name)
                .collect();
            if found.is_empty() {
                let reason = format!("No public port '{wanted}' published for {}", args.container);
                return Err(Failure::new(1, reason).into());
            }
            found
                .into_iter()
                .try_for_each(|(_, address)| out::line(address))?;
        }
    }
    Ok(0)
}

/// Inspect changes to files or directories on a container's filesystem
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster diff web")]
pub(crate) struct DiffArgs {
    container: String,
}

pub(crate) async fn diff(session: &Session, args: DiffArgs) -> Outcome {
    for change in session
        .client()
        .await?
        .container_changes(&args.container)
        .await?
    {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        out::line(format!("{kind} {}", change.path))?;
    }
    Ok(0)
}

/// Ports by number with the addresses they are published at.
pub(crate) fn published(ports: &PortMap) -> Vec<(String, String)> {
    let mut result = Vec::new();
    for (port, bindings) in ports {
        for binding in bindings.iter().flatten() {
            let address = if binding.host_ip.contains(':') {
                format!("[{}]", binding.host_ip)
            } else {
                binding.host_ip.clone()
            };
            result.push((port.clone(), format!("{address}:{}", binding.host_port)));
        }
    }
    let number = |port: &str| {
        port.split('/')
            .next()
            .and_then(|port| port.parse::<u16>().ok())
    };
    result.sort_by(|(a, _), (b, _)| (number(a), a).cmp(&(number(b), b)));
    result
}
