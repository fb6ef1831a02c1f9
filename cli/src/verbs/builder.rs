//! `builder` (also `buildx`): the build cache, and what tools want to know of a builder.
//! Source: docker/buildx `commands/{du,prune,ls,inspect,version}.go`.

use crate::buildx::options::check_builder;
use crate::buildx::plugin::BUILDX_VERSION;
use crate::buildx::verbs::DebugFlag;
use crate::connect::Session;
use crate::failure::{Failure, Outcome};
use crate::flags::filter;
use crate::out;
use crate::render::rows::{self, Format};
use crate::render::table::align_padded;
use crate::render::template::Row;
use crate::render::units::{human_size, ram_in_bytes};
use agent_api::Filters;
use agent_api::build::BuildCacheRecord;
use agent_api::client::build::PruneBuildsOptions;
use clap::Args;
use jiff::Timestamp;
use std::fmt::Write as _;

/// Disk usage of the build cache
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster builder du --verbose --filter type=regular")]
pub(crate) struct DuArgs {
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    pub(crate) debug: DebugFlag,
    /// Provide filter values (id, type, description, inuse, shared, private, reclaimable)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'pretty', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Shorthand for "--format=pretty"
    #[arg(long)]
    verbose: bool,
}

pub(crate) async fn du(session: &Session, args: DuArgs) -> Outcome {
    check_builder(args.builder.as_deref())?;
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    let mut records = session.client().await?.disk_usage().await?.build_cache;
    records = matching(records, &filters).map_err(|reason| Failure::new(1, reason))?;
    records.sort_by(|a, b| a.size.cmp(&b.size).then_with(|| a.id.cmp(&b.id)));
    let now = Timestamp::now();
    let format = if args.verbose {
        Some("pretty")
    } else {
        args.format.as_deref()
    };
    if format == Some("pretty") {
        let all: String = records.iter().map(|record| pretty(record, now)).collect();
        out::text(&all)?;
        return summary(&records);
    }
    let format = Format {
        flag: format,
        quiet: false,
        quiet_field: "ID",
        table: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}",
        titles: &[
            ("ID", "ID"),
            ("Reclaimable", "RECLAIMABLE"),
            ("Size", "SIZE"),
            ("LastUsedAt", "LAST ACCESSED"),
            ("Type", "TYPE"),
            ("Description", "DESCRIPTION"),
            ("Shared", "SHARED"),
            ("UsageCount", "USAGE"),
        ],
    };
    let rows = records.iter().map(|record| row(record, now)).collect();
    out::text(&rows::render(&format, rows)?)?;
    match format.flag {
        None | Some("table") => summary(&records),
        Some(_) => Ok(0),
    }
}

fn row(record: &BuildCacheRecord, now: Timestamp) -> Row {
    let shared = if record.shared { "*" } else { "" };
    Row::new()
        .with("ID", record.id.as_str())
        .with("Reclaimable", (!record.in_use).to_string())
        .with("Size", human_size(record.size) + shared)
        .with("LastUsedAt", last_used(record, now))
        .with("Type", record.kind.as_str())
        .with("Description", record.description.as_str())
        .with("Shared", record.shared.to_string())
        .with("UsageCount", record.usage_count.to_string())
        .with("InUse", record.in_use.to_string())
        .with("CreatedAt", record.created_at.as_str())
}

fn last_used(record: &BuildCacheRecord, now: Timestamp) -> String {
    let at = record
        .last_used_at
        .as_deref()
        .and_then(|at| at.parse::<Timestamp>().ok());
    at.map(|at| super::ago(at.as_second(), now))
        .unwrap_or_default()
}

fn pretty(record: &BuildCacheRecord, now: Timestamp) -> String {
    let mut text = format!("ID:           {}\n", record.id);
    if !record.parents.is_empty() {
        text.push_str("Parents:\n");
        for parent in &record.parents {
            let _ = writeln!(text, " - {parent}");
        }
    }
    let _ = write!(
        text,
        "Created at:   {}\nMutable:      {}\nReclaimable:  {}\nShared:       {}\nSize:         {}\n",
        record.created_at,
        record.kind == "exec.cachemount",
        !record.in_use,
        record.shared,
        human_size(record.size),
    );
    if !record.description.is_empty() {
        let _ = writeln!(text, "Description:  {}", record.description);
    }
    let _ = writeln!(text, "Usage count:  {}", record.usage_count);
    let used = last_used(record, now);
    if !used.is_empty() {
        let _ = writeln!(text, "Last used:    {used}");
    }
    let _ = writeln!(text, "Type:         {}\n", record.kind);
    text
}

