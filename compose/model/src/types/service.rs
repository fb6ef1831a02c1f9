//! A service: all attributes of the Compose schema, in canonical (long) form.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::record::record;
use super::{
    BlkioConfig, Build, Bytes, CredentialSpec, Deploy, Develop, DeviceMapping, DeviceRequest,
    Duration, EnvFile, ExtraHosts, FileReference, Healthcheck, Logging, Port, Provider,
    ServiceDependency, ServiceHook, ServiceModel, ServiceNetwork, Ulimit, VolumeMount,
};

record! {
    /// One service.
    pub struct ServiceConfig {
        /// Profiles that switch the service on; empty = always on.
        pub profiles: Vec<String>,
        /// OCI annotations of the container.
        pub annotations: BTreeMap<String, String>,
        /// `false`: `up` does not show this service's output.
        pub attach: Option<bool>,
        /// How to build the image.
        pub build: Option<Build>,
        /// Development-time behaviour (`watch`).
        pub develop: Option<Develop>,
        /// Block I/O weights and limits.
        pub blkio_config: Option<BlkioConfig>,
        /// Capabilities added to the default set.
        pub cap_add: Vec<String>,
        /// Capabilities removed from the default set.
        pub cap_drop: Vec<String>,
        /// Parent cgroup.
        pub cgroup_parent: Option<String>,
        /// Cgroup namespace: `host` or `private`.
        pub cgroup: Option<String>,
        /// Number of usable processors (Windows).
        pub cpu_count: Option<i64>,
        /// Usable percentage of processors (Windows).
        pub cpu_percent: Option<f64>,
        /// CFS period in microseconds.
        pub cpu_period: Option<i64>,
        /// CFS quota in microseconds.
        pub cpu_quota: Option<i64>,
        /// Real-time period in microseconds.
        pub cpu_rt_period: Option<i64>,
        /// Real-time runtime in microseconds.
        pub cpu_rt_runtime: Option<i64>,
        /// Number of processors, fractions allowed.
        pub cpus: Option<f64>,
        /// Processors allowed, such as `0-3,7`.
        pub cpuset: Option<String>,
        /// Relative CPU weight.
        pub cpu_shares: Option<i64>,
        /// Command; `None` = the image's, `Some([])` = cleared.
        pub command: Option<Vec<String>>,
        /// Configs mounted into the container.
        pub configs: Vec<FileReference>,
        /// Fixed container name; the service cannot be scaled then.
        pub container_name: Option<String>,
        /// Windows credential spec.
        pub credential_spec: Option<CredentialSpec>,
        /// Services this one needs, including those implied by links and shared namespaces.
        pub depends_on: BTreeMap<String, ServiceDependency>,
        /// Replicas, resources and the cluster's update rules.
        pub deploy: Option<Deploy>,
        /// Device cgroup rules such as `c 1:3 mr`.
        pub device_cgroup_rules: Vec<String>,
        /// Devices passed into the container.
        pub devices: Vec<DeviceMapping>,
        /// DNS servers.
        pub dns: Vec<String>,
        /// Resolver options.
        pub dns_opt: Vec<String>,
        /// DNS search domains.
        pub dns_search: Vec<String>,
        /// NIS domain name.
        pub domainname: Option<String>,
        /// Entrypoint; `None` = the image's, `Some([])` = cleared.
        pub entrypoint: Option<Vec<String>>,
        /// An external program that provides the service.
        pub provider: Option<Provider>,
        /// Environment; `None` = named without a value and not set outside either.
        pub environment: BTreeMap<String, Option<String>>,
        /// Files to read more environment from; emptied once they are read into `environment`.
        pub env_file: Vec<EnvFile>,
        /// Ports exposed to other services only, `PORT[-PORT][/PROTO]`.
        pub expose: Vec<String>,
        /// Links to containers outside the project, `CONTAINER[:ALIAS]`.
        pub external_links: Vec<String>,
        /// Additional lines of `/etc/hosts`.
        pub extra_hosts: ExtraHosts,
        /// Supplementary groups (names or ids).
        pub group_add: Vec<String>,
        /// GPU requests.
        pub gpus: Vec<DeviceRequest>,
        /// Host name.
        pub hostname: Option<String>,
        /// Health check.
        pub healthcheck: Option<Healthcheck>,
        /// Image reference.
        pub image: Option<String>,
        /// Run an init process as pid 1.
        pub init: Option<bool>,
        /// IPC namespace: `shareable`, `private`, `host`, `none`, `service:NAME`, `container:NAME`.
        pub ipc: Option<String>,
        /// Isolation technology (Windows).
        pub isolation: Option<String>,
        /// Container labels.
        pub labels: BTreeMap<String, String>,
        /// Files to read more labels from; emptied once they are read into `labels`.
        pub label_file: Vec<String>,
        /// Links to other services, `SERVICE[:ALIAS]`.
        pub links: Vec<String>,
        /// Log driver and its options.
        pub logging: Option<Logging>,
        /// Memory limit.
        pub mem_limit: Option<Bytes>,
        /// Memory reservation (soft limit).
        pub mem_reservation: Option<Bytes>,
        /// Memory plus swap limit; -1 = unlimited swap.
        pub memswap_limit: Option<Bytes>,
        /// Swappiness, 0 to 100.
        pub mem_swappiness: Option<Bytes>,
        /// MAC address on the primary network.
        pub mac_address: Option<String>,
        /// AI models the service uses.
        pub models: BTreeMap<String, Option<ServiceModel>>,
        /// `none`, `host`, `bridge`, `service:NAME`, `container:NAME`; excludes `networks`.
        pub network_mode: Option<String>,
        /// Networks the service joins.
        pub networks: BTreeMap<String, Option<ServiceNetwork>>,
        /// Do not let the kernel kill the container when out of memory.
        pub oom_kill_disable: bool,
        /// OOM score adjustment, -1000 to 1000.
        pub oom_score_adj: Option<i64>,
        /// PID namespace: `host`, `service:NAME`, `container:NAME`.
        pub pid: Option<String>,
        /// Limit of processes; -1 = unlimited.
        pub pids_limit: Option<i64>,
        /// Platform, `os[/arch[/variant]]`.
        pub platform: Option<String>,
        /// Published ports, ranges expanded.
        pub ports: Vec<Port>,
        /// Give the container all privileges.
        pub privileged: bool,
        /// When to pull the image.
        pub pull_policy: Option<PullPolicy>,
        /// Age after which a `refresh` pull policy pulls again.
        pub pull_refresh_after: Option<String>,
        /// Mount the root file system read-only.
        pub read_only: bool,
        /// Restart policy.
        pub restart: Option<RestartPolicy>,
        /// OCI runtime to use.
        pub runtime: Option<String>,
        /// Number of containers; use [`ServiceConfig::replicas`].
        pub scale: Option<u32>,
        /// Secrets mounted into the container.
        pub secrets: Vec<FileReference>,
        /// Security options (`seccomp=…`, `label=…`, `no-new-privileges:true`).
        pub security_opt: Vec<String>,
        /// Size of `/dev/shm`.
        pub shm_size: Option<Bytes>,
        /// Keep standard input open.
        pub stdin_open: bool,
        /// Time between the stop signal and SIGKILL.
        pub stop_grace_period: Option<Duration>,
        /// Signal that stops the container.
        pub stop_signal: Option<String>,
        /// Storage driver options.
        pub storage_opt: BTreeMap<String, String>,
        /// Kernel parameters.
        pub sysctls: BTreeMap<String, String>,
        /// Temporary file systems, `PATH[:OPTIONS]`.
        pub tmpfs: Vec<String>,
        /// Allocate a terminal.
        pub tty: bool,
        /// Resource limits by name.
        pub ulimits: BTreeMap<String, Ulimit>,
        /// Mount the engine's API socket.
        pub use_api_socket: bool,
        /// `USER[:GROUP]`, names or ids.
        pub user: Option<String>,
        /// User namespace mode.
        pub userns_mode: Option<String>,
        /// UTS namespace mode.
        pub uts: Option<String>,
        /// Mounts.
        pub volumes: Vec<VolumeMount>,
        /// Containers whose volumes are mounted too, `SERVICE[:ro|rw]` or `container:NAME[:ro|rw]`.
        pub volumes_from: Vec<String>,
        /// Working directory.
        pub working_dir: Option<String>,
        /// Containers run before the service's own is started.
        pub pre_start: Vec<ServiceHook>,
        /// Commands run in the container after its start.
        pub post_start: Vec<ServiceHook>,
        /// Commands run in the container before its stop.
        pub pre_stop: Vec<ServiceHook>,
    }
}

