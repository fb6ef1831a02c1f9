//! Volumes. Source: docker/cli `cli/command/volume`, `cli/command/formatter/volume.go`.

use super::each;
use super::inspect::{self, InspectKindArgs};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::{env, filter};
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::render::units::human_size;
use agent_api::VolumeCreateRequest;
use agent_api::client::ObjectKind;
use clap::{Args, Subcommand};

/// Manage volumes
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    Create(CreateArgs),
    /// Display detailed information on one or more volumes
    Inspect(InspectKindArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(PruneArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

pub(crate) async fn run(session: &Session, verb: VolumeVerb) -> Outcome {
    match verb {
        VolumeVerb::Create(args) => create(session, args).await,
        VolumeVerb::Inspect(args) => inspect::kind(session, ObjectKind::Volume, args).await,
        VolumeVerb::Ls(args) => ls(session, args).await,
        VolumeVerb::Prune(args) => prune(session, args).await,
        VolumeVerb::Rm(args) => rm(session, args).await,
    }
}

/// Create a volume
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster volume create --label app=web data")]
pub(crate) struct CreateArgs {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Specify volume name
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    volume: Option<String>,
}

async fn create(session: &Session, args: CreateArgs) -> Outcome {
    if args.name.is_some() && args.volume.is_some() {
        return Err(Failure::new(1, "conflicting options: cannot specify a volume-name through both --name and as a positional arg").into());
    }
    let request = VolumeCreateRequest {
        name: args.volume.or(args.name).unwrap_or_default(),
        driver: args.driver,
        driver_opts: env::options(&args.opt),
        labels: env::labels(&[], &args.label).map_err(|reason| Failure::new(1, reason))?,
    };
    out::line(session.client().await?.create_volume(&request).await?.name)?;
    Ok(0)
}

/// Remove one or more volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster volume rm data")]
pub(crate) struct RmArgs {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let client = session.client().await?;
    each(&args.volumes, async |name| {
        Ok(client.remove_volume(name, args.force).await?)
    })
    .await
}

/// Remove unused local volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster volume prune -a -f")]
pub(crate) struct PruneArgs {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Provide filter values (e.g. "label=app")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    let mut filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let warning = if args.all {
        filters.add("all", "true");
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if !args.force && !super::confirm(warning)? {
        return Ok(0);
    }
    let pruned = session.client().await?.prune_volumes(&filters).await?;
    super::show_pruned(
        "Deleted Volumes:",
        pruned.volumes_deleted.as_deref().unwrap_or_default(),
    )?;
    super::show_reclaimed(pruned.space_reclaimed)?;
    Ok(0)
}

/// List volumes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster volume ls -q --filter dangling=true")]
pub(crate) struct LsArgs {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let mut volumes = session
        .client()
        .await?
        .list_volumes(&filters)
        .await?
        .volumes;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "Name",
        table: "{{.Driver}}\t{{.Name}}",
        titles: &[
            ("Name", "VOLUME NAME"),
            ("Driver", "DRIVER"),
            ("Scope", "SCOPE"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Labels", "LABELS"),
            ("Links", "LINKS"),
            ("Size", "SIZE"),
            ("Group", "GROUP"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
        ],
    };
    let rows = volumes.into_iter().map(|volume| {
        let usage = volume.usage_data.unwrap_or(agent_api::VolumeUsage {
            ref_count: -1,
            size: -1,
        });
        let labels = volume.labels.unwrap_or_default();
        Row::new()
            .with("Name", volume.name)
            .with("Driver", volume.driver)
            .with("Scope", volume.scope)
            .with("Mountpoint", volume.mountpoint)
            .with("Labels", super::join_labels(&labels))
            .with(
                "Links",
                if usage.ref_count < 0 {
                    "N/A".to_owned()
                } else {
                    usage.ref_count.to_string()
                },
            )
            .with(
                "Size",
                if usage.size < 0 {
                    "N/A".to_owned()
                } else {
                    human_size(usage.size)
                },
            )
            .with("Group", "N/A")
            .with("Status", "N/A")
            .with("Availability", "N/A")
            .labels(labels)
    });
    out::text(&rows::render(&format, rows.collect())?)?;
    Ok(0)
}
