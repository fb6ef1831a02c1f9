//! `system df`: what takes the disk, in Docker's tables, and `--explain`, which accounts for every byte.
//! Source: docker/cli `cli/command/system/df.go`, `cli/command/formatter/disk_usage.go`, `buildcache.go`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agent_api::build::BuildCacheRecord;
use agent_api::{ContainerSummary, DiskExplanation, DiskUsage, ImageSummary, MountType, Volume};
use clap::Args;
use jiff::Timestamp;

use super::ps::{ellipsis, short_id};
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::render::json;
use crate::render::rows::{self, Format};
use crate::render::table;
use crate::render::template::Row;
use crate::render::units::{human_size, human_size_3};

/// Show disk usage
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster system df
  muster system df --explain")]
pub(crate) struct DfArgs {
    /// Account for every byte below the data root: whose it is, and who needs it
    #[arg(long, conflicts_with_all = ["verbose"])]
    explain: bool,
    /// Format output: 'table', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn df(session: &Session, args: DfArgs) -> Outcome {
    let format = args.format.as_deref().filter(|format| !format.is_empty());
    if (args.explain || args.verbose) && format.is_some_and(|format| format != "json") {
        return Err(Failure::new(
            64,
            "with --explain and --verbose, --format can only be json",
        )
        .into());
    }
    let client = session.client().await?;
    if args.explain {
        let explained = client.explain_disk().await?;
        match format {
            Some(_) => out::line(json::compact(&serde_json::to_value(&explained)?))?,
            None => out::text(&explanation(&explained))?,
        }
        return Ok(0);
    }
    let usage = client.disk_usage().await?;
    if args.verbose {
        match format {
            Some(_) => out::line(json::compact(&serde_json::to_value(&usage)?))?,
            None => out::text(&details(&usage)?)?,
        }
        return Ok(0);
    }
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "Type",
        table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        titles: &[
            ("Type", "TYPE"),
            ("TotalCount", "TOTAL"),
            ("Active", "ACTIVE"),
            ("Size", "SIZE"),
            ("Reclaimable", "RECLAIMABLE"),
        ],
    };
    out::text(&rows::render(&format, summary(&usage))?)?;
    Ok(0)
}

/// Whether a container runs, or will again.
fn is_active(container: &ContainerSummary) -> bool {
    use agent_api::ContainerStatus::{Paused, Restarting, Running};
    matches!(container.state, Running | Paused | Restarting)
}

/// Bytes and users of a volume.
fn volume_usage(volume: &Volume) -> (i64, i64) {
    volume
        .usage_data
        .as_ref()
        .map_or((0, 0), |usage| (usage.size.max(0), usage.ref_count))
}

/// A row per kind of object.
fn summary(usage: &DiskUsage) -> Vec<Row> {
    let row = |kind: &'static str, total: usize, active: usize, size: i64, reclaimable: i64| {
        let share = match size {
            1.. => format!(" ({}%)", reclaimable * 100 / size),
            _ => String::new(),
        };
        Row::new()
            .with("Type", kind)
            .with("TotalCount", total.to_string())
            .with("Active", active.to_string())
            .with("Size", human_size(size))
            .with("Reclaimable", format!("{}{share}", human_size(reclaimable)))
    };
    let used_images: Vec<_> = usage
        .images
        .iter()
        .filter(|image| image.containers > 0)
        .collect();
    let used_size: i64 = used_images
        .iter()
        .map(|image| image.size - image.shared_size.max(0))
        .sum();
    let container_size = |all: bool| -> i64 {
        let sizes = usage
            .containers
            .iter()
            .filter(|container| all || !is_active(container));
        sizes.map(|container| container.size_rw.unwrap_or(0)).sum()
    };
    let volumes: Vec<_> = usage.volumes.iter().map(volume_usage).collect();
    let cache = &usage.build_cache;
    let cache_size: i64 = own_size(cache.iter());
    let cache_free: i64 = own_size(cache.iter().filter(|record| !record.in_use));
    vec![
        row(
            "Images",
            usage.images.len(),
            used_images.len(),
            usage.layers_size,
            (usage.layers_size - used_size).max(0),
        ),
        row(
            "Containers",
            usage.containers.len(),
            usage.containers.iter().filter(|one| is_active(one)).count(),
            container_size(true),
            container_size(false),
        ),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(|(_, users)| *users > 0).count(),
            volumes.iter().map(|(size, _)| size).sum(),
            volumes
                .iter()
                .filter(|(_, users)| *users == 0)
                .map(|(size, _)| size)
                .sum(),
        ),
        row(
            "Build Cache",
            cache.len(),
            cache.iter().filter(|record| record.in_use).count(),
            cache_size,
            cache_free,
        ),
    ]
}