impl ServiceConfig {
    /// How many containers the service shall have: `scale`, else `deploy.replicas`, else 1.
    pub fn replicas(&self) -> u32 {
        self.scale
            .or_else(|| self.deploy.as_ref().and_then(|deploy| deploy.replicas))
            .unwrap_or(1)
    }

    /// The image to run: `image`, or the name `PROJECT-SERVICE` that a build is tagged with.
    pub fn image_or_default(&self, project: &str, service: &str) -> String {
        match &self.image {
            Some(image) => image.clone(),
            None => format!("{project}-{service}"),
        }
    }

    /// Network keys, the one that the container's default identity comes from first: highest priority, then name.
    pub fn networks_by_priority(&self) -> Vec<&str> {
        let mut names: Vec<(i64, &str)> = self
            .networks
            .iter()
            .map(|(name, network)| {
                let priority = network.as_ref().and_then(|network| network.priority);
                (priority.unwrap_or(0), name.as_str())
            })
            .collect();
        names.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        names.into_iter().map(|(_, name)| name).collect()
    }
}

/// What the engine does when the container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// `no`.
    No,
    /// `always`.
    Always,
    /// `unless-stopped`.
    UnlessStopped,
    /// `on-failure[:MAX]`.
    OnFailure {
        /// Attempts before giving up; `None` = no limit.
        max_retries: Option<u32>,
    },
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "invalid restart policy {text:?}: use no, always, unless-stopped, on-failure or on-failure:N"
            )
        };
        match text.split_once(':') {
            None => match text {
                "no" => Ok(RestartPolicy::No),
                "always" => Ok(RestartPolicy::Always),
                "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
                "on-failure" => Ok(RestartPolicy::OnFailure { max_retries: None }),
                _ => Err(bad()),
            },
            Some(("on-failure", max)) => {
                let max = max.parse().map_err(|_| bad())?;
                Ok(RestartPolicy::OnFailure {
                    max_retries: Some(max),
                })
            }
            Some(_) => Err(bad()),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> String {
        policy.to_string()
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartPolicy::No => f.write_str("no"),
            RestartPolicy::Always => f.write_str("always"),
            RestartPolicy::UnlessStopped => f.write_str("unless-stopped"),
            RestartPolicy::OnFailure { max_retries: None } => f.write_str("on-failure"),
            RestartPolicy::OnFailure {
                max_retries: Some(max),
            } => write!(f, "on-failure:{max}"),
        }
    }
}

