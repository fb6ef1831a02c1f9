//! Images: list, remove, tag, history, prune. Source: docker/cli `cli/command/image`, `cli/command/formatter/image.go`.

use super::ps::{ellipsis, short_id};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::{filter, platform};
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::template::Row;
use crate::render::units::{human_size, human_size_3};
use agent_api::client::{ListImagesOptions, RemoveImageOptions};
use agent_api::{ImageDeleteItem, ImageSummary};
use clap::Args;
use jiff::Timestamp;

/// List images
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster images
  muster images --filter dangling=true -q")]
pub(crate) struct ImagesArgs {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List multi-platform images as a tree (not supported: images are stored for one platform each)
    #[arg(long, hide = true)]
    tree: bool,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const TITLES: rows::Titles = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "VIRTUAL SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

pub(crate) async fn list(session: &Session, args: ImagesArgs) -> Outcome {
    if args.tree {
        let reason = "--tree is not supported: images are stored for one platform each";
        return Err(Failure::new(1, reason).into());
    }
    let mut filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    if let Some(reference) = &args.reference {
        filters.add("reference", reference.as_str());
    }
    let options = ListImagesOptions {
        all: args.all,
        digests: args.digests,
        filters,
    };
    let images = session.client().await?.list_images(&options).await?;
    let table = if args.digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table,
        titles: TITLES,
    };
    let now = Timestamp::now();
    let rows = images
        .iter()
        .flat_map(|image| image_rows(image, &args, now))
        .collect();
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}

/// A row per name; with digests also one per digest that no name goes with.
fn image_rows(image: &ImageSummary, args: &ImagesArgs, now: Timestamp) -> Vec<Row> {
    let mut names: Vec<(String, String, String)> = Vec::new();
    let digest_of = |repository: &str| {
        let mut digests = image
            .repo_digests
            .iter()
            .filter_map(|digest| digest.split_once('@'));
        digests
            .find(|(name, _)| *name == repository)
            .map(|(_, digest)| digest.to_owned())
    };
    for tag in &image.repo_tags {
        let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
        let digest = digest_of(repository).unwrap_or_else(|| "<none>".to_owned());
        names.push((repository.to_owned(), tag.to_owned(), digest));
    }
    if names.is_empty() {
        for digest in &image.repo_digests {
            let (repository, digest) = digest.split_once('@').unwrap_or((digest, "<none>"));
            names.push((
                repository.to_owned(),
                "<none>".to_owned(),
                digest.to_owned(),
            ));
        }
    }
    if names.is_empty() {
        names.push((
            "<none>".to_owned(),
            "<none>".to_owned(),
            "<none>".to_owned(),
        ));
    }
    if args.quiet {
        names.truncate(1);
    }
    let optional = |size: i64| {
        if size < 0 {
            "N/A".to_owned()
        } else {
            human_size(size)
        }
    };
    let row = |(repository, tag, digest): (String, String, String)| {
        Row::new()
            .with(
                "ID",
                if args.no_trunc {
                    &image.id
                } else {
                    short_id(&image.id)
                },
            )
            .with("Repository", repository)
            .with("Tag", tag)
            .with("Digest", digest)
            .with(
                "CreatedSince",
                if image.created > 0 {
                    super::ago(image.created, now)
                } else {
                    "N/A".to_owned()
                },
            )
            .with(
                "CreatedAt",
                if image.created > 0 {
                    super::created_at(image.created)
                } else {
                    "N/A".to_owned()
                },
            )
            .with("Size", human_size_3(image.size))
            .with("VirtualSize", human_size(image.size))
            .with(
                "Containers",
                if image.containers < 0 {
                    "N/A".to_owned()
                } else {
                    image.containers.to_string()
                },
            )
            .with("SharedSize", optional(image.shared_size))
            .with(
                "UniqueSize",
                if image.shared_size < 0 {
                    "N/A".to_owned()
                } else {
                    human_size(image.size - image.shared_size)
                },
            )
            .labels(image.labels.clone().unwrap_or_default())
    };
    names.into_iter().map(row).collect()
}

