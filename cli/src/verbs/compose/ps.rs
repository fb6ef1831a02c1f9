//! `compose ps` and `compose ls`. Source: docker/compose `cmd/compose/ps.go`, `cmd/formatter/container.go`.

use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::json;
use crate::render::rows::{self, Format};
use crate::render::template::{Row, Value};
use crate::verbs::ps::{ellipsis, ports, short_id};
use clap::Args;
use compose::read::ls::{projects, state_name};
use compose::read::ps::{Row as Container, containers};
use jiff::Timestamp;
use serde_json::json;

/// List containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose ps --status running --format json")]
pub(crate) struct PsArgs {
    /// Show all stopped containers (including those created by the run command)
    #[arg(short, long)]
    all: bool,
    /// Filter services by a property (supported filters: status)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Option<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Include orphaned services (not declared by project)
    #[arg(long, default_value = "true", hide_default_value = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    orphans: bool,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display services
    #[arg(long)]
    services: bool,
    /// Filter services by status (paused, restarting, removing, running, dead, created, exited)
    #[arg(long)]
    status: Vec<String>,
    #[arg(value_name = "SERVICE")]
    names: Vec<String>,
}

pub(super) async fn ps(session: &Session, flags: &ProjectFlags, args: PsArgs) -> Outcome {
    let target = flags.target()?;
    target.require(&args.names)?;
    let mut status = args.status.clone();
    match args.filter.as_deref().map(|filter| filter.split_once('=')) {
        None => {}
        Some(Some(("status", value))) => status.push(value.to_owned()),
        Some(_) => {
            return Err(Failure::new(1, "unknown filter: the one there is is status=STATE").into());
        }
    }
    let client = session.client().await?;
    let all = args.all || !status.is_empty();
    let mut found = containers(client, &target.name, all).await?;
    found.retain(|row| {
        let known = args.orphans
            || target
                .project()
                .is_none_or(|project| project.services.contains_key(&row.service));
        (args.all || !row.oneoff)
            && known
            && (args.names.is_empty() || args.names.contains(&row.service))
            && (status.is_empty()
                || status
                    .iter()
                    .any(|wanted| wanted == state_name(row.summary.state)))
    });
    if args.services {
        let mut services: Vec<_> = found.iter().map(|row| row.service.as_str()).collect();
        services.dedup();
        return super::names(services);
    }
    if args.quiet && args.format.is_none() {
        return super::names(found.iter().map(|row| row.summary.id.as_str()));
    }
    let now = Timestamp::now();
    if args.format.as_deref() == Some("json") {
        for container in &found {
            out::line(json::escaped(&as_json(container, &target.name, now)))?;
        }
        return Ok(0);
    }
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "ID",
        table: "{{.Name}}\t{{.Image}}\t{{.Command}}\t{{.Service}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}",
        titles: &[
            ("Name", "NAME"),
            ("Names", "NAMES"),
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("Service", "SERVICE"),
            ("RunningFor", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Status", "STATUS"),
            ("State", "STATE"),
            ("Ports", "PORTS"),
            ("Project", "PROJECT"),
            ("Health", "HEALTH"),
            ("ExitCode", "EXIT CODE"),
            ("Labels", "LABELS"),
            ("Mounts", "MOUNTS"),
            ("Networks", "NETWORKS"),
        ],
    };
    let rows = found
        .iter()
        .map(|container| row(container, &target.name, !args.no_trunc, now))
        .collect();
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}

fn row(container: &Container, project: &str, trunc: bool, now: Timestamp) -> Row {
    let summary = &container.summary;
    let command = if trunc {
        ellipsis(&summary.command, 20)
    } else {
        summary.command.clone()
    };
    Row::new()
        .with(
            "ID",
            if trunc {
                short_id(&summary.id)
            } else {
                &summary.id
            },
        )
        .with("Name", container.name.as_str())
        .with("Names", container.name.as_str())
        .with("Image", summary.image.as_str())
        .with("Command", json::compact(&command))
        .with("Service", container.service.as_str())
        .with("Project", project)
        .with("RunningFor", crate::verbs::ago(summary.created, now))
        .with("CreatedAt", crate::verbs::created_at(summary.created))
        .with("Status", summary.status.as_str())
        .with("State", state_name(summary.state))
        .with("Health", health(&summary.status))
        .with("ExitCode", Value::from(exit_code(&summary.status)))
        .with("Ports", ports(&summary.ports))
        .with("Labels", crate::verbs::join_labels(&summary.labels))
        .with("Mounts", mounts(container))
        .with("Networks", networks(container))
        .labels(summary.labels.clone())
}