/// What of it is shared, and what would be given back.
fn summary(records: &[BuildCacheRecord]) -> Outcome {
    let sum = |wanted: fn(&BuildCacheRecord) -> bool| -> i64 {
        records
            .iter()
            .filter(|record| wanted(record))
            .map(|record| record.size)
            .sum()
    };
    let shared = sum(|record| record.shared);
    let mut lines = Vec::new();
    if shared > 0 {
        lines.push(format!("Shared:\t{}", human_size(shared)));
        lines.push(format!(
            "Private:\t{}",
            human_size(sum(|record| !record.shared))
        ));
    }
    lines.push(format!(
        "Reclaimable:\t{}",
        human_size(sum(|record| !record.in_use))
    ));
    lines.push(format!("Total:\t{}", human_size(sum(|_| true))));
    out::text(&align_padded(&lines, 1))?;
    Ok(0)
}

/// The records that all filters let through.
fn matching(
    records: Vec<BuildCacheRecord>,
    filters: &Filters,
) -> Result<Vec<BuildCacheRecord>, String> {
    const KNOWN: &[&str] = &[
        "id",
        "type",
        "description",
        "inuse",
        "shared",
        "private",
        "reclaimable",
    ];
    filters.allow(KNOWN).map_err(|error| error.to_string())?;
    let flag = |name| filters.boolean(name).map_err(|error| error.to_string());
    let (in_use, reclaimable) = (flag("inuse")?, flag("reclaimable")?);
    let (shared, private) = (flag("shared")?, flag("private")?);
    let fits = |record: &BuildCacheRecord| {
        let is = |wanted: Option<bool>, holds: bool| wanted.is_none_or(|wanted| wanted == holds);
        filters.any("id", |id| record.id.starts_with(id))
            && filters.any("type", |kind| record.kind == kind)
            && filters.any("description", |text| record.description.contains(text))
            && is(in_use, record.in_use)
            && is(reclaimable, !record.in_use)
            && is(shared, record.shared)
            && is(private, !record.shared)
    };
    Ok(records.into_iter().filter(fits).collect())
}

/// Remove build cache
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster builder prune -f --filter until=24h")]
pub(crate) struct PruneArgs {
    /// Remove all unused build cache, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    pub(crate) debug: DebugFlag,
    /// Provide filter values (e.g., "until=24h")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Maximum amount of disk space allowed to keep for cache
    #[arg(long, value_name = "BYTES")]
    max_used_space: Option<String>,
    /// Target amount of free disk space after pruning
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<String>,
    /// Amount of disk space always allowed to keep for cache
    #[arg(long, alias = "keep-storage", value_name = "BYTES")]
    reserved_space: Option<String>,
    /// Provide a more verbose output
    #[arg(long)]
    verbose: bool,
}

pub(crate) async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    check_builder(args.builder.as_deref())?;
    let size = |flag: &str, text: Option<&str>| match text {
        None => Ok(None),
        Some(text) => ram_in_bytes(text)
            .map(Some)
            .ok_or_else(|| Failure::new(1, format!("invalid --{flag} {text:?}: write 10gb"))),
    };
    let options = PruneBuildsOptions {
        all: args.all,
        reserved_space: size("reserved-space", args.reserved_space.as_deref())?,
        max_used_space: size("max-used-space", args.max_used_space.as_deref())?,
        min_free_space: size("min-free-space", args.min_free_space.as_deref())?,
        filters: filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?,
    };
    let warning = if args.all {
        "WARNING! This will remove all build cache."
    } else {
        "WARNING! This will remove all dangling build cache."
    };
    if !args.force && !super::confirm(warning)? {
        return Ok(0);
    }
    let client = session.client().await?;
    let before = match args.verbose {
        true => client.disk_usage().await?.build_cache,
        false => Vec::new(),
    };
    let pruned = client.prune_builds(&options).await?;
    if args.verbose {
        let now = Timestamp::now();
        let gone = before
            .iter()
            .filter(|record| pruned.caches_deleted.contains(&record.id));
        out::text(&gone.map(|record| pretty(record, now)).collect::<String>())?;
    } else if !pruned.caches_deleted.is_empty() {
        out::line("ID")?;
        out::line(pruned.caches_deleted.join("\n"))?;
    }
    let bytes = i64::try_from(pruned.space_reclaimed).unwrap_or(i64::MAX);
    out::line(format!("Total:\t{}", human_size(bytes)))?;
    Ok(0)
}

