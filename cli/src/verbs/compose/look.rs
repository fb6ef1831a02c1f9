//! Verbs that only look: images, port, top, volumes, version.

use super::lifecycle::{self, ServicesArgs};
use super::project::ProjectFlags;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::json;
use crate::render::rows::{self, Format};
use crate::render::table::align;
use crate::render::template::Row;
use crate::render::units::human_size_3;
use crate::verbs::ps::short_id;
use agent_api::Filters;
use clap::Args;
use compose::labels;
use serde_json::json;

/// List images used by the created containers
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose images")]
pub(crate) struct ImagesArgs {
    /// Format the output: table or json
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn images(session: &Session, flags: &ProjectFlags, args: ImagesArgs) -> Outcome {
    let client = session.client().await?;
    let mut rows = Vec::new();
    for container in lifecycle::rows(session, flags, &args.services, true).await? {
        let image = client.inspect_image(&container.summary.image_id).await?;
        let name = image
            .repo_tags
            .iter()
            .find(|tag| **tag == container.summary.image)
            .or(image.repo_tags.first());
        let (repository, tag) = name
            .and_then(|name| name.rsplit_once(':'))
            .unwrap_or(("<none>", "<none>"));
        rows.push(
            Row::new()
                .with("Container", container.name.as_str())
                .with("Repository", repository)
                .with("Tag", tag)
                .with("Platform", format!("{}/{}", image.os, image.architecture))
                .with("ID", short_id(&image.id))
                .with("Size", human_size_3(image.size)),
        );
    }
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: "{{.Container}}\t{{.Repository}}\t{{.Tag}}\t{{.Platform}}\t{{.ID}}\t{{.Size}}",
        titles: &[
            ("Container", "CONTAINER"),
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Platform", "PLATFORM"),
            ("ID", "IMAGE ID"),
            ("Size", "SIZE"),
        ],
    };
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}

/// Print the public port for a port binding
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose port web 80")]
pub(crate) struct PortArgs {
    /// Index of the container if service has multiple replicas
    #[arg(long)]
    index: Option<u32>,
    /// tcp or udp
    #[arg(long, default_value = "tcp")]
    protocol: String,
    service: String,
    private_port: u16,
}

pub(super) async fn port(session: &Session, flags: &ProjectFlags, args: PortArgs) -> Outcome {
    let target = flags.target()?;
    target.require(std::slice::from_ref(&args.service))?;
    let client = session.client().await?;
    let container =
        compose::read::ps::select(client, &target.name, &args.service, args.index).await?;
    let wanted = format!("{}/{}", args.private_port, args.protocol.to_lowercase());
    let inspected = client.inspect_container(&container.summary.id).await?;
    let published = crate::verbs::look::published(&inspected.network_settings.ports);
    match published.iter().find(|(port, _)| *port == wanted) {
        Some((_, address)) => out::line(address)?,
        None => {
            let reason = format!(
                "no port {wanted} for container {}: it publishes {}",
                container.name,
                join(&published)
            );
            return Err(Failure::new(1, reason).into());
        }
    }
    Ok(0)
}

fn join(published: &[(String, String)]) -> String {
    let pairs: Vec<_> = published
        .iter()
        .map(|(port, address)| format!("{port} at {address}"))
        .collect();
    if pairs.is_empty() {
        "nothing".to_owned()
    } else {
        pairs.join(", ")
    }
}

pub(super) async fn top(session: &Session, flags: &ProjectFlags, args: ServicesArgs) -> Outcome {
    let client = session.client().await?;
    let mut lines: Vec<String> = Vec::new();
    for container in lifecycle::rows(session, flags, &args.services, false).await? {
        let top = client.top_container(&container.summary.id, None).await?;
        if lines.is_empty() {
            lines.push(format!("SERVICE\t#\t{}", top.titles.join("\t")));
        }
        let processes = top.processes.iter();
        lines.extend(processes.map(|process| {
            format!(
                "{}\t{}\t{}",
                container.service,
                container.number,
                process.join("\t")
            )
        }));
    }
    out::text(&align(&lines))?;
    Ok(0)
}

/// List volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster compose volumes -q")]
pub(crate) struct VolumesArgs {
    /// Format output: 'table', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn volumes(session: &Session, flags: &ProjectFlags, args: VolumesArgs) -> Outcome {
    let target = flags.target()?;
    target.require(&args.services)?;
    let filters = Filters::new().with("label", format!("{}={}", labels::PROJECT, target.name));
    let mut volumes = session
        .client()
        .await?
        .list_volumes(&filters)
        .await?
        .volumes;
    if !args.services.is_empty() {
        let used: Vec<_> = lifecycle::rows(session, flags, &args.services, true).await?;
        let is_used = |name: &str| {
            used.iter()
                .any(|row| row.summary.mounts.iter().any(|mount| mount.name == name))
        };
        volumes.retain(|volume| is_used(&volume.name));
    }
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "Name",
        table: "{{.Driver}}\t{{.Name}}",
        titles: &[
            ("Name", "VOLUME NAME"),
            ("Driver", "DRIVER"),
            ("Mountpoint", "MOUNTPOINT"),
        ],
    };
    let row = |volume: agent_api::Volume| {
        Row::new()
            .with("Name", volume.name)
            .with("Driver", volume.driver)
            .with("Mountpoint", volume.mountpoint)
    };
    out::text(&rows::render(
        &format,
        volumes.into_iter().map(row).collect(),
    )?)?;
    Ok(0)
}

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Format the output: pretty or json
    #[arg(short, long, default_value = "pretty")]
    format: String,
    /// Shows only the version number
    #[arg(long)]
    short: bool,
}

pub(super) fn version(args: &VersionArgs) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if args.short {
        out::line(version)?;
    } else if args.format == "json" {
        out::line(json::compact(&json!({"version": format!("v{version}")})))?;
    } else {
        out::line(format!("muster compose version v{version}"))?;
    }
    Ok(0)
}
