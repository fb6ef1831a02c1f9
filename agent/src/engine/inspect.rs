//! A container as the API shows it: everything, or one row of a list. Pure; the clock is a parameter.
//!
//! Shapes and texts were compared with dockerd 28 (moby `daemon/inspect.go`, `daemon/container/state.go:String`,
//! go-units `HumanDuration`).

use std::path::Path;

use agent_api::{
    ContainerInspect, ContainerState, ContainerStatus, ContainerSummary, DriverData,
    EndpointSettings, HealthStatus, NetworkSettings, SummaryHostConfig, SummaryNetworkSettings,
};
use indexmap::IndexMap;
use jiff::Timestamp;

use super::container::Container;
use super::ports;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The storage driver's name that tools know.
pub(crate) const STORAGE_DRIVER: &str = "overlay2";

/// Facts about a container that are not its own.
pub(crate) struct Surroundings<'a> {
    /// The container's directory.
    pub(crate) directory: &'a Path,
    pub(crate) log_path: &'a Path,
    /// Image layers, top first; empty when the image is gone.
    pub(crate) layers: &'a [std::path::PathBuf],
    /// Ids of execs that run.
    pub(crate) execs: Vec<String>,
}

/// Everything about a container.
pub(crate) fn inspect(container: &Container, around: Surroundings<'_>) -> ContainerInspect {
    let definition = &*container.definition;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let file = |name: &str| match container.state.started_at {
        None if container.state.error.is_empty() => String::new(),
        _ => text(&around.directory.join(name)),
    };
    let mut config = definition.config.clone();
    if config.hostname.is_empty() && definition.host.uts_mode != "host" {
        definition.short_id().clone_into(&mut config.hostname);
    }
    let layers: Vec<String> = around.layers.iter().map(|layer| text(layer)).collect();
    let graph = [
        ("ID", definition.id.clone()),
        ("LowerDir", layers.join(":")),
        ("UpperDir", text(&around.directory.join("upper"))),
        ("WorkDir", text(&around.directory.join("work"))),
    ];
    ContainerInspect {
        id: definition.id.clone(),
        created: definition.created.to_string(),
        path: definition.command.first().cloned().unwrap_or_default(),
        args: definition.command.iter().skip(1).cloned().collect(),
        state: state(container),
        image: definition.image.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: match definition.host.log_config.kind.as_str() {
            "none" => String::new(),
            _ => text(around.log_path),
        },
        name: format!("/{}", definition.name),
        restart_count: container.state.restart_count,
        driver: STORAGE_DRIVER.to_owned(),
        platform: "linux".to_owned(),
        exec_ids: Some(around.execs).filter(|ids| !ids.is_empty()),
        host_config: definition.host.clone(),
        graph_driver: DriverData {
            name: STORAGE_DRIVER.to_owned(),
            data: Some(
                graph
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect(),
            ),
        },
        mounts: definition.mount_points(),
        config,
        network_settings: network_settings(container),
        ..ContainerInspect::default()
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn state(container: &Container) -> ContainerState {
    let state = &container.state;
    let status = state.status;
    ContainerState {
        status,
        running: matches!(
            status,
            ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
        ),
        paused: status == ContainerStatus::Paused,
        restarting: status == ContainerStatus::Restarting,
        oom_killed: state.oom_killed,
        dead: status == ContainerStatus::Dead,
        pid: state.pid,
        exit_code: state.exit_code.into(),
        error: state.error.clone(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: container.health.as_deref().cloned(),
    }
}

fn network_settings(container: &Container) -> NetworkSettings {
    let networks = endpoints(container);
    let mut settings = NetworkSettings {
        ports: ports::port_map(container),
        ..NetworkSettings::default()
    };
    if let Some(attachment) = &container.attachment {
        container.id().clone_into(&mut settings.sandbox_id);
        settings.sandbox_key.clone_from(&attachment.netns);
    }
    // Fields of the time when there was one network.
    if let Some(bridge) = networks.get("bridge") {
        settings.endpoint_id.clone_from(&bridge.endpoint_id);
        settings.gateway.clone_from(&bridge.gateway);
        settings.ip_address.clone_from(&bridge.ip_address);
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.ipv6_gateway.clone_from(&bridge.ipv6_gateway);
        settings
            .global_ipv6_address
            .clone_from(&bridge.global_ipv6_address);
        settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
        settings.mac_address.clone_from(&bridge.mac_address);
    }
    settings.networks = networks;
    settings
}

/// What was asked of each endpoint, with what it has while the container runs.
fn endpoints(container: &Container) -> IndexMap<String, EndpointSettings> {
    let live = container
        .attachment
        .as_ref()
        .map_or(&[][..], |attachment| &attachment.endpoints);
    let asked = container.definition.endpoints.iter();
    asked
        .map(|(name, settings)| {
            let mut settings = settings.clone();
            if let Some(endpoint) = live
                .iter()
                .find(|endpoint| endpoint.network_name == *name || endpoint.network_id == *name)
            {
                settings.network_id.clone_from(&endpoint.network_id);
                settings.endpoint_id.clone_from(&endpoint.id);
                settings.gateway = endpoint
                    .gateway
                    .map(|address| address.to_string())
                    .unwrap_or_default();
                settings.ipv6_gateway = endpoint
                    .gateway_v6
                    .map(|address| address.to_string())
                    .unwrap_or_default();
                if let Some(net) = endpoint.ipv4 {
                    settings.ip_address = net.addr().to_string();
                    settings.ip_prefix_len = net.prefix_len();
                }
                if let Some(net) = endpoint.ipv6 {
                    settings.global_ipv6_address = net.addr().to_string();
                    settings.global_ipv6_prefix_len = net.prefix_len();
                }
                if let Some(mac) = endpoint.mac {
                    settings.mac_address = mac.map(|byte| format!("{byte:02x}")).join(":");
                }
                settings.dns_names =
                    Some(endpoint.dns_names.clone()).filter(|names| !names.is_empty());
            }
            (name.clone(), settings)
        })
        .collect()
}

/// One row of a list.
pub(crate) fn summary(container: &Container, now: Timestamp) -> ContainerSummary {
    let definition = &*container.definition;
    let mut mounts = definition.mount_points();
    for (mount, plan) in mounts
        .iter_mut()
        .zip(definition.mounts.iter().filter(|plan| !plan.unlisted))
    {
        if plan.volume().is_some_and(|volume| volume.anonymous) {
            mount.source.clear();
        }
    }
    ContainerSummary {
        id: definition.id.clone(),
        names: vec![format!("/{}", definition.name)],
        image: definition.config.image.clone(),
        image_id: definition.image.clone(),
        command: command_line(&definition.command),
        created: definition.created.as_second(),
        ports: ports::port_list(container),
        labels: definition.config.labels.clone(),
        state: container.state.status,
        status: status_text(container, now),
        host_config: SummaryHostConfig {
            network_mode: definition.host.network_mode.clone(),
            annotations: definition.host.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings {
            networks: endpoints(container),
        },
        mounts,
        ..ContainerSummary::default()
    }
}

/// Words with spaces are quoted, as moby `daemon/list.go` does.
fn command_line(command: &[String]) -> String {
    let quoted =
        command
            .iter()
            .enumerate()
            .map(|(index, word)| match index > 0 && word.contains(' ') {
                true => format!("'{word}'"),
                false => word.clone(),
            });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 days ago`, `Created`.
pub(crate) fn status_text(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |time: Option<Timestamp>| {
        let passed = time
            .map(|time| now.duration_since(time).as_secs())
            .unwrap_or_default();
        human_duration(u64::try_from(passed).unwrap_or(0))
    };
    match state.status {
        ContainerStatus::Created => "Created".to_owned(),
        ContainerStatus::Removing => "Removal In Progress".to_owned(),
        ContainerStatus::Dead => "Dead".to_owned(),
        ContainerStatus::Paused => format!("Up {} (Paused)", since(state.started_at)),
        ContainerStatus::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                state.exit_code,
                since(state.finished_at)
            )
        }
        ContainerStatus::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        ContainerStatus::Running => {
            let health = match container.health.as_ref().map(|health| health.status) {
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
                Some(HealthStatus::None) | None => "",
            };
            format!("Up {}{health}", since(state.started_at))
        }
    }
}

/// go-units `HumanDuration`.
fn human_duration(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests;
