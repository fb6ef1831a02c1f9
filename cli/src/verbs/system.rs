//! The daemon as a whole: version, info, prune.
//! Source: docker/cli `cli/command/system`.

pub(crate) use super::disk::{DfArgs, df};
use crate::connect::Session;
use crate::failure::{Failure, Outcome, describe};
use crate::flags::filter;
use crate::out;
use crate::render::json;
use crate::render::rows::unescape;
use crate::render::template::{Template, Value};
use crate::render::units::{bytes_size, human_size};
use agent_api::client::build::PruneBuildsOptions;
use agent_api::swarm::{Info, LocalNodeState};
use agent_api::{
    API_VERSION, ImageDeleteItem, PrunePreview, PruneTarget, SystemInfo, VersionResponse,
};
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;

/// Show the muster version information
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster version --format '{{.Server.Version}}'")]
pub(crate) struct VersionArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

/// The client's half is shown even when the daemon does not answer; none is started for it.
pub(crate) async fn version(session: &Session, args: VersionArgs) -> Outcome {
    let server = async { anyhow::Ok(session.running().await?.version().await?) }.await;
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": format!("{}.{}", API_VERSION.0, API_VERSION.1),
        "DefaultAPIVersion": format!("{}.{}", API_VERSION.0, API_VERSION.1),
        "Os": std::env::consts::OS,
        "Arch": go_arch(std::env::consts::ARCH),
        "Context": "default",
    });
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        let all = json!({"Client": client, "Server": server.as_ref().ok().map(serde_json::to_value).transpose()?});
        if format == "json" {
            out::line(json::compact(&all))?;
        } else {
            let template = Template::parse(&unescape(format))
                .map_err(|error| Failure::new(64, error.to_string()))?;
            match template.render(&Value::from(&all)) {
                Ok(text) => out::line(text)?,
                // What the template asks for may be the daemon's: its absence is the reason then.
                Err(error) => return Err(server.err().unwrap_or_else(|| error.into())),
            }
        }
    } else {
        out::line("Client:")?;
        out::text(&fields(&[
            ("Version", env!("CARGO_PKG_VERSION")),
            (
                "API version",
                client["ApiVersion"].as_str().unwrap_or_default(),
            ),
            (
                "OS/Arch",
                &format!(
                    "{}/{}",
                    std::env::consts::OS,
                    go_arch(std::env::consts::ARCH)
                ),
            ),
        ]))?;
        if let Ok(server) = &server {
            out::text(&server_version(server))?;
        }
    }
    match server {
        Ok(_) => Ok(0),
        Err(error) => {
            out::note(describe(&error));
            Ok(1)
        }
    }
}

fn server_version(server: &VersionResponse) -> String {
    let mut text = format!("\nServer: {}\n", server.platform.name);
    text.push_str(" Engine:\n");
    for line in fields(&[
        ("Version", &server.version),
        (
            "API version",
            &format!(
                "{} (minimum version {})",
                server.api_version, server.min_api_version
            ),
        ),
        ("Git commit", &server.git_commit),
        ("Built", &server.build_time),
        ("OS/Arch", &format!("{}/{}", server.os, server.arch)),
        ("Kernel", &server.kernel_version),
    ])
    .lines()
    {
        let _ = writeln!(text, " {line}");
    }
    text
}

/// ` Name:      value`, names padded to one column; empty values are left out.
fn fields(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, " {:<18}{value}", format!("{name}:"));
    }
    text
}

/// Go's name of an architecture.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Display system-wide information
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster info --format '{{.Driver}}'")]
pub(crate) struct InfoArgs {
    /// Format output: 'json' or a Go template
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) async fn info(session: &Session, args: InfoArgs) -> Outcome {
    let info = session.client().await?.info().await?;
    match args.format.as_deref() {
        None | Some("") => out::text(&info_text(&info, session.host()))?,
        Some(format) => {
            let value = serde_json::to_value(&info)?;
            if format == "json" {
                out::line(json::compact(&value))?;
            } else {
                let template = Template::parse(&unescape(format))
                    .map_err(|error| Failure::new(64, error.to_string()))?;
                out::line(template.render(&Value::from(&value))?)?;
            }
        }
    }
    for warning in info.warnings.iter().flatten() {
        out::note(warning);
    }
    Ok(0)
}