/// Bytes of records that images do not have, too.
fn own_size<'a>(records: impl Iterator<Item = &'a BuildCacheRecord>) -> i64 {
    records
        .filter(|record| !record.shared)
        .map(|record| record.size)
        .sum()
}

/// `--verbose`: a table per kind of object.
fn details(usage: &DiskUsage) -> anyhow::Result<String> {
    let now = Timestamp::now();
    let mut text = String::new();
    let mut add = |title: &str, titles: rows::Titles, list: Vec<Row>| -> anyhow::Result<()> {
        let columns: Vec<String> = titles
            .iter()
            .map(|(name, _)| format!("{{{{.{name}}}}}"))
            .collect();
        let format = Format {
            flag: None,
            quiet: false,
            quiet_field: "",
            table: &columns.join("\t"),
            titles,
        };
        let _ = write!(text, "{title}\n\n{}\n", rows::render(&format, list)?);
        Ok(())
    };
    add(
        "Images space usage:",
        &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ],
        usage
            .images
            .iter()
            .map(|image| image_row(image, now))
            .collect(),
    )?;
    add(
        "Containers space usage:",
        &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ],
        usage
            .containers
            .iter()
            .map(|one| container_row(one, now))
            .collect(),
    )?;
    add(
        "Local Volumes space usage:",
        &[
            ("Name", "VOLUME NAME"),
            ("Links", "LINKS"),
            ("Size", "SIZE"),
        ],
        usage.volumes.iter().map(volume_row).collect(),
    )?;
    let cache = &usage.build_cache;
    add(
        &format!("Build cache usage: {}", human_size(own_size(cache.iter()))),
        &[
            ("ID", "CACHE ID"),
            ("CacheType", "CACHE TYPE"),
            ("Size", "SIZE"),
            ("CreatedSince", "CREATED"),
            ("LastUsedSince", "LAST USED"),
            ("UsageCount", "USAGE"),
            ("Shared", "SHARED"),
        ],
        cache.iter().map(|record| cache_row(record, now)).collect(),
    )?;
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn image_row(image: &ImageSummary, now: Timestamp) -> Row {
    let name = image
        .repo_tags
        .first()
        .and_then(|name| name.rsplit_once(':'));
    let (repository, tag) = name.unwrap_or(("<none>", "<none>"));
    let shared = image.shared_size.max(0);
    Row::new()
        .with("Repository", repository)
        .with("Tag", tag)
        .with("ID", short_id(&image.id))
        .with("CreatedSince", super::ago(image.created, now))
        .with("Size", human_size_3(image.size))
        .with("SharedSize", human_size(shared))
        .with("UniqueSize", human_size(image.size - shared))
        .with("Containers", image.containers.to_string())
}

fn container_row(container: &ContainerSummary, now: Timestamp) -> Row {
    let volumes = container
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountType::Volume)
        .count();
    let names: Vec<&str> = container
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .collect();
    Row::new()
        .with("ID", short_id(&container.id))
        .with("Image", container.image.as_str())
        .with(
            "Command",
            format!("\"{}\"", ellipsis(&container.command, 20)),
        )
        .with("LocalVolumes", volumes.to_string())
        .with("Size", human_size_3(container.size_rw.unwrap_or(0)))
        .with("RunningFor", super::ago(container.created, now))
        .with("Status", container.status.as_str())
        .with("Names", names.join(","))
}

fn volume_row(volume: &Volume) -> Row {
    let (size, users) = volume_usage(volume);
    Row::new()
        .with("Name", volume.name.as_str())
        .with("Links", users.to_string())
        .with("Size", human_size(size))
}

fn cache_row(record: &BuildCacheRecord, now: Timestamp) -> Row {
    let since = |time: Option<&str>| {
        time.and_then(|time| time.parse::<Timestamp>().ok())
            .map_or_else(String::new, |time| super::ago(time.as_second(), now))
    };
    Row::new()
        .with("ID", short_id(&record.id))
        .with("CacheType", record.kind.as_str())
        .with("Size", human_size(record.size))
        .with("CreatedSince", since(Some(&record.created_at)))
        .with("LastUsedSince", since(record.last_used_at.as_deref()))
        .with("UsageCount", record.usage_count.to_string())
        .with("Shared", record.shared.to_string())
}