fn mounts(container: &Container) -> String {
    let name = |mount: &agent_api::MountPoint| {
        if mount.name.is_empty() {
            mount.source.clone()
        } else {
            mount.name.clone()
        }
    };
    container
        .summary
        .mounts
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(",")
}

fn networks(container: &Container) -> String {
    container
        .summary
        .network_settings
        .networks
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .join(",")
}

fn as_json(container: &Container, project: &str, now: Timestamp) -> serde_json::Value {
    let summary = &container.summary;
    let publishers: Vec<_> = summary
        .ports
        .iter()
        .map(|port| {
            json!({"URL": port.ip.clone().unwrap_or_default(), "TargetPort": port.private_port,
                   "PublishedPort": port.public_port.unwrap_or(0), "Protocol": port.protocol})
        })
        .collect();
    json!({
        "Command": json::compact(&ellipsis(&summary.command, 20)),
        "CreatedAt": crate::verbs::created_at(summary.created),
        "ExitCode": exit_code(&summary.status),
        "Health": health(&summary.status),
        "ID": short_id(&summary.id),
        "Image": summary.image,
        "Labels": crate::verbs::join_labels(&summary.labels),
        "LocalVolumes": summary.mounts.iter().filter(|mount| mount.driver == "local").count().to_string(),
        "Mounts": mounts(container),
        "Name": container.name,
        "Names": container.name,
        "Networks": networks(container),
        "Ports": ports(&summary.ports),
        "Project": project,
        "Publishers": publishers,
        "RunningFor": crate::verbs::ago(summary.created, now),
        "Service": container.service,
        "Size": "0B",
        "State": state_name(summary.state),
        "Status": summary.status,
    })
}

/// `healthy` of `Up 3 minutes (healthy)`.
fn health(status: &str) -> &'static str {
    match status
        .rsplit_once('(')
        .map(|(_, rest)| rest.trim_end_matches(')'))
    {
        Some("healthy") => "healthy",
        Some("unhealthy") => "unhealthy",
        Some("health: starting") => "starting",
        _ => "",
    }
}

/// `137` of `Exited (137) 2 hours ago`.
fn exit_code(status: &str) -> i64 {
    let code = status
        .strip_prefix("Exited (")
        .and_then(|rest| rest.split(')').next());
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// List running compose projects
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose ls -a")]
pub(crate) struct LsArgs {
    /// Show all stopped Compose projects
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided (name=REGEX)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format the output: table or json
    #[arg(long, default_value = "table")]
    format: String,
    /// Only display project names
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let mut names = Vec::new();
    for filter in &args.filter {
        let Some(("name", pattern)) = filter.split_once('=') else {
            return Err(Failure::new(
                1,
                format!("unknown filter {filter:?}: the one there is is name=REGEX"),
            )
            .into());
        };
        names.push(regex::Regex::new(pattern)?);
    }
    let mut found = projects(session.client().await?, args.all).await?;
    found.retain(|project| {
        names.is_empty() || names.iter().any(|name| name.is_match(&project.name))
    });
    if args.quiet {
        return super::names(found.iter().map(|project| project.name.as_str()));
    }
    let files = |project: &compose::read::ls::ProjectSummary| {
        project
            .config_files
            .iter()
            .cloned()
            .collect::<Vec<_>>()
            .join(",")
    };
    if args.format == "json" {
        let list: Vec<_> = found
            .iter()
            .map(|project| json!({"Name": project.name, "Status": project.status(), "ConfigFiles": files(project)}))
            .collect();
        out::line(json::compact(&list))?;
        return Ok(0);
    }
    let format = Format {
        flag: Some(args.format.as_str()),
        quiet: false,
        quiet_field: "Name",
        table: "{{.Name}}\t{{.Status}}\t{{.ConfigFiles}}",
        titles: &[
            ("Name", "NAME"),
            ("Status", "STATUS"),
            ("ConfigFiles", "CONFIG FILES"),
        ],
    };
    let rows = found.iter().map(|project| {
        Row::new()
            .with("Name", project.name.as_str())
            .with("Status", project.status())
            .with("ConfigFiles", files(project))
    });
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_texts_hold_health_and_exit_code() {
        assert_eq!(
            (
                health("Up 3 minutes (healthy)"),
                health("Up 1 second (health: starting)"),
                health("Up 1 second")
            ),
            ("healthy", "starting", "")
        );
        assert_eq!(
            (
                exit_code("Exited (137) 2 hours ago"),
                exit_code("Up 1 second")
            ),
            (137, 0)
        );
    }
}