fn info_text(info: &SystemInfo, host: &str) -> String {
    let mut text = format!(
        "Client:\n Version:    {}\n Host:       {host}\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut add = |indent: usize, name: &str, value: &str| {
        let _ = writeln!(text, "{}{name}: {value}", " ".repeat(indent));
    };
    add(1, "Containers", &info.containers.to_string());
    add(2, "Running", &info.containers_running.to_string());
    add(2, "Paused", &info.containers_paused.to_string());
    add(2, "Stopped", &info.containers_stopped.to_string());
    add(1, "Images", &info.images.to_string());
    add(1, "Server Version", &info.server_version);
    add(1, "Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        add(2, name, value);
    }
    add(1, "Logging Driver", &info.logging_driver);
    add(1, "Cgroup Driver", &info.cgroup_driver);
    add(1, "Cgroup Version", &info.cgroup_version);
    let list = |plugins: &Option<Vec<String>>| plugins.as_deref().unwrap_or_default().join(" ");
    add(1, "Plugins", "");
    add(2, "Volume", &list(&info.plugins.volume));
    add(2, "Network", &list(&info.plugins.network));
    add(2, "Log", &list(&info.plugins.log));
    swarm_text(&info.swarm, &mut add);
    add(1, "Default Runtime", &info.default_runtime);
    add(1, "Security Options", &info.security_options.join(" "));
    add(1, "Kernel Version", &info.kernel_version);
    add(1, "Operating System", &info.operating_system);
    add(1, "OSType", &info.os_type);
    add(1, "Architecture", &info.architecture);
    add(1, "CPUs", &info.ncpu.to_string());
    add(1, "Total Memory", &bytes_size(info.mem_total));
    add(1, "Name", &info.name);
    add(1, "ID", &info.id);
    add(1, "Root Dir", &info.docker_root_dir);
    add(1, "Debug Mode", &info.debug.to_string());
    if !info.labels.is_empty() {
        add(1, "Labels", &info.labels.join(" "));
    }
    add(
        1,
        "Live Restore Enabled",
        &info.live_restore_enabled.to_string(),
    );
    text
}

/// What the host is in its cluster; managers know more.
fn swarm_text(swarm: &Info, add: &mut impl FnMut(usize, &str, &str)) {
    let state = serde_json::to_value(swarm.local_node_state);
    let state = state.as_ref().ok().and_then(serde_json::Value::as_str);
    add(1, "Swarm", state.unwrap_or_default());
    if swarm.local_node_state == LocalNodeState::Inactive {
        return;
    }
    add(2, "NodeID", &swarm.node_id);
    if !swarm.error.is_empty() {
        add(2, "Error", &swarm.error);
    }
    add(2, "Is Manager", &swarm.control_available.to_string());
    if let (true, Some(cluster)) = (swarm.control_available, &swarm.cluster) {
        add(2, "ClusterID", &cluster.id);
        add(2, "Managers", &swarm.managers.to_string());
        add(2, "Nodes", &swarm.nodes.to_string());
        if !cluster.default_addr_pool.is_empty() {
            add(
                2,
                "Default Address Pool",
                &cluster.default_addr_pool.join("  "),
            );
            add(2, "SubnetSize", &cluster.subnet_size.to_string());
        }
        add(2, "Data Path Port", &cluster.data_path_port.to_string());
    }
    add(2, "Node Address", &swarm.node_addr);
    if !swarm.remote_managers.is_empty() {
        let managers = swarm.remote_managers.iter();
        let lines: String = managers.map(|peer| format!("\n   {}", peer.addr)).collect();
        add(2, "Manager Addresses", &lines);
    }
}