/// List builders: there is one
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    pub(crate) debug: DebugFlag,
    /// Format output: 'table', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) async fn ls(session: &Session, args: LsArgs) -> Outcome {
    check_builder(args.builder.as_deref())?;
    let node = Node::of(session).await;
    let format = Format {
        flag: args.format.as_deref(),
        quiet: false,
        quiet_field: "Name",
        table: "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}",
        titles: &[
            ("Name", "NAME/NODE"),
            ("DriverEndpoint", "DRIVER/ENDPOINT"),
            ("Status", "STATUS"),
            ("Buildkit", "BUILDKIT"),
            ("Platforms", "PLATFORMS"),
        ],
    };
    let platforms = node.platforms.join(", ");
    let builder = Row::new()
        .with("Name", "default*")
        .with("DriverEndpoint", "docker")
        .with("Status", "")
        .with("Buildkit", "")
        .with("Platforms", "");
    let row = Row::new()
        .with("Name", " \\_ default")
        .with("DriverEndpoint", " \\_ default")
        .with("Status", node.status)
        .with("Buildkit", node.version)
        .with("Platforms", platforms);
    let rows = if args.format.is_some() {
        vec![row]
    } else {
        vec![builder, row]
    };
    out::text(&rows::render(&format, rows)?)?;
    Ok(0)
}

/// Inspect the builder
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Ensure builder has booted before inspecting
    #[arg(long)]
    bootstrap: bool,
    /// Builder to use (there is one: default)
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    pub(crate) debug: DebugFlag,
    name: Option<String>,
}

pub(crate) async fn inspect(session: &Session, args: InspectArgs) -> Outcome {
    check_builder(args.name.as_deref().or(args.builder.as_deref()))?;
    if args.bootstrap {
        session.client().await?;
    }
    let node = Node::of(session).await;
    let mut lines = vec!["Name:\tdefault".to_owned(), "Driver:\tdocker".to_owned()];
    let mut text = align_padded(&lines, 3) + "\nNodes:\n";
    lines = vec![
        "Name:\tdefault".to_owned(),
        format!("Endpoint:\t{}", session.host()),
        format!("Status:\t{}", node.status),
    ];
    if !node.error.is_empty() {
        lines.push(format!("Error:\t{}", node.error));
    } else {
        lines.push(format!("BuildKit version:\t{}", node.version));
        lines.push(format!("Platforms:\t{}", node.platforms.join(", ")));
    }
    text += &align_padded(&lines, 1);
    out::text(&text)?;
    Ok(0)
}

/// What the daemon says of itself.
struct Node {
    status: &'static str,
    version: String,
    platforms: Vec<String>,
    error: String,
}

impl Node {
    async fn of(session: &Session) -> Self {
        let asked = async { anyhow::Ok(session.running().await?.version().await?) };
        match asked.await {
            Ok(version) => Self {
                status: "running",
                version: format!("muster {}", version.version),
                platforms: vec![format!("{}/{}", version.os, version.arch)],
                error: String::new(),
            },
            Err(error) => Self {
                status: "inactive",
                version: String::new(),
                platforms: Vec::new(),
                error: error.to_string(),
            },
        }
    }
}

/// The line tools look for the version in.
pub(crate) fn version() -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    out::line(format!("muster/buildx {BUILDX_VERSION} muster-{own}"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, kind: &str, in_use: bool) -> BuildCacheRecord {
        BuildCacheRecord {
            id: id.to_owned(),
            kind: kind.to_owned(),
            in_use,
            ..BuildCacheRecord::default()
        }
    }

    #[test]
    fn filters_are_told_from_mistakes() {
        let records = || {
            vec![
                record("ab", "regular", false),
                record("cd", "source.local", true),
            ]
        };
        let ids = |key: &str, value: &str| {
            let mut filters = Filters::new();
            filters.add(key, value);
            let records = matching(records(), &filters)?;
            Ok::<_, String>(
                records
                    .into_iter()
                    .map(|record| record.id)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(ids("type", "regular").unwrap(), "ab");
        assert_eq!(ids("inuse", "true").unwrap(), "cd");
        assert_eq!(ids("reclaimable", "true").unwrap(), "ab");
        assert_eq!(ids("id", "c").unwrap(), "cd");
        assert!(ids("frob", "1").unwrap_err().contains("frob"));
    }

    #[test]
    fn records_are_shown_as_buildx_shows_them() {
        let shown = BuildCacheRecord {
            parents: vec!["p".to_owned()],
            description: "[1/1] WORKDIR /a".to_owned(),
            created_at: "2026-11-22 08:11:34 +0000 UTC".to_owned(),
            usage_count: 1,
            ..record("x", "regular", false)
        };
        assert_eq!(
            pretty(&shown, Timestamp::UNIX_EPOCH),
            "ID:           x\nParents:\n - p\nCreated at:   2026-11-22 08:11:34 +0000 UTC\nMutable:      false\n\
             Reclaimable:  true\nShared:       false\nSize:         0B\nDescription:  [1/1] WORKDIR /a\n\
             Usage count:  1\nType:         regular\n\n"
        );
    }
}
