//! The facade's operations on the engine itself.

use std::fs;
use std::sync::Arc;

use agent_api::{
    ComponentVersion, ContainerStatus, DiskUsage, EventMessage, Labels, PlatformName, PluginsInfo,
    SystemInfo, VersionResponse,
};
use agent_image::ListFilter;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde_json::json;

use super::defaults::RUNTIME;
use super::inspect::STORAGE_DRIVER;
use super::shared::{Reloadable, blocking};
use super::{Engine, EventOptions, ListOptions, images, stats, volumes};
use crate::error::Result;

impl Engine {
    /// Events, past ones first if asked for. Registered when this returns.
    pub async fn events(&self, options: EventOptions) -> Result<BoxStream<'static, EventMessage>> {
        self.shared.events.listen(options)
    }

    /// Tells listeners what happened in the cluster.
    pub(crate) fn cluster_event(&self, event: EventMessage) {
        self.shared.events.cluster(event);
    }

    /// Takes what a reload of the configuration changes, and tells listeners.
    pub fn reload(&self, debug: bool, labels: Vec<String>) {
        let attributes = [
            ("debug", debug.to_string()),
            ("labels", json!(labels).to_string()),
        ];
        *self.shared.reloadable.write() = Reloadable { debug, labels };
        let attributes = attributes
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        self.shared
            .events
            .other("daemon", &self.id(), "reload", &attributes);
    }

    /// Facts about the engine and the host.
    pub async fn info(&self) -> Result<SystemInfo> {
        let shared = Arc::clone(&self.shared);
        let gathered = blocking(move || {
            let images = shared
                .images
                .list(&ListFilter {
                    all: true,
                    ..ListFilter::default()
                })?
                .len();
            Ok((images, shared.networks.warnings()))
        });
        let (images, mut warnings) = gathered.await?;
        let shared = &self.shared;
        let statuses: Vec<ContainerStatus> = shared
            .registry
            .pictures()
            .iter()
            .map(|container| container.state.status)
            .collect();
        let count = |wanted: &[ContainerStatus]| {
            i64::try_from(
                statuses
                    .iter()
                    .filter(|status| wanted.contains(status))
                    .count(),
            )
            .unwrap_or(i64::MAX)
        };
        let controllers = shared.hierarchy.controllers();
        let has = |name: &str| controllers.contains(&name);
        let v2 = shared.hierarchy.version() == agent_runtime::cgroup::Version::V2;
        if !shared.host.swap_limit {
            warnings.push("WARNING: No swap limit support".to_owned());
        }
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let system = system_release();
        let uname = rustix::system::uname();
        let options = &shared.options;
        let reloadable = shared.reloadable.read().clone();
        Ok(SystemInfo {
            id: self.id(),
            containers: i64::try_from(statuses.len()).unwrap_or(i64::MAX),
            containers_running: count(&[ContainerStatus::Running, ContainerStatus::Restarting]),
            containers_paused: count(&[ContainerStatus::Paused]),
            containers_stopped: count(&[
                ContainerStatus::Created,
                ContainerStatus::Exited,
                ContainerStatus::Dead,
                ContainerStatus::Removing,
            ]),
            images: i64::try_from(images).unwrap_or(i64::MAX),
            driver: STORAGE_DRIVER.to_owned(),
            driver_status: vec![["Supports d_type".to_owned(), "true".to_owned()]],
            plugins: PluginsInfo {
                volume: names(&["local"]),
                network: names(&["bridge", "host", "null", "overlay"]),
                authorization: None,
                log: names(&["json-file", "local", "none"]),
            },
            memory_limit: has("memory"),
            swap_limit: shared.host.swap_limit,
            cpu_cfs_period: has("cpu"),
            cpu_cfs_quota: has("cpu"),
            cpu_shares: has("cpu"),
            cpu_set: has("cpuset"),
            pids_limit: has("pids"),
            ipv4_forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                .is_ok_and(|text| text.trim() == "1"),
            debug: reloadable.debug,
            n_fd: i64::try_from(fs::read_dir("/proc/self/fd").map_or(0, Iterator::count))
                .unwrap_or(-1),
            oom_kill_disable: !v2 && has("memory"),
            n_goroutines: i64::try_from(
                tokio::runtime::Handle::current()
                    .metrics()
                    .num_alive_tasks(),
            )
            .unwrap_or(-1),
            system_time: Timestamp::now().to_string(),
            logging_driver: options.log_driver.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
            n_events_listener: i64::try_from(shared.events.listeners()).unwrap_or(-1),
            kernel_version: uname.release().to_string_lossy().into_owned(),
            operating_system: system.0,
            os_version: system.1,
            os_type: "linux".to_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            firewall_backend: Some(json!({ "Driver": "nftables" })),
            registry_config: Some(super::pull::registry_config(&options.registries)),
            ncpu: i64::try_from(shared.host.cpus).unwrap_or(-1),
            mem_total: stats::host_memory()
                .and_then(|bytes| i64::try_from(bytes).ok())
                .unwrap_or(-1),
            docker_root_dir: options.data_root.to_string_lossy().into_owned(),
            name: uname.nodename().to_string_lossy().into_owned(),
            labels: reloadable.labels,
            server_version: options.version.clone(),
            runtimes: Some(json!({ RUNTIME: { "path": "muster" } })),
            default_runtime: RUNTIME.to_owned(),
            live_restore_enabled: true,
            init_binary: "docker-init".to_owned(),
            containerd_commit: json!({ "ID": "" }),
            runc_commit: json!({ "ID": "" }),
            init_commit: json!({ "ID": "" }),
            security_options: security_options(v2),
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            ..SystemInfo::default()
        })
    }

    /// Identifies this engine: made once, kept in the data root.
    fn id(&self) -> String {
        let path = self.shared.options.data_root.join("engine-id");
        if let Ok(id) = fs::read_to_string(&path) {
            return id.trim().to_owned();
        }
        let bytes: [u8; 16] = rand::random();
        let hex = hex::encode(bytes);
        let id = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-");
        if let Err(error) = fs::write(&path, &id) {
            tracing::warn!(path = %path.display(), %error, "the engine has another id after a restart");
        }
        id
    }

    /// Versions.
    pub fn version(&self) -> VersionResponse {
        let uname = rustix::system::uname();
        let arch = match uname.machine().to_str() {
            Ok("x86_64") => "amd64".to_owned(),
            Ok("aarch64") => "arm64".to_owned(),
            _ => uname.machine().to_string_lossy().into_owned(),
        };
        let version = self.shared.options.version.clone();
        let api = |(major, minor): (u16, u16)| format!("{major}.{minor}");
        let kernel_version = uname.release().to_string_lossy().into_owned();
        let details = [
            ("ApiVersion", api(agent_api::API_VERSION)),
            ("Arch", arch.clone()),
            ("KernelVersion", kernel_version.clone()),
            ("MinAPIVersion", api(agent_api::MIN_API_VERSION)),
            ("Os", "linux".to_owned()),
        ];
        let details: Labels = details
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        VersionResponse {
            platform: PlatformName {
                name: "muster".to_owned(),
            },
            components: vec![ComponentVersion {
                name: "Engine".to_owned(),
                version: version.clone(),
                details: Some(details),
            }],
            version,
            api_version: api(agent_api::API_VERSION),
            min_api_version: api(agent_api::MIN_API_VERSION),
            os: "linux".to_owned(),
            arch,
            kernel_version,
            ..VersionResponse::default()
        }
    }

    /// What uses how much disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let containers = self
            .list_containers(ListOptions {
                all: true,
                size: true,
                ..ListOptions::default()
            })
            .await?;
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let usage = shared.images.disk_usage();
            let counts = images::container_counts(&shared);
            let mut list = Vec::new();
            for image in shared.images.list(&ListFilter {
                all: true,
                ..ListFilter::default()
            })? {
                let mut summary = images::summary(&image);
                if let Some(own) = usage.images.iter().find(|own| own.id == image.id) {
                    summary.shared_size = i64::try_from(own.shared_size).unwrap_or(i64::MAX);
                }
                summary.containers = counts.get(&summary.id).copied().unwrap_or(0);
                list.push(summary);
            }
            let volumes = shared.volumes.list(&agent_api::Filters::new(), |_| 0)?;
            let volumes = volumes.into_iter().map(|volume| {
                let users = shared.registry.volume_users(&volume.name).len();
                let size = shared.volumes.size(&volume.name);
                volumes::with_usage(volume, users, size)
            });
            Ok(DiskUsage {
                layers_size: i64::try_from(usage.layers_size).unwrap_or(i64::MAX),
                images: list,
                volumes: volumes.collect(),
                containers,
                build_cache: Vec::new(),
            })
        })
        .await
    }
}

fn security_options(v2: bool) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if v2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

/// Name and version of the host's distribution.
fn system_release() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    (
        value("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        value("VERSION_ID").unwrap_or_default(),
    )
}