/// Remove unused data
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster system prune -af --volumes")]
pub(crate) struct PruneArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Show what would be removed and how much that gives back, and remove nothing
    #[arg(long, conflicts_with = "force")]
    dry_run: bool,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Provide filter values (e.g. "until=24h", "label=app")
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

pub(crate) async fn prune(session: &Session, args: PruneArgs) -> Outcome {
    let filters = filter::filters(&args.filter).map_err(|reason| Failure::new(1, reason))?;
    if args.volumes && filters.contains("until") {
        let reason = "the \"until\" filter is not supported with \"--volumes\"";
        return Err(Failure::new(1, reason).into());
    }
    if args.dry_run {
        let client = session.client().await?;
        let preview = client
            .preview_prune(&filters, args.all, args.volumes)
            .await?;
        out::text(&preview_text(&preview))?;
        return Ok(0);
    }
    let mut warning = String::from(
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n",
    );
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(if args.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    });
    // Records of the build cache have no labels that could choose.
    let by_label = filters.contains("label") || filters.contains("label!");
    if !by_label {
        warning.push_str(if args.all {
            "  - all build cache\n"
        } else {
            "  - unused build cache\n"
        });
    }
    if !args.force && !super::confirm(&warning)? {
        return Ok(0);
    }
    let client = session.client().await?;
    let containers = client.prune_containers(&filters).await?;
    super::show_pruned(
        "Deleted Containers:",
        containers.containers_deleted.as_deref().unwrap_or_default(),
    )?;
    let networks = client.prune_networks(&filters).await?;
    super::show_pruned(
        "Deleted Networks:",
        networks.networks_deleted.as_deref().unwrap_or_default(),
    )?;
    let mut reclaimed = containers.space_reclaimed;
    if args.volumes {
        let volumes = client.prune_volumes(&filters).await?;
        super::show_pruned(
            "Deleted Volumes:",
            volumes.volumes_deleted.as_deref().unwrap_or_default(),
        )?;
        reclaimed += volumes.space_reclaimed;
    }
    let image_filters = filters
        .clone()
        .with("dangling", if args.all { "false" } else { "true" });
    let images = client.prune_images(&image_filters).await?;
    super::image::show_deleted(images.images_deleted.as_deref().unwrap_or_default())?;
    reclaimed += images.space_reclaimed;
    if !by_label {
        let options = PruneBuildsOptions {
            all: args.all,
            filters,
            ..PruneBuildsOptions::default()
        };
        let cache = client.prune_builds(&options).await?;
        super::show_pruned("Deleted build cache objects:", &cache.caches_deleted)?;
        reclaimed += cache.space_reclaimed;
    }
    super::show_reclaimed(reclaimed)?;
    Ok(0)
}

/// What a prune would remove, in the order in which it would.
fn preview_text(preview: &PrunePreview) -> String {
    let size = |bytes: u64| human_size(i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(text, "{title}\n  {}\n\n", lines.join("\n  "));
        }
    };
    let target = |target: &PruneTarget| format!("{} ({})", target.name, size(target.bytes));
    let image = |item: &ImageDeleteItem| match item {
        ImageDeleteItem::Untagged(name) => format!("untag {name}"),
        ImageDeleteItem::Deleted(id) => id.clone(),
    };
    section(
        "Containers:",
        preview.containers.iter().map(target).collect(),
    );
    section("Networks:", preview.networks.clone());
    section("Volumes:", preview.volumes.iter().map(target).collect());
    section("Images:", preview.images.iter().map(image).collect());
    let targets = preview.containers.iter().chain(&preview.volumes);
    let bytes: u64 = targets.map(|target| target.bytes).sum();
    let _ = writeln!(
        text,
        "Would reclaim: {} (the build cache not counted: see builder du)",
        size(bytes + preview.image_bytes)
    );
    text
}