/// Remove one or more images
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster rmi busybox:latest")]
pub(crate) struct RmiArgs {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove only the given platform variant
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Vec<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) async fn rmi(session: &Session, args: RmiArgs) -> Outcome {
    let client = session.client().await?;
    let options = RemoveImageOptions {
        force: args.force,
        no_prune: args.no_prune,
        platforms: platform::platforms(&args.platform)?,
    };
    let mut code = 0;
    // One after the other: images share parents, and what is reported depends on the order.
    for name in &args.images {
        match client.remove_image(name, &options).await {
            Ok(steps) => show_steps(&steps)?,
            Err(error) => {
                code = if args.force && error.is_not_found() {
                    code
                } else {
                    1
                };
                out::note(describe(&error.into()));
            }
        }
    }
    Ok(code)
}

fn show_steps(steps: &[ImageDeleteItem]) -> std::io::Result<()> {
    steps.iter().try_for_each(|step| match step {
        ImageDeleteItem::Untagged(name) => out::line(format!("Untagged: {name}")),
        ImageDeleteItem::Deleted(id) => out::line(format!("Deleted: {id}")),
    })
}

/// What a prune took away, under its title.
pub(crate) fn show_deleted(steps: &[ImageDeleteItem]) -> std::io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    out::line("Deleted Images:")?;
    show_steps(steps)?;
    out::line("")
}

/// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster tag busybox:latest example/busybox:1")]
pub(crate) struct TagArgs {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub(crate) async fn tag(session: &Session, args: TagArgs) -> Outcome {
    let (repository, tag) = match args.target.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (args.target.as_str(), None),
    };
    session
        .client()
        .await?
        .tag_image(&args.source, repository, tag)
        .await?;
    Ok(0)
}

/// Show the history of an image
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster history --no-trunc busybox")]
pub(crate) struct HistoryArgs {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value = "true", hide_default_value = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show history for the given platform
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

pub(crate) async fn history(session: &Session, args: HistoryArgs) -> Outcome {
    let platform = platform::platform(args.platform.as_deref())?;
    let client = session.client().await?;
    let items = client.image_history(&args.image, platform.as_ref()).await?;
    let since = if args.human {
        "{{.CreatedSince}}"
    } else {
        "{{.CreatedAt}}"
    };
    let table =
        format!("{{{{.ID}}}}\t{since}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    let titles: rows::Titles = &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ];
    let format = Format {
        flag: args.format.as_deref(),
        quiet: args.quiet,
        quiet_field: "ID",
        table: &table,
        titles,
    };
    let now = Timestamp::now();
    let row = |item: agent_api::ImageHistoryItem| {
        let by = item.created_by.replace('\t', " ");
        let created = Timestamp::from_second(item.created)
            .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        Row::new()
            .with(
                "ID",
                if args.no_trunc {
                    &item.id
                } else {
                    short_id(&item.id)
                },
            )
            .with(
                "CreatedSince",
                if item.created > 0 {
                    super::ago(item.created, now)
                } else {
                    "N/A".to_owned()
                },
            )
            .with("CreatedAt", created.unwrap_or_default())
            .with(
                "CreatedBy",
                if args.no_trunc { by } else { ellipsis(&by, 45) },
            )
            .with(
                "Size",
                if args.human {
                    human_size_3(item.size)
                } else {
                    item.size.to_string()
                },
            )
            .with("Comment", item.comment)
    };
    out::text(&rows::render(
        &format,
        items.into_iter().map(row).collect(),
    )?)?;
    Ok(0)
}

/// Remove unused images
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster image prune -a -f")]
pub(crate) struct PruneArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Provide filter values (e.g. "until=24h", "label=app")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

pub(crate) async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    let mut filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let warning = if args.all {
        filters.add("dangling", "false");
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        filters.add("dangling", "true");
        "WARNING! This will remove all dangling images."
    };
    if !args.force && !super::confirm(warning)? {
        return Ok(0);
    }
    let pruned = session.client().await?.prune_images(&filters).await?;
    show_deleted(pruned.images_deleted.as_deref().unwrap_or_default())?;
    super::show_reclaimed(pruned.space_reclaimed)?;
    Ok(0)
}