/// When an image is pulled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PullPolicy {
    /// `always`.
    Always,
    /// `never`.
    Never,
    /// `missing` and its synonym `if_not_present`.
    Missing,
    /// `build`: (re)build it, never pull.
    Build,
    /// `refresh`: pull when older than `pull_refresh_after`.
    Refresh,
    /// `daily`.
    Daily,
    /// `weekly`.
    Weekly,
    /// `every_DURATION`.
    Every {
        /// Age after which the image is pulled again.
        interval: Duration,
        /// The duration as it was written.
        text: String,
    },
}

impl TryFrom<String> for PullPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            "missing" | "if_not_present" => PullPolicy::Missing,
            "build" => PullPolicy::Build,
            "refresh" => PullPolicy::Refresh,
            "daily" => PullPolicy::Daily,
            "weekly" => PullPolicy::Weekly,
            other => match other.strip_prefix("every_") {
                Some(text) => PullPolicy::Every {
                    interval: text.parse()?,
                    text: text.to_owned(),
                },
                None => {
                    return Err(format!(
                        "invalid pull policy {text:?}: use always, never, missing, build, refresh, daily, weekly or every_DURATION"
                    ));
                }
            },
        })
    }
}

impl From<PullPolicy> for String {
    fn from(policy: PullPolicy) -> String {
        match policy {
            PullPolicy::Always => "always".into(),
            PullPolicy::Never => "never".into(),
            PullPolicy::Missing => "missing".into(),
            PullPolicy::Build => "build".into(),
            PullPolicy::Refresh => "refresh".into(),
            PullPolicy::Daily => "daily".into(),
            PullPolicy::Weekly => "weekly".into(),
            PullPolicy::Every { text, .. } => format!("every_{text}"),
        }
    }
}
