//! Smaller parts of a service: dependencies, environment files, hosts, limits, devices, health check, hooks,
//! logging, watch rules, references to configs and secrets.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::{Absent, record};
use super::scalars::{DefaultTrue, OptOut};
use super::{Bytes, DeviceCount, Duration, FileMode};

/// When a dependency counts as fulfilled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// Its containers were started.
    #[default]
    ServiceStarted,
    /// Its containers are healthy.
    ServiceHealthy,
    /// Its container ran and ended with exit code 0.
    ServiceCompletedSuccessfully,
}

impl Absent for DependencyCondition {
    fn is_absent(&self) -> bool {
        false
    }
}

record! {
    /// One entry of `depends_on`.
    pub struct ServiceDependency {
        /// What to wait for.
        pub condition: DependencyCondition,
        /// Restart this service after Compose restarted the dependency.
        pub restart: bool,
        /// `false`: go on with a warning when the dependency is missing or fails.
        pub required: DefaultTrue,
    }
}

record! {
    /// One entry of `env_file`.
    pub struct EnvFile {
        /// Absolute path.
        pub path: String,
        /// `false`: a missing file is ignored.
        pub required: OptOut,
        /// `raw` = `KEY=VALUE` lines without quoting or interpolation.
        pub format: Option<String>,
    }
}

/// `extra_hosts`: host → addresses. Written back as a sorted list `host=address`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraHosts(pub BTreeMap<String, Vec<String>>);

impl Absent for ExtraHosts {
    fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<String>),
    One(Option<String>),
}

impl<'de> Deserialize<'de> for ExtraHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: BTreeMap<String, OneOrMany> = BTreeMap::deserialize(deserializer)?;
        let mut hosts = BTreeMap::new();
        for (host, addresses) in raw {
            if host.is_empty() || host.contains([':', '=']) {
                return Err(D::Error::custom(format!("bad host name {host:?}")));
            }
            let addresses = match addresses {
                OneOrMany::Many(list) => list,
                OneOrMany::One(one) => vec![one.unwrap_or_default()],
            };
            let plain = |address: String| match address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                Some(inner) => inner.to_owned(),
                None => address,
            };
            hosts.insert(host, addresses.into_iter().map(plain).collect());
        }
        Ok(ExtraHosts(hosts))
    }
}

impl Serialize for ExtraHosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lines: Vec<String> = self
            .0
            .iter()
            .flat_map(|(host, addresses)| addresses.iter().map(move |ip| format!("{host}={ip}")))
            .collect();
        lines.sort();
        serializer.collect_seq(lines)
    }
}

/// A resource limit; one number in the file means soft = hard. -1 = unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ulimit {
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
    /// Whether the file wrote a single number.
    pub single: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UlimitForm {
    Single(i64),
    Text(String),
    Pair { soft: i64, hard: i64 },
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let single = |value| Ulimit {
            soft: value,
            hard: value,
            single: true,
        };
        match UlimitForm::deserialize(deserializer)? {
            UlimitForm::Single(value) => Ok(single(value)),
            UlimitForm::Text(text) => text
                .parse()
                .map(single)
                .map_err(|_| D::Error::custom(format!("invalid limit {text:?}: write a number"))),
            UlimitForm::Pair { soft, hard } => Ok(Ulimit {
                soft,
                hard,
                single: false,
            }),
        }
    }
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.single {
            return serializer.serialize_i64(self.soft);
        }
        serializer.collect_map([("soft", self.soft), ("hard", self.hard)])
    }
}

record! {
    /// One entry of `devices`.
    pub struct DeviceMapping {
        /// Device on the host, or a CDI name.
        pub source: String,
        /// Device in the container.
        pub target: Option<String>,
        /// Any of `r`, `w`, `m`.
        pub permissions: Option<String>,
    }
}

record! {
    /// A request for devices (`gpus`, `deploy.resources.reservations.devices`).
    pub struct DeviceRequest {
        /// Capabilities the device must have.
        pub capabilities: Vec<String>,
        /// Device driver.
        pub driver: Option<String>,
        /// How many devices.
        pub count: Option<DeviceCount>,
        /// Which devices.
        pub device_ids: Vec<String>,
        /// Driver options.
        pub options: BTreeMap<String, String>,
    }
}