/// `--explain`: who has how much, then the images, then what nobody knows.
fn explanation(explained: &DiskExplanation) -> String {
    let size = |bytes: u64| human_size(i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut groups: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for part in &explained.parts {
        let group = groups.entry(group_of(part)).or_default();
        group.0 += part.bytes;
        group.1 += part.files;
        group.2 += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (bytes, ..))| std::cmp::Reverse(*bytes));
    let mut lines = vec!["WHAT\tHOW MANY\tFILES\tSIZE".to_owned()];
    for (kind, (bytes, files, count)) in groups {
        lines.push(format!("{kind}\t{count}\t{files}\t{}", size(bytes)));
    }
    lines.push(format!(
        "all of {}\t\t{}\t{}",
        explained.root,
        explained.files,
        size(explained.bytes)
    ));
    let mut text = table::align(&lines);
    if !explained.images.is_empty() {
        let mut lines = vec!["IMAGE\tON DISK\tITS OWN\tCONTAINERS\tLAST USED".to_owned()];
        for image in &explained.images {
            let name = image
                .tags
                .first()
                .map_or(short_id(&image.id), String::as_str);
            let used = image.last_used.as_deref().unwrap_or("unknown");
            let used = used.split('.').next().unwrap_or(used);
            lines.push(format!(
                "{name}\t{}\t{}\t{}\t{used}",
                size(image.bytes),
                size(image.unique_bytes),
                image.containers
            ));
        }
        text.push('\n');
        text.push_str(&table::align(&lines));
    }
    let unknown = explained.parts.iter().filter(|part| part.kind == "unknown");
    for part in unknown {
        let _ = write!(
            text,
            "\nunknown: {}/{} ({})",
            explained.root,
            part.name,
            size(part.bytes)
        );
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Layers are told apart by who needs them.
fn group_of(part: &agent_api::DiskPart) -> String {
    let cache = part.users.iter().any(|user| user == "build cache");
    let images = part.users.len() - usize::from(cache);
    match part.kind.as_str() {
        "layer" => match (images, cache) {
            (0, true) => "layers of the build cache".to_owned(),
            (0, false) => "layers that nobody needs".to_owned(),
            (1, _) => "layers of one image".to_owned(),
            _ => "layers of several images".to_owned(),
        },
        "container files" | "container log" | "container records" if part.users.is_empty() => {
            format!("{} of no container", part.kind)
        }
        "volume" if part.users.is_empty() => "volume without container".to_owned(),
        kind => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_api::{DiskPart, ExplainedImage};

    #[test]
    fn an_explanation_groups_by_need_and_names_strangers() {
        let part = |kind: &str, name: &str, bytes: u64, users: &[&str]| DiskPart {
            kind: kind.to_owned(),
            name: name.to_owned(),
            bytes,
            files: 2,
            users: users.iter().map(|&user| user.to_owned()).collect(),
        };
        let text = explanation(&DiskExplanation {
            root: "/data".to_owned(),
            bytes: 10_600,
            files: 12,
            parts: vec![
                part("layer", "a", 4000, &["sha256:1", "sha256:2", "build cache"]),
                part("layer", "b", 3000, &["sha256:1"]),
                part("layer", "c", 2000, &["build cache"]),
                part("layer", "d", 1000, &[]),
                part("volume", "v", 500, &[]),
                part("unknown", "core.7", 100, &[]),
            ],
            images: vec![ExplainedImage {
                id: "sha256:0123456789abcdef".to_owned(),
                tags: vec!["app:1".to_owned()],
                bytes: 7000,
                unique_bytes: 3000,
                last_used: Some("2026-01-02T03:04:05.678Z".to_owned()),
                containers: 3,
            }],
        });
        let expected = [
            "WHAT                        HOW MANY   FILES     SIZE",
            "layers of several images    1          2         4kB",
            "layers of one image         1          2         3kB",
            "layers of the build cache   1          2         2kB",
            "layers that nobody needs    1          2         1kB",
            "volume without container    1          2         500B",
            "unknown                     1          2         100B",
            "all of /data                           12        10.6kB",
            "",
            "IMAGE     ON DISK   ITS OWN   CONTAINERS   LAST USED",
            "app:1     7kB       3kB       3            2026-01-02T03:04:05",
            "",
            "unknown: /data/core.7 (100B)",
            "",
        ];
        let trimmed: Vec<&str> = text.split('\n').map(str::trim_end).collect();
        assert_eq!(trimmed, expected);
    }
}
