//! `service ls` and `stack services`.

use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::verbs::natural;
use crate::verbs::tasks::without_digest;
use agent_api::swarm::{PortConfig, Service};
use agent_api::{Client, Filters};
use clap::Args;

/// Letters of an id that the list shows.
const ID_WIDTH: usize = 12;

/// List services
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster service ls --filter mode=global")]
pub(crate) struct LsArgs {
    #[command(flatten)]
    flags: ServiceListFlags,
}

/// How services are listed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServiceListFlags {
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
    let client = session.client().await?;
    let filters = args.flags.filters()?;
    let services = args.flags.services(client, &filters).await?;
    args.flags.show(services)?;
    Ok(0)
}

impl ServiceListFlags {
    pub(crate) fn filters(&self) -> anyhow::Result<Filters> {
        Ok(filter::filters(&self.filter).map_err(|reason| Failure::new(1, reason))?)
    }

    pub(crate) async fn services(
        &self,
        client: &Client,
        filters: &Filters,
    ) -> anyhow::Result<Vec<Service>> {
        Ok(client.list_services(filters, !self.quiet).await?)
    }

    pub(crate) fn show(&self, mut services: Vec<Service>) -> anyhow::Result<()> {
        services.sort_by(|a, b| natural(&a.spec.annotations.name, &b.spec.annotations.name));
        let format = Format {
            flag: self.format.as_deref(),
            quiet: self.quiet,
            quiet_field: "ID",
            table: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
            titles: &[
                ("ID", "ID"),
                ("Name", "NAME"),
                ("Mode", "MODE"),
                ("Replicas", "REPLICAS"),
                ("Image", "IMAGE"),
                ("Ports", "PORTS"),
            ],
        };
        let rows = services.iter().map(row);
        out::text(&rows::render(&format, rows.collect())?)?;
        Ok(())
    }
}

fn row(service: &Service) -> Row {
    let container = service.spec.task_template.container_spec.as_ref();
    let image = container.map_or("", |container| container.image.as_str());
    let id: String = service.id.chars().take(ID_WIDTH).collect();
    Row::new()
        .with("ID", id)
        .with("Name", service.spec.annotations.name.as_str())
        .with("Mode", mode(service))
        .with("Replicas", replicas(service))
        .with("Image", without_digest(image))
        .with("Ports", ports(&service.endpoint.ports))
}

fn mode(service: &Service) -> &'static str {
    let mode = &service.spec.mode;
    if mode.global.is_some() {
        "global"
    } else if mode.replicated_job.is_some() {
        "replicated job"
    } else if mode.global_job.is_some() {
        "global job"
    } else {
        "replicated"
    }
}

/// `2/3`, with what limits or completes it.
fn replicas(service: &Service) -> String {
    let status = service.service_status.unwrap_or_default();
    let (running, desired) = (status.running_tasks, status.desired_tasks);
    let mode = &service.spec.mode;
    let completed = status.completed_tasks;
    if let Some(job) = &mode.replicated_job {
        let total = job.total_completions.unwrap_or(1);
        return format!("{running}/{desired} ({completed}/{total} completed)");
    }
    if mode.global_job.is_some() {
        let total = desired + completed;
        return format!("{running}/{desired} ({completed}/{total} completed)");
    }
    let most = service
        .spec
        .task_template
        .placement
        .as_ref()
        .map_or(0, |placement| placement.max_replicas);
    match most {
        most if most > 0 && mode.replicated.is_some() => {
            format!("{running}/{desired} (max {most} per node)")
        }
        _ => format!("{running}/{desired}"),
    }
}

/// Ports on the ingress network, neighbours together: `*:80-81->80-81/tcp, *:53->53/udp`.
fn ports(ports: &[PortConfig]) -> String {
    let mut sorted: Vec<&PortConfig> = ports
        .iter()
        .filter(|port| port.publish_mode == "ingress")
        .collect();
    sorted.sort_by(|a, b| (&a.protocol, a.published_port).cmp(&(&b.protocol, b.published_port)));
    let mut ranges: Vec<Range<'_>> = Vec::new();
    for port in sorted {
        match ranges.last_mut() {
            Some(range) if range.takes(port) => {
                range.published.1 = port.published_port;
                range.target.1 = port.target_port;
            }
            _ => ranges.push(Range {
                published: (port.published_port, port.published_port),
                target: (port.target_port, port.target_port),
                protocol: &port.protocol,
            }),
        }
    }
    let shown: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

struct Range<'a> {
    published: (u16, u16),
    target: (u16, u16),
    protocol: &'a str,
}

impl Range<'_> {
    /// Whether the port goes on where the range ends, on both sides, or with all on one target.
    fn takes(&self, port: &PortConfig) -> bool {
        let is_range = self.target.0 != self.target.1;
        let next = |of: u16, last: u16| of.checked_sub(last).is_some_and(|step| step <= 1);
        port.protocol == self.protocol
            && next(port.published_port, self.published.1)
            && next(port.target_port, self.target.1)
            && !(is_range && port.target_port <= self.target.1)
    }
}

impl std::fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |(from, to): (u16, u16)| match to > from {
            true => format!("{from}-{to}"),
            false => from.to_string(),
        };
        let (published, target) = (side(self.published), side(self.target));
        write!(f, "*:{published}->{target}/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn neighbouring_ports_stand_together() {
        let list = |pairs: &[(u16, u16, &str)]| {
            let all: Vec<PortConfig> = pairs
                .iter()
                .map(|(published, target, protocol)| PortConfig {
                    protocol: (*protocol).into(),
                    target_port: *target,
                    published_port: *published,
                    publish_mode: "ingress".into(),
                    ..PortConfig::default()
                })
                .collect();
            ports(&all)
        };
        assert_eq!(
            list(&[(81, 81, "tcp"), (80, 80, "tcp"), (53, 53, "udp")]),
            "*:80-81->80-81/tcp, *:53->53/udp"
        );
        assert_eq!(list(&[(80, 80, "tcp"), (81, 80, "tcp")]), "*:80-81->80/tcp");
        assert_eq!(
            list(&[(80, 80, "tcp"), (81, 81, "tcp"), (82, 80, "tcp")]),
            "*:80-81->80-81/tcp, *:82->80/tcp"
        );
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn replicas_tell_what_limits_them() {
        let service: Service = serde_json::from_value(json!({
            "Spec": {"Mode": {"Replicated": {"Replicas": 3}}, "TaskTemplate": {"Placement": {"MaxReplicas": 2}}},
            "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 3},
        }))
        .unwrap();
        assert_eq!(
            (mode(&service), replicas(&service).as_str()),
            ("replicated", "1/3 (max 2 per node)")
        );
    }
}