record! {
    /// `blkio_config`.
    pub struct BlkioConfig {
        /// Default weight, 10 to 1000.
        pub weight: Option<u16>,
        /// Weight per device.
        pub weight_device: Vec<WeightDevice>,
        /// Read limits in bytes per second.
        pub device_read_bps: Vec<ThrottleDevice>,
        /// Read limits in operations per second.
        pub device_read_iops: Vec<ThrottleDevice>,
        /// Write limits in bytes per second.
        pub device_write_bps: Vec<ThrottleDevice>,
        /// Write limits in operations per second.
        pub device_write_iops: Vec<ThrottleDevice>,
    }
}

record! {
    /// Weight of one block device.
    pub struct WeightDevice {
        /// Device path.
        pub path: String,
        /// Weight, 10 to 1000.
        pub weight: Option<u16>,
    }
}

record! {
    /// Rate limit of one block device.
    pub struct ThrottleDevice {
        /// Device path.
        pub path: String,
        /// Bytes or operations per second.
        pub rate: Option<Bytes>,
    }
}

record! {
    /// `credential_spec` (Windows).
    pub struct CredentialSpec {
        /// Name of a config.
        pub config: Option<String>,
        /// File name.
        pub file: Option<String>,
        /// Registry value.
        pub registry: Option<String>,
    }
}

record! {
    /// `healthcheck`; unset fields are the engine's defaults (30 s, 30 s, 3 retries).
    pub struct Healthcheck {
        /// `["CMD", …]`, `["CMD-SHELL", line]` or `["NONE"]`; text in the file becomes CMD-SHELL.
        pub test: Vec<String>,
        /// Time a probe may take.
        pub timeout: Option<Duration>,
        /// Time between probes.
        pub interval: Option<Duration>,
        /// Failures in a row until unhealthy.
        pub retries: Option<u64>,
        /// Time in which failures do not count.
        pub start_period: Option<Duration>,
        /// Time between probes within the start period.
        pub start_interval: Option<Duration>,
        /// Switch off the image's health check.
        pub disable: bool,
    }
}

record! {
    /// One entry of `pre_start`, `post_start` or `pre_stop`.
    pub struct ServiceHook {
        /// Command.
        pub command: Option<Vec<String>>,
        /// Image (`pre_start` only); default is the service's.
        pub image: Option<String>,
        /// User.
        pub user: Option<String>,
        /// With all privileges.
        pub privileged: bool,
        /// Working directory.
        pub working_dir: Option<String>,
        /// Environment.
        pub environment: BTreeMap<String, Option<String>>,
        /// Once per container instead of once per service (`pre_start` only).
        pub per_replica: bool,
    }
}

record! {
    /// `logging`.
    pub struct Logging {
        /// Log driver.
        pub driver: Option<String>,
        /// Its options.
        pub options: BTreeMap<String, String>,
    }
}

record! {
    /// `provider`: an external program that creates the service.
    pub struct Provider {
        /// Program name.
        pub r#type: String,
        /// Its options; each may be given several times.
        pub options: BTreeMap<String, Vec<String>>,
    }
}

record! {
    /// A config or secret mounted into a container (or available to a build).
    pub struct FileReference {
        /// Key of the config or secret.
        pub source: String,
        /// Path in the container.
        pub target: Option<String>,
        /// Owner.
        pub uid: Option<String>,
        /// Group.
        pub gid: Option<String>,
        /// Permission bits; 0444 if unset.
        pub mode: Option<FileMode>,
    }
}

record! {
    /// How a service uses a model.
    pub struct ServiceModel {
        /// Variable that receives the endpoint URL.
        pub endpoint_var: Option<String>,
        /// Variable that receives the model's name.
        pub model_var: Option<String>,
    }
}

record! {
    /// A top-level model.
    pub struct ModelConfig {
        /// Name.
        pub name: Option<String>,
        /// OCI reference of the model.
        pub model: Option<String>,
        /// Context size in tokens.
        pub context_size: Option<i64>,
        /// Flags of the inference runtime.
        pub runtime_flags: Vec<String>,
    }
}

record! {
    /// `develop`.
    pub struct Develop {
        /// What to do when files change.
        pub watch: Vec<WatchRule>,
    }
}

record! {
    /// One entry of `develop.watch`.
    pub struct WatchRule {
        /// Absolute path to watch.
        pub path: String,
        /// `rebuild`, `sync`, `restart`, `sync+restart` or `sync+exec`.
        pub action: String,
        /// Where files go in the container.
        pub target: Option<String>,
        /// Command to run after a sync.
        pub exec: Option<ServiceHook>,
        /// Patterns to watch.
        pub include: Vec<String>,
        /// Patterns not to watch.
        pub ignore: Vec<String>,
        /// Sync once at the start.
        pub initial_sync: bool,
    }
}
